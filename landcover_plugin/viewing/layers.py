"""The layers of the web map: each makes a picture of a tile from the files that it was given."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import LandcoverError
from ..legend import NODATA, UNKNOWN, Legend
from ..rasters.layers import PERCENT_NODATA
from ..rasters.mosaics import Mosaics, measured
from . import pictures
from .stretch import limits
from .tiles import TILE, Tile, TileSource

LayerKind = Literal['image', 'labels', 'map', 'confidence', 'entropy', 'probabilities', 'disagreement']


@dataclass(frozen=True)
class Look:
    """How a tile is to look.

    Attributes:
        bands: Names of the bands shown as red, green and blue.
        hidden: Codes of classes that are not shown.
        code: The class whose probability is shown.
    """

    bands: tuple[str, str, str] = ('B04', 'B03', 'B02')
    hidden: frozenset[int] = frozenset()
    code: int = 1


class Brightness:
    """The limits of the bands of some mosaics, found when a tile first needs them, once."""

    def __init__(self, mosaics: Mosaics) -> None:
        self._mosaics, self._lock = mosaics, threading.Lock()

    @cached_property
    def _limits(self) -> dict[str, tuple[float, float]]:
        return limits(self._mosaics)

    def of(self, bands: Sequence[str]) -> NDArray[np.float64]:
        """Limits of some bands, shape ``(bands, 2)``."""
        with self._lock:
            return np.array([self._limits[band] for band in bands])


@dataclass(frozen=True)
class ImageLayer:
    """The image of a month."""

    id: str
    name: str
    date: str
    mosaics: Mosaics
    sources: Sequence[TileSource]
    brightness: Brightness
    kind: LayerKind = field(default='image', init=False)

    def picture(self, tile: Tile, look: Look) -> pictures.Picture:
        """Three bands, stretched; the first measured file wins."""
        unknown = [b for b in look.bands if b not in self.mosaics.bands]
        if unknown:
            raise LandcoverError(f'there is no band {", ".join(unknown)}; there are {", ".join(self.mosaics.bands)}')
        image, valid = np.zeros((3, TILE, TILE), dtype=np.float32), np.zeros((TILE, TILE), dtype=bool)
        for source in self.sources:
            if not source.meets(tile) or valid.all():
                continue
            indexes = self.mosaics.indexes_of(source.path)
            chosen = [indexes[self.mosaics.bands.index(b)] for b in look.bands]
            smooth = 'nearest' if tile.z > source.own_zoom else 'bilinear'
            read = source.read(tile, chosen, resampling=smooth)
            use = measured(read, source.nodata) & ~valid
            image[:, use] = read[:, use]
            valid |= use
        return pictures.stretched(image, valid, self.brightness.of(look.bands))


@dataclass(frozen=True, eq=False)
class ClassLayer:
    """Codes of the legend: labels of a year, or a map."""

    id: str
    kind: LayerKind
    name: str
    legend: Legend
    sources: Sequence[TileSource]
    tables: Sequence[NDArray[np.uint8]]

    def codes(self, tile: Tile) -> NDArray[np.uint8]:
        """Codes of a tile, shape ``(256, 256)``; the first labelled file wins, unknown values are no data."""
        codes = np.zeros((TILE, TILE), dtype=np.uint8)
        for source, table in zip(self.sources, self.tables, strict=True):
            if not source.meets(tile):
                continue
            found = table[source.read(tile, [1])[0]]
            np.copyto(codes, found, where=(codes == NODATA) & (found != UNKNOWN))
        return codes

    def picture(self, tile: Tile, look: Look) -> pictures.Picture:
        """Classes in their colours, without the hidden ones."""
        return pictures.painted(self.codes(tile), self.legend, look.hidden)


@dataclass(frozen=True)
class PercentLayer:
    """Confidence, entropy, or the probability of a class, in percent."""

    id: str
    kind: LayerKind
    name: str
    source: TileSource

    @property
    def sources(self) -> Sequence[TileSource]:
        """The raster."""
        return [self.source]

    def picture(self, tile: Tile, look: Look) -> pictures.Picture:
        """Percentages on a ramp."""
        band = look.code if self.kind == 'probabilities' else 1
        percent = np.full((TILE, TILE), PERCENT_NODATA, dtype=np.uint8)
        if self.source.meets(tile):
            percent = self.source.read(tile, [band])[0]
        return pictures.on_ramp(percent, self.kind)


@dataclass(frozen=True)
class DisagreementLayer:
    """Where two layers of classes differ, found anew for each tile."""

    id: str
    name: str
    first: ClassLayer
    second: ClassLayer
    kind: LayerKind = field(default='disagreement', init=False)

    @property
    def sources(self) -> Sequence[TileSource]:
        """The rasters of both."""
        return [*self.first.sources, *self.second.sources]

    def picture(self, tile: Tile, look: Look) -> pictures.Picture:
        """Ground on which they differ in one colour, and on which they agree faintly in another."""
        return pictures.differing(self.first.codes(tile), self.second.codes(tile), look.hidden)


#: A layer makes the ``picture`` of a tile, in a look, from its ``sources``.
Layer = ImageLayer | ClassLayer | PercentLayer | DisagreementLayer
