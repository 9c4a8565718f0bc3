"""The strips of one process: windows in, finished strips on disk, in a thread beside the network."""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..grid import PixelWindow, taper
from ..rasters.damage import Damage
from ..rasters.layers import Kind
from ..sampling.runs import StripRun
from .background import Background
from .blending import RunBlender
from .maps import MapJob
from .progress import Progress
from .seams import Refinement, Tidying


class Predicted(NamedTuple):
    """What the network made of a batch.

    Attributes:
        windows: Shape ``(n, 4)``: run, row, column and look of the first ``n`` images.
        probabilities: Waits for them and gives them; shape ``(B, num_classes, size, size)``.
        valid: Shape ``(B, size, size)``: which pixels were measured.
    """

    windows: NDArray[np.int64]
    probabilities: Callable[[], NDArray[np.float32]]
    valid: NDArray[np.bool_]


class Session:
    """Blends what is predicted, run by run, and writes finished strips, all in a thread.

    Args:
        jobs: The maps.
        runs: What this process maps, in order.
        kinds: Layers beside the codes.
        looks: Number of looks at each window.
        progress: Told of pixels that are done.
        damage: Blocks that could not be read.
        refine: See :class:`RunBlender`.
        tidy: Likewise.
    """

    def __init__(
        self,
        jobs: Sequence[MapJob],
        runs: Sequence[StripRun],
        kinds: Collection[Kind],
        *,
        looks: int,
        progress: Progress,
        damage: Damage | None = None,
        refine: Refinement | None = None,
        tidy: Tidying | None = None,
    ) -> None:
        self.jobs, self.runs, self.kinds, self.looks = jobs, list(runs), kinds, looks
        self.progress, self.damage, self.refine, self.tidy = progress, damage, refine, tidy
        self.strips_done = 0
        if runs:
            self._taper = taper(runs[0].lattice.size, runs[0].lattice.overlap)
        self._at = -1  # the run at hand
        self._row: int | None = None  # of the window before
        self._blender: RunBlender | None = None
        self._thread = Background(self._blend, 'blending')

    def put(self, predicted: Predicted) -> None:
        """Hand a batch over; waits while others wait.

        Raises:
            LandcoverError: If the network gave NaN, or a strip could not be written.
        """
        self._thread.put(predicted)

    def finish(self) -> None:
        """Wait until the strips of all runs are on disk.

        Raises:
            LandcoverError: As :meth:`put`.
        """
        self._thread.finish()
        self._go_to(len(self.runs))
        self.progress.close()

    def abandon(self) -> None:
        """Stop after the strip at hand."""
        self._thread.abandon()
        self.progress.close()

    def _blend(self, predicted: Predicted) -> None:
        windows, probabilities, valid = predicted.windows, predicted.probabilities(), predicted.valid
        for i, (run, row, col, _) in enumerate(windows.tolist()):
            self._go_to(run)
            if row != self._row:
                self._release(row)
            blender, size = self._blender, len(self._taper)
            assert blender is not None  # noqa: S101 - a run is at hand
            blender.add(PixelWindow(row, col, size, size), probabilities[i], self._taper * valid[i])

    def _go_to(self, run: int) -> None:
        """Finish the runs before one, and begin it."""
        while self._at < run:
            if self._blender is not None:
                self._release(None)
            self._at += 1
            self._row = None
            begin = self._at < len(self.runs)
            self._blender = self._begin(self.runs[self._at]) if begin else None

    def _begin(self, run: StripRun) -> RunBlender:
        classes = self.jobs[run.map].legend.num_classes
        return RunBlender(run, classes, self.kinds, refine=self.refine, tidy=self.tidy)

    def _release(self, row: int | None) -> None:
        """Write the strips that windows from a row on cannot change."""
        blender = self._blender
        assert blender is not None  # noqa: S101 - a run is at hand
        self._row = row
        before = blender.rows_done
        for strip in blender.finished(row):
            self.jobs[blender.run.map].write(strip, self.looks, self.damage)
            self.strips_done += 1
        self.progress.add((blender.rows_done - before) * blender.run.strips[0].width)
