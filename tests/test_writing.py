import logging
import os
import shutil
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from matplotlib.image import imread
from rasterio.crs import CRS

from landcover_plugin.errors import LandcoverError
from landcover_plugin.grid import PixelGrid, PixelWindow
from landcover_plugin.legend import LEGEND
from landcover_plugin.rasters import preview
from landcover_plugin.rasters.layers import output_paths
from landcover_plugin.rasters.outputs import check_output
from landcover_plugin.rasters.preview import write_preview
from landcover_plugin.rasters.writing import MapFolder
from landcover_plugin.sampling.lattice import cut_strips

GRID = PixelGrid(CRS.from_epsg(32631), Affine(10, 0, 400010, 0, -10, 4600030), 700, 1100)
TAGS = {'MODEL': 'unet', 'CHECKPOINT': 'à.ckpt'}


def arrays(grid=GRID, seed=0):
    """Codes, confidence and probabilities: noise with a border of no data."""
    rng = np.random.default_rng(seed)
    shape = grid.height, grid.width
    codes = rng.integers(1, 13, shape).astype(np.uint8)
    probabilities = rng.integers(0, 101, (12, *shape)).astype(np.uint8)
    confidence = probabilities.max(axis=0)
    codes[:40, :70] = 0
    confidence[:40, :70] = 255
    probabilities[:, :40, :70] = 255
    return codes, confidence, probabilities


def strips(grid=GRID, height=90, width=512):
    return cut_strips(grid.full, height=height, width=width)


def fill(folder, layers, which=None):
    """Write strips of whole arrays."""
    for strip in strips(folder.grid) if which is None else which:
        rows, cols = strip.slices_in(folder.grid.full)
        folder.strips.write(strip, {kind: layer[..., rows, cols] for kind, layer in layers.items()}, {})


def layers_of(grid, kinds, seed=0):
    c, q, p = arrays(grid, seed)
    every = {'classes': c[None], 'confidence': q[None], 'entropy': q[None], 'probabilities': p}
    return {kind: every[kind] for kind in ('classes', *kinds)}


def write(path, grid=GRID, *, kinds=(), seed=0, overwrite=False, plan=None):
    folder, layers = MapFolder(path, grid, kinds), layers_of(grid, kinds, seed)
    folder.check(overwrite=overwrite)
    folder.open(plan or {'seed': seed}, overwrite=overwrite)
    try:
        fill(folder, layers, [s for s in strips(grid) if folder.strips.finished(s) is None])
        folder.join(strips(grid), TAGS)
    except BaseException:
        folder.leave()
        raise
    folder.publish()
    return arrays(grid, seed)


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp('maps') / 'new' / 'folders'
    return folder, write(folder / 'map.tif', kinds=['confidence', 'probabilities'])


def test_files_hold_what_was_written_on_the_same_grid(written):
    folder, (codes, confidence, probabilities) = written
    names = {'map.tif', 'map.tif.aux.xml', 'map_confidence.tif', 'map_probabilities.tif'}
    assert {path.name for path in folder.iterdir()} == names
    assert [path.name for path in folder.parent.iterdir()] == ['folders']
    expected = {'map': codes[None], 'map_confidence': confidence[None], 'map_probabilities': probabilities}
    for stem, values in expected.items():
        with rasterio.open(folder / f'{stem}.tif') as src:
            assert (src.crs, src.transform, src.shape) == (GRID.crs, GRID.transform, (GRID.height, GRID.width))
            assert PixelGrid.of(src) == GRID
            assert set(src.dtypes) == {'uint8'} and src.nodata == (0 if stem == 'map' else 255)
            assert np.array_equal(src.read(), values)
            assert TAGS.items() <= src.tags().items()


def test_class_map_carries_colours_and_names(written):
    with rasterio.open(written[0] / 'map.tif') as src:
        colours = src.colormap(1)
        assert {code: colours[code] for code in LEGEND.colormap} == LEGEND.colormap
        assert src.descriptions == ('land cover',)
        assert src.tags()['CLASS_12'] == 'watercourses and water bodies'
        assert [src.tags()[f'CLASS_{code}'] for code in LEGEND.codes] == LEGEND.names[1:]


