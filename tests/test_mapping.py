"""Mapping from mosaics to files, with networks whose answer is known: through Lightning, without the command line."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import torch
from conftest import IMAGE_NAME, write_raster
from lightning.pytorch import LightningModule, Trainer
from rasterio.transform import from_origin
from scipy import ndimage

from landcover_plugin import CataloniaSentinel2
from landcover_plugin.datasets.simulated_spectra import BANDS
from landcover_plugin.errors import LandcoverError
from landcover_plugin.legend import LEGEND
from landcover_plugin.machine import processors
from landcover_plugin.mapping import starting
from landcover_plugin.mapping.refinement import MajoritySmoothing, MinimumMappingUnit
from landcover_plugin.mapping.writer import MapWriter
from landcover_plugin.rasters.strips import StripFolder
from landcover_plugin.sampling import lattice
from landcover_plugin.training import prediction
from landcover_plugin.training.datamodule import CataloniaDataModule
from landcover_plugin.training.prediction import block_cache_bytes

ROOT = Path(__file__).parents[1]
CLASSES = LEGEND.num_classes


class OracleNetwork(torch.nn.Module):
    """Sees the code of a pixel in its first band; with ``blur``, unsure of all but that."""

    def __init__(self, blur: float) -> None:
        super().__init__()
        self.blur = blur

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        codes = image[:, 0].round().long().clamp(0, CLASSES - 1)
        logits = torch.full((len(image), CLASSES, *image.shape[2:]), -torch.inf if not self.blur else 0.0)
        return logits.scatter(1, codes[:, None], 1 / self.blur if self.blur else 1.0)


class RimNetwork(OracleNetwork):
    """Wrong at the rim of a window, as networks are."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        size = image.shape[-1]
        away = np.minimum(np.arange(size), np.arange(size)[::-1])
        rim = torch.from_numpy(np.minimum(away[:, None], away)) < 4
        return super().forward(torch.where(rim, (image + 5) % 12 + 1, image))


class UnsureNetwork(OracleNetwork):
    """Errs the more the nearer the rim, in each window alike."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        size = image.shape[-1]
        away = np.minimum(np.arange(size), np.arange(size)[::-1])
        errs = np.random.default_rng(1).normal(size=(CLASSES, size, size)) * np.exp(
            -np.minimum(away[:, None], away) / 4
        )
        return super().forward(image) + torch.from_numpy(2 * errs).float()


class Oracle(LightningModule):
    """A task whose network knows the answer."""

    engine: Any = None
    network = OracleNetwork

    def __init__(self, blur: float = 0.0) -> None:
        super().__init__()
        self.model = self.network(blur)
        self.seen, self.shapes = 0, set()

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        self.seen += len(batch['windows'])
        self.shapes.add(tuple(batch['image'].shape))
        return {'probabilities': self.engine(batch['image']), 'valid': batch['valid']}


class Soft(Oracle):
    """Convolutions that blur what the first band says: what any engine can take."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        first, last = torch.nn.Conv2d(1, CLASSES, 1), torch.nn.Conv2d(CLASSES, CLASSES, 3, padding=1, groups=CLASSES)
        torch.nn.init.constant_(last.weight, 1 / 9)
        self.model = torch.nn.Sequential(first, last)


class Rim(Oracle):
    network = RimNetwork


class Unsure(Oracle):
    network = UnsureNetwork


