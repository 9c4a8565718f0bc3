"""What several test files share: a small simulated scene and a way to write tiny rasters."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin

from landcover_plugin.datasets.simulated import Scene, write_scene
from landcover_plugin.rasters.opening import close_rasters

#: Real pixels beside the checkout; tests that read them skip where they are missing.
RELOCATED = Path(__file__).parents[2] / 'shared' / 'data' / 'relocated'

BANDS = ('B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B08', 'B8A', 'B11', 'B12')
IMAGE_NAME = 'S2_CAT_201804_UTM_WGS84_31N_10m.tif'
LABEL_NAME = 'LC_2018_UTM_WGS84_31N_1m_12_Classes.tif'


@pytest.fixture(scope='session')
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """April, August and 2 m labels of a simulated landscape of 192 x 256 px."""
    return write_scene(tmp_path_factory.mktemp('scene'), size=(192, 256), seed=5, label_gsd=2)


@pytest.fixture(autouse=True)
def _nothing_left() -> Any:
    """No handles, and no messages that the command line took over: pytest captures those of a later test twice then."""
    yield
    close_rasters()
    log = logging.getLogger('landcover_plugin')
    log.handlers, log.propagate = [], True


def write_raster(
    path: Path,
    array: NDArray[Any],
    *,
    origin: tuple[float, float] = (400000, 4600000),
    gsd: float | tuple[float, float] = 10,
    crs: Any = 'EPSG:32631',
    descriptions: Sequence[str | None] | None = None,
    colours: dict[int, tuple[int, ...]] | None = None,
    **options: Any,
) -> Path:
    """Write a GeoTIFF from an array of shape (rows, cols) or (bands, rows, cols); options go to rasterio."""
    bands = array[None] if array.ndim == 2 else array
    xres, yres = gsd if isinstance(gsd, tuple) else (gsd, gsd)
    profile = {'driver': 'GTiff', 'transform': from_origin(*origin, xres, yres), 'crs': crs} | options
    count, height, width = bands.shape
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, 'w', count=count, height=height, width=width, dtype=bands.dtype, **profile) as dst:
        dst.write(bands)
        if descriptions:
            dst.descriptions = tuple(descriptions)
        if colours:
            dst.write_colormap(1, colours)
    return path


def write_image(folder: Path, array: NDArray[Any], *, month: str = '201804', **options: Any) -> Path:
    """Write an image of 10 described bands (unless said otherwise) under its CatLC name."""
    described = {'descriptions': BANDS} if array.shape[0] == len(BANDS) else {}
    return write_raster(folder / IMAGE_NAME.replace('201804', month), array, **(described | options))


def write_label(folder: Path, array: NDArray[Any], *, name: str = LABEL_NAME, **options: Any) -> Path:
    """Write a label of 1 m (unless said otherwise) under its CatLC name."""
    return write_raster(folder / name, array, **({'gsd': 1} | options))


def analytic_image(height: int = 41, width: int = 53, bands: int = 10) -> NDArray[np.uint16]:
    """Every value tells its band, row and column: band * 6000 + row * 100 + col + 1; never 0."""
    band, row, col = np.ogrid[:bands, :height, :width]
    return (band * 6000 + row * 100 + col + 1).astype(np.uint16)


def analytic_codes(height: int = 41, width: int = 53) -> NDArray[np.uint8]:
    """A code from 1 to 12 for each pixel, that differs from its neighbours' and under flips."""
    row, col = np.ogrid[:height, :width]
    return ((row * 5 + col * 7 + row * col // 11) % 12 + 1).astype(np.uint8)


def repeated(codes: NDArray[Any], factor: int) -> NDArray[Any]:
    """Each pixel as ``factor`` x ``factor`` label pixels."""
    return np.repeat(np.repeat(codes, factor, axis=0), factor, axis=1)


def boundless(array: NDArray[Any], row: int, col: int, height: int, width: int) -> NDArray[Any]:
    """The window of an array (…, rows, cols) by plain indexing; 0 outside. A reference free of rasterio."""
    rows, cols = np.arange(row, row + height), np.arange(col, col + width)
    inside = ((rows >= 0) & (rows < array.shape[-2]))[:, None] & ((cols >= 0) & (cols < array.shape[-1]))
    picked = array[..., rows.clip(0, array.shape[-2] - 1)[:, None], cols.clip(0, array.shape[-1] - 1)]
    return np.where(inside, picked, 0).astype(array.dtype)


def majority_reference(labels: NDArray[Any], factor: int, num_classes: int = 13) -> NDArray[np.uint8]:
    """Majority code of each block by plain NumPy: ties to the lower code, 0 where less than half is labelled."""
    rows, cols = labels.shape[0] // factor, labels.shape[1] // factor
    blocks = labels.reshape(rows, factor, cols, factor)
    counts = np.stack([(blocks == code).sum((1, 3)) for code in range(1, num_classes)])
    enough = 2 * counts.sum(0) >= factor * factor
    return np.where(enough & (counts.max(0) > 0), counts.argmax(0) + 1, 0).astype(np.uint8)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch on one thread: two workers with a pool each would fight for the same cores."""
    import torch  # not for the tests of rasters alone

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
