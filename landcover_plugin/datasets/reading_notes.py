"""What each process that reads patches is at, noted in shared memory: there it is found if that process is killed."""

import os
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import get_worker_info

from ..grid import PixelWindow


class Doing(IntEnum):
    """What a process is at."""

    NOTHING = 0
    IMAGES = 1
    LABELS = 2


class Note(NamedTuple):
    """What a process was at last.

    Attributes:
        doing: Nothing: the patch had been read.
        window: Of the patch, on the grid of the mosaics.
        look: Number of the look.
    """

    doing: Doing
    window: PixelWindow
    look: int


class ReadingNotes:
    """One row of shared memory for each worker of a loader.

    Args:
        workers: Their number.

    Examples:
        >>> notes = ReadingNotes(workers=2)
        >>> notes.of(1234) is None
        True
    """

    def __init__(self, workers: int) -> None:
        self._rows = torch.zeros((workers, 7), dtype=torch.int64).share_memory_()

    def own(self) -> NDArray[np.int64] | None:
        """The row of this process, None if it is no worker: process, row, column, height, width, look, doing."""
        info = get_worker_info()
        return None if info is None else self._rows[info.id].numpy()

    @property
    def pids(self) -> list[int]:
        """Numbers of the processes that have read."""
        return [pid for pid in self._rows[:, 0].tolist() if pid]

    def of(self, pid: int) -> Note | None:
        """What a process was at, if it has read at all.

        Args:
            pid: Its number.
        """
        for number, *window, look, doing in self._rows.tolist():
            if number == pid:
                return Note(Doing(doing), PixelWindow(*window), look)
        return None


def begin(row: NDArray[np.int64] | None, window: PixelWindow, look: int) -> None:
    """Note a patch whose image is read next.

    Args:
        row: Of this process.
        window: Of the patch.
        look: Number of the look.
    """
    if row is not None:
        row[:] = (os.getpid(), *window, look, Doing.IMAGES)


def go_on(row: NDArray[np.int64] | None, doing: Doing) -> None:
    """Note what comes next for the same patch.

    Args:
        row: Of this process.
        doing: What comes.
    """
    if row is not None:
        row[-1] = doing