def test_companions_name_their_bands_and_unit(written):
    with rasterio.open(written[0] / 'map_probabilities.tif') as src:
        assert list(src.descriptions) == LEGEND.names[1:]
        assert set(src.units) == {'%'}
    with rasterio.open(written[0] / 'map_confidence.tif') as src:
        assert (src.descriptions, src.units) == (('confidence',), ('%',))


def test_gdal_reports_the_category_names(written, tmp_path):
    """Rasterio has no call for them, but a VRT made by GDAL repeats what GDAL knows."""
    rasterio.shutil.copy(written[0] / 'map.tif', tmp_path / 'a.vrt', driver='VRT')
    names = ''.join(f'<Category>{name}</Category>' for name in LEGEND.names)
    assert names in ''.join(line.strip() for line in (tmp_path / 'a.vrt').read_text().splitlines())


@pytest.mark.skipif(rasterio.__gdal_version__ < '3.12', reason='GDAL keeps attribute tables in TIFFs since 3.12')
def test_attribute_table_is_inside_the_tiff(written, tmp_path):
    alone = shutil.copy(written[0] / 'map.tif', tmp_path / 'alone.tif')
    rasterio.shutil.copy(alone, tmp_path / 'a.png', driver='PNG')  # PNG has a sidecar, where GDAL tells what it read
    table = (tmp_path / 'a.png.aux.xml').read_text()
    assert '<GDALRasterAttributeTable tableType="thematic">' in table
    forest = '<F>3</F><F>forest</F><F>13</F><F>82</F><F>15</F>'
    assert forest in ''.join(line.strip() for line in table.splitlines())


def test_names_survive_hidden_sidecars(tmp_path):
    """The torchgeo command line sets EMPTY_DIR, which hides sidecars."""
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN='EMPTY_DIR'):
        write(tmp_path / 'map.tif')
    assert b'GDALRasterAttributeTable' in (tmp_path / 'map.tif').read_bytes() or rasterio.__gdal_version__ < '3.12'
    assert 'watercourses' in (tmp_path / 'map.tif.aux.xml').read_text()


def test_layout_is_that_of_a_cog(written):
    """All directories before all data, the data of overviews before those of the full resolution, 512 px tiles."""
    for path in written[0].glob('*.tif'):
        with rasterio.open(path) as src, rasterio.open(path, OVERVIEW_LEVEL=0) as overview:
            structure = src.tags(ns='IMAGE_STRUCTURE')
            assert (structure['LAYOUT'], structure['COMPRESSION']) == ('COG', 'DEFLATE')
            assert ('PREDICTOR' in structure) == (path.name != 'map.tif')
            assert set(src.block_shapes) == {(512, 512)} and src.overviews(1) == [2, 4]
            directory = max(int(src.get_tag_item('IFD_OFFSET', 'TIFF', bidx=1, ovr=o)) for o in (0, 1))
            first = int(src.get_tag_item('BLOCK_OFFSET_0_0', 'TIFF', bidx=1))
            first_small = int(overview.get_tag_item('BLOCK_OFFSET_0_0', 'TIFF', bidx=1))
            assert int(src.get_tag_item('IFD_OFFSET', 'TIFF', bidx=1)) < directory < first_small < first
        assert b'LAYOUT=IFDS_BEFORE_DATA' in path.read_bytes()[:400]
        assert b'KNOWN_INCOMPATIBLE_EDITION=YES' not in path.read_bytes()[:400]


def test_overviews_of_classes_are_majorities_and_of_percent_averages(tmp_path):
    """In each 2 x 2 block nearest (upper left), mode and mean differ; no data counts in none."""
    grid = PixelGrid(GRID.crs, GRID.transform, 600, 1040)
    block = np.array([[2, 7], [7, 7]], np.uint8)
    codes = np.tile(block, (300, 520))
    percent = np.tile(np.array([[10, 50], [60, 80]], np.uint8), (300, 520))
    codes[::2, 520:], percent[::2, 520:] = 0, 255  # right half: the lower row of each block has data
    folder = MapFolder(tmp_path / 'a.tif', grid, ['confidence', 'probabilities'])
    folder.open({}, overwrite=False)
    every = {'classes': codes[None], 'confidence': percent[None], 'probabilities': np.stack([percent] * 12)}
    fill(folder, every)
    folder.join(strips(grid), {})
    folder.publish()
    with rasterio.open(tmp_path / 'a.tif', OVERVIEW_LEVEL=0) as src:
        assert src.shape == (300, 520) and (src.read(1) == 7).all()
    for kind in ('confidence', 'probabilities'):
        with rasterio.open(tmp_path / f'a_{kind}.tif', OVERVIEW_LEVEL=0) as src:
            assert (src.read()[..., :260] == 50).all() and (src.read()[..., 260:] == 70).all()


