"""Writing maps: Cloud Optimized GeoTIFFs that appear under their names only when they are whole.

Rows go into temporary tiled GeoTIFFs with hidden names beside the map. At the end each becomes a COG, also
under a hidden name, is read back and compared with what was written (GDAL closes a file on a full
disk without a word), and is renamed.
"""

import errno
import glob
import logging
import os
import shutil
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from uuid import uuid4
from xml.sax.saxutils import escape

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # what GDAL raises beside RasterioError has no public name
from rasterio.enums import Resampling
from rasterio.errors import RasterioError

from ..errors import LandcoverError
from ..grid import PixelGrid
from ..legend import LEGEND, NODATA, Legend
from .opening import open_raster, read_failed

PathLike = str | os.PathLike[str]
Kind = Literal['classes', 'confidence', 'probabilities']

#: Confidence, and percent of a class, where nothing was mapped.
PERCENT_NODATA = 255

#: Side of a tile in pixels.
BLOCK = 512

#: Files that GDAL and QGIS keep beside a raster. Those of an older map would describe the new one wrongly.
_SIDECARS = ('.aux.xml', '.ovr', '.msk')

# The preview: pixels, then inches.
_ENLARGED = 1000  # side up to which a small map is enlarged
_LONGER = 8.0  # longer side of the map: text keeps its size beside it
_MARGIN, _TITLE, _LINE, _PANEL = 0.25, 0.4, 0.26, 4.2  # the last two: line height and width of the legend

_MAY_WRITE = 'choose a folder in which you may write'
_WAYS_OUT = {
    errno.EACCES: _MAY_WRITE,
    errno.EPERM: _MAY_WRITE,
    errno.EROFS: _MAY_WRITE,
    errno.ENOENT: _MAY_WRITE,
    errno.ENOTDIR: 'choose a path whose parents are folders',
    errno.ENAMETOOLONG: 'choose a shorter name',
}

_WRITE_ERRORS = (OSError, RasterioError, CPLE_BaseError)

log = logging.getLogger(__name__)


def check_output(path: PathLike, *, overwrite: bool = False) -> Path:
    """Find out, before any computing, whether a file can be written; leaves no trace.

    Missing parent folders are fine: they are made when the file is there to go into them.

    Args:
        path: The file to be written.
        overwrite: Whether an older file there may be replaced.

    Returns:
        The absolute path.

    Raises:
        LandcoverError: If the path is a folder or remote, the file exists and may not be replaced or is write-
            protected, or its folder cannot be made or written to.
    """
    if '://' in os.fspath(path) or os.fspath(path).startswith('/vsi'):
        raise LandcoverError(f'{path} is not on a local disk: write to a local file and upload it afterwards')
    target = Path(path).resolve()
    try:
        _refuse_existing(target, overwrite)
        probe = _hidden(target, 'probe')
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise _cannot_write(target, error) from error
    return target


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
        self._strips = _hidden(target, 'strips')
        self._cog = _hidden(target, 'cog')
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
            raise _cannot_write(self._target, error) from error

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
            raise _cannot_write(self._target, error) from error
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
            raise _cannot_write(self._target, error) from error

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
            raise _cannot_write(self._target, error) from error

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


def _refuse_existing(target: Path, overwrite: bool) -> None:
    """Raise unless the target is free, or is a file that may be replaced."""
    if target.is_dir():
        raise LandcoverError(f'{target} is a folder: name a file in it')
    if not target.exists():
        return
    if not overwrite:
        raise LandcoverError(f'{target} exists already: choose another name, or allow overwriting (--overwrite)')
    if not os.access(target, os.W_OK):
        raise LandcoverError(f'{target} is write-protected: choose another name, or lift the protection')


def _hidden(target: Path, purpose: str) -> Path:
    """A free hidden name beside the target, or in its nearest existing parent (hence on the same disk)."""
    parent = next(path for path in target.parents if path.exists())
    return parent / f'.{target.stem}.{purpose}.{uuid4().hex[:8]}.part{target.suffix}'


def _cannot_write(target: Path, error: BaseException) -> LandcoverError:
    """The sentence for a write that failed; GDAL seldom says why, so it names the free space."""
    cause = error.__cause__ or error
    lines = str(getattr(cause, 'strerror', None) or cause).strip().splitlines()
    reason = lines[0].rstrip('.') if lines else type(cause).__name__
    way_out = _WAYS_OUT.get(cause.errno or 0) if isinstance(cause, OSError) else None  # GDAL has its own numbers
    if way_out is None:
        parent = next(path for path in target.parents if path.exists())
        way_out = (
            f'{shutil.disk_usage(parent).free / 1e6:,.0f} MB are free on its disk; '
            'free some space or choose a folder on another disk'
        )
    return LandcoverError(f'{target} cannot be written ({reason}): {way_out}')


