"""Writing maps: Cloud Optimized GeoTIFFs that appear under their names only when they are whole.

Rows go into temporary tiled GeoTIFFs with hidden names beside the map. At the end each becomes a COG, also
under a hidden name, is read back and compared with what was written (GDAL closes a file on a full
disk without a word), and is renamed.
"""

import glob
import logging
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from xml.sax.saxutils import escape

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # what GDAL raises beside RasterioError has no public name
from rasterio.errors import RasterioError

from ..errors import LandcoverError
from ..grid import PixelGrid
from ..legend import LEGEND, NODATA, Legend
from .outputs import PathLike, cannot_write, check_output, hidden_name

Kind = Literal['classes', 'confidence', 'probabilities']

#: Confidence, and percent of a class, where nothing was mapped.
PERCENT_NODATA = 255

#: Side of a tile in pixels.
BLOCK = 512

#: Files that GDAL and QGIS keep beside a raster. Those of an older map would describe the new one wrongly.
_SIDECARS = ('.aux.xml', '.ovr', '.msk')

_WRITE_ERRORS = (OSError, RasterioError, CPLE_BaseError)

log = logging.getLogger(__name__)


def output_paths(path: PathLike, *, confidence: bool, probabilities: bool) -> dict[Kind, Path]:
    """The files that make up a map, the class map last.

    Raises:
        LandcoverError: If the path does not end in ``.tif`` or ``.tiff``.

    Examples:
        >>> list(output_paths('out/map.tif', confidence=True, probabilities=False).values())
        [PosixPath('out/map_confidence.tif'), PosixPath('out/map.tif')]
    """
    target = Path(path)
    if target.suffix.lower() not in ('.tif', '.tiff'):
        raise LandcoverError(f'a map is a GeoTIFF whose name ends in .tif, got {target.name!r}: rename the output')
    extra: dict[Kind, bool] = {'probabilities': probabilities, 'confidence': confidence}
    companions = {kind: target.with_stem(f'{target.stem}_{kind}') for kind, wanted in extra.items() if wanted}
    return {**companions, 'classes': target}


class MapFile:
    """A class map that is written in strips, with confidence and probabilities beside it if wanted.

    Each file is a COG on exactly the given grid, uint8, deflate, tiles of 512 px:

    - ``map.tif``: codes, 0 is no data, with colour table, class names and overviews by majority. (GDAL computes
      each overview from the one below it: beyond factor 2 they show the majority of majorities.) Names are in
      the tags (``CLASS_1``), in a raster attribute table and in ``map.tif.aux.xml``.
    - ``map_confidence.tif``: percent of the chosen class, 255 is no data, overviews by average.
    - ``map_probabilities.tif``: percent of each real class, one band per class named after it, as above.

    On leaving the ``with`` block the files appear, ``map.tif`` last; after an exception there is nothing new
    and older files are untouched. A killed process leaves hidden ``.map*.part*`` files that can be deleted.

    Args:
        path: The class map, ``.tif``.
        grid: CRS, transform and shape.
        legend: Codes, names and colours.
        confidence: Write ``<stem>_confidence.tif`` too.
        probabilities: Write ``<stem>_probabilities.tif`` too.
        tags: Where the map comes from, for the metadata of each file.
        overwrite: Replace older files.

    Raises:
        LandcoverError: If a file cannot be written there, see :func:`check_output`.

    Attributes:
        paths: The files by kind.
    """

    def __init__(
        self,
        path: PathLike,
        grid: PixelGrid,
        *,
        legend: Legend = LEGEND,
        confidence: bool,
        probabilities: bool,
        tags: Mapping[str, str],
        overwrite: bool = False,
    ) -> None:
        wanted = output_paths(path, confidence=confidence, probabilities=probabilities)
        self.paths = {kind: check_output(target, overwrite=overwrite) for kind, target in wanted.items()}
        self.grid = grid
        self._num_classes = legend.num_classes
        layers = _layers(legend)
        self._drafts = {kind: _Draft(target, grid, layers[kind], dict(tags)) for kind, target in self.paths.items()}

    def __enter__(self) -> Self:
        try:
            for draft in self._drafts.values():
                draft.open()
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                for draft in self._drafts.values():
                    draft.finish()
                for draft in self._drafts.values():
                    draft.publish()
                self._warn_of_strays()
        finally:
            self._discard()

    def write_rows(
        self,
        row: int,
        codes: NDArray[np.uint8],
        confidence: NDArray[np.uint8] | None = None,
        probabilities: NDArray[np.uint8] | None = None,
    ) -> None:
        """Write a strip over the full width; strips may come in any order, and must cover all rows.

        Args:
            row: First row of the strip, counted from the top of this map.
            codes: Shape ``(n, width)``.
            confidence: Percent, 255 for no data, shape ``(n, width)``; given if and only if the map has it.
            probabilities: Percent, 255 for no data, shape ``(classes, n, width)`` without channel 0; likewise.

        Raises:
            LandcoverError: If writing fails, for example because the disk is full.
            ValueError: If an array is missing, superfluous or does not fit.
        """
        if codes.size and codes.max() >= self._num_classes:
            raise ValueError(f'codes must be below {self._num_classes}, got {codes.max()}')
        strips: dict[Kind, NDArray[np.uint8] | None] = {
            'classes': codes,
            'confidence': confidence,
            'probabilities': probabilities,
        }
        given = {kind: strip for kind, strip in strips.items() if strip is not None}
        if given.keys() != self._drafts.keys():
            raise ValueError(f'this map consists of {sorted(self._drafts)}, got {sorted(given)}')
        for kind, strip in given.items():
            self._drafts[kind].write(row, strip if strip.ndim == 3 else strip[np.newaxis])

    def _warn_of_strays(self) -> None:
        everything = output_paths(self.paths['classes'], confidence=True, probabilities=True)
        for kind, path in everything.items():
            if kind not in self.paths and path.exists():
                log.warning('%s is from an earlier run and does not belong to the new map', path)

    def _discard(self) -> None:
        for draft in self._drafts.values():
            draft.discard()


