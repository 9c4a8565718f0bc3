"""Everything that is looked at: layers by id, the legend, the audits; and what the browser is told of them."""

import datetime
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..errors import LandcoverError
from ..evaluation.class_map import ClassMap
from ..legend import LEGEND, NODATA, Legend
from ..rasters.landcover import LabelRasters, SourceLegend, year
from ..rasters.layers import PERCENT_NODATA, Kind
from ..rasters.mosaics import Mosaics
from ..rasters.opening import open_raster
from ..rasters.wavelengths import WAVELENGTHS
from .layers import Brightness, ClassLayer, DisagreementLayer, ImageLayer, Layer, PercentLayer
from .pictures import AGREES, DIFFERS, ramp
from .recognizing import Found, recognize
from .suspects import Suspects
from .tiles import TileSource

log = logging.getLogger(__name__)

#: Combinations of bands that are offered where the image has them.
COMBINATIONS = {
    'true colour': ('B04', 'B03', 'B02'),
    'infrared': ('B08', 'B04', 'B03'),
    'short-wave infrared': ('B12', 'B8A', 'B04'),
    'agriculture': ('B11', 'B08', 'B02'),
    'red edge': ('B07', 'B06', 'B05'),
    'urban': ('B12', 'B11', 'B04'),
}


class Scene:
    """The files that were given, ready to be looked at; no other file is ever read.

    Args:
        paths: Files and folders.
        source_legend: Values of labels and maps, see :class:`~landcover_plugin.rasters.landcover.LabelRasters`.
        band_order: Names of the bands of images that do not describe them.
        nodata: Digital number of unmeasured pixels (default: as the files declare, else 0).
        reflectance_scale: See :class:`~landcover_plugin.datasets.sentinel2.CataloniaSentinel2`.
        reflectance_offset: Likewise.

    Raises:
        LandcoverError: If files do not fit, or there is nothing to look at.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        *,
        source_legend: SourceLegend = 'auto',
        band_order: Sequence[str] | None = None,
        nodata: float | None = None,
        reflectance_scale: float = 10_000,
        reflectance_offset: float = 0,
    ) -> None:
        found = recognize(paths)
        self.source_legend = source_legend
        self.reflectance_scale, self.reflectance_offset = reflectance_scale, reflectance_offset
        self.mosaics = Mosaics(found.images, band_order=band_order, nodata=nodata) if found.images else None
        self.labels = {date: LabelRasters(files, source_legend=source_legend) for date, files in _by_year(found)}
        self.suspects = {f'suspects-{n}': Suspects(path) for n, path in enumerate(found.suspects)}
        self.legend = self._legend(found)
        self.layers: Mapping[str, Layer] = {layer.id: layer for layer in self._layers(found)}
        self._warn_of_missing_overviews()
        if not self.layers:
            raise LandcoverError(
                f'{", ".join(found.suspects)}: name the image and the labels too, by which suspects are judged'
            )

    def _warn_of_missing_overviews(self) -> None:
        """Name the rasters that cannot be shown from afar; this also opens each, and so refuses damaged ones."""
        for source in {s.path: s for layer in self.layers.values() for s in layer.sources}.values():
            if source.min_zoom:
                log.warning('%s', source.too_far)

    def _legend(self, found: Found) -> Legend:
        """The classes, in the colours of the first labels or the first map that has a colour table."""
        for labels in self.labels.values():
            return labels.legend
        for path in found.maps:
            try:
                return LEGEND.with_colours(open_raster(path).colormap(1))
            except ValueError:
                continue
        return LEGEND

    def _layers(self, found: Found) -> Iterator[Layer]:
        """All layers, from the bottom up."""
        yield from self._images()
        labels, maps = list(self._label_layers()), list(self._maps(found))
        yield from labels
        for layer, beside in maps:
            yield layer
            yield from _percent_layers(beside, layer.id, layer.name)
        for number, (path, kind) in enumerate(found.percents.items()):
            yield from _percent_layers({kind: path}, f'alone-{number}', Path(path).stem.removesuffix(f'_{kind}'))
        tops = [layer for layer, _ in maps]
        pairs = [(a, b) for a in tops for b in labels] or list(pairwise(tops)) or list(pairwise(labels))
        for number, (first, second) in enumerate(pairs):
            yield DisagreementLayer(f'disagreement-{number}', f'{first.name} ≠ {second.name}', first, second)

    def _images(self) -> Iterator[ImageLayer]:
        if self.mosaics is None:
            return
        brightness = Brightness(self.mosaics)
        for date in self.mosaics.dates:
            sources = [TileSource(p, self.mosaics.nodata_of(p)) for p in self.mosaics.files_of(date)]
            yield ImageLayer(f'image-{date}', month_name(date), date, self.mosaics, sources, brightness)

    def _label_layers(self) -> Iterator[ClassLayer]:
        for date, labels in self.labels.items():
            sources = [TileSource(path, NODATA) for path in labels.files]
            tables = [labels.tables[path] for path in labels.files]
            yield ClassLayer(f'labels-{date}', 'labels', f'labels {date}', self.legend, sources, tables)

    def _maps(self, found: Found) -> Iterator[tuple[ClassLayer, Mapping[Kind, str]]]:
        for number, (path, beside) in enumerate(found.maps.items()):
            opened = ClassMap(path, source_legend=self.source_legend)
            source = TileSource(path, NODATA)
            yield ClassLayer(f'map-{number}', 'map', Path(path).stem, self.legend, [source], [opened.table]), beside

    @cached_property
    def bounds_wgs84(self) -> tuple[float, float, float, float]:
        """West, south, east, north of everything, in degrees."""
        every = [source.bounds_wgs84 for layer in self.layers.values() for source in layer.sources]
        west, south = (min(b[i] for b in every) for i in (0, 1))
        east, north = (max(b[i] for b in every) for i in (2, 3))
        return west, south, east, north

    @cached_property
    def folders(self) -> list[str]:
        """Where the files lie, the longest names first; each ends in a slash."""
        paths = {source.path for layer in self.layers.values() for source in layer.sources}
        paths |= {str(suspects.path) for suspects in self.suspects.values()}
        return sorted({f'{Path(path).parent}/' for path in paths} - {'./', '//'}, key=len, reverse=True)

    def document(self) -> dict[str, Any]:
        """What the browser is told, as JSON; no path is in it, only names of files."""
        bands = list(self.mosaics.bands) if self.mosaics else []
        return {
            'bounds': self.bounds_wgs84,
            'layers': [_told(layer) for layer in self.layers.values()],
            'bands': bands,
            'combinations': [{'name': n, 'bands': b} for n, b in COMBINATIONS.items() if set(b) <= set(bands)],
            'wavelengths': {b: WAVELENGTHS[b] for b in bands if b in WAVELENGTHS},
            'legend': [
                {'code': c.code, 'name': c.name, 'name_ca': c.name_ca, 'colour': f'#{bytes(c.colour).hex()}'}
                for c in self.legend
                if c.code != NODATA
            ],
            'colours': {'differs': _css(DIFFERS), 'agrees': _css(AGREES)},
            'ramps': {
                kind: [_css(c) for c in ramp(kind)[:101:10]] for kind in ('confidence', 'entropy', 'probabilities')
            },
            'audits': [{'id': key, 'name': s.path.name} for key, s in self.suspects.items()],
        }


def month_name(date: str) -> str:
    """A month in words.

    Examples:
        >>> month_name('2018-04')
        'April 2018'
    """
    return datetime.date.fromisoformat(f'{date}-01').strftime('%B %Y')


def _by_year(found: Found) -> list[tuple[str, list[str]]]:
    """Label rasters by the year in their names."""
    years: dict[str, list[str]] = {}
    for path in found.labels:
        years.setdefault(str(year(path)), []).append(path)
    return sorted(years.items())


def _percent_layers(paths: Mapping[Kind, str], owner: str, name: str) -> Iterator[PercentLayer]:
    for kind, path in paths.items():
        if kind != 'classes':
            yield PercentLayer(f'{owner}-{kind}', kind, f'{name} {kind}', TileSource(path, PERCENT_NODATA))


def _told(layer: Layer) -> dict[str, Any]:
    """A layer as the browser knows it."""
    first = max(layer.sources, key=lambda source: source.min_zoom)
    bounds = [source.bounds_wgs84 for source in layer.sources]
    return {
        'id': layer.id,
        'kind': layer.kind,
        'name': layer.name,
        'files': [source.name for source in layer.sources],
        'min_zoom': first.min_zoom,
        'max_zoom': max(source.max_zoom for source in layer.sources),
        'notice': first.too_far if first.min_zoom else '',
        'bounds': [
            *map(min, zip(*(b[:2] for b in bounds), strict=True)),
            *map(max, zip(*(b[2:] for b in bounds), strict=True)),
        ],
        'version': sum(source.version for source in layer.sources) % 10**12,
    }


def _css(colour: Sequence[int]) -> str:
    """A colour for a style sheet."""
    return f'#{bytes(int(v) for v in colour[:3]).hex()}'
