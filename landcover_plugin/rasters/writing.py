"""Writing maps: Cloud Optimized GeoTIFFs that appear under their names only when they are whole.

A map is made in a hidden folder beside it, strip by strip, by one process or several. At the end the strips become
COGs in that folder, are read back and compared with what was written (GDAL closes a file on a full disk without a
word), and are renamed. A run that was killed is gone on with by the next one with the same plan.
"""

import json
import logging
import os
import shutil
import zlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import rasterio
import rasterio.shutil

from ..grid import PixelGrid, PixelWindow
from ..legend import LEGEND, Legend
from .attribute_table import band_xml, write_attribute_table
from .layers import Kind, Layer, PathLike, map_layers, output_paths
from .locking import locked
from .outputs import cannot_write, check_output
from .staging import LOCK, begin, read_plan, write_small
from .strips import BLOCK, WRITE_ERRORS, StripFolder

#: Files that GDAL and QGIS keep beside a raster. Those of an older map would describe the new one wrongly.
_SIDECARS = ('.aux.xml', '.ovr', '.msk')

#: Of deflate: a class map takes half the time of level 6 and 7 % more room.
LEVEL = 4

#: In the folder: which files are about to get their names, since all of them are whole.
_PUBLISH = 'publish.json'

log = logging.getLogger(__name__)


