"""A simulated scene that stands in for the CatLC rasters in the demo and in tests.

Classes are drawn at the resolution of the label on an invented landscape; every class is a mixture of
materials whose spectra change from April to August; the image is the mean of the label pixels inside each
10 m pixel, seen through a small point-spread function, clouds and sensor noise. So resampling,
purity, seasons and sampling matter as they do in the real thing.

**It is not Catalonia.** Spectra, shapes and shares are invented. A score on this scene says that
the software works; it says nothing about accuracy on real land.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window

from landcover_plugin.datasets import simulated_spectra as spectra
from landcover_plugin.datasets.simulated_layout import plan
from landcover_plugin.datasets.simulated_light import IMAGE_GSD
from landcover_plugin.datasets.simulated_painter import Painter
from landcover_plugin.errors import LandcoverError
from landcover_plugin.legend import LEGEND, NODATA
from landcover_plugin.rasters.locking import locked
from landcover_plugin.rasters.outputs import cannot_write
from landcover_plugin.rasters.reading import GDAL_ERRORS

#: File names of the CatLC rasters.
IMAGE_NAME = 'S2_CAT_{season}_UTM_WGS84_31N_10m.tif'
LABEL_NAME = 'LC_2018_UTM_WGS84_31N_1m_12_Classes.tif'

#: Smallest side of a scene in image pixels.
MIN_SIZE = 32

_LOCK = '.simulate.lock'
_CRS = 'EPSG:32631'
_GSDS = (1, 2, 5, 10)


@dataclass(frozen=True)
class Scene:
    """Paths of a written scene; ``images`` follow ``seasons``."""

    seasons: tuple[str, ...]
    images: tuple[Path, ...]
    label: Path

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files: the images, then the label."""
        return (*self.images, self.label)


def write_scene(
    root: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] = 512,
    seed: int = 0,
    seasons: Sequence[str] = ('201804', '201808'),
    label_gsd: int = 1,
    clouds: bool = True,
    origin: tuple[float, float] = (400000, 4600000),
    tile: int = 256,
    overwrite: bool = False,
    progress: bool = False,
) -> Scene:
    """Write a simulated scene: one image per season and the label, named like the CatLC rasters.

    Images: uint16, reflectance x 10,000, 10 bands named in the file, 10 m. Label: uint8, codes of
    :data:`~landcover_plugin.legend.LEGEND` with its colours. All EPSG:32631, 0 is no data. Memory
    does not grow with the size of the scene. A file appears under its name only when all are whole.

    Never quote a score on this scene as accuracy on real land: everything in it is invented.

    Args:
        root: Directory; made if missing.
        size: Height and width in image pixels of 10 m, or one number for both.
        seed: Same seed and size, same pixels.
        seasons: YYYYMM of the images, in April (04) or August (08).
        label_gsd: Metres of a label pixel: 1, 2, 5 or 10. The file name says 1 m all the same, as CatLC's does.
        clouds: Put a few clouds and shadows into each image.
        origin: Easting and northing of the upper left corner, multiples of 10 m.
        tile: Side in image pixels of the pieces that are computed at a time; the result does not depend on it.
        overwrite: Replace files of an earlier scene.
        progress: Show a progress bar on stderr.

    Raises:
        LandcoverError: If an argument is out of range, files exist and ``overwrite`` is off, another run is writing
            there, or writing fails.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as root:
        ...     scene = write_scene(root, size=(48, 64), label_gsd=5)
        ...     with rasterio.open(scene.label) as label:
        ...         print(scene.label.name, label.shape)
        LC_2018_UTM_WGS84_31N_1m_12_Classes.tif (96, 128)
    """
    shape = _checked_size(size)
    _check(seed, seasons, label_gsd, origin, tile)
    root = Path(root)
    images = tuple(root / IMAGE_NAME.format(season=season) for season in seasons)
    scene = Scene(tuple(seasons), images, root / LABEL_NAME)
    layout = plan(shape[0] * 10.0, shape[1] * 10.0, seed, len(seasons))
    painter = Painter(layout, tuple(season[4:] for season in seasons), label_gsd, clouds)
    drafts = [path.with_name(f'.{path.stem}.part.tif') for path in scene.paths]  # a killed run's are written anew
    with _alone_in(root):
        _check_free(scene, overwrite)
        try:
            _write(drafts, painter, shape, origin, tile, progress)
            for draft, path in zip(drafts, scene.paths, strict=True):
                draft.replace(path)
        finally:
            for draft in drafts:
                draft.unlink(missing_ok=True)
    return scene


@contextmanager
def _alone_in(root: Path) -> Iterator[None]:
    """Make a directory and keep other runs out of it; what the disk refuses is told in words."""
    lock = root / _LOCK
    taken = f'another landcover simulate is writing to {root}: wait for it, or choose another directory'
    try:
        root.mkdir(parents=True, exist_ok=True)
        with locked(lock, taken):
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
    except (OSError, *GDAL_ERRORS) as e:
        raise cannot_write(root, e) from e