def truth(height: int = 90, width: int = 130, seed: int = 0) -> Any:
    """Codes in patches, different in each direction."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(1, CLASSES, (height // 7 + 1, width // 5 + 1)).astype(np.uint8)
    return coarse.repeat(7, 0).repeat(5, 1)[:height, :width]


def write(folder: Path, codes: Any, *, month: str = '201804', **options: Any) -> Path:
    name = IMAGE_NAME.replace('201804', month)
    return write_raster(folder / name, codes.astype(np.uint16)[None], descriptions=['B04'], **options)


def data(root: Path, **settings: Any) -> CataloniaDataModule:
    usual = {'patch_size': 32, 'batch_size': 5, 'overlap': 8, 'mean': [0.0], 'std': [1.0], 'reflectance_scale': 1}
    return CataloniaDataModule(str(root), **(usual | settings))


def predict(
    root: Path, path: Path, module: Any = None, *, steps: Any = None, options: Any = None, **settings: Any
) -> Any:
    """Map with an oracle; returns it."""
    writer = MapWriter(str(path), **(options or {}))
    for name, step in (steps or {}).items():
        setattr(writer, name, step)
    run = Trainer(
        accelerator='cpu', logger=False, enable_progress_bar=False, enable_model_summary=False, callbacks=[writer]
    )
    module = module or Oracle()
    run.predict(module, data(root, **settings), return_predictions=False)
    return module


def read(path: Path) -> Any:
    with rasterio.open(path) as src:
        return src.read().squeeze()


@pytest.fixture(autouse=True)
def small_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strips of 20 rows in swaths of 512 columns, so that small scenes have many."""
    monkeypatch.setattr(lattice.cut_strips, '__kwdefaults__', {'height': 20, 'width': 512})


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """The package's messages, also where a run of the command line has taken them over."""
    monkeypatch.setattr(logging.getLogger('landcover_plugin'), 'propagate', True)
    caplog.set_level(logging.INFO, logger='landcover_plugin')
    return caplog


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / 'data', truth())
    return tmp_path / 'data'


# What comes out


@pytest.mark.parametrize('overlap', [0, 1, 8, 16, 25])
def test_an_oracle_gives_back_the_labels_at_every_overlap(root: Path, tmp_path: Path, overlap: int) -> None:
    module = predict(root, tmp_path / 'map.tif', overlap=overlap, options={'confidence': True})
    assert np.array_equal(read(tmp_path / 'map.tif'), truth())
    assert (read(tmp_path / 'map_confidence.tif') == 100).all()
    assert {shape[1:] for shape in module.shapes} == {(1, 32, 32)}, 'windows are never cut'


def test_swaths_join_without_a_trace(tmp_path: Path) -> None:
    codes = truth(45, 1100)
    write(tmp_path / 'data', codes)
    predict(tmp_path / 'data', tmp_path / 'map.tif')
    assert np.array_equal(read(tmp_path / 'map.tif'), codes)


def test_the_map_of_a_part_is_the_part_of_the_map(root: Path, tmp_path: Path) -> None:
    options = {'confidence': True, 'entropy': True, 'probabilities': True}
    predict(root, tmp_path / 'all.tif', Rim(0.5), options=options)
    bbox = [400000 + 170, 4600000 - 770, 400000 + 1010, 4600000 - 130]
    predict(root, tmp_path / 'part.tif', Rim(0.5), options=options, bbox=bbox)
    for layer in ('', '_confidence', '_entropy', '_probabilities'):
        with rasterio.open(tmp_path / f'part{layer}.tif') as src:
            assert tuple(src.bounds) == tuple(map(float, bbox))
            part = src.read()
        with rasterio.open(tmp_path / f'all{layer}.tif') as src:
            assert np.array_equal(src.read(window=((13, 77), (17, 101))), part)


def test_seasons_are_averaged_where_both_measured(tmp_path: Path) -> None:
    april, august = truth(), truth()
    april[:30] = 0  # not measured
    august[60:, 50:] = 0
    write(tmp_path / 'data', april)
    write(tmp_path / 'data', august, month='201808')
    predict(tmp_path / 'data', tmp_path / 'map.tif')
    assert np.array_equal(read(tmp_path / 'map.tif'), truth())


def test_what_was_not_measured_is_no_data_and_is_not_predicted(tmp_path: Path) -> None:
    codes = truth(200, 130)
    codes[40:180] = 0
    write(tmp_path / 'data', codes)
    module = predict(tmp_path / 'data', tmp_path / 'map.tif')
    assert np.array_equal(read(tmp_path / 'map.tif'), codes)
    report = json.loads((tmp_path / 'map.json').read_text())
    assert report['windows']['run'] == module.seen and report['windows']['skipped'] > 15
    assert report['windows']['run'] + report['windows']['skipped'] == 9 * 6


def changes(codes: Any, period: int, offset: int) -> tuple[float, float]:
    """Share of neighbours of different class across the borders of windows, and elsewhere."""
    differ = (codes[:, 1:] != codes[:, :-1]).mean(axis=0)
    at = (np.arange(1, codes.shape[1]) + offset) % period == 0
    return float(differ[at].mean()), float(differ[~at].mean())


