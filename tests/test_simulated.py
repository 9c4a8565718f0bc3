"""The simulated scene: named and georeferenced like CatLC, deterministic, and its image follows its label."""

import errno
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from landcover_plugin.commands.simulate import main
from landcover_plugin.datasets.simulated import Scene, write_scene
from landcover_plugin.datasets.simulated_spectra import BANDS, KINDS, materials, recipes
from landcover_plugin.errors import LandcoverError
from landcover_plugin.legend import LEGEND
from landcover_plugin.rasters.locking import locked

SHAPE = (80, 112)  # not square, not a multiple of any tile
NAMES = [
    'LC_2018_UTM_WGS84_31N_1m_12_Classes.tif',
    'S2_CAT_201804_UTM_WGS84_31N_10m.tif',
    'S2_CAT_201808_UTM_WGS84_31N_10m.tif',
]


def pixels(scene: Scene) -> list[NDArray]:
    arrays = []
    for path in scene.paths:
        with rasterio.open(path) as src:
            arrays.append(src.read())
    return arrays


def same(a: Scene, b: Scene) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(pixels(a), pixels(b), strict=True))


def shares(label: NDArray, cell: int) -> NDArray[np.float64]:
    """Share of every code in each 10 m pixel: (codes, rows, cols)."""
    rows, cols = label.shape[0] // cell, label.shape[1] // cell
    blocks = label.reshape(rows, cell, cols, cell)
    return np.stack([(blocks == code).mean(axis=(1, 3)) for code in range(LEGEND.num_classes)])


def ndvi(image: NDArray) -> NDArray[np.float64]:
    red, nir = (image[BANDS.index(band)].astype(float) for band in ('B04', 'B08'))
    return (nir - red) / np.maximum(nir + red, 1)