@dataclass(frozen=True)
class _Layer:
    """What distinguishes the files of a map."""

    bands: Sequence[str]
    nodata: int
    options: Mapping[str, str]  # of GDAL's COG driver
    legend: Legend | None = None  # of codes
    unit: str = ''


def _layers(legend: Legend) -> dict[Kind, _Layer]:
    average = {'overview_resampling': 'average', 'predictor': 'yes'}
    names = [legend[code].name for code in legend.codes]
    return {
        'classes': _Layer(['land cover'], NODATA, {'overview_resampling': 'mode'}, legend=legend),
        'confidence': _Layer(['confidence'], PERCENT_NODATA, average, unit='%'),
        # One class can be read without the other eleven. GDAL before 3.11 warns and interleaves by pixel.
        'probabilities': _Layer(names, PERCENT_NODATA, {**average, 'interleave': 'band'}, unit='%'),
    }


class _Draft:
    """One file of a map until it has its name."""

    def __init__(self, target: Path, grid: PixelGrid, layer: _Layer, tags: dict[str, str]) -> None:
        self._target, self._grid, self._layer, self._tags = target, grid, layer, tags
        self._strips = hidden_name(target, 'strips')
        self._cog = hidden_name(target, 'cog')
        self._dst: Any = None
        self._sums = np.zeros((grid.height, len(layer.bands)), dtype=np.uint32)  # CRC of each row and band
        self._written = np.zeros(grid.height, dtype=np.bool_)

    def open(self) -> None:
        """Open the temporary file for strips, with everything that the COG will inherit."""
        grid, layer = self._grid, self._layer
        try:
            self._dst = rasterio.open(
                self._strips, 'w', driver='GTiff', height=grid.height, width=grid.width, count=len(layer.bands),
                dtype='uint8', crs=grid.crs, transform=grid.transform, nodata=layer.nodata, tiled=True,
                blockxsize=BLOCK, blockysize=BLOCK, compress='deflate', zlevel=1, interleave='band',
                bigtiff='if_safer', sparse_ok=True,
            )  # fmt: skip
            self._dst.descriptions = layer.bands
            self._dst.units = [layer.unit] * len(layer.bands)
            if layer.legend is not None:
                self._dst.write_colormap(1, layer.legend.colormap)
                self._tags |= {f'CLASS_{code}': layer.legend[code].name for code in layer.legend.codes}
            self._dst.update_tags(**self._tags)
        except _WRITE_ERRORS as error:
            raise cannot_write(self._target, error) from error

    def write(self, row: int, strip: NDArray[np.uint8]) -> None:
        """Write a strip of shape ``(bands, n, width)``."""
        bands, rows, width = strip.shape
        fits = (bands, width) == (len(self._layer.bands), self._grid.width)
        if not fits or strip.dtype != np.uint8 or not 0 <= row <= row + rows <= self._grid.height:
            raise ValueError(
                f'{self._target.name} takes uint8 strips of shape ({len(self._layer.bands)}, n, {self._grid.width}) '
                f'within {self._grid.height} rows, got {strip.dtype} {strip.shape} at row {row}'
            )
        try:
            self._dst.write(strip, window=((row, row + rows), (0, width)))
        except _WRITE_ERRORS as error:
            raise cannot_write(self._target, error) from error
        self._sums[row : row + rows] = _checksums(strip)
        self._written[row : row + rows] = True

    def finish(self) -> None:
        """Turn the strips into a COG, and make sure that it holds every row that was written."""
        if not self._written.all():
            missing = np.flatnonzero(~self._written)
            raise ValueError(f'{len(missing)} rows of {self._target.name} were never written, from row {missing[0]}')
        try:
            self._dst.close()
            if self._layer.legend is not None:
                _sidecar(self._strips).write_text(_attribute_table(self._layer.legend), encoding='utf-8')
            self._convert()
            self._verify()
            with self._cog.open('r+b') as file:
                os.fsync(file)
            self._strips.unlink()  # makes room for the next file's COG
        except _WRITE_ERRORS as error:
            raise cannot_write(self._target, error) from error

    def publish(self) -> None:
        """Give the COG its name."""
        try:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            for suffix in _SIDECARS:
                _sidecar(self._target, suffix).unlink(missing_ok=True)
            if self._layer.legend is not None:
                _sidecar(self._strips).replace(_sidecar(self._target))
            self._cog.replace(self._target)
        except OSError as error:
            raise cannot_write(self._target, error) from error

    def discard(self) -> None:
        """Remove everything temporary."""
        if self._dst is not None:
            _close_quietly(self._dst)
        for path in (self._strips, self._cog):
            for leftover in path.parent.glob(f'{glob.escape(path.name)}*'):  # with GDAL's sidecars and .tmp files
                leftover.unlink(missing_ok=True)

    def _convert(self) -> None:
        # QGIS and the torchgeo command line may hide sidecars from GDAL; the attribute table comes from one
        with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN='FALSE', GDAL_PAM_ENABLED='YES'):
            rasterio.shutil.copy(
                self._strips, self._cog, driver='COG', blocksize=BLOCK, compress='deflate', bigtiff='if_safer',
                num_threads='all_cpus', overviews='ignore_existing', **self._layer.options,
            )  # fmt: skip

    def _verify(self) -> None:
        """Compare the COG with the checksums of the rows that were handed in."""
        with rasterio.open(self._cog, OVERVIEW_LEVEL='NONE', NUM_THREADS='ALL_CPUS') as src:
            for row in range(0, self._grid.height, BLOCK):
                stop = min(row + BLOCK, self._grid.height)
                sums = _checksums(src.read(window=((row, stop), (0, self._grid.width))))
                if not np.array_equal(sums, self._sums[row:stop]):
                    raise OSError(f'rows {row} to {stop} did not reach the disk')


