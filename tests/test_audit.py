"""landcover audit: which labels it suspects, who judges them, what it writes, and what it says of bad input."""

import json
import shutil
import sqlite3
import subprocess
import sys
import xml.etree.ElementTree as ET
from contextlib import closing
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
import torch
from affine import Affine
from conftest import analytic_image, repeated, write_image, write_label, write_raster
from numpy.typing import NDArray
from PIL import Image
from rasterio.crs import CRS
from scipy import ndimage

from landcover_plugin import cli
from landcover_plugin.datasets.simulated import Scene
from landcover_plugin.errors import LandcoverError
from landcover_plugin.evaluation.audit_tables import as_text, document
from landcover_plugin.evaluation.confident import ConfidentJoint, NoiseModel, Thresholds, suspicion
from landcover_plugin.evaluation.cross_fitted import CrossFitted, FoldMap
from landcover_plugin.evaluation.suspect_file import COLUMNS, verdicts, write_suspects
from landcover_plugin.evaluation.suspect_rasters import SuspectRasters, assess, codes_of, pair_of
from landcover_plugin.evaluation.suspects import Suspect, rank, score_of
from landcover_plugin.evaluation.thumbnails import Thumbnails, window_around
from landcover_plugin.grid import PixelGrid, PixelWindow
from landcover_plugin.legend import LEGEND
from landcover_plugin.rasters.landcover import LabelRasters
from landcover_plugin.sampling.blocks import SPLITS, Split
from landcover_plugin.sampling.cross_fitting import cross_fit, held_out
from landcover_plugin.sampling.inventory import Inventory
from landcover_plugin.sampling.polygons import polygon_split, write_split

GRID = PixelGrid(CRS.from_epsg(32631), Affine(10, 0, 400000, 0, -10, 4600000), 60, 90)


# Confident learning


def pixels(seed: int, n: int = 4000, classes: int = 5) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Labels, some of them wrong, and percents of a model that is right more often than not."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(classes, size=n, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
    logits = rng.normal(size=(classes, n)) + 3 * (np.arange(classes)[:, None] == truth)
    p = np.exp(logits) / np.exp(logits).sum(0)
    labels = np.where(rng.random(n) < 0.1, rng.integers(classes, size=n), truth)
    return (labels + 1).astype(np.uint8), np.rint(100 * p).astype(np.uint8)


def by_the_paper(labels: NDArray[np.uint8], percents: NDArray[np.uint8]) -> tuple[Any, Any, Any, Any]:
    """Equations 1 to 3 of Northcutt et al. (2021), pixel by pixel: thresholds, counts, joint, margins of suspects."""
    classes, n = percents.shape
    p = percents.T.astype(float)
    thresholds = [np.mean([p[x, j] for x in range(n) if labels[x] == j + 1]) for j in range(classes)]
    counts, margins = np.zeros((classes, classes)), np.zeros(n)
    for x in range(n):
        reached = [j for j in range(classes) if p[x, j] >= thresholds[j] - 1e-6]
        if reached:
            j = max(reached, key=lambda j: p[x, j])
            i = labels[x] - 1
            counts[i, j] += 1
            if i != j and p[x, j] > p[x, i]:
                margins[x] = p[x, j] - p[x, i]
    joint = counts.copy()
    for i in range(classes):
        joint[i] *= (labels == i + 1).sum() / counts[i].sum()
    return thresholds, counts, joint / joint.sum(), margins


@pytest.mark.parametrize('seed', [0, 1])
def test_the_joint_is_that_of_the_paper(seed: int) -> None:
    labels, percents = pixels(seed)
    thresholds = Thresholds(len(percents))
    for part in np.array_split(np.arange(labels.size), 3):  # in pieces, as it is used
        thresholds.add(labels[part], percents[:, part])
    joint, found = ConfidentJoint(thresholds), suspicion(labels, percents, thresholds.percents)
    for part in np.array_split(np.arange(labels.size), 3):
        joint.add(labels[part], found.confident[part])
    noise = joint.finish()
    expected, counts, shares, margins = by_the_paper(labels, percents)
    np.testing.assert_allclose(noise.thresholds, expected)
    np.testing.assert_array_equal(noise.confident, counts)
    np.testing.assert_allclose(noise.joint, shares)
    np.testing.assert_array_equal(found.margin, margins)
    assert 0.03 < 1 - np.trace(noise.joint) < 0.2  # 8 % of the labels are wrong