@pytest.mark.parametrize('network', [Rim, Unsure])
def test_windows_leave_no_trace(tmp_path: Path, network: Any) -> None:
    """A network that errs at the rim of its windows shows their grid without an overlap, and not with one."""
    codes = np.random.default_rng(0).integers(1, CLASSES, (400, 400)).astype(np.uint8)
    codes = ndimage.median_filter(codes, 3)
    write(tmp_path / 'data', codes)
    excess = {}
    for overlap in (0, 16):
        predict(tmp_path / 'data', tmp_path / f'{overlap}.tif', network(0.5), overlap=overlap)
        stride = 32 - overlap
        excess[overlap] = [
            max(abs(np.subtract(*changes(made, stride, shift))) for shift in range(stride))
            for made in (read(tmp_path / f'{overlap}.tif'), codes)
        ]
    assert excess[0][0] > 5 * excess[0][1], excess
    assert excess[16][0] < 1.3 * excess[16][1], excess


# Refinement


class Blur:
    """Mean over 7 x 7 pixels."""

    halo = 3

    def __call__(self, probabilities: Any, covered: Any) -> Any:
        size = 2 * self.halo + 1
        weights = ndimage.uniform_filter(covered.astype(np.float64), size, mode='constant')
        sums = np.stack([ndimage.uniform_filter(p * np.float64(1), size, mode='constant') for p in probabilities])
        return np.where(covered, sums / np.maximum(weights, 1e-9), 0).astype(np.float32)

    def __repr__(self) -> str:
        return 'Blur(3)'


class Majority:
    """Most frequent code of 3 x 3 pixels, the lowest of several."""

    halo = 1

    def __call__(self, codes: Any) -> Any:
        padded = np.pad(codes, 1)
        views = np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).reshape(*codes.shape, 9)
        counts = np.stack([(views == code).sum(-1) for code in range(CLASSES)])
        counts[0] = 0
        return counts.argmax(0).astype(np.uint8)

    def __repr__(self) -> str:
        return 'Majority()'


def test_refinement_does_not_know_of_strips(tmp_path: Path) -> None:
    """Strips and swaths are refined as the whole would be; a part of the map is refined as part of the whole."""
    codes = truth(70, 1100, seed=3)
    codes[30:33, 40:90] = 0
    write(tmp_path / 'data', codes)
    blur, majority = Blur(), Majority()
    steps, options = {'refine': blur, 'tidy': majority}, {'confidence': True, 'probabilities': True}
    predict(tmp_path / 'data', tmp_path / 'map.tif', Oracle(0.4), steps=steps, options=options)
    made = read(tmp_path / 'map.tif')
    covered = codes > 0
    logits = np.where(np.arange(CLASSES)[:, None, None] == codes, 1 / 0.4, 0.0)
    logits[0] = -np.inf
    probabilities = np.exp(logits) / np.exp(logits).sum(0) * covered
    smooth = blur(probabilities.astype(np.float32), covered)
    expected = np.where(covered, majority(np.where(covered, smooth[1:].argmax(0) + 1, 0).astype(np.uint8)), 0)
    assert (expected != codes).mean() > 0.03
    assert (made == expected).mean() > 0.9999  # float32 sums may break a tie otherwise
    chosen = np.take_along_axis(smooth, expected[None].astype(int), 0)[0]
    confidence = read(tmp_path / 'map_confidence.tif')
    same = covered & (made == expected)
    assert (abs(confidence[same] - 100 * chosen[same]) < 0.51).all() and (confidence[~covered] == 255).all()
    assert (abs(read(tmp_path / 'map_probabilities.tif')[:, covered] - 100 * smooth[1:, covered]) < 0.51).all()
    bbox = [400000 + 4970, 4600000 - 550, 400000 + 5300, 4600000 - 110]
    predict(tmp_path / 'data', tmp_path / 'part.tif', Oracle(0.4), steps=steps, bbox=bbox)
    assert np.array_equal(read(tmp_path / 'part.tif'), made[11:55, 497:530])


# Regions


def polygons(path: Path, *shapes: Any, **columns: Any) -> str:
    gpd.GeoDataFrame(columns, geometry=list(shapes), crs='EPSG:32631').to_file(path)
    return str(path)