def test_any_order_of_strips_missing_ones_and_tiny_maps(tmp_path):
    grid = PixelGrid(GRID.crs, GRID.transform, 7, 3)
    codes = np.arange(21, dtype=np.uint8).reshape(1, 7, 3) % 12 + 1
    folder = MapFolder(tmp_path / 'a.tif', grid)
    folder.open({}, overwrite=False)
    parts = [PixelWindow(row, 0, min(2, 7 - row), 3) for row in range(0, 7, 2)]
    folder.strips.write(parts[3], {'classes': codes[:, 6:]}, {})
    folder.strips.write(parts[0], {'classes': codes[:, :2, ::-1]}, {})
    folder.strips.write(parts[0], {'classes': codes[:, :2]}, {})  # again: the last word counts
    folder.strips.write(parts[1], {}, {'why': 'sea'})  # nothing but no data
    assert folder.strips.finished(parts[1])['why'] == 'sea' and folder.strips.finished(parts[2]) is None
    folder.join(parts, {})
    folder.publish()
    codes[:, 2:6] = 0
    with rasterio.open(tmp_path / 'a.tif') as src:
        assert np.array_equal(src.read(), codes) and src.tags(ns='IMAGE_STRUCTURE')['LAYOUT'] == 'COG'


def test_overwriting_replaces_map_and_stale_sidecars(tmp_path, caplog):
    write(tmp_path / 'map.tif', kinds=['confidence', 'probabilities'])
    stale = tmp_path / 'map_confidence.tif.aux.xml'
    stale.write_text('<PAMDataset/>')
    with pytest.raises(LandcoverError, match=r'map_probabilities\.tif exists already: choose another name'):
        write(tmp_path / 'map.tif', kinds=['confidence', 'probabilities'])
    with caplog.at_level(logging.WARNING):
        codes, *_ = write(tmp_path / 'map.tif', kinds=['confidence'], seed=1, overwrite=True)
    assert 'map_probabilities.tif is from an earlier run' in caplog.text and 'map_conf' not in caplog.text
    assert not stale.exists()
    with rasterio.open(tmp_path / 'map.tif') as src:
        assert np.array_equal(src.read(1), codes)


@pytest.fixture
def older(tmp_path):
    """A folder with an older map in it, and how to see that nothing changed there."""
    (tmp_path / 'map[1].tif').write_bytes(b'older')
    (tmp_path / 'map[1].tif.aux.xml').write_bytes(b'older')

    def unchanged():
        files = sorted(f for f in tmp_path.iterdir() if f.is_file())
        return [f.name for f in files] == ['map[1].tif', 'map[1].tif.aux.xml'] and all(
            f.read_bytes() == b'older' for f in files
        )

    return tmp_path / 'map[1].tif', unchanged


def test_a_run_that_finished_no_strip_leaves_nothing(older, tmp_path):
    for path in (older[0], tmp_path / 'new' / 'folder' / 'a.tif'):
        folder = MapFolder(path, GRID)
        folder.open({}, overwrite=True)
        assert folder.leave() == 0
    assert older[1]() and len(list(tmp_path.iterdir())) == 2


def test_a_result_that_differs_is_an_error(older, monkeypatch):
    path, unchanged = older
    copy = rasterio.shutil.copy

    def lose_a_pixel(src, dst, **options):
        one = MapFolder(path, GRID).strips.path(strips()[6], 'classes')
        with rasterio.open(one, 'r+') as draft:
            draft.write(draft.read(1, window=((50, 51), (7, 8))) % 12 + 1, 1, window=((50, 51), (7, 8)))
        copy(src, dst, **options)

    monkeypatch.setattr(rasterio.shutil, 'copy', lose_a_pixel)
    with pytest.raises(LandcoverError, match=r'rows 540 to 630 did not reach the disk.*free some space'):
        write(path, overwrite=True)
    assert unchanged()
    monkeypatch.undo()
    codes, *_ = write(path, overwrite=True)  # notices the damaged strip and writes it again
    with rasterio.open(path) as src:
        assert np.array_equal(src.read(1), codes)


