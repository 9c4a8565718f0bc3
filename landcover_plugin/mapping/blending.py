"""From the windows of a run to its finished strips."""

from collections import Counter, deque
from collections.abc import Collection, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..grid import PixelWindow
from ..legend import NODATA
from ..rasters.layers import Kind
from ..sampling.lattice import grown
from ..sampling.runs import StripRun
from .deciding import Decided, confidence_of, decide
from .mosaic import STRIP, BlendedMosaic
from .seams import Refinement, Tidying


class FinishedStrip(NamedTuple):
    """What blending made of a strip.

    Attributes:
        window: Its pixels.
        layers: Of the map.
        planned: Windows that were planned for it and are not planned for a strip above.
        seen: Looks at them that came: the others measured nothing.
    """

    window: PixelWindow
    layers: Decided
    planned: int
    seen: int


class RunBlender:
    """Blends the windows of one run and gives its strips from the top, as soon as no window to come can change them.

    Args:
        run: The strips; their halo is that of ``refine`` and ``tidy`` together.
        num_classes: Channels of the probabilities.
        kinds: Layers beside the codes.
        refine: Applied to probabilities before codes are decided.
        tidy: Applied to codes.
    """

    def __init__(
        self,
        run: StripRun,
        num_classes: int,
        kinds: Collection[Kind],
        *,
        refine: Refinement | None = None,
        tidy: Tidying | None = None,
    ) -> None:
        self.run, self.kinds, self.refine, self.tidy = run, kinds, refine, tidy
        self._mosaic = BlendedMosaic(run.canvas, num_classes)
        self._todo = deque(run.strips)
        self._planned = Counter(window.row for window in run.windows())
        self._seen: Counter[int] = Counter()
        self._pieces: list[Decided] = []
        plain = refine is None and tidy is None
        self._means = None if plain else _MeansBuffer(run, num_classes)

    @property
    def rows_done(self) -> int:
        """Rows of the strips that no window to come can change."""
        first, last = self.run.strips[0].row, self.run.strips[-1].row_stop
        return min(max(self._mosaic.released, first), last) - first

    def add(self, window: PixelWindow, probabilities: NDArray[np.float32], weights: NDArray[np.float32]) -> None:
        """Add a look at a window, see :meth:`BlendedMosaic.add`; windows come row by row."""
        self._seen[window.row] += 1
        self._mosaic.add(window, probabilities, weights)

    def finished(self, row: int | None = None) -> Iterator[FinishedStrip]:
        """Strips that windows from a row of the grid on cannot change (default: all); must be consumed."""
        stop = self._mosaic.area.row_stop if row is None else row
        if self._means is None:
            for start, layers in self._mosaic.decided(stop, self.kinds):
                yield from self._collect(start, layers)
        else:
            for _, (means, covered) in self._mosaic.finished(stop):
                self._means.append(means, covered)
                while self._todo and self._means.reaches(self._todo[0]):
                    yield self._finish(self._refined(self._todo[0], self._means))

    def _collect(self, start: int, layers: Decided) -> Iterator[FinishedStrip]:
        """Put rows that follow each other together to strips."""
        stop = start + layers['classes'].shape[1]
        while start < stop:
            strip = self._todo[0]
            end = min(stop, strip.row_stop)
            taken = end - start
            self._pieces.append({kind: layer[:, :taken] for kind, layer in layers.items()})
            layers = {kind: layer[:, taken:] for kind, layer in layers.items()}
            start = end
            if end == strip.row_stop:
                pieces, self._pieces = self._pieces, []
                yield self._finish({kind: np.concatenate([p[kind] for p in pieces], axis=1) for kind in pieces[0]})

    def _refined(self, strip: PixelWindow, means: '_MeansBuffer') -> Decided:
        """The layers of a strip from it and its halo."""
        around, probabilities, covered = means.take(strip)
        if self.refine is not None:
            probabilities = np.ascontiguousarray(self.refine(probabilities, covered), dtype=np.float32)
        layers = decide(probabilities, covered.astype(np.float32), self.kinds)
        if self.tidy is not None:
            codes = np.where(covered, self.tidy(layers['classes'][0]), np.uint8(NODATA))
            layers['classes'] = codes[None]
            if 'confidence' in layers:
                layers['confidence'] = confidence_of(probabilities, codes)[None]
        rows, cols = strip.slices_in(around)
        return {kind: np.ascontiguousarray(layer[:, rows, cols]) for kind, layer in layers.items()}

    def _finish(self, layers: Decided) -> FinishedStrip:
        strip = self._todo.popleft()
        rows = [row for row in self._planned if row < strip.row_stop + self.run.halo]
        planned, seen = (sum(counts.pop(row, 0) for row in rows) for counts in (self._planned, self._seen))
        return FinishedStrip(strip, layers, planned, seen)


class _MeansBuffer:
    """Rows of mean probabilities, kept until the strip whose halo they are in is finished."""

    def __init__(self, run: StripRun, num_classes: int) -> None:
        self._halo, self._shape = run.halo, run.lattice.shape
        canvas = run.canvas
        height = max(strip.height for strip in run.strips) + 2 * run.halo + STRIP
        self._rows = PixelWindow(canvas.row, canvas.col, 0, canvas.width)  # held
        self._probabilities = np.empty((num_classes, height, canvas.width), np.float32)
        self._covered = np.empty((height, canvas.width), np.bool_)

    def append(self, means: NDArray[np.float32], covered: NDArray[np.bool_]) -> None:
        """Keep the next rows."""
        start, stop = self._rows.height, self._rows.height + len(covered)
        self._probabilities[:, start:stop], self._covered[start:stop] = means, covered
        self._rows = self._rows._replace(height=stop)

    def reaches(self, strip: PixelWindow) -> bool:
        """Whether a strip and its halo are held."""
        return self._around(strip).row_stop <= self._rows.row_stop

    def take(self, strip: PixelWindow) -> tuple[PixelWindow, NDArray[np.float32], NDArray[np.bool_]]:
        """A strip with its halo, and its probabilities; what the next strip does not need is dropped."""
        around = self._around(strip)
        rows, cols = around.slices_in(self._rows)
        taken = self._probabilities[:, rows, cols].copy(), self._covered[rows, cols].copy()
        self._drop(max(strip.row_stop - self._halo, self._rows.row))
        return around, *taken

    def _drop(self, row: int) -> None:
        """Drop the rows above one."""
        gone, stop = row - self._rows.row, self._rows.height
        kept = stop - gone
        for k in range(len(self._probabilities)):
            self._probabilities[k, :kept] = self._probabilities[k, gone:stop].copy()
        self._covered[:kept] = self._covered[gone:stop].copy()
        self._rows = self._rows._replace(row=row, height=kept)

    def _around(self, strip: PixelWindow) -> PixelWindow:
        return grown(strip, self._halo, self._shape)
