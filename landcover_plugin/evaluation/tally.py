"""What is counted and kept beside the confusion matrix while a test runs, in bounded memory."""

import heapq
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from ..grid import PixelWindow
from ..legend import NODATA
from ..models.outputs import confidence
from ..sampling.blocks import Split
from ..training.border_distance import DISTANCE_LIMITS
from ..training.breakdown import Breakdown, Parts, count_parts, cut_into_parts
from ..training.calibration import ConfidenceBins
from ..training.datamodule import CataloniaDataModule
from .breakdowns import Breakdowns, Ground, RankedPatch
from .figures import Picture
from .reliability import Reliability

#: A patch is ranked if this share of its pixels is labelled.
_LABELLED_SHARE = 0.25

#: Makes a picture of a patch of a batch, by its position.
Draw = Callable[[int], Picture]


class ReportTally:
    """Counts the batches of a test, and keeps its best and worst patches.

    Args:
        split: Blocks of ground, if the data module knows them.
        seasons: Name of each look.
        temperature: A calibration that maps made with this checkpoint are given, if there is one.
        extremes: How many best and how many worst patches are kept.
        device: Of the batches.
    """

    def __init__(
        self,
        split: Split | None,
        seasons: Sequence[str],
        *,
        temperature: float | None = None,
        extremes: int = 4,
        device: torch.device | str = 'cpu',
    ) -> None:
        self.seasons, self.temperature, self.split = list(seasons), temperature, split
        self.ground = None if split is None else Ground.from_split(split)
        tested = [] if self.ground is None else [block.number for block in self.ground.tested]
        self._slots = None if split is None else _slots(split, tested)
        self._breakdown = Breakdown(max(len(self.seasons), 1), max(len(tested), 1)).to(device)
        self._bins = {'as the network gives them': (1.0, ConfidenceBins().to(device))}
        if temperature is not None:
            name = f'divided by the temperature {temperature:.3g}, as predict does'
            self._bins[name] = (temperature, ConfidenceBins().to(device))
        self._best, self._worst = _Top(extremes), _Top(extremes)

    def add(
        self, batch: Any, prediction: Tensor, logits: Tensor | None, draw: Draw, position: Callable[[int], int]
    ) -> None:
        """Count a batch.

        Args:
            batch: ``mask`` ``(B, H, W)``, and ``place`` ``(B, 5)`` where it is known.
            prediction: Predicted codes, shape ``(B, H, W)``.
            logits: Shape ``(B, num_classes, H, W)``, if there are any.
            draw: Makes the picture of a patch.
            position: Number of a patch of this batch in the test.
        """
        target = batch['mask'].long()
        target = target.where(batch['valid'], NODATA) if 'valid' in batch else target
        places = batch['place'].tolist() if 'place' in batch else None
        parts = self._parts(places, target)
        part = parts.part.to(target.device)
        counts = count_parts(prediction, target, part, len(parts.patches))
        looks = [places[i][4] if places else 0 for i in parts.patches]
        self._breakdown.update(counts, *(torch.tensor(v, device=counts.device) for v in (looks, parts.blocks)))
        if logits is not None:
            right, labelled = prediction == target, target != NODATA
            for temperature, bins in self._bins.values():
                bins.update(confidence(logits if temperature == 1 else logits / temperature), right, labelled)
        self._rank(counts.sum(1).cpu().numpy(), parts, places, target.shape, draw, position)

    def _parts(self, places: list[list[int]] | None, target: Tensor) -> Parts:
        count = len(target)
        if places is None or self._slots is None or self.split is None:
            return Parts(torch.arange(count)[:, None, None], list(range(count)), [0] * count)
        windows = [PixelWindow(*place[:4]) for place in places]
        return cut_into_parts(windows, self._slots, self.split.cell, (target.shape[1], target.shape[2]))

    def _rank(
        self,
        counts: np.ndarray,
        parts: Parts,
        places: list[list[int]] | None,
        shape: Sequence[int],
        draw: Draw,
        position: Callable[[int], int],
    ) -> None:
        """Keep the best and the worst; the best show two classes at least, where any does."""
        matrices = np.zeros((shape[0], *counts.shape[1:]), dtype=np.int64)
        np.add.at(matrices, parts.patches, counts)
        for i, matrix in enumerate(matrices):
            labelled = int(matrix.sum())
            window = PixelWindow(*places[i][:4]) if places else None
            if labelled < max(_LABELLED_SHARE * (window.height * window.width if window else shape[1] * shape[2]), 1):
                continue
            accuracy, number = int(np.trace(matrix)) / labelled, position(i)
            several = bool((matrix.sum(1) > 0).sum() > 1)
            season = self.seasons[places[i][4]] if places and self.seasons else ''
            for top, key in (
                (self._best, (several, accuracy, labelled, -number)),
                (self._worst, (-accuracy, labelled, -number)),
            ):
                if top.takes(key):
                    top.put(key, RankedPatch(draw(i), accuracy, labelled, window, season))

    def finish(self) -> Breakdowns:
        """What was counted, on all processes together; each must call this."""
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of a process that had nothing to count
            counted = {name: matrix.cpu().numpy() for name, matrix in self._breakdown.compute().items()}
            bins = {name: Reliability(*found.compute().cpu().numpy()) for name, (_, found) in self._bins.items()}
        return Breakdowns(
            counted['distances'],
            DISTANCE_LIMITS,
            seasons=dict(zip(self.seasons, counted['looks'], strict=True)) if self.seasons else {},
            ground=self.ground,
            blocks=counted['blocks'] if self.ground is not None else None,
            reliability={name: found for name, found in bins.items() if found.total},
            best=self._best.gathered(),
            worst=self._worst.gathered(),
        )


def _slots(split: Split, tested: Sequence[int]) -> np.ndarray:
    """Position of each cell's block among those of the test; cells of no test block do not matter."""
    return np.searchsorted(tested, split.blocks).clip(0, max(len(tested) - 1, 0))


def seasons_of(trainer: pl.Trainer) -> list[str]:
    """Names of the looks of our data: a month each, or all of them where they are stacked; of other data none."""
    data = getattr(trainer, 'datamodule', None)
    if not isinstance(data, CataloniaDataModule):
        return []
    images = data.open_images()
    dates = list(images.dates)
    return dates if len(dates) == len(images.looks) else [' + '.join(dates)]


class _Top:
    """The patches with the largest keys, few at a time."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._heap: list[tuple[tuple[Any, ...], RankedPatch]] = []

    def takes(self, key: tuple[Any, ...]) -> bool:
        """Whether a patch with this key would be kept."""
        return len(self._heap) < self.size or (self.size > 0 and key > self._heap[0][0])

    def put(self, key: tuple[Any, ...], patch: RankedPatch) -> None:
        """Keep a patch in place of the last; keys differ, since they hold the number of the patch."""
        (heapq.heappush if len(self._heap) < self.size else heapq.heapreplace)(self._heap, (key, patch))

    def gathered(self) -> list[RankedPatch]:
        """The first of all processes."""
        found: list[Any] = [self._heap]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            found = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(found, self._heap)
        ranked = sorted((entry for heap in found for entry in heap), key=lambda entry: entry[0], reverse=True)
        return [patch for _, patch in ranked[: self.size]]