@pytest.mark.parametrize('damage', ['cut', 'other', 'gone', 'note'])
def test_a_damaged_strip_is_not_finished(tmp_path, damage):
    folder = MapFolder(tmp_path / 'a.tif', GRID, ['confidence'])
    folder.open({}, overwrite=False)
    fill(folder, layers_of(GRID, ['confidence']))
    one = strips()[3]
    path = folder.strips.path(one, 'confidence')
    if damage == 'cut':
        path.write_bytes(path.read_bytes()[:-900])
    elif damage == 'other':
        shutil.copy(folder.strips.path(strips()[4], 'confidence'), path)
    elif damage == 'gone':
        path.unlink()
    else:
        (note,) = path.parent.glob(f'{path.stem.rsplit("-", 1)[0]}.json')
        note.write_text(note.read_text()[:-3])
    assert [s for s in strips() if folder.strips.finished(s) is None] == [one]


@pytest.mark.parametrize(
    ('layers', 'message'),
    [
        ({'classes': np.zeros((1, 90, 511), np.uint8)}, r'uint8 of shape \(1, 90, 512\), got uint8 \(1, 90, 511\)'),
        ({'classes': np.zeros((1, 90, 512), np.int64)}, 'got int64'),
        ({'classes': np.zeros((1, 90, 512), 'u1'), 'confidence': np.zeros((1, 90, 512), 'u1')}, 'consists of'),
    ],
)
def test_strips_that_do_not_fit_are_named(tmp_path, layers, message):
    folder = MapFolder(tmp_path / 'a.tif', GRID)
    folder.open({}, overwrite=False)
    with pytest.raises(ValueError, match=message):
        folder.strips.write(strips()[0], layers, {})
    assert folder.leave() == 0 and not any(tmp_path.iterdir())


def test_another_plan_throws_away_what_was_finished(tmp_path, caplog):
    def begin(plan):
        folder = MapFolder(tmp_path / 'a.tif', GRID)
        folder.open(plan, overwrite=False)
        return folder

    first = begin({'overlap': 64, 'engine': 'a', 'same': [1, (2, 3)]})
    fill(first, layers_of(GRID, ()))
    assert first.leave() == len(strips())
    again = begin({'overlap': 64, 'engine': 'a', 'same': [1, (2, 3)]})
    assert again.strips.count() == len(strips()) and not caplog.text
    with pytest.raises(LandcoverError, match=r'another landcover predict is writing .*a\.tif: wait for it, or stop it'):
        begin({})
    again.leave()
    with caplog.at_level(logging.WARNING):
        other = begin({'overlap': 32, 'engine': 'b', 'same': [1, (2, 3)]})
    assert other.strips.count() == 0 and 'since this one differs in engine, overlap' in caplog.text


KILLED = """
    import os, pathlib, signal, sys
    import rasterio.shutil
    from tests.test_writing import write
    from landcover_plugin.rasters import strips, writing

    def die(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    moment, path = sys.argv[1:]
    if moment == 'strip':
        whole = strips.StripFolder.write
        strips.StripFolder.write = lambda self, strip, *a: die() if strip.row > 300 else whole(self, strip, *a)
    elif moment == 'note':
        small = strips.write_small
        strips.write_small = lambda path, *a: die() if '000512-000360' in path.name else small(path, *a)
    elif moment == 'cog':
        writing.MapFolder._verify = die
    elif moment == 'publish':
        writing.write_small = die
    else:  # between two renames
        replace = pathlib.Path.replace
        pathlib.Path.replace = lambda self, to: die() if self.name == moment else replace(self, to)
    write(path, kinds=['confidence'], overwrite=True)
"""