class MapFolder:
    """One map in the making, in the hidden folder ``.<stem>.part`` beside it.

    Each raster becomes a COG on exactly the given grid, uint8, deflate, tiles of 512 px:

    - ``map.tif``: codes, 0 is no data, with colour table, class names and overviews by majority. (GDAL computes
      each overview from the one below it: beyond factor 2 they show the majority of majorities.) Names are in
      the tags (``CLASS_1``), in a raster attribute table and in ``map.tif.aux.xml``.
    - ``map_confidence.tif``: percent of the chosen class, 255 is no data, overviews by average.
    - ``map_entropy.tif``: entropy of the probabilities, in percent of the largest possible, as above.
    - ``map_probabilities.tif``: percent of each real class, one band per class named after it, as above.

    The order is :meth:`check`, :meth:`open`, :meth:`~StripFolder.write` of :attr:`strips`, :meth:`join`, whatever else
    is to lie beside the map (:meth:`add`), :meth:`publish`.

    Args:
        path: The class map, ``.tif``.
        grid: CRS, transform and shape.
        kinds: Layers beside it.
        legend: Codes, names and colours.

    Attributes:
        paths: The rasters by kind, the class map last.
        folder: Where they are made.
        strips: What is finished.
    """

    def __init__(self, path: PathLike, grid: PixelGrid, kinds: Sequence[Kind] = (), legend: Legend = LEGEND) -> None:
        self.grid = grid
        self.paths = {kind: target.absolute() for kind, target in output_paths(path, kinds).items()}
        self.target = self.paths['classes']
        self.folder = self.target.with_name(f'.{self.target.stem}.part')
        every = map_layers(legend)
        self.layers = {kind: every[kind] for kind in self.paths}
        self.strips = StripFolder(self.folder / 'strips', grid, self.layers)
        self._extra: list[Path] = []
        self._lock = ExitStack()
        self._made: list[Path] = []  # parents that were not there before
        self._ours = False  # nobody else's, since we have the lock

    @property
    def is_whole(self) -> bool:
        """Whether all files were made and wait for their names."""
        return (self.folder / _PUBLISH).is_file()

    def check(self, extra: Sequence[Path] = (), *, overwrite: bool) -> None:
        """Find out before any computing whether the map can be written.

        Args:
            extra: Other files that are to lie beside the map.
            overwrite: Whether older files may be replaced.

        Raises:
            LandcoverError: See :func:`check_output`.
        """
        replace = overwrite or self.is_whole  # then the files there may be those of that run
        for target in (*self.paths.values(), *extra):
            check_output(target, overwrite=replace)

    def open(self, plan: Mapping[str, Any], *, overwrite: bool) -> bool:
        """Keep other runs out, and throw away what a run with another plan left.

        Args:
            plan: What decides the map, as JSON.
            overwrite: Whether older files may be replaced.

        Returns:
            Whether the map is finished already: an earlier run with this plan was killed while it gave the files
            their names.

        Raises:
            LandcoverError: If the folder cannot be made, or another run is writing there.
        """
        try:
            self._made = [p for p in self.folder.parents if not p.exists()]
            self.folder.mkdir(parents=True, exist_ok=True)
            busy = f'another landcover predict is writing {self.target}: wait for it, or stop it'
            self._lock.enter_context(locked(self.folder / LOCK, busy))
            self._ours = True
            if self.is_whole:
                same = read_plan(self.folder) == json.loads(json.dumps(plan))
                self.publish()
                if same:
                    return True
                self.check(overwrite=overwrite)
                return self.open(plan, overwrite=overwrite)
            changed = begin(self.folder, dict(plan))
        except OSError as error:
            raise cannot_write(self.target, error) from error
        if changed:
            log.warning(
                '%s: what an earlier run had finished is thrown away, since this one differs in %s',
                self.target, ', '.join(changed)
            )  # fmt: skip
        return False

    def join(self, strips: Sequence[PixelWindow], tags: Mapping[str, str]) -> None:
        """Make COGs from the strips, and make sure that they hold what was written.

        Args:
            strips: Windows of all strips, counted from the first pixel of the map; those that are missing in the
                folder are no data.
            tags: Where the map comes from, for the metadata of each file.

        Raises:
            LandcoverError: If writing fails; the strips stay.
        """
        for kind, target in self.paths.items():
            cog = self.folder / target.name
            try:
                self._remove(cog)
                self._convert(kind, cog, strips, tags)
                self._verify(kind, cog, strips)
                legend = self.layers[kind].legend
                if legend is not None:
                    self.add(write_attribute_table(cog, legend))
                with cog.open('r+b') as file:
                    os.fsync(file)
            except WRITE_ERRORS as error:
                self._remove(cog)  # so that there is room to go on
                raise cannot_write(target, error) from error

    def _convert(self, kind: Kind, cog: Path, strips: Sequence[PixelWindow], tags: Mapping[str, str]) -> None:
        layer, vrt = self.layers[kind], self.folder / f'{kind}.vrt'
        present = [
            (s, self.strips.path(s, kind)) for s in strips if kind in (self.strips.note(s) or {'crc32': {}})['crc32']
        ]
        vrt.write_text(_vrt(layer, self.grid, present, tags), encoding='utf-8')
        with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN='FALSE', GDAL_PAM_ENABLED='YES'):
            rasterio.shutil.copy(
                vrt, cog, driver='COG', blocksize=BLOCK, compress='deflate', level=LEVEL, bigtiff='if_safer',
                num_threads='all_cpus', overviews='ignore_existing', **layer.options,
            )  # fmt: skip

    def _verify(self, kind: Kind, cog: Path, strips: Sequence[PixelWindow]) -> None:
        with rasterio.open(cog, OVERVIEW_LEVEL='NONE', NUM_THREADS='ALL_CPUS') as src:
            for strip in strips:
                if zlib.crc32(src.read(window=strip.ranges)) != self.strips.checksum(strip, kind):
                    raise OSError(f'rows {strip.row} to {strip.row_stop} did not reach the disk')

    def add(self, path: Path) -> None:
        """Let a whole file of the folder be published with the map, under its name."""
        self._extra.append(path)

    def publish(self) -> None:
        """Give all files their names, the class map last, and remove the folder.

        Raises:
            LandcoverError: If that fails; the same command goes on with it.
        """
        marker, home = self.folder / _PUBLISH, self.target.parent
        try:
            if not marker.exists():
                names = [path.name for path in self._extra] + [path.name for path in self.paths.values()]
                write_small(marker, lambda path: path.write_text(json.dumps(names)))
            names = json.loads(marker.read_text())
            for name in (name for name in names if (self.folder / name).exists()):
                for suffix in _SIDECARS:
                    if f'{name}{suffix}' not in names:
                        _sidecar(home / name, suffix).unlink(missing_ok=True)
                (self.folder / name).replace(home / name)
            self._lock.close()
            shutil.rmtree(self.folder, ignore_errors=True)
        except OSError as error:
            raise cannot_write(self.target, error) from error
        self._warn_of_strays()

    def leave(self) -> int:
        """Let other runs in after a run that failed; a folder in which nothing is finished is removed.

        Returns:
            Number of finished strips, which the next run with the same plan goes on with.
        """
        if not self._ours:
            return 0
        kept = self.strips.count()
        self._lock.close()
        if not kept and not self.is_whole:
            self.remove()
        return kept

    def remove(self) -> None:
        """Remove the folder, with parents that were made for it."""
        self._lock.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):
            for parent in self._made:
                parent.rmdir()

    def _remove(self, path: Path) -> None:
        for leftover in self.folder.glob(f'{path.name}*'):  # GDAL's temporary files
            leftover.unlink(missing_ok=True)

    def _warn_of_strays(self) -> None:
        every: tuple[Kind, ...] = ('confidence', 'entropy', 'probabilities')
        for kind, path in output_paths(self.target, every).items():
            if kind not in self.paths and path.exists():
                log.warning('%s is from an earlier run and does not belong to the new map', path)