def test_classes_without_pixels_are_never_confident_and_count_as_right() -> None:
    labels, percents = np.uint8([1, 1]), np.uint8([[90, 20], [5, 10], [5, 70]])
    thresholds = Thresholds(3)
    thresholds.add(labels, percents)
    found = suspicion(labels, percents, thresholds.percents)
    assert found.confident.tolist() == [1, 0] and not found.margin.any()
    joint = ConfidentJoint(thresholds)
    joint.add(labels, found.confident)
    noise = joint.finish()
    assert noise.joint.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert noise.wrong.tolist() == noise.missed.tolist() == [0, 0, 0] and np.isinf(noise.thresholds[1:]).all()


# Folds: nobody judges what it saw


def inventory(shape: tuple[int, int] = (300, 210), cell: int = 8, seed: int = 0) -> Inventory:
    """Three classes in patches, and a corner without labels."""
    rng = np.random.default_rng(seed)
    grid = PixelGrid(GRID.crs, GRID.transform, *shape)
    rows, cols = (-(-n // cell) for n in shape)
    counts = np.zeros((rows, cols, LEGEND.num_classes), dtype=np.uint32)
    sizes = np.outer(*(np.minimum(cell, n - np.arange(0, n, cell)) for n in shape))
    codes = ndimage.zoom(rng.integers(1, 4, size=(rows // 4, cols // 4)), 4, order=0)
    codes = np.pad(codes, [(0, rows - codes.shape[0]), (0, cols - codes.shape[1])], mode='edge')
    for code in (1, 2, 3):
        counts[..., code] = np.where(codes == code, sizes, 0)
    counts[:6, :5, 1:] = 0
    return Inventory(grid, cell, counts, sizes[None].astype(np.uint32))


def by_pixel(split: Split) -> NDArray[np.uint8]:
    """Number of the split of each pixel."""
    return repeated(split.cells, split.cell)[: split.grid.height, : split.grid.width]


@pytest.mark.parametrize(
    ('folds', 'patch_size', 'block_size'), [(2, 16, None), (3, 16, 48), (4, 24, None), (3, 32, 70)]
)
def test_no_window_holds_what_is_judged_and_what_was_seen(folds: int, patch_size: int, block_size: int | None) -> None:
    ground = inventory()
    splits = cross_fit(ground, folds=folds, patch_size=patch_size, block_size=block_size)
    assert len(splits) == folds
    for split in splits:
        pixel = by_pixel(split)
        judged, seen = pixel == SPLITS['test'], (pixel == SPLITS['train']) | (pixel == SPLITS['val'])
        reach = np.ones((2 * patch_size - 1,) * 2, dtype=bool)  # of all windows that hold a pixel
        assert not (ndimage.binary_dilation(judged, reach) & seen).any()
        assert not (ndimage.binary_dilation(pixel == SPLITS['val'], reach) & (pixel == SPLITS['train'])).any()
        np.testing.assert_array_equal(held_out(split, patch_size), split.region('test'))
        assert split.region('train').any() and split.region('val').any()
    times = sum(split.region('test').astype(int) for split in splits)
    assert (times[ground.labelled > 0] == 1).all() and times.max() == 1


def test_ground_within_a_patch_of_training_is_not_judged() -> None:
    cells = np.zeros((6, 8), dtype=np.uint8)
    cells[:, 0], cells[:, 2:], cells[5, 7] = SPLITS['train'], SPLITS['test'], SPLITS['val']
    split = Split(PixelGrid(GRID.crs, GRID.transform, 48, 64), 8, cells, np.zeros((6, 8), dtype=np.int32))
    found = held_out(split, 16)
    assert not found[:, :3].any() and found[:3, 3:].all() and not found[3:, 5:].any()


def test_blocks_on_disk_are_the_fold(tmp_path: Path) -> None:
    ground = inventory()
    for split in cross_fit(ground, folds=3, patch_size=16):
        write_split(tmp_path / 'blocks.gpkg', split, ground)
        np.testing.assert_array_equal(polygon_split(ground, tmp_path / 'blocks.gpkg', patch_size=16).cells, split.cells)
        (tmp_path / 'blocks.gpkg').unlink()


def test_folds_that_cannot_be() -> None:
    with pytest.raises(LandcoverError, match='folds must be at least 2, so that others train for each, got 1'):
        cross_fit(inventory(), folds=1, patch_size=16)
    with pytest.raises(LandcoverError, match=r'holds 6 blocks of 96 px, but 7 are needed for 7 folds: choose fewer'):
        cross_fit(inventory(), folds=7, patch_size=16, block_size=96)
    with pytest.raises(LandcoverError, match=r'fold \d leaves no \w+ ground a patch of 64 px away'):
        cross_fit(inventory(), folds=2, patch_size=64, block_size=72)


# What is judged


def fold_map(
    path: Path, percents: NDArray[np.uint8], cells: NDArray[np.bool_], window: PixelWindow, **knows: Any
) -> Any:
    """A network's probabilities on a part of the grid."""
    write_raster(path, percents, origin=GRID.subgrid(window).origin, nodata=255)
    learned = np.ones(LEGEND.num_classes, dtype=bool)
    learned[list(knows.get('unlearned', ()))] = False
    return FoldMap(path, GRID, 10, cells, learned)


def percents_of(codes: NDArray[np.uint8], percent: int) -> NDArray[np.uint8]:
    """So many percent for the codes, the rest for the class after it."""
    found = np.zeros((12, *codes.shape), dtype=np.uint8)
    np.put_along_axis(found, codes[None].astype(int) - 1, percent, axis=0)
    np.put_along_axis(found, codes[None].astype(int) % 12, 100 - percent, axis=0)
    return found


def test_each_pixel_is_judged_by_the_first_network_that_may(tmp_path: Path) -> None:
    fine = np.full((600, 900), 3, dtype=np.uint8)
    fine[:100, :], fine[100:105, :], fine[200:300, :100] = 4, 5, 0  # row 10 is half and half
    labels = LabelRasters(write_label(tmp_path / 'labels', fine))
    left, right = np.zeros((6, 9), dtype=bool), np.zeros((6, 9), dtype=bool)
    left[:, :5], right[:, 4:8] = True, True
    codes = np.full((60, 90), 3, dtype=np.uint8)
    first = percents_of(codes, 90)
    first[:, 59] = 255  # not measured there
    folds = [
        fold_map(tmp_path / 'a.tif', first, left, GRID.full, unlearned=[4]),
        fold_map(tmp_path / 'b.tif', percents_of(codes, 60)[:, :, 30:], right, PixelWindow(0, 30, 60, 60)),
    ]
    found = CrossFitted(GRID, labels, folds, purity=75).read(GRID.full)
    judged = found.labels > 0
    assert not judged[:10, :50].any() and judged[:10, 50:80].all()  # class 4 is unlearned by the first
    assert not judged[10].any() and not judged[20:30, :10].any()  # mixed; no label
    assert not judged[59, :40].any() and judged[59, 50:80].all() and not judged[:, 80:].any()  # unmeasured; beyond
    assert (found.percents[2][:59, :50][judged[:59, :50]] == 90).all()  # where both may, the first
    assert (found.percents[2][:, 50:][judged[:, 50:]] == 60).all()
    assert found.pixels['mixed'] == 90 and found.pixels['unlearned'] == 500
    assert sum(found.pixels.values()) == 60 * 90 - 100


@pytest.fixture
def suspects(tmp_path: Path) -> tuple[SuspectRasters, Any]:
    """Two wrong places in a forest: 6 x 5 px of water, 2 x 4 px of urban area, and single pixels."""
    truth = np.full((60, 90), 3, dtype=np.uint8)
    truth[:, 60:] = 12
    truth[10:16, 20:25], truth[40:42, 70:74], truth[30, 5] = 12, 6, 12
    label = np.full_like(truth, 3)
    label[:, 60:] = 12
    percents = percents_of(truth, 90)
    percents[:, 40:42, 70:74] = percents_of(truth, 60)[:, 40:42, 70:74]
    label[0:8, 0:8] = truth[0:8, 0:8] = 6  # so that there is a threshold for it
    percents[:, 0:8, 0:8] = percents_of(np.full((8, 8), 6, np.uint8), 55)
    cells = np.ones((6, 9), dtype=bool)
    fold = fold_map(tmp_path / 'p.tif', percents, cells, GRID.full)
    labels = LabelRasters(write_label(tmp_path / 'labels', repeated(label, 10)))
    rasters = SuspectRasters.within(tmp_path)
    return rasters, assess(CrossFitted(GRID, labels, [fold]), rasters, progress=False)


def test_wrong_places_become_polygons_in_their_order(suspects: tuple[SuspectRasters, Any], tmp_path: Path) -> None:
    rasters, assessed = suspects
    assert assessed.suspects[2, 11] == 31 and assessed.suspects[11, 5] == 8 and assessed.suspects.sum() == 39
    ranked = rank(rasters, assessed.noise, tmp_path, min_area=500, most=10, progress=False)
    assert [(s.label, s.predicted, s.pixels, s.area_m2) for s in ranked.suspects] == [
        (3, 12, 30, 3000),
        (12, 6, 8, 800),
    ]
    first, second = ranked.suspects
    assert first.geometry.equals(shapely.box(400200, 4599840, 400250, 4599900))
    rates = assessed.noise.rates
    assert first.score == pytest.approx(0.9 * (1 - rates[2, 11]) * 30 / 32) and first.confidence == pytest.approx(0.9)
    assert second.score == pytest.approx(0.6 * (1 - rates[11, 5]) * 8 / 10) and second.confidence == pytest.approx(0.6)
    best = rank(rasters, assessed.noise, tmp_path, min_area=0, most=1, progress=False)
    assert best.found == 3 and best.area_m2 == 3900 and [s.pixels for s in best.suspects] == [30]


def test_the_summary_adds_up(suspects: tuple[SuspectRasters, Any], tmp_path: Path) -> None:
    rasters, assessed = suspects
    ranked = rank(rasters, assessed.noise, tmp_path, min_area=500, most=10, progress=False)
    found = json.loads(json.dumps(document(assessed, ranked, {'folds': []})))
    assert np.isclose(np.sum(found['joint']), 1) and found['pixels']['judged'] == 5400
    assert found['pairs'][0]['label_name'] == 'forest' and found['pairs'][0]['suspect_pixels'] == 31
    assert sum(row['pixels'] for row in found['labels']) == 5400
    text = as_text(found)
    assert 'forest -> watercourses and water bodies' in text and '2 of 2 polygons of suspects, 0.4 ha' in text


def test_pairs_fit_into_a_byte() -> None:
    pairs = {pair_of(a, b): (a, b) for a in LEGEND.codes for b in LEGEND.codes}
    assert len(pairs) == 144 and max(pairs) < 256 and all(codes_of(n) == pair for n, pair in pairs.items())


def test_a_sure_field_comes_before_a_surer_speck_and_what_a_network_always_says_comes_last() -> None:
    assert score_of(0.8, 0.1, 200) > score_of(0.95, 0.1, 5) > score_of(0.95, 0.6, 200)


# What it writes


def example(n: int = 2) -> list[Suspect]:
    return [
        Suspect(shapely.box(400100 + 200 * i, 4599700, 400150 + 200 * i, 4599800), 3, 12, 50, 5000, 0.8, 0.9)
        for i in range(n)
    ]


def test_the_layer_is_as_it_is_documented(tmp_path: Path) -> None:
    path = tmp_path / 'audit.gpkg'
    pictures = [[f'audit_pictures/{i}_{m}.png' for m in ('201804', '201808')] for i in (1, 2)]
    write_suspects(path, example(), crs=GRID.crs, months=['201804', '201808'], pictures=pictures)
    frame = pyogrio.read_dataframe(path, layer='suspects', fid_as_index=True)
    assert list(frame.columns) == [*COLUMNS, 'picture_201804', 'picture_201808', 'geometry']
    assert frame.index.tolist() == frame['rank'].tolist() == [1, 2] and frame.crs.to_epsg() == 32631
    assert frame['predicted_name'].tolist() == ['watercourses and water bodies'] * 2
    assert frame['verdict'].isna().all() and frame['remark'].isna().all()
    assert frame['picture_201808'].tolist() == ['audit_pictures/1_201808.png', 'audit_pictures/2_201808.png']
    assert pyogrio.read_info(path, layer='suspects')['geometry_name'] == 'geom'
    style = pyogrio.read_dataframe(path, layer='layer_styles').iloc[0]
    assert style['f_table_name'] == 'suspects' and style['useAsDefault']
    qml = ET.fromstring(style['styleQML'])
    widgets = {f.get('name'): f.find('editWidget') for f in qml.iter('field') if f.find('editWidget') is not None}
    assert widgets['picture_201804'].get('type') == 'ExternalResource'
    words = [o.get('value') for o in widgets['verdict'].iter('Option') if o.get('type') == 'QString']
    assert words == ['accept', 'reject', 'unsure']
    assert [e.get('name') for e in qml.iter('attributeEditorField')][-4:] == [
        'picture_201804', 'picture_201808', 'verdict', 'remark',
    ]  # fmt: skip


def test_nothing_suspect_is_an_empty_layer(tmp_path: Path) -> None:
    write_suspects(tmp_path / 'audit.gpkg', [], crs=GRID.crs, months=['201804'])
    assert len(gpd.read_file(tmp_path / 'audit.gpkg', layer='suspects')) == 0


def test_pictures_show_the_place_of_the_polygon(tmp_path: Path) -> None:
    array = np.full((10, 60, 90), 900, dtype=np.uint16)
    array[2, 20:30, 10:15] = 3000  # red
    for month, shift in (('201804', 0), ('201808', 5)):
        write_image(tmp_path, array + np.uint16(shift), month=month)
    drawing = Thumbnails.of([str(p) for p in sorted(tmp_path.glob('S2*'))])
    assert drawing.months == ['201804', '201808']
    polygon = shapely.box(400100, 4599700, 400150, 4599800)  # rows 20-29, columns 10-14
    window = window_around(polygon, drawing.mosaics.grid)
    names = drawing.write(tmp_path, '00001', polygon)
    assert names == ['00001_201804.png', '00001_201808.png']
    picture = np.asarray(Image.open(tmp_path / names[0]))
    factor = picture.shape[0] // window.height
    row, col = (25 - window.row) * factor + factor // 2, (12 - window.col) * factor + factor // 2
    assert picture[row, col].tolist() == [255, 76, 76]  # red ground within
    assert picture[row, col - 6 * factor].tolist() == [76, 76, 76]
    assert picture[row, (10 - window.col) * factor].tolist() == [255, 255, 0]  # the outline on the left side
    assert (window.col < 0) == (picture[0, 0].tolist() == [40, 40, 40])  # beyond the mosaic


# What it says


def error_of(capsys: pytest.CaptureFixture[str], *args: Any) -> str:
    capsys.readouterr()
    assert cli.main([str(a) for a in args]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('landcover: error: ')]
    assert len(lines) == 1
    return lines[0]


QUICK = [
    '--model.model=unet_scratch', '--model.backbone=spectral32', '--model.weights=false', '--data.patch_size=16',
    '--block-size=64', '--data.length=64', '--data.batch_size=8', '--data.num_workers=0', '--trainer.max_epochs=1',
    '--trainer.accelerator=cpu', '--trainer.enable_progress_bar=false',
]  # fmt: skip


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['--folds=1'], '--folds must be at least 2, so that others train for each, got 1'),
        (['--min-area=-1'], '--min-area must be square metres, 0 or more, got -1'),
        (['--max-suspects=0'], '--max-suspects must be at least 1, got 0'),
        (['--min-purity=101'], '--min-purity must be percent in [0, 100], got 101'),
        (['--data.blocks=x.gpkg'], '--data.blocks is decided by audit itself'),
        (['--data.patchsize=3'], 'did you mean data.patch_size?'),
        (['--folds=100'], 'but 100 are needed for 100 folds: choose fewer folds'),
    ],
)
def test_arguments_that_cannot_be(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    target = tmp_path / 'audit.gpkg'
    told = error_of(capsys, 'audit', '--output', target, f'--data.root={scene.label.parent}', *QUICK, *arguments)
    assert sentence in told and not list(tmp_path.iterdir())


def test_output_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / 'a.gpkg').touch()
    assert 'a.gpkg exists already' in error_of(capsys, 'audit', '--output', tmp_path / 'a.gpkg')
    assert 'ends in .gpkg, got' in error_of(capsys, 'audit', '--output', tmp_path / 'a.tif')
    done = tmp_path / 'done.gpkg'
    write_suspects(done, example(), crs=GRID.crs)
    assert verdicts(done) == verdicts(tmp_path / 'a.gpkg') == verdicts(tmp_path / 'none.gpkg') == 0
    with closing(sqlite3.connect(done)) as db, db:
        db.execute("UPDATE suspects SET verdict = 'accept' WHERE fid = 1")
    told = error_of(capsys, 'audit', '--output', done, '--overwrite')
    assert 'done.gpkg holds 1 verdicts, which would be lost: move it elsewhere first' in told


def test_rasters_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / 'data'
    write_image(data, analytic_image(100, 120))
    args = ['audit', '--output', tmp_path / 'a.gpkg', f'--data.root={data}', *QUICK]
    assert 'LC_' in error_of(capsys, *args)  # there are no labels
    label = write_label(data, np.zeros((1000, 1200), dtype=np.uint8))
    assert 'no labelled pixel lies on a measured image pixel' in error_of(capsys, *args)
    write_label(data, np.full((1000, 1200), 3, dtype=np.uint8), crs=None)
    assert f'{label} has no CRS' in error_of(capsys, *args)


def test_checkpoints_that_cannot_be(scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / 'broken.ckpt'
    broken.write_bytes(b'no checkpoint')
    args = ['audit', '--output', tmp_path / 'a.gpkg', f'--data.root={scene.label.parent}', '--checkpoints']
    assert 'broken.ckpt is not a checkpoint, or is damaged' in error_of(capsys, *args, broken)
    assert 'gone.ckpt does not exist' in error_of(capsys, *args, tmp_path / 'gone.ckpt')


def test_checkpoints_tell_what_they_held_out(tmp_path: Path) -> None:
    from landcover_plugin.training.judges import Judge

    ground = inventory()
    split = cross_fit(ground, folds=3, patch_size=16)[0]
    state = {
        'crs': split.grid.crs.to_wkt(),
        'transform': list(split.grid.transform)[:6],
        'shape': [split.grid.height, split.grid.width],
        'cell': split.cell,
        'cells': torch.from_numpy(split.cells),
        'blocks': torch.from_numpy(split.blocks),
    }
    content: dict[str, Any] = {
        'state_dict': {},
        'datamodule_hyper_parameters': {'patch_size': 16},
        'CataloniaDataModule': {'split': state},
    }
    path = tmp_path / 'x.ckpt'
    torch.save(content, path)
    judge = Judge.of(path)
    np.testing.assert_array_equal(judge.cells, split.region('test'))
    assert sum(w.height * w.width for w in judge.windows) == (by_pixel(split) == SPLITS['test']).sum()
    judge.check_grid(split.grid)
    with pytest.raises(LandcoverError, match='was trained on other rasters, 300 x 210 px'):
        judge.check_grid(GRID)
    trained = split.region('train')
    np.testing.assert_array_equal(judge.knows(ground), ground.class_counts(trained) >= 100)
    content['datamodule_hyper_parameters']['patch_size'] = 160  # its patches would have reached everything
    torch.save(content, path)
    with pytest.raises(LandcoverError, match=r'within a patch \(160 px\) of all ground of its split'):
        Judge.of(path)
    content['CataloniaDataModule'] = {}
    torch.save(content, path)
    with pytest.raises(LandcoverError, match='does not tell on which ground it was trained'):
        Judge.of(path)


# The whole command


@pytest.mark.slow
def test_the_command_writes_an_audit_and_goes_on_with_what_is_there(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(scene.label.parent, tmp_path / 'data', ignore=shutil.ignore_patterns('.landcover')))
    target, folds = tmp_path / 'a.gpkg', tmp_path / 'a_folds'
    args = ['--output', target, '--folds', 2, f'--data.root={root}', *QUICK]
    command = [sys.executable, '-m', 'landcover_plugin', 'audit', *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    frame = gpd.read_file(target, layer='suspects')
    assert len(frame) and frame['score'].is_monotonic_decreasing and (frame['area_m2'] >= 500).all()
    assert all((tmp_path / name).is_file() for name in [*frame['picture_201804'], *frame['picture_201808']])
    assert f'{len(frame):,} polygons' in done.stdout
    summary = json.loads(target.with_suffix('.json').read_text())
    assert np.isclose(np.sum(summary['joint']), 1, atol=1e-5) and len(summary['folds']) == 2
    _check_no_leak(folds, root)

    shutil.rmtree(folds / 'fold-2')  # as if it had been killed in the second fold
    before = (folds / 'fold-1' / 'best.ckpt').stat().st_mtime_ns
    capsys.readouterr()
    assert cli.main([str(a) for a in ('audit', *args, '--overwrite', '--min-area=2000')]) == 0
    told = capsys.readouterr().err
    assert 'fold 1: trained by an earlier run' in told and 'fold 2: trained' not in told
    assert (folds / 'fold-1' / 'best.ckpt').stat().st_mtime_ns == before and (folds / 'fold-2' / 'best.ckpt').is_file()
    assert (gpd.read_file(target, layer='suspects')['area_m2'] >= 2000).all()

    target.unlink()
    target.with_suffix('.json').unlink()
    shutil.rmtree(tmp_path / 'a_pictures')
    told = error_of(capsys, 'audit', *args, '--data.length=80')
    assert 'holds the folds of an audit with other settings (data.length)' in told and (folds / 'fold-1').is_dir()

    given = tmp_path / 'given.gpkg'
    checkpoints = [folds / f'fold-{n}' / 'best.ckpt' for n in (1, 2)]
    arguments = ['audit', '--output', given, '--checkpoints', *checkpoints, f'--data.root={root}']
    assert cli.main([str(a) for a in arguments]) == 0
    found = gpd.read_file(given, layer='suspects')
    assert len(found) and json.loads(given.with_suffix('.json').read_text())['pixels'] == summary['pixels']


def _check_no_leak(folds: Path, root: Path) -> None:
    """What the stored splits and the maps on disk say: mapped ground is a patch from all that was seen."""
    mapped = []
    for fold in sorted(folds.glob('fold-*')):
        split = torch.load(fold / 'best.ckpt', weights_only=True)['CataloniaDataModule']['split']
        cells = repeated(split['cells'].numpy(), split['cell'])[: split['shape'][0], : split['shape'][1]]
        with rasterio.open(next(root.glob('S2*'))) as image, rasterio.open(fold / 'map_probabilities.tif') as src:
            window = PixelGrid.of(image).window_of(PixelGrid.of(src))
            measured = np.zeros(image.shape, dtype=bool)
            assert window is not None
            measured[window.slices_in(PixelGrid.of(image).full)] = src.read(1) != 255
        reach = np.ones((31, 31), dtype=bool)  # a patch has 16 px
        assert measured.any() and not (ndimage.binary_dilation(measured, reach) & np.isin(cells, (1, 2))).any()
        mapped.append(measured)
    assert not np.logical_and(*mapped).any()


def test_noise_model_of_one_pixel() -> None:
    noise = NoiseModel(np.array([50.0, np.inf]), np.array([1, 0]), np.array([[0, 1], [0, 0]]))
    assert noise.joint.tolist() == [[0.5, 0.5], [0, 0]] and noise.wrong.tolist() == [0.5, 0]