@pytest.mark.parametrize('moment', ['strip', 'note', 'cog', 'publish', 'map[1]_confidence.tif', 'map[1].tif'])
def test_a_killed_writer_is_gone_on_with(older, moment, tmp_path):
    path, unchanged = older
    root = os.path.dirname(os.path.dirname(__file__))
    done = subprocess.run(
        [sys.executable, '-c', textwrap.dedent(KILLED), moment, path], cwd=root, capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert path.read_bytes() == b'older'
    if moment != 'map[1].tif':
        assert unchanged() or moment.endswith('_confidence.tif')
    assert (path.parent / '.map[1].part' / 'plan.json').is_file()
    folder = MapFolder(path, GRID, ['confidence'])
    folder.check(overwrite=False) if moment.endswith('.tif') else folder.check(overwrite=True)
    finished = folder.open({'seed': 0}, overwrite=False)
    assert finished == moment.endswith('.tif')
    if not finished:
        assert folder.strips.count() >= 4
        folder.leave()
        write(path, kinds=['confidence'], overwrite=True)
    assert {f.name for f in path.parent.iterdir()} == {'map[1].tif', 'map[1].tif.aux.xml', 'map[1]_confidence.tif'}
    write(tmp_path / 'whole' / 'map[1].tif', kinds=['confidence'])
    for file in (tmp_path / 'whole').iterdir():
        assert file.read_bytes() == (path.parent / file.name).read_bytes()


@pytest.fixture
def small_disk(tmp_path):
    """A disk of its own whose size can be set in kB."""
    folder = tmp_path / 'disk'
    folder.mkdir()

    def mount(*options):
        command = ['mount', '-t', 'tmpfs', '-o', ','.join(options), 'tmpfs', folder]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    if not (sys.platform == 'linux' and shutil.which('mount') and mount('size=64k')):
        pytest.skip('mounting is not possible here')
    try:
        yield folder, lambda kilobytes: mount('remount', f'size={kilobytes}k')
    finally:
        subprocess.run(['umount', folder], check=True)


def test_a_full_disk_at_any_moment(small_disk, tmp_path):
    """Whether strips, notes, overviews, conversion or sidecar hit the limit: a sentence, the older map whole, and the
    next run goes on."""
    folder, resize = small_disk
    path = folder / 'map.tif'
    path.write_bytes(b'older')
    write(tmp_path / 'whole' / 'map.tif', kinds=['confidence'])
    full = 0
    for kilobytes in [16, 64, *range(100, 6000, 250)]:
        assert resize(kilobytes)
        try:
            write(path, kinds=['confidence'], overwrite=True)
        except LandcoverError as error:
            message = str(error)
            assert str(folder) in message and 'free some space or choose a folder on another disk' in message
            assert [f.name for f in folder.iterdir() if f.name != '.map.part'] == ['map.tif']
            assert path.read_bytes() == b'older'
            full += 1
        else:
            break
    assert full > 5
    assert {f.name for f in folder.iterdir()} == {'map.tif', 'map.tif.aux.xml', 'map_confidence.tif'}
    for file in folder.iterdir():  # overviews included
        assert file.read_bytes() == (tmp_path / 'whole' / file.name).read_bytes()


def test_a_full_disk_while_opening(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(rasterio, 'open', full)
    with pytest.raises(LandcoverError, match=r'No space left on device.*free some space'):
        write(tmp_path / 'map.tif')
    assert not any(tmp_path.iterdir())


def test_check_output_leaves_no_trace(tmp_path):
    assert check_output(tmp_path / 'a' / 'b' / 'map.tif') == tmp_path / 'a' / 'b' / 'map.tif'
    assert not any(tmp_path.iterdir())


def test_check_output_names_what_is_wrong(tmp_path):
    file = tmp_path / 'file.tif'
    file.write_bytes(b'x')
    assert check_output(file, overwrite=True) == file
    with pytest.raises(LandcoverError, match='exists already: choose another name, or allow replacing'):
        check_output(file)
    with pytest.raises(LandcoverError, match='is a folder: name a file in it'):
        check_output(tmp_path, overwrite=True)
    with pytest.raises(LandcoverError, match='choose a path whose parents are folders'):
        check_output(file / 'map.tif')
    with pytest.raises(LandcoverError, match='write to a local file and upload it afterwards'):
        check_output('gs://bucket/map.tif')
    with pytest.raises(LandcoverError, match='choose a shorter name'):
        check_output(tmp_path / f'{"a" * 251}.tif')
    assert file.read_bytes() == b'x' and [f.name for f in tmp_path.iterdir()] == ['file.tif']


@pytest.mark.skipif(not os.path.isdir('/proc/self'), reason='needs a folder in which not even root may write')
def test_check_output_in_a_read_only_folder():
    with pytest.raises(LandcoverError, match='choose a folder in which you may write'):
        check_output('/proc/map.tif')


def test_check_output_of_a_protected_file(tmp_path, monkeypatch):
    (tmp_path / 'a.tif').touch()
    monkeypatch.setattr(os, 'access', lambda *_: False)  # root may write everything
    with pytest.raises(LandcoverError, match='is write-protected'):
        check_output(tmp_path / 'a.tif', overwrite=True)


def test_output_paths_put_the_map_last():
    paths = output_paths('x/map.TIF', ['confidence', 'entropy', 'probabilities'])
    assert list(paths) == ['probabilities', 'entropy', 'confidence', 'classes']
    with pytest.raises(LandcoverError, match=r"ends in \.tif, got 'map\.png'"):
        output_paths('map.png')


def test_preview_draws_the_map_and_its_legend(tmp_path):
    grid = PixelGrid(GRID.crs, GRID.transform, 300, 500)
    codes = np.zeros((300, 500), np.uint8)
    codes[:, 100:400], codes[:200, 400:] = 3, 12
    codes[::3, 100:400] = 1  # a third: nearest could take it, the majority is forest
    folder = MapFolder(tmp_path / 'map.tif', grid)
    folder.open({}, overwrite=False)
    fill(folder, {'classes': codes[None]})
    folder.join(strips(grid), {})
    folder.publish()
    path = write_preview(tmp_path / 'new' / 'map.png', tmp_path / 'map.tif', max_size=125)
    picture = (imread(path)[..., :3] * 255).round().astype(int)
    at = 25 + 40  # inches at 100 dpi: margin and title
    drawn = picture[at + 3 : at + 73, 25 + 3 : 25 + 122]
    assert (drawn[:, 26:70] == LEGEND.palette[3]).all()
    assert (drawn[:40, 104:] == LEGEND.palette[12]).all() and (drawn[60:, 104:] == 255).all()
    panel = picture[:, 25 + 125 + 25 :].reshape(-1, 3)
    assert {tuple(LEGEND.palette[c]) for c in (1, 3, 12)} <= {tuple(p) for p in panel}
    assert not {tuple(LEGEND.palette[c]) for c in (2, 4, 6)} & {tuple(p) for p in panel}
    assert [f.name for f in path.parent.iterdir()] == ['map.png']


def test_preview_counts_all_pixels(tmp_path, monkeypatch):
    shown = {}
    draw = preview._draw_preview
    monkeypatch.setattr(
        preview, '_draw_preview', lambda codes, counts, *rest: shown.update(n=counts) or draw(codes, counts, *rest)
    )
    codes, *_ = write(tmp_path / 'map.tif')
    write_preview(tmp_path / 'map.png', tmp_path / 'map.tif', LEGEND, max_size=200)
    assert np.array_equal(shown['n'], np.bincount(codes.ravel(), minlength=13))
    with pytest.raises(LandcoverError, match='exists already'):
        write_preview(tmp_path / 'map.png', tmp_path / 'map.tif')


def test_preview_refuses_what_is_no_map(tmp_path):
    def raster(name, values):
        profile = {'height': values.shape[0], 'width': values.shape[1], 'count': 1, 'dtype': values.dtype.name}
        path = tmp_path / name
        with rasterio.open(path, 'w', crs=GRID.crs, transform=GRID.transform, **profile) as dst:
            dst.write(values, 1)
        return path

    for values, message in (
        (np.zeros((4, 5), np.float32), 'its pixels are float32'),
        (np.zeros((4, 5), np.uint8), 'holds no data at all'),
        (np.full((4, 5), 41, np.uint8), 'codes end at 12, got 41'),
    ):
        with pytest.raises(LandcoverError, match=message):
            write_preview(tmp_path / 'a.png', raster('a.tif', values), overwrite=True)
    with pytest.raises(LandcoverError, match=r'a preview is a \.png'):
        write_preview(tmp_path / 'a.jpg', tmp_path / 'a.tif')
    assert not list(tmp_path.glob('*.png')) and not list(tmp_path.glob('.*'))


def test_importing_the_writer_imports_neither_torch_nor_matplotlib():
    code = (
        'import sys, landcover_plugin.rasters.writing, landcover_plugin.mapping.mosaic;'
        "sys.exit(bool({'torch', 'matplotlib', 'torchgeo'} & set(sys.modules)))"
    )
    root = os.path.dirname(os.path.dirname(__file__))
    assert subprocess.run([sys.executable, '-c', code], cwd=root, check=False).returncode == 0