def _vrt(layer: Layer, grid: PixelGrid, strips: Sequence[tuple[PixelWindow, Path]], tags: Mapping[str, str]) -> str:
    """GDAL's XML of a mosaic of strips, with everything that the COG will inherit."""
    named = {f'CLASS_{code}': layer.legend[code].name for code in layer.legend.codes} if layer.legend else {}
    items = ''.join(f'<MDI key={quoteattr(k)}>{escape(v)}</MDI>' for k, v in {**tags, **named}.items())
    look = ''
    if layer.legend is not None:
        colours = layer.legend.colormap
        entries = [colours.get(value, (0, 0, 0, 255)) for value in range(256)]
        table = ''.join(f'<Entry c1="{r}" c2="{g}" c3="{b}" c4="{a}"/>' for r, g, b, a in entries)
        look = f'<ColorInterp>Palette</ColorInterp><ColorTable>{table}</ColorTable>{band_xml(layer.legend)}'
    bands = ''.join(
        f'<VRTRasterBand dataType="Byte" band="{number}"><Description>{escape(name)}</Description>'
        f'<UnitType>{escape(layer.unit)}</UnitType><NoDataValue>{layer.nodata}</NoDataValue>{look}'
        f'{"".join(_source(strip, path, number) for strip, path in strips)}</VRTRasterBand>'
        for number, name in enumerate(layer.bands, start=1)
    )
    transform = ', '.join(repr(float(v)) for v in grid.transform.to_gdal())
    return (
        f'<VRTDataset rasterXSize="{grid.width}" rasterYSize="{grid.height}"><SRS>{escape(grid.crs.to_wkt())}</SRS>'
        f'<GeoTransform>{transform}</GeoTransform><Metadata>{items}</Metadata>{bands}</VRTDataset>\n'
    )


def _source(strip: PixelWindow, path: Path, band: int) -> str:
    size = f'xSize="{strip.width}" ySize="{strip.height}"'
    return (
        f'<SimpleSource><SourceFilename relativeToVRT="1">{escape(path.parent.name)}/{escape(path.name)}'
        f'</SourceFilename><SourceBand>{band}</SourceBand>'
        f'<SourceProperties RasterXSize="{strip.width}" RasterYSize="{strip.height}" DataType="Byte"/>'
        f'<SrcRect xOff="0" yOff="0" {size}/><DstRect xOff="{strip.col}" yOff="{strip.row}" {size}/></SimpleSource>'
    )


def _sidecar(path: Path, suffix: str = '.aux.xml') -> Path:
    return path.with_name(path.name + suffix)