def write_preview(
    path: PathLike, map_path: PathLike, legend: Legend = LEGEND, *, max_size: int = 2000, overwrite: bool = False
) -> Path:
    """Draw a class map as a PNG, with the names of the classes that occur and their shares of the mapped area.

    Each pixel of the picture shows the majority of the map pixels under it (without overviews); shares are
    counted on all map pixels. They are shares of a map, not area estimates. Small maps are enlarged.

    Args:
        path: The ``.png``.
        map_path: Class map: codes in its first band.
        legend: Names and colours of the codes.
        max_size: Longer side of the map in the picture, in pixels; title and legend come in addition.
        overwrite: Replace an older file.

    Returns:
        The absolute path of the PNG.

    Raises:
        LandcoverError: If the map cannot be read, holds no data or codes that are not in the legend, or if the
            PNG cannot be written.
    """
    if Path(path).suffix.lower() != '.png' or max_size < 100:
        raise LandcoverError(f'a preview is a .png of at least 100 px, got {Path(path).name!r} and {max_size} px')
    target = check_output(path, overwrite=overwrite)
    counts = _count_codes(map_path, legend)
    figure = _draw_preview(_read_decimated(map_path, max_size), counts, legend, Path(map_path).name)
    draft = _hidden(target, 'preview')
    try:
        figure.savefig(draft)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft.replace(target)
    except OSError as error:
        raise _cannot_write(target, error) from error
    finally:
        draft.unlink(missing_ok=True)
    return target


def _count_codes(path: PathLike, legend: Legend) -> NDArray[np.int64]:
    """Pixels of each code, shape ``(num_classes,)``."""
    src = open_raster(path)
    if src.dtypes[0] != 'uint8':
        raise LandcoverError(f'{path} is not a class map: its pixels are {src.dtypes[0]}, not uint8')
    counts = np.zeros(256, dtype=np.int64)
    try:
        for row in range(0, src.height, BLOCK):
            strip = src.read(1, window=((row, min(row + BLOCK, src.height)), (0, src.width)))
            counts += np.bincount(strip.ravel(), minlength=256)
    except RasterioError as error:
        raise read_failed(os.fspath(path), error) from error
    if counts[legend.num_classes :].any():
        stranger = legend.num_classes + int(counts[legend.num_classes :].argmax())
        raise LandcoverError(
            f'{path} is no map with this legend: codes end at {legend.num_classes - 1}, got {stranger}'
        )
    if not counts[NODATA + 1 :].any():
        raise LandcoverError(f'{path} holds no data at all, so there is nothing to draw')
    return counts[: legend.num_classes]


def _read_decimated(path: PathLike, max_size: int) -> NDArray[np.uint8]:
    """The map with its longer side at most ``max_size``; small ones enlarged by a whole number."""
    src = open_raster(path)
    longer = max(src.height, src.width)
    if longer > max_size:
        shape = tuple(max(round(side * max_size / longer), 1) for side in src.shape)
        return src.read(1, out_shape=shape, resampling=Resampling.mode)
    codes = src.read(1)
    factor = max(min(_ENLARGED, max_size) // longer, 1)
    return codes.repeat(factor, axis=0).repeat(factor, axis=1)


def _draw_preview(codes: NDArray[np.uint8], counts: NDArray[np.int64], legend: Legend, title: str) -> Any:
    """The figure: one pixel of ``codes`` is one of the picture."""
    from matplotlib.figure import Figure  # only who draws waits for it

    dpi = max(max(codes.shape) / _LONGER, 100)
    height, width = (side / dpi for side in codes.shape)
    shown = [code for code in legend.codes if counts[code]]
    panel_height = _LINE * (len(shown) + 2)
    size = 3 * _MARGIN + width + _PANEL, 2 * _MARGIN + _TITLE + max(height, panel_height)
    figure = Figure(figsize=size, dpi=dpi)

    def axes_at(left: float, box_width: float, box_height: float) -> Any:
        top = size[1] - _MARGIN - _TITLE
        return figure.add_axes(
            (left / size[0], (top - box_height) / size[1], box_width / size[0], box_height / size[1])
        )

    paint = legend.palette.copy()
    paint[NODATA] = 255
    picture = axes_at(_MARGIN, width, height)
    picture.imshow(paint[codes], interpolation='none', aspect='auto')
    picture.set(xticks=[], yticks=[])
    picture.spines[:].set(color='0.6', linewidth=0.6)
    points = min(13.0, 72 * (size[0] - 2 * _MARGIN) / (0.7 * len(title)))  # a bold letter is 0.7 of its size wide
    y = 1 - (_MARGIN + _TITLE / 3) / size[1]
    figure.text(_MARGIN / size[0], y, title, size=points, weight='bold', va='center', parse_math=False)
    _draw_legend(axes_at(2 * _MARGIN + width, _PANEL, panel_height), counts, shown, legend)
    return figure


def _draw_legend(axes: Any, counts: NDArray[np.int64], shown: Sequence[int], legend: Legend) -> None:
    """One line per class: colour, name, share."""
    from matplotlib.patches import Rectangle

    axes.set(xlim=(0, _PANEL), ylim=((len(shown) + 2) * _LINE, 0))  # inches, from the top
    axes.axis('off')
    mapped = counts[shown].sum()
    for line, code in enumerate(shown):
        y, share = line * _LINE, 100 * counts[code] / mapped
        colour = legend.palette[code] / 255
        axes.add_patch(Rectangle((0.01, y), 0.3, 0.8 * _LINE, facecolor=colour, edgecolor='0.4', linewidth=0.5))
        axes.text(0.42, y + 0.4 * _LINE, legend[code].name, size=10, va='center')
        number = f'{share:.1f} %' if share >= 0.05 else '<0.1 %'
        axes.text(_PANEL - 0.05, y + 0.4 * _LINE, number, size=10, va='center', ha='right')
    note = 'percent of the mapped pixels'
    if counts[NODATA]:
        note += f'; {100 * counts[NODATA] / counts.sum():.1f} % of the raster is no data'
    axes.text(0.01, (len(shown) + 0.6) * _LINE, note, size=8, va='center', color='0.35')