def test_polygons_are_cut_out_of_the_map(root: Path, tmp_path: Path) -> None:
    star = shapely.Polygon([(400103, 4599907), (400707, 4599791), (400311, 4599403), (400405, 4599703)])
    box = shapely.box(401100, 4599200, 401200, 4599300)
    aoi = [polygons(tmp_path / 'a.gpkg', star), polygons(tmp_path / 'b.gpkg', box)]
    whole = predict(root, tmp_path / 'all.tif', Rim(0.5), options={'confidence': True})
    part = predict(root, tmp_path / 'part.tif', Rim(0.5), options={'confidence': True}, aoi=aoi)
    x, y = np.meshgrid(400000 + 5 + 10 * np.arange(130), 4600000 - 5 - 10 * np.arange(90))
    inside = shapely.contains(star.union(box), shapely.points(x, y))
    rows, cols = slice(9, 80), slice(10, 120)
    for layer, nodata in (('', 0), ('_confidence', 255)):
        expected = np.where(inside, read(tmp_path / f'all{layer}.tif'), nodata)
        assert np.array_equal(read(tmp_path / f'part{layer}.tif'), expected[rows, cols])
        assert (expected[:, :10] == nodata).all() and (expected[:9] == nodata).all()
    assert part.seen < 0.6 * whole.seen, 'windows that touch no polygon are not computed'
    report = json.loads((tmp_path / 'part.json').read_text())
    assert report['pixels']['wanted'] == report['pixels']['mapped'] == inside.sum()


def test_one_map_for_each_polygon(root: Path, tmp_path: Path, messages: pytest.LogCaptureFixture) -> None:
    boxes = [shapely.box(400100 + 400 * i, 4599300, 400300 + 400 * i, 4599800 + 50 * i) for i in range(3)]
    aoi = polygons(tmp_path / 'a.gpkg', *boxes, name=['a', 'b', 'c/d'])
    predict(root, tmp_path / 'maps' / 'of_{name}.tif', aoi=aoi, options={'png': True})
    files = {f.name for f in (tmp_path / 'maps').iterdir()}
    assert files == {
        f'of_{n}.{s}' for n in ('a', 'b', 'c_d') for s in ('tif', 'tif.aux.xml', 'json', 'png', 'qml', 'stac.json')
    }
    for i, name in enumerate(('a', 'b', 'c_d')):
        with rasterio.open(tmp_path / 'maps' / f'of_{name}.tif') as src:
            assert tuple(src.bounds) == boxes[i].bounds
            row, col = (4600000 - boxes[i].bounds[3]) / 10, 10 + 40 * i
            assert np.array_equal(src.read(1), truth()[int(row) : 70, col : col + 20])
    with pytest.raises(LandcoverError, match=r'need polygons with this attribute: give --data\.aoi FILE'):
        predict(root, tmp_path / '{name}.tif')
    with pytest.raises(LandcoverError, match='names several attributes'):
        predict(root, tmp_path / '{name}_{code}.tif', aoi=aoi)


# Resume and faults


def stop_after(monkeypatch: pytest.MonkeyPatch, count: int, error: Any) -> None:
    whole, done = StripFolder.write, []

    def write_some(self: Any, *args: Any) -> None:
        if len(done) == count:
            raise error
        done.append(whole(self, *args))

    monkeypatch.setattr(StripFolder, 'write', write_some)


def test_a_run_that_failed_is_gone_on_with(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, messages: pytest.LogCaptureFixture
) -> None:
    options = {'confidence': True, 'probabilities': True}
    whole = predict(root, tmp_path / 'whole' / 'map.tif', Rim(0.5), options=options)
    path = tmp_path / 'map.tif'
    with monkeypatch.context() as patched:
        stop_after(patched, 3, LandcoverError('the disk is full'))
        with pytest.raises(LandcoverError, match='the disk is full'):
            predict(root, path, Rim(0.5), options=options)
    assert '3 of 5 strips are kept beside the map: the same command goes on with them' in messages.text
    assert [f.name for f in tmp_path.iterdir() if f.name.startswith(('map', '.map'))] == ['.map.part']
    again = predict(root, path, Rim(0.5), options=options)
    assert '3 of 5 strips are there from an earlier run' in messages.text
    assert again.seen < 0.75 * whole.seen
    assert not (tmp_path / '.map.part').exists()
    for file in (tmp_path / 'whole').glob('*.tif*'):
        assert file.read_bytes() == (tmp_path / file.name).read_bytes()