def _checksums(strip: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """CRC of each row of each band, shape ``(n, bands)``, of a strip of shape ``(bands, n, width)``."""
    rows = np.ascontiguousarray(strip.swapaxes(0, 1))
    return np.array([[zlib.crc32(line) for line in row] for row in rows], dtype=np.uint32)


def _close_quietly(dst: Any) -> None:
    """Close a file that is about to be deleted: what else goes wrong on a full disk is no news."""
    try:
        dst.close()
    except _WRITE_ERRORS:
        return


def _attribute_table(legend: Legend) -> str:
    """GDAL's XML of category names and a raster attribute table, which QGIS offers as a classification."""
    columns = (('Value', 0, 5), ('Class', 2, 2), ('R', 0, 6), ('G', 0, 7), ('B', 0, 8))  # GDALRATFieldType, -Usage
    fields = ''.join(
        f'<FieldDefn index="{i}"><Name>{name}</Name><Type>{kind}</Type><Usage>{usage}</Usage></FieldDefn>'
        for i, (name, kind, usage) in enumerate(columns)
    )
    rows = ''.join(
        f'<Row index="{c.code}">' + ''.join(f'<F>{escape(str(v))}</F>' for v in (c.code, c.name, *c.colour)) + '</Row>'
        for c in legend
    )
    names = ''.join(f'<Category>{escape(name)}</Category>' for name in legend.names)
    return (
        f'<PAMDataset><PAMRasterBand band="1"><CategoryNames>{names}</CategoryNames>'
        f'<GDALRasterAttributeTable tableType="thematic">{fields}{rows}</GDALRasterAttributeTable>'
        '</PAMRasterBand></PAMDataset>\n'
    )


def _sidecar(path: Path, suffix: str = '.aux.xml') -> Path:
    return path.with_name(path.name + suffix)