@pytest.fixture(scope='module')
def small(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return write_scene(tmp_path_factory.mktemp('small'), size=SHAPE, seed=3)


@pytest.fixture(scope='module')
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[NDArray, NDArray, NDArray]:
    """April, August (bands, rows, cols) and shares (codes, rows, cols) of a cloudless scene of 512 px."""
    scene = write_scene(tmp_path_factory.mktemp('large'), size=512, label_gsd=2, clouds=False)
    april, august, label = pixels(scene)
    return april, august, shares(label[0], 5)


def test_files_are_named_and_georeferenced_like_catlc(small: Scene) -> None:
    assert sorted(path.name for path in small.label.parent.iterdir()) == NAMES  # and no temporary is left
    for path in small.images:
        with rasterio.open(path) as src:
            assert (src.count, src.dtypes[0], src.nodata, src.crs.to_epsg()) == (10, 'uint16', 0, 32631)
            assert src.shape == SHAPE and src.descriptions == BANDS and src.block_shapes[0] == (256, 256)
            assert src.transform[:6] == (10, 0, 400000, 0, -10, 4600000)
    with rasterio.open(small.label) as src:
        assert (src.count, src.dtypes[0], src.nodata, src.crs.to_epsg()) == (1, 'uint8', 0, 32631)
        assert src.shape == (800, 1120) and src.block_shapes[0] == (512, 512)
        assert src.transform[:6] == (1, 0, 400000, 0, -1, 4600000)
        colours = src.colormap(1)
    assert {c: colours[c][:3] for c in LEGEND.codes} == {c: LEGEND.colormap[c][:3] for c in LEGEND.codes}


def test_same_seed_same_pixels_whatever_the_tile(small: Scene, tmp_path: Path) -> None:
    assert same(small, write_scene(tmp_path / 'whole', size=SHAPE, seed=3, tile=256))
    assert same(small, write_scene(tmp_path / 'tiles', size=SHAPE, seed=3, tile=37))


def test_another_seed_is_another_land(small: Scene, tmp_path: Path) -> None:
    other = write_scene(tmp_path, size=SHAPE, seed=4)
    assert (pixels(small)[2] != pixels(other)[2]).mean() > 0.2


def test_clouds_brighten_the_image_and_leave_the_label(small: Scene, tmp_path: Path) -> None:
    clear = pixels(write_scene(tmp_path, size=SHAPE, seed=3, clouds=False))
    cloudy = pixels(small)
    assert np.array_equal(clear[2], cloudy[2])
    for before, after in zip(clear[:2], cloudy[:2], strict=True):
        changed = (before != after).any(axis=0)
        assert 0 < changed.mean() < 0.5
        assert after[0].max() > 3000 > np.quantile(before[0], 0.99)


def test_origin_and_label_gsd_move_the_grid_only(small: Scene, tmp_path: Path) -> None:
    moved = write_scene(tmp_path, size=SHAPE, seed=3, label_gsd=10, origin=(300000, 4700010), seasons=['202108'])
    assert [path.name for path in moved.images] == ['S2_CAT_202108_UTM_WGS84_31N_10m.tif']
    with rasterio.open(moved.images[0]) as image, rasterio.open(moved.label) as label:
        assert image.transform == label.transform
        assert image.transform[:6] == (10, 0, 300000, 0, -10, 4700010)
        codes = label.read(1)
    fine = shares(pixels(small)[2][0], 10)
    assert (fine.argmax(axis=0) == codes).mean() > 0.9


@pytest.mark.parametrize('seed', [0, 1])
@pytest.mark.parametrize('size', [256, 512])
def test_every_class_occurs(tmp_path: Path, size: int, seed: int) -> None:
    label = pixels(write_scene(tmp_path, size=size, seed=seed, label_gsd=5, seasons=['201804']))[1]
    share = np.bincount(label.ravel(), minlength=LEGEND.num_classes) / label.size
    assert len(share) == LEGEND.num_classes and (share > 0.001).all()
    assert (share[[7, 8, 10]] > 0.0015).all() and (share[[7, 8, 10]] < 0.035).all()
    assert share[[1, 2, 3, 4]].sum() > 0.5


def test_reflectance_follows_the_share_of_water(large: tuple[NDArray, NDArray, NDArray]) -> None:
    """Mixing is linear: across the coast, SWIR falls with the share of water in the pixel."""
    april, _, share = large
    beach = (share[5] + share[12] == 1) & (share[12] > 0.1) & (share[12] < 0.9) & (april[0] > 0)
    swir = april[BANDS.index('B11')][beach]
    assert beach.sum() > 30
    assert np.corrcoef(share[12][beach], swir)[0, 1] < -0.5


def test_classes_look_like_themselves(large: tuple[NDArray, NDArray, NDArray]) -> None:
    april, august, share = large
    b11 = BANDS.index('B11')
    pure = {code: (share[code] == 1) & (april[0] > 0) & (august[0] > 0) for code in LEGEND.codes}
    assert np.quantile(april[b11][pure[12]], 0.75) < np.quantile(april[b11][pure[5]], 0.05)
    for image in (april, august):
        assert ndvi(image)[pure[3]].mean() > ndvi(image)[pure[6]].mean() + 0.25
        assert image[2][pure[10]].mean() > image[2][pure[3]].mean() * 3
    fall = {code: (ndvi(april) - ndvi(august))[pure[code]].mean() for code in (1, 3)}
    assert fall[1] > 0.1 > fall[3]


def test_nodata_borders_differ_a_little(large: tuple[NDArray, NDArray, NDArray]) -> None:
    april, august, share = large
    no_label, no_april, no_august = share[0] == 1, april[0] == 0, august[0] == 0
    assert no_label.sum() > no_april.sum() > no_august.sum() > 0
    assert not (no_april & ~no_label).any()  # the image reaches further out than the label
    assert ((april == 0).all(axis=0) == (april == 0).any(axis=0)).all()


def test_recipes_use_every_material_within_physical_bounds() -> None:
    for month in ('04', '08'):
        spectra = materials(month)
        assert spectra.shape[1] == len(BANDS) and spectra.min() > 0 and spectra.max() < 0.6
        assert recipes(month).shape[0] == len(KINDS) and recipes(month).max() < len(spectra)


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [
        ({'size': 0}, r'size must be .* at least 32 px, got 0; try size=512'),
        ({'size': (64, 8)}, r'size must be'),
        ({'size': (64, 64, 64)}, r'size must be'),
        ({'size': 64.5}, r'size must be'),
        ({'seed': -1}, r'seed must be a whole number from 0 up, got -1'),
        ({'seasons': ['201801']}, r'seasons must be .*April.*August.*201801'),
        ({'seasons': []}, r'seasons must be'),
        ({'seasons': '201804'}, r'seasons must be'),
        ({'label_gsd': 3}, r'label_gsd must be one of .* got 3; try 1'),
        ({'origin': (1, 2)}, r'origin must be two multiples of 10 m, got \(1, 2\)'),
        ({'tile': 1}, r'tile must be in \[16, 2048\] px, got 1'),
    ],
)
def test_refuses_what_it_cannot_draw(tmp_path: Path, options: dict, sentence: str) -> None:
    with pytest.raises(LandcoverError, match=sentence):
        write_scene(tmp_path / 'scene', **({'size': 64} | options))
    assert not (tmp_path / 'scene').exists()