def test_two_runs_at_once(root: Path, tmp_path: Path) -> None:
    """The second one is refused, and leaves the first one's folder alone."""
    path = tmp_path / 'map.tif'

    class Slow(Oracle):
        def predict_step(self, batch: Any, batch_idx: int) -> Any:
            if batch_idx == 1:
                with pytest.raises(
                    LandcoverError, match=r'another landcover predict is writing .*map\.tif: wait for it'
                ):
                    predict(root, path)
            return super().predict_step(batch, batch_idx)

    predict(root, path, Slow())
    assert np.array_equal(read(path), truth())


def test_another_setting_begins_anew(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, messages: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patched:
        stop_after(patched, 3, RuntimeError('stop'))
        with pytest.raises(RuntimeError, match='stop'):
            predict(root, tmp_path / 'map.tif')
    predict(root, tmp_path / 'map.tif', overlap=9, options={'majority': 3})
    assert 'since this one differs in majority, overlap' in messages.text


def test_an_older_map_stays_until_the_new_one_is_whole(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / 'map.tif'
    predict(root, path)
    before = path.read_bytes()
    with pytest.raises(LandcoverError, match='exists already'):
        predict(root, path, Rim())
    with monkeypatch.context() as patched:
        stop_after(patched, 4, RuntimeError('stop'))
        with pytest.raises(RuntimeError, match='stop'):
            predict(root, path, Rim(), options={'overwrite': True})
    assert path.read_bytes() == before
    predict(root, path, Rim(), options={'overwrite': True})
    assert path.read_bytes() != before


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from tests import test_mapping as t
    from landcover_plugin.rasters.strips import StripFolder
    t.lattice.cut_strips.__kwdefaults__ = {'height': 20, 'width': 512}
    moment, root, path = int(sys.argv[1]), *map(Path, sys.argv[2:])
    whole, done = StripFolder._write_layer, []

    def write_some(self, *args):
        whole(self, *args)
        done.append(1)
        if len(done) == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    StripFolder._write_layer = write_some
    t.predict(root, path, t.Rim(0.5), options={'confidence': True})
"""


@pytest.mark.parametrize('moment', [5, pytest.param(10, marks=pytest.mark.slow)])
def test_a_killed_run_is_gone_on_with(root: Path, tmp_path: Path, moment: int) -> None:
    command = [sys.executable, '-c', textwrap.dedent(KILLED), str(moment), root, tmp_path / 'map.tif']
    environment = os.environ | {'PYTHONPATH': f'{ROOT}:{ROOT}/tests'}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not list(tmp_path.glob('map*'))
    options = {'confidence': True}
    predict(root, tmp_path / 'map.tif', Rim(0.5), options=options)
    predict(root, tmp_path / 'whole' / 'map.tif', Rim(0.5), options=options)
    for file in (tmp_path / 'whole').glob('*.tif*'):
        assert file.read_bytes() == (tmp_path / file.name).read_bytes()


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A mosaic in blocks of 16 px of which the one in the third row and fourth column cannot be decoded."""
    path = write(tmp_path / 'data', truth(), tiled=True, blockxsize=16, blockysize=16, compress='deflate')
    with rasterio.open(path) as src:
        start, length = (int(src.get_tag_item(f'BLOCK_{w}_3_2', 'TIFF', bidx=1)) for w in ('OFFSET', 'SIZE'))
    content = bytearray(path.read_bytes())
    content[start : start + length] = b'\xff' * length
    path.write_bytes(content)
    return path


def test_a_damaged_block_is_an_error_that_names_it(damaged: Path, tmp_path: Path) -> None:
    with pytest.raises(LandcoverError, match=rf'{damaged.name} cannot be read \(.*, rows 20-52, columns 20-52\)') as e:
        predict(damaged.parent, tmp_path / 'map.tif')
    assert '--data.damaged nodata leaves out what cannot be read' in str(e.value)
    assert not list(tmp_path.glob('map*'))


def test_a_damaged_block_can_be_left_out(damaged: Path, tmp_path: Path, messages: pytest.LogCaptureFixture) -> None:
    predict(damaged.parent, tmp_path / 'map.tif', damaged='nodata')
    expected = truth()
    expected[32:48, 48:64] = 0
    assert np.array_equal(read(tmp_path / 'map.tif'), expected)
    (hole,) = json.loads((tmp_path / 'map.json').read_text())['holes']
    assert hole['file'] == str(damaged) and 'cannot be read' in hole['reason']
    assert hole['bounds'] == [400480, 4599520, 400640, 4599680]
    assert '1 blocks could not be read' in messages.text


def test_nothing_measured_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    write(tmp_path / 'data', np.zeros((40, 50), np.uint8))
    with pytest.raises(LandcoverError, match='it is all nodata; choose another bbox'):
        predict(tmp_path / 'data', tmp_path / 'out' / 'map.tif')
    assert [f.name for f in tmp_path.iterdir()] == ['data']


def test_one_thread_reads_local_files_that_the_processor_maps(root: Path) -> None:
    opened = data(root)
    opened.setup('predict')
    runs = opened.all_runs()
    assert opened.windows(runs).threads == max(processors() // 8, 1)
    assert opened.windows(runs, normalised=False).threads == processors()  # a graphics card waits for them
    opened.settings.num_workers = 3
    assert opened.windows(runs).threads == 3


@pytest.mark.parametrize(('size', 'rows'), [(512, 1024), (513, 1024), (514, 1536), (256, 1024)])
def test_all_blocks_that_a_row_of_windows_meets_are_kept(tmp_path: Path, size: int, rows: int) -> None:
    path = tmp_path / IMAGE_NAME
    shape = {'count': 10, 'height': 2048, 'width': 8000, 'dtype': 'uint16'}
    tiles = {'tiled': True, 'blockxsize': 512, 'blockysize': 512, 'sparse_ok': True}
    with rasterio.open(path, 'w', crs='EPSG:32631', transform=from_origin(4e5, 46e5, 10, 10), **shape, **tiles) as dst:
        dst.descriptions = BANDS
        dst.write(np.ones((10, 512, 512), np.uint16), window=((0, 512), (0, 512)))
    needed = rows * 8000 * 20
    assert needed <= block_cache_bytes(CataloniaSentinel2(tmp_path), size) <= 1.2 * needed


def test_the_batch_of_an_earlier_run_is_kept(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, messages: pytest.LogCaptureFixture
) -> None:
    """A machine with another number of cores goes on with what was finished."""
    monkeypatch.setattr(starting, 'cpu_batch', lambda: 1)
    with monkeypatch.context() as patched:
        stop_after(patched, 3, LandcoverError('the disk is full'))
        with pytest.raises(LandcoverError, match='the disk is full'):
            predict(root, tmp_path / 'map.tif')
    monkeypatch.setattr(starting, 'cpu_batch', lambda: 64)
    assert predict(root, tmp_path / 'map.tif').shapes == {(1, 1, 32, 32)}
    assert '3 of 5 strips are there from an earlier run' in messages.text
    assert np.array_equal(read(tmp_path / 'map.tif'), truth())


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """A mosaic with room for windows of three times the usual edge."""
    write(tmp_path / 'data', truth(130, 130))
    return tmp_path / 'data'


def test_long_maps_are_made_with_the_windows_that_are_fastest(
    wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, messages: pytest.LogCaptureFixture
) -> None:
    assert {shape[-1] for shape in predict(wide, tmp_path / 'short.tif').shapes} == {32}
    assert 'edge of windows' not in messages.text
    monkeypatch.setattr(starting, 'LONG', 0.0)
    (edge,) = {shape[-1] for shape in predict(wide, tmp_path / 'long.tif').shapes}
    assert f'edge of windows: {edge} px (32 px: ' in messages.text and 'agreement 1.0000' in messages.text
    assert edge in (32, 64, 96)
    assert np.array_equal(read(tmp_path / 'long.tif'), truth(130, 130))
    assert np.array_equal(read(tmp_path / 'short.tif'), truth(130, 130))


def test_windows_that_memory_has_no_room_for_are_not_tried(
    wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, messages: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(starting, 'LONG', 0.0)
    for free, tried in ((2.001e9, 0), (2e9 + processors() * 64**2 * 1024, 2), (20e9, 3), (0, 3)):
        messages.clear()
        monkeypatch.setattr(starting, 'free_memory', lambda free=free: int(free))
        predict(wide, tmp_path / 'map.tif', options={'overwrite': True})
        assert messages.text.count(' px: ') == tried, free
    assert np.array_equal(read(tmp_path / 'map.tif'), truth(130, 130))


def test_windows_of_an_earlier_run_are_kept(
    wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, messages: pytest.LogCaptureFixture
) -> None:
    """A probe that is noisy must not begin a map anew."""
    monkeypatch.setattr(starting, 'LONG', 0.0)
    monkeypatch.setattr(starting, 'tune_patch_size', lambda *_, **__: (64, {}))
    with monkeypatch.context() as patched:
        stop_after(patched, 2, LandcoverError('the disk is full'))
        with pytest.raises(LandcoverError, match='the disk is full'):
            predict(wide, tmp_path / 'map.tif')
    monkeypatch.setattr(starting, 'tune_patch_size', lambda *_, **__: (96, {}))
    assert {shape[-1] for shape in predict(wide, tmp_path / 'map.tif').shapes} == {64}
    assert 'strips are there from an earlier run' in messages.text
    assert np.array_equal(read(tmp_path / 'map.tif'), truth(130, 130))
    other = {'patch_size': 96, 'overwrite': True}
    found = predict(wide, tmp_path / 'map.tif', options=other)
    assert {shape[-1] for shape in found.shapes} == {96}


def test_a_network_that_breaks_down_is_told(root: Path, tmp_path: Path) -> None:
    class Broken(Oracle):
        def predict_step(self, batch: Any, batch_idx: int) -> Any:
            out = super().predict_step(batch, batch_idx)
            found = out['probabilities']()
            found[0, 3, 16, 16] = torch.nan
            return out | {'probabilities': found}

    with pytest.raises(LandcoverError, match='the network gave NaN'):
        predict(root, tmp_path / 'map.tif', Broken())


# Engines and refinement, as the settings say


def test_the_minimum_mapping_unit_is_that_of_the_whole_map(tmp_path: Path) -> None:
    codes = truth(90, 130)
    codes[np.random.default_rng(3).random(codes.shape) < 0.1] = 3
    write(tmp_path / 'data', codes)
    predict(tmp_path / 'data', tmp_path / 'map.tif', options={'mmu': 500.0, 'majority': 3})
    expected = MinimumMappingUnit(5)(MajoritySmoothing(3)(codes))
    assert (expected != codes).sum() > 100
    assert np.array_equal(read(tmp_path / 'map.tif'), expected)


@pytest.mark.parametrize('engine', ['openvino', 'onnxruntime', 'torch'])
def test_engines_give_the_map_of_the_reference(root: Path, tmp_path: Path, engine: str) -> None:
    options = {'engine': engine, 'tta': 'flips', 'batch_size': 3}
    if engine != 'torch':
        pytest.importorskip(engine)
    predict(root, tmp_path / 'map.tif', Soft(), options=options)
    predict(root, tmp_path / 'plain.tif', Soft(), options={'engine': 'torch'})
    assert (read(tmp_path / 'map.tif') == read(tmp_path / 'plain.tif')).mean() > 0.97  # the blur is symmetric
    report = json.loads((tmp_path / 'map.json').read_text())
    assert report['settings']['engine'] == engine and report['settings']['tta'] == 'flips'


def test_a_run_goes_on_with_the_engine_it_began_with(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, messages: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip('onnxruntime')
    with monkeypatch.context() as patched:
        stop_after(patched, 3, RuntimeError('stop'))
        with pytest.raises(RuntimeError, match='stop'):
            predict(root, tmp_path / 'map.tif', Soft(), options={'engine': 'onnxruntime'})
    predict(root, tmp_path / 'map.tif', Soft())
    assert 'the engine of the earlier run, onnxruntime, goes on' in messages.text
    assert '3 of 5 strips are there from an earlier run' in messages.text


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [
        ({'engine': 'jax'}, 'engine must be auto or one of torch, '),
        ({'temperature': 0.0}, r'temperature must be in \[0.05, 20\]'),
        ({'smooth': 4}, 'must be an odd number'),
        ({'mmu': -1.0}, 'mmu must be an area in square metres'),
        ({'ensemble': ['no.ckpt']}, r'checkpoint no\.ckpt does not exist'),
        ({'tta': 'spin'}, 'tta must be one of none, flips, dihedral'),
    ],
)
def test_settings_that_make_no_map(root: Path, tmp_path: Path, options: Any, sentence: str) -> None:
    with pytest.raises(LandcoverError, match=sentence):
        predict(root, tmp_path / 'map.tif', options=options)
    assert not (tmp_path / 'map.tif').exists()


# The report, and what Lightning is given


def test_the_report_tells_what_was_made_and_from_what(root: Path, tmp_path: Path) -> None:
    predict(root, tmp_path / 'map.tif')
    report = json.loads((tmp_path / 'map.json').read_text())
    counts = np.bincount(truth().ravel(), minlength=CLASSES)
    for entry in report['classes']:
        assert entry['pixels'] == counts[entry['code']] and entry['hectares'] == counts[entry['code']] / 100
        assert entry['name'] == LEGEND[entry['code']].name
    assert report['grid']['shape'] == [90, 130] and report['grid']['crs'] == 'EPSG:32631'
    assert report['settings']['engine'] == 'torch' and report['settings']['overlap'] == 8
    assert report['run']['pixels'] == 90 * 130 and report['run']['mpx_per_second'] > 0
    import hashlib

    digest = hashlib.sha256((tmp_path / 'map.tif').read_bytes()).hexdigest()
    assert report['files']['map.tif'] == {'sha256': digest, 'bytes': (tmp_path / 'map.tif').stat().st_size}


def test_reflected_windows_are_those_of_a_padded_mosaic(root: Path) -> None:
    images = data(root).open_images()
    padded = np.pad(truth(), 200, mode='symmetric')
    lattice_ = lattice.Lattice(64, 50, (90, 130))
    for window in lattice_.windows(images.grid.full):
        image, valid = prediction.read_reflected(images, window, 0)
        expected = padded[window.row + 200 : window.row_stop + 200, window.col + 200 : window.col_stop + 200]
        assert np.array_equal(image[0], expected) and valid.all()


@pytest.mark.parametrize('dtype', ['uint16', 'float32'])
def test_normalisation_while_reading_is_that_of_the_device(tmp_path: Path, dtype: str) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 9000, (2, 50, 60)).astype(dtype)
    image[:, :9] = 0
    write_raster(tmp_path / IMAGE_NAME, image, descriptions=['B04', 'B08'])
    settings: Any = {'mean': [0.1, 0.2], 'std': [0.05, 0.07], 'reflectance_scale': 10_000, 'reflectance_offset': -1000}
    there = data(tmp_path, **settings)
    there.setup('predict')
    here = data(tmp_path, **settings)
    here.setup('predict')
    device = SimpleNamespace(root_device=torch.device('cpu'))
    here.trainer = SimpleNamespace(strategy=device, predicting=True, global_rank=0, world_size=1)  # type: ignore[assignment]
    pairs = list(zip(there.predict_dataloader(), here.predict_dataloader(), strict=True))
    assert len(pairs) > 1
    for raw, done in pairs:
        expected, n = there._transform('eval')(raw), len(done['image'])  # the last one is filled up for devices only
        torch.testing.assert_close(done['image'], expected['image'][:n], atol=2e-6, rtol=1e-6)
        assert torch.equal(done['valid'], expected['valid'][:n]) and torch.equal(done['windows'], raw['windows'])
        assert here.on_after_batch_transfer(done, 0) is done


def test_ranks_share_the_windows(root: Path) -> None:
    seen = []
    for rank in range(3):
        dm: Any = data(root)
        dm.setup('predict')
        dm.trainer = SimpleNamespace(
            global_rank=rank, world_size=3, strategy=SimpleNamespace(root_device=torch.device('cpu'))
        )
        seen.append({tuple(w) for batch in dm.predict_dataloader() for w in batch['windows'][:, 1:3].tolist()})
    whole = data(root)
    whole.setup('predict')
    expected = [tuple(w) for batch in whole.predict_dataloader() for w in batch['windows'][:, 1:3].tolist()]
    assert set().union(*seen) == set(expected) and all(len(s) < len(expected) for s in seen)


def test_a_copy_of_the_data_goes_on_only_with_the_same_data(root: Path, tmp_path: Path) -> None:
    """Strips of a mosaic that has changed since are not gone on with."""
    dm = data(root)
    from landcover_plugin.mapping.plan import settings_of

    before = settings_of(dm)
    codes = truth()
    codes[0, 0] = codes[0, 0] % 12 + 1
    shutil.rmtree(root)
    write(root, codes)
    assert settings_of(data(root)) != before