def _checked_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width; refuses what is not two whole numbers from MIN_SIZE up."""
    pair = tuple(size) if isinstance(size, tuple | list) else (size, size)
    if len(pair) != 2 or any(not isinstance(side, int | np.integer) or side < MIN_SIZE for side in pair):
        raise LandcoverError(
            f'size must be one or two whole numbers of at least {MIN_SIZE} px, got {size!r}; try size=512'
        )
    return int(pair[0]), int(pair[1])


def _check(seed: int, seasons: Sequence[str], label_gsd: int, origin: tuple[float, float], tile: int) -> None:
    """Refuse arguments out of range."""
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise LandcoverError(f'seed must be a whole number from 0 up, got {seed!r}; try seed=0')
    good = [len(s) == 6 and s.isdigit() and s[4:] in spectra.MONTHS for s in seasons]
    if isinstance(seasons, str) or not good or not all(good) or len(set(seasons)) < len(good):
        raise LandcoverError(
            f"seasons must be different YYYYMM in April (04) or August (08), got {seasons!r}; try ('201804', '201808')"
        )
    if label_gsd not in _GSDS:
        raise LandcoverError(f'label_gsd must be one of {_GSDS} m to fill 10 m pixels, got {label_gsd!r}; try 1')
    if len(origin) != 2 or any(value % IMAGE_GSD for value in origin):
        raise LandcoverError(f'origin must be two multiples of 10 m, got {origin!r}; try (400000, 4600000)')
    if not isinstance(tile, int | np.integer) or not 16 <= tile <= 2048:
        raise LandcoverError(f'tile must be in [16, 2048] px, got {tile!r}; try 256')


def _check_free(scene: Scene, overwrite: bool) -> None:
    """Refuse to replace files that nobody allowed to replace."""
    taken = [path for path in scene.paths if path.exists()]
    if taken and not overwrite:
        raise LandcoverError(
            f'{taken[0]} exists and would be lost: choose another directory or allow overwriting (--overwrite)'
        )


def _tiles(shape: tuple[int, int], tile: int) -> Iterator[tuple[int, int, int, int]]:
    """Row, column, height and width of the windows that cover a scene, row by row."""
    for row in range(0, shape[0], tile):
        for col in range(0, shape[1], tile):
            yield row, col, min(tile, shape[0] - row), min(tile, shape[1] - col)


def _write(
    drafts: Sequence[Path],
    painter: Painter,
    shape: tuple[int, int],
    origin: tuple[float, float],
    tile: int,
    progress: bool,
) -> None:
    """Paint the scene window by window into the files."""
    n = painter.per_cell
    with ExitStack() as stack:
        images = [stack.enter_context(_new_image(path, shape, origin)) for path in drafts[:-1]]
        label = stack.enter_context(_new_label(drafts[-1], shape, origin, painter.label_gsd))
        for row, col, rows, cols in _progress(list(_tiles(shape, tile)), progress):
            painted, codes = painter.paint(row, col, rows, cols)
            for image, bands in zip(images, painted, strict=True):
                image.write(bands, window=Window(col, row, cols, rows))
            label.write(codes, 1, window=Window(col * n, row * n, cols * n, rows * n))


def _progress(tiles: list[tuple[int, int, int, int]], show: bool) -> Iterator[tuple[int, int, int, int]]:
    """The tiles, with a bar on stderr if wanted."""
    from tqdm import tqdm

    yield from tqdm(tiles, desc='simulating', unit='tile', disable=not show)


def _new_image(path: Path, shape: tuple[int, int], origin: tuple[float, float]) -> rasterio.io.DatasetWriter:
    """Open an empty image: 10 bands with their names, in tiles of 256 px."""
    image = rasterio.open(
        path, 'w', driver='GTiff', height=shape[0], width=shape[1], count=len(spectra.BANDS), dtype='uint16',
        crs=_CRS, transform=from_origin(*origin, 10, 10), nodata=NODATA, tiled=True, blockxsize=256,
        blockysize=256, compress='deflate', predictor=2, zlevel=3, bigtiff='if_safer',
    )  # fmt: skip
    image.descriptions = spectra.BANDS
    return image


def _new_label(path: Path, shape: tuple[int, int], origin: tuple[float, float], gsd: int) -> rasterio.io.DatasetWriter:
    """Open an empty label with the legend's colour table, in tiles of 512 px."""
    n = IMAGE_GSD // gsd
    label = rasterio.open(
        path, 'w', driver='GTiff', height=shape[0] * n, width=shape[1] * n, count=1, dtype='uint8', crs=_CRS,
        transform=from_origin(*origin, gsd, gsd), nodata=NODATA, tiled=True, blockxsize=512, blockysize=512,
        compress='deflate', zlevel=6, bigtiff='if_safer',
    )  # fmt: skip
    label.write_colormap(1, LEGEND.colormap)
    return label