def test_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr('landcover_plugin.datasets.simulated.Painter.paint', fail)
    with pytest.raises(LandcoverError, match=r'cannot be written \(No space left on device\).*free some space'):
        write_scene(tmp_path, size=64)
    assert list(tmp_path.iterdir()) == []


def test_a_path_below_a_file_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('')
    with pytest.raises(LandcoverError, match='choose a path whose parents are folders'):
        write_scene(tmp_path / 'file' / 'scene', size=64)


def test_what_a_killed_run_left_is_cleared_away(tmp_path: Path) -> None:
    command = [
        sys.executable,
        '-m',
        'landcover_plugin',
        'simulate',
        str(tmp_path),
        '--size',
        '1500',
        '--label-gsd',
        '10',
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob('.*.part.tif')) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left
    assert all(name.startswith('.') for name in left)
    write_scene(tmp_path, size=64, label_gsd=10)
    assert sorted(path.name for path in tmp_path.iterdir()) == NAMES


def test_two_runs_do_not_write_to_one_folder(tmp_path: Path) -> None:
    with (
        locked(tmp_path / '.simulate.lock', 'taken'),
        pytest.raises(LandcoverError, match='another landcover simulate is writing'),
    ):
        write_scene(tmp_path, size=64)


def test_command_prints_paths_and_protects_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = [str(tmp_path), '--size', '48x64', '--label-gsd', '5', '--no-clouds']
    assert main(args) == 0
    assert sorted(Path(line).name for line in capsys.readouterr().out.split()) == NAMES
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(LandcoverError, match=r'exists and would be lost.*--overwrite'):
        main([*args, '--seed', '1'])
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert main([*args, '--seed', '1', '--overwrite']) == 0
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} != before
    with rasterio.open(tmp_path / NAMES[1]) as src:
        assert src.shape == (48, 64)


def test_command_refuses_a_bad_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for size in ('big', '1x2x3', ''):
        with pytest.raises(SystemExit):
            main([str(tmp_path), '--size', size])
        assert 'expected N or HEIGHTxWIDTH' in capsys.readouterr().err
    with pytest.raises(LandcoverError, match='at least 32 px'):
        main([str(tmp_path), '--size', '8'])


def test_stays_light() -> None:
    """The library never imports torch; the command's --help not even numba or rasterio."""
    library = 'import sys, landcover_plugin.datasets.simulated; print("torch" in sys.modules)'
    command = (
        'import sys\nfrom landcover_plugin.commands.simulate import main\n'
        'try: main(["--help"])\nexcept SystemExit: pass\n'
        'print(any(name in sys.modules for name in ("torch", "numba", "rasterio", "numpy")))'
    )
    for code in (library, command):
        out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout
        assert out.splitlines()[-1] == 'False'
