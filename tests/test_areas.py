"""`landcover sample` and `landcover areas` from the outside: files in, tables out, every bad input one sentence."""

import csv
import json
import logging
import sqlite3
import subprocess
import sys
import xml.dom.minidom
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
import pyproj
import pytest
import rasterio
import shapely
from conftest import analytic_codes, repeated, write_label, write_raster
from numpy.typing import NDArray

from landcover_plugin.commands import areas, sample
from landcover_plugin.errors import LandcoverError
from landcover_plugin.evaluation import class_map
from landcover_plugin.grid import PixelGrid
from landcover_plugin.legend import LEGEND
from landcover_plugin.rasters.pixel_size import HECTARE, pixel_areas


@pytest.fixture(autouse=True)
def _messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our messages reach caplog, whatever the command line did to the logger before."""
    log = logging.getLogger('landcover_plugin')
    monkeypatch.setattr(log, 'propagate', True)
    monkeypatch.setattr(log, 'level', logging.INFO)


def codes_of(height: int = 120, width: int = 170, seed: int = 0) -> NDArray[np.uint8]:
    """Forest, crops, urban area and a little water, with a border of no data above and left."""
    rng = np.random.default_rng(seed)
    codes = rng.choice([3, 1, 6, 12], p=[0.6, 0.25, 0.12, 0.03], size=(height, width)).astype(np.uint8)
    codes[:7], codes[:, :3] = 0, 0
    return codes


@pytest.fixture
def a_map(tmp_path: Path) -> Path:
    return write_raster(tmp_path / 'map.tif', codes_of())


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, '-m', 'landcover_plugin', *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def draw(path: Path, output: Path, *more: object) -> Path:
    arguments = [path, '--output', output, '--n', 160, '--min-per-class', 20, *more]
    assert sample.main([str(a) for a in arguments]) == 0
    return output


def interpret(path: Path, truth: NDArray[np.uint8], *, leave: int = 0) -> None:
    """Fill in the reference codes as an interpreter with this truth would, but for the last few points."""
    points = pyogrio.read_dataframe(path, layer='sample')
    x, y = points.geometry.x.to_numpy(), points.geometry.y.to_numpy()
    reference = truth[((4600000 - y) // 10).astype(int), ((x - 400000) // 10).astype(int)].astype(float)
    if leave:
        reference[-leave:] = np.nan
    points['reference_code'] = reference
    pyogrio.write_dataframe(points, path, layer='sample', driver='GPKG')


def report(*arguments: object, folder: Path) -> dict[str, Any]:
    target = folder / 'found.json'
    assert areas.main([*map(str, arguments), '--json', str(target), '--overwrite']) == 0
    return dict(json.loads(target.read_text(encoding='utf-8')))


def write_zones(path: Path, boxes: dict[str, tuple[float, float, float, float]], crs: str = 'EPSG:32631') -> Path:
    frame = gpd.GeoDataFrame({'name': list(boxes)}, geometry=[shapely.box(*b) for b in boxes.values()], crs=crs)
    frame.to_file(path, driver='GPKG')
    return path


def test_map_areas_are_counts_of_pixels(a_map: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = report(a_map, folder=tmp_path)
    expected = np.bincount(codes_of().ravel(), minlength=13)
    assert {row['code']: row['pixels'] for row in found['classes']} == {c: expected[c] for c in (1, 3, 6, 12)}
    assert found['mapped_ha'] == pytest.approx(expected[1:].sum() * 0.01)
    assert found['no_data_pixels'] == expected[0]
    assert 'forest' in capsys.readouterr().out


def test_strips_do_not_change_what_is_found(a_map: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zones = write_zones(tmp_path / 'z.gpkg', {'a': (400100, 4599100, 400903, 4599747)})
    results, drawn = [], []
    for pixels in (10**6, 170 * 5, 1):
        monkeypatch.setattr(class_map, 'STRIP_PIXELS', pixels)
        results.append(report(a_map, '--zones', zones, folder=tmp_path))
        drawn.append(pyogrio.read_dataframe(draw(a_map, tmp_path / f'{pixels}.gpkg'), layer='sample'))
    assert results[0] == results[1] == results[2]
    assert drawn[0].equals(drawn[1]) and drawn[0].equals(drawn[2])


def test_zones_hold_the_pixels_whose_centres_they_hold(a_map: Path, tmp_path: Path) -> None:
    boxes = {
        'north': (400000, 4599400, 401700, 4600000),
        'south': (400000, 4598800, 401700, 4599400),
        'over both': (400333.0, 4599111.0, 400777.0, 4599666.0),
        'outside': (500000, 4598800, 500100, 4599000),
    }
    found = report(a_map, '--zones', write_zones(tmp_path / 'z.gpkg', boxes), '--zone-column', 'name', folder=tmp_path)
    codes = codes_of()
    rows, cols = np.indices(codes.shape)
    x, y = 400005 + 10 * cols, 4599995 - 10 * rows
    for name, (xmin, ymin, xmax, ymax) in boxes.items():
        inside = (x > xmin) & (x < xmax) & (y > ymin) & (y < ymax)
        expected = {c: n for c, n in enumerate(np.bincount(codes[inside], minlength=13)) if c and n}
        assert {r['code']: r['pixels'] for r in found['zones'] if r['zone'] == name} == expected
    both = sum(r['pixels'] for r in found['zones'] if r['zone'] in ('north', 'south'))
    assert both == (codes > 0).sum()


def test_zones_in_degrees_are_reprojected(a_map: Path, tmp_path: Path) -> None:
    box = gpd.GeoSeries([shapely.box(400200, 4599000, 401000, 4599800)], crs='EPSG:32631')
    frame = gpd.GeoDataFrame(geometry=box.segmentize(50).to_crs('EPSG:4326'))
    frame.to_file(tmp_path / 'z.geojson')
    found = report(a_map, '--zones', tmp_path / 'z.geojson', folder=tmp_path)
    expected = np.bincount(codes_of()[20:100, 20:100].ravel(), minlength=13)
    assert {r['code']: r['pixels'] for r in found['zones']} == {c: expected[c] for c in (1, 3, 6, 12)}
    assert {r['zone'] for r in found['zones']} == {'1'}


def test_cells_in_degrees_have_their_geodesic_areas(tmp_path: Path) -> None:
    path = write_raster(tmp_path / 'm.tif', np.full((30, 20), 3, np.uint8), origin=(1, 42), gsd=0.1, crs='EPSG:4326')
    with rasterio.open(path) as src:
        found = pixel_areas(PixelGrid.of(src)) / HECTARE
    geod = pyproj.Geod(ellps='WGS84')
    for row in (0, 29):
        north = 42 - 0.1 * row
        edge = np.linspace(1, 1.1, 50)  # a parallel is no geodesic
        lons, lats = [*edge, *edge[::-1]], [north] * 50 + [north - 0.1] * 50
        assert found[row] == pytest.approx(abs(geod.polygon_area_perimeter(lons, lats)[0]) / HECTARE, rel=1e-6)
    assert report(path, folder=tmp_path)['mapped_ha'] == pytest.approx(20 * found.sum())


def test_a_projection_that_stretches_areas_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_raster(tmp_path / 'm.tif', codes_of(), origin=(100000, 5_100_000), crs='EPSG:3857')
    assert areas.main([str(path)]) == 0
    assert 'stretches areas by +' in caplog.text


def test_the_sample_is_ready_to_be_interpreted(a_map: Path, tmp_path: Path) -> None:
    done = run('sample', a_map, '--output', tmp_path / 's.gpkg', '--n', 160, '--min-per-class', 20, '--seed', 4)
    assert done.returncode == 0 and str(tmp_path / 's.gpkg') in done.stdout, done.stderr
    points = pyogrio.read_dataframe(tmp_path / 's.gpkg', layer='sample')
    design = pyogrio.read_dataframe(tmp_path / 's.gpkg', layer='design')
    assert list(points.columns) == ['id', 'reference_code', 'interpreter', 'confidence', 'remark', 'geometry']  # blind
    assert points['reference_code'].isna().all() and len(points) == 160
    codes = codes_of()
    with rasterio.open(a_map) as src:
        shown = np.array([v[0] for v in src.sample(zip(points.geometry.x, points.geometry.y, strict=True))])
    assert (shown == design['map_code']).all() and (shown > 0).all()
    assert len(set(zip(design['row'], design['col'], strict=True))) == 160  # without replacement
    counts, drawn = np.bincount(codes.ravel(), minlength=13), np.bincount(shown, minlength=13)
    assert design['inclusion_probability'].to_numpy() == pytest.approx((drawn / np.maximum(counts, 1))[shown])
    assert (1 / design['inclusion_probability']).sum() == pytest.approx(counts[1:].sum())
    changes = (np.diff(design['stratum']) != 0).mean()
    assert changes > 0.3  # no order by stratum


def test_qgis_finds_a_form_with_the_class_names(a_map: Path, tmp_path: Path) -> None:
    path = draw(a_map, tmp_path / 's.gpkg')
    with sqlite3.connect(path) as db:
        where = "f_table_name = 'sample' AND f_geometry_column = 'geom' AND useAsDefault"
        (text,) = db.execute(f'SELECT styleQML FROM layer_styles WHERE {where}').fetchone()
        kind = db.execute("SELECT data_type FROM gpkg_contents WHERE table_name = 'layer_styles'").fetchone()
    db.close()
    assert kind == ('attributes',)
    style = xml.dom.minidom.parseString(text)
    field = next(f for f in style.getElementsByTagName('field') if f.getAttribute('name') == 'reference_code')
    assert field.getElementsByTagName('editWidget')[0].getAttribute('type') == 'ValueMap'
    options = [o for o in field.getElementsByTagName('Option') if o.getAttribute('type') == 'QString']
    values = {o.getAttribute('value'): o.getAttribute('name') for o in options}
    assert values == {str(c): f'{c} {LEGEND[c].name}' for c in LEGEND.codes}


def test_same_seed_same_points(a_map: Path, tmp_path: Path) -> None:
    one, two, other = (
        pyogrio.read_dataframe(draw(a_map, tmp_path / f'{i}.gpkg', '--seed', seed), layer='design')
        for i, seed in enumerate((1, 1, 2))
    )
    assert one.equals(two) and not one.equals(other)


def test_every_pixel_of_a_class_is_as_likely(tmp_path: Path) -> None:
    codes = np.where(np.arange(48).reshape(6, 8) % 3 == 0, 3, 1).astype(np.uint8)
    source = class_map.ClassMap(write_raster(tmp_path / 'm.tif', codes))
    from landcover_plugin.evaluation.drawing import draw as draw_pixels

    counts, points = class_map.count(source, progress=False), np.zeros(13, dtype=np.int64)
    points[3] = 4
    hits = np.zeros(codes.shape)
    for seed in range(1200):
        drawn = draw_pixels(source, counts, points, seed=seed, progress=False)
        hits[drawn.rows, drawn.cols] += 1
    assert hits[codes != 3].sum() == 0
    share = hits[codes == 3] / 1200
    assert share == pytest.approx(0.25, abs=5 * np.sqrt(0.25 * 0.75 / 1200))


def test_a_perfect_interpretation_gives_the_areas_of_the_truth(a_map: Path, tmp_path: Path) -> None:
    path = draw(a_map, tmp_path / 's.gpkg')
    interpret(path, codes_of())
    found = report(a_map, '--reference', path, folder=tmp_path)
    for row in found['classes']:
        assert row['adjusted_ha'] == pytest.approx(row['mapped_ha'])
        assert row['users_accuracy'] == row['producers_accuracy'] == 1
    assert found['overall_accuracy'] == pytest.approx(1)


def test_adjusted_areas_come_near_the_truth_where_mapped_ones_do_not(tmp_path: Path) -> None:
    truth = codes_of(300, 400)
    wrong = (np.random.default_rng(1).random(truth.shape) < 0.3) & (truth == 3)
    a_map = write_raster(tmp_path / 'm.tif', np.where(wrong, 1, truth).astype(np.uint8))
    path = draw(a_map, tmp_path / 's.gpkg', '--n', 600)
    interpret(path, truth)
    done = run('areas', a_map, '--reference', path, '--json', tmp_path / 'a.json', '--csv', tmp_path / 'a.csv')
    assert done.returncode == 0, done.stderr
    forest = next(r for r in json.loads((tmp_path / 'a.json').read_text())['classes'] if r['code'] == 3)
    hectares = (truth == 3).sum() * 0.01
    assert forest['mapped_ha'] < 0.75 * hectares
    assert forest['adjusted_ha_low'] < hectares < forest['adjusted_ha_high']
    with (tmp_path / 'a.csv').open() as file:
        rows = {r['class']: r for r in csv.DictReader(file)}
    assert float(rows['forest']['adjusted_ha']) == pytest.approx(forest['adjusted_ha'])
    assert 'adjusted ha' in done.stdout and 'overall accuracy' in done.stdout


def test_the_example_of_olofsson_2014_through_the_command(tmp_path: Path) -> None:
    """A map of 10 million pixels of 1 ha with the strata of the paper, and points with its error matrix."""
    codes = np.repeat(np.uint8([1, 2, 3, 4]), [200_000, 150_000, 3_200_000, 6_450_000]).reshape(2500, 4000)
    a_map = write_raster(tmp_path / 'm.tif', codes, gsd=100, compress='deflate')
    matrix = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
    start = np.cumsum([0, 200_000, 150_000, 3_200_000])
    lines = ['x,y,reference_code']
    for stratum, row in enumerate(matrix):
        for i, reference in enumerate(np.repeat(np.arange(4), row)):
            r, c = divmod(int(start[stratum]) + 37 * i, 4000)
            lines.append(f'{400000 + 100 * c + 50},{4600000 - 100 * r - 50},{reference + 1}')
    (tmp_path / 'points.csv').write_text('\n'.join(lines), encoding='utf-8')
    found = report(a_map, '--reference', tmp_path / 'points.csv', '--interval', 'normal', folder=tmp_path)
    deforestation = found['classes'][0]
    assert deforestation['adjusted_ha'] == pytest.approx(235_086, abs=0.5)
    assert 1.96 * deforestation['adjusted_ha_se'] == pytest.approx(68_418, abs=15)  # less by the finite population
    assert found['matrix']['points'][0][:4] == [66, 0, 5, 4]


def test_points_without_an_answer_are_told_by_stratum(
    a_map: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = draw(a_map, tmp_path / 's.gpkg')
    with pytest.raises(LandcoverError, match='none of the 160 points has a reference class yet'):
        areas.main([str(a_map), '--reference', str(path)])
    interpret(path, codes_of(), leave=30)
    found = report(a_map, '--reference', path, folder=tmp_path)
    assert '30 of 160 points have no reference class and are left out (' in caplog.text
    assert sum(r['map_points'] for r in found['classes']) == 130
    assert found['overall_accuracy'] == pytest.approx(1)


def test_deleted_points_count_as_not_answered(a_map: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = draw(a_map, tmp_path / 's.gpkg')
    interpret(path, codes_of())
    points = pyogrio.read_dataframe(path, layer='sample').iloc[:-5]
    pyogrio.write_dataframe(points, path, layer='sample', driver='GPKG')
    areas.main([str(a_map), '--reference', str(path)])
    assert '5 of 160 points have no reference class' in caplog.text


def test_a_sample_of_another_map_needs_a_word(a_map: Path, tmp_path: Path) -> None:
    path = draw(a_map, tmp_path / 's.gpkg')
    truth = codes_of()
    interpret(path, truth)
    other_codes = truth.copy()
    other_codes[40:80] = 6
    other = write_raster(tmp_path / 'other.tif', other_codes)
    with pytest.raises(LandcoverError, match='the sample was drawn from another map'):
        areas.main([str(other), '--reference', str(path)])
    found = report(other, '--reference', path, '--other-map', folder=tmp_path)
    share = (other_codes == truth)[truth > 0].mean()
    assert found['overall_accuracy_low'] < share < found['overall_accuracy_high']
    forest = next(r for r in found['classes'] if r['code'] == 3)  # strata are the truth here: its area is known exactly
    assert forest['adjusted_ha'] == pytest.approx((truth == 3).sum() * 0.01)


def test_the_same_map_in_another_file_is_the_same_map(a_map: Path, tmp_path: Path) -> None:
    path = draw(a_map, tmp_path / 's.gpkg')
    interpret(path, codes_of())
    again = write_raster(tmp_path / 'again.tif', codes_of(), compress='lzw', tiled=True, blockxsize=16, blockysize=16)
    assert report(again, '--reference', path, folder=tmp_path)['overall_accuracy'] == pytest.approx(1)


def test_only_the_area_of_interest_is_sampled_and_told(a_map: Path, tmp_path: Path) -> None:
    aoi = write_zones(tmp_path / 'aoi.gpkg', {'a': (400200, 4599000, 401200, 4599700)})
    path = draw(a_map, tmp_path / 's.gpkg', '--aoi', aoi)
    points = pyogrio.read_dataframe(path, layer='sample')
    assert shapely.box(400200, 4599000, 401200, 4599700).contains(points.geometry.to_numpy()).all()
    interpret(path, codes_of())
    found = report(a_map, '--reference', path, folder=tmp_path)
    assert found['mapped_ha'] == pytest.approx((codes_of()[30:100, 20:120] > 0).sum() * 0.01)
    with pytest.raises(LandcoverError, match='leave out --aoi'):
        areas.main([str(a_map), '--reference', str(path), '--aoi', str(aoi)])


def test_catalan_names_strata_of_their_own_and_degrees(a_map: Path, tmp_path: Path) -> None:
    """Two strata, west and east, that are not classes; classes in words; points in degrees."""
    codes, rng = codes_of(), np.random.default_rng(0)
    to_degrees = pyproj.Transformer.from_crs(32631, 4326, always_xy=True)
    lines, sizes = ['lon;lat;classe;part'], {}
    for part, cols in (('west', (3, 60)), ('east', (60, 170))):
        sizes[part] = (120 - 7) * (cols[1] - cols[0])
        for _ in range(60):
            row, col = int(rng.integers(7, 120)), int(rng.integers(*cols))
            lon, lat = to_degrees.transform(400005 + 10 * col, 4599995 - 10 * row)
            lines.append(f'{lon:.8f};{lat:.8f};{LEGEND[int(codes[row, col])].name_ca};{part}')
    (tmp_path / 'p.csv').write_text('\n'.join(lines), encoding='utf-8')
    (tmp_path / 'sizes.csv').write_text('stratum,pixels\n' + '\n'.join(f'{k},{v}' for k, v in sizes.items()))
    found = report(
        a_map, '--reference', tmp_path / 'p.csv', '--crs', 'EPSG:4326', '--x-column', 'lon', '--y-column', 'lat',
        '--reference-column', 'classe', '--stratum-column', 'part', '--stratum-sizes', tmp_path / 'sizes.csv',
        folder=tmp_path,
    )  # fmt: skip
    assert found['overall_accuracy'] == pytest.approx(1)
    forest = next(r for r in found['classes'] if r['code'] == 3)
    assert forest['adjusted_ha_low'] < (codes == 3).sum() * 0.01 < forest['adjusted_ha_high']


def test_labels_on_test_blocks_come_with_a_plain_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    codes = analytic_codes(60, 80)
    a_map = write_raster(tmp_path / 'm.tif', np.where(codes == 5, 6, codes).astype(np.uint8))
    labels = write_label(tmp_path, repeated(codes, 10))
    boxes = [(400000, 4599400, 400300, 4600000), (400300, 4599400, 400800, 4599700), (400300, 4599700, 400800, 4600000)]
    frame = gpd.GeoDataFrame(
        {'split': ['test', 'test', 'train'], 'block': [0, 1, 2]}, geometry=[shapely.box(*b) for b in boxes],
        crs='EPSG:32631',
    )  # fmt: skip
    frame.to_file(tmp_path / 'blocks.gpkg')
    found = report(a_map, '--labels', labels, '--blocks', tmp_path / 'blocks.gpkg', folder=tmp_path)
    assert 'blocks are no probability sample' in caplog.text
    tested = np.zeros(codes.shape, dtype=bool)
    tested[:, :30], tested[30:, 30:] = True, True
    urban = next(r for r in found['classes'] if r['code'] == 6)
    assert urban['users_accuracy'] == pytest.approx((codes[tested] == 6).sum() / np.isin(codes[tested], (5, 6)).sum())
    assert urban['adjusted_ha'] == pytest.approx(urban['mapped_ha'] * urban['users_accuracy'])
    bare = next(r for r in found['classes'] if r['code'] == 5)
    assert bare['mapped_ha'] == 0 and bare['adjusted_ha'] > 0 and bare['producers_accuracy'] == 0


def bad(tmp_path: Path) -> dict[str, tuple[list[object], str]]:
    """Arguments of areas and the sentence that they end with."""
    a_map = write_raster(tmp_path / 'map.tif', codes_of())
    text = tmp_path / 'text.gpkg'
    text.write_text('no database')
    far = write_zones(tmp_path / 'far.gpkg', {'a': (1, 1, 2, 2)})
    points = tmp_path / 'points.csv'
    points.write_text('x,y,reference_code\n400505,4599505,forrest\n')
    outside = tmp_path / 'outside.csv'
    outside.write_text('x,y,reference_code\n1,1,3\n')
    empty = tmp_path / 'empty.csv'
    empty.write_text('x,y,reference_code\n')
    no_place = tmp_path / 'no_place.csv'
    no_place.write_text('x,y,reference_code\n400505,,3\n')
    few = tmp_path / 'few.csv'
    few.write_text('x,y,reference_code\n400505,4599505,3\n')
    bare = tmp_path / 'bare.gpkg'
    gpd.GeoDataFrame({'reference_code': [3]}, geometry=[shapely.Point(400505, 4599505)]).to_file(bare)
    no_crs = write_raster(tmp_path / 'no_crs.tif', codes_of(), crs=None)
    wide = write_raster(tmp_path / 'wide.tif', codes_of().astype(np.uint16))
    strange = write_raster(tmp_path / 'strange.tif', np.full((9, 11), 77, np.uint8))
    nothing = write_raster(tmp_path / 'nothing.tif', np.zeros((9, 11), np.uint8))
    return {
        'no CRS of the map': ([no_crs], 'has no CRS'),
        'no class map': ([wide], 'its pixels are uint16, not uint8'),
        'unknown code': ([strange], 'holds the value 77, which is no class'),
        'nothing mapped': ([nothing], 'every pixel is no data'),
        'no map': ([tmp_path / 'absent.tif'], 'absent.tif does not exist'),
        'damaged file': ([a_map, '--reference', text], 'text.gpkg cannot be read'),
        'damaged zones': ([a_map, '--zones', text], 'cannot be read as a vector file'),
        'far zones': ([a_map, '--zones', far], 'lies outside the map'),
        'no such column': ([a_map, '--zones', far, '--zone-column', 'nom'], "no column 'nom': its columns are name"),
        'unknown class': ([a_map, '--reference', points], "there is no class 'forrest'; did you mean 'forest'"),
        'sample outside': ([a_map, '--reference', outside], 'no point lies on a class of'),
        'empty sample': ([a_map, '--reference', empty], 'holds no point'),
        'no coordinates': ([a_map, '--reference', no_place], 'line 2 has no coordinates'),
        'strata without points': ([a_map, '--reference', few], r'in forest, urban area, .* \(74.6 % of the ground\)'),
        'points without CRS': ([a_map, '--reference', bare], 'has no CRS'),
        'labels alone': ([a_map, '--labels', a_map], '--labels and --blocks go together'),
        'no split': ([a_map, '--labels', a_map, '--blocks', far], "has no column 'split'"),
        'level': ([a_map, '--level', '95'], r'--level must be in \[0.5, 1\)'),
        'exists': ([a_map, '--csv', points], 'exists already: choose another name, or replace it with --overwrite'),
    }  # fmt: skip


@pytest.mark.parametrize('case', [
    'no CRS of the map', 'no class map', 'unknown code', 'nothing mapped', 'no map', 'damaged file', 'damaged zones',
    'far zones', 'no such column', 'unknown class', 'sample outside', 'empty sample', 'no coordinates',
    'strata without points', 'points without CRS', 'labels alone', 'no split', 'level', 'exists',
])  # fmt: skip
def test_bad_input_is_one_sentence(case: str, tmp_path: Path) -> None:
    arguments, sentence = bad(tmp_path)[case]
    before = sorted(tmp_path.iterdir())
    with pytest.raises(LandcoverError, match=sentence):
        areas.main([str(a) for a in arguments])
    assert sorted(tmp_path.iterdir()) == before


def test_a_class_that_the_map_lacks_is_no_stratum(a_map: Path, tmp_path: Path) -> None:
    (tmp_path / 'p.csv').write_text('x,y,reference_code,stratum\n400505,4599505,3,green areas\n')
    arguments = [str(a_map), '--reference', str(tmp_path / 'p.csv'), '--stratum-column', 'stratum']
    with pytest.raises(LandcoverError, match=r"stratum 'green areas', of which .* has no pixel"):
        areas.main(arguments)


def test_one_point_in_a_stratum_is_told(a_map: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = draw(a_map, tmp_path / 's.gpkg')
    truth = codes_of()
    interpret(path, truth)
    points = pyogrio.read_dataframe(path, layer='sample')
    design = pyogrio.read_dataframe(path, layer='design')
    water = np.flatnonzero(design['map_code'] == 12)
    points.loc[water[1:], 'reference_code'] = np.nan
    pyogrio.write_dataframe(points, path, layer='sample', driver='GPKG')
    found = report(a_map, '--reference', path, folder=tmp_path)
    assert 'only one point is interpreted in watercourses and water bodies: a variance takes two' in caplog.text
    assert found['overall_accuracy_se'] is None and found['overall_accuracy_low'] is not None


def test_damaged_samples_and_strange_points_are_refused(a_map: Path, tmp_path: Path) -> None:
    path = draw(a_map, tmp_path / 's.gpkg')
    points = pyogrio.read_dataframe(path, layer='sample')
    points.loc[0, 'id'] = 9999
    pyogrio.write_dataframe(points, path, layer='sample', driver='GPKG')
    with pytest.raises(LandcoverError, match='only points of the drawn sample count'):
        areas.main([str(a_map), '--reference', str(path)])
    cut = tmp_path / 'cut.gpkg'
    cut.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(LandcoverError, match='cannot be read'):
        areas.main([str(a_map), '--reference', str(cut)])


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['--n', '50'], '50 points do not suffice for 50 in each of 4 strata'),
        (['--seed', '-1'], '--seed must be at least 0'),
        (['--expected-accuracy', '80'], 'shares between 0 and 1'),
        (['--expected-accuracy', 'boscs=0.9'], "there is no class 'boscs'; did you mean 'boscos'"),
        (['--output', 's.shp'], 'must end in .gpkg'),
    ],
)
def test_samples_that_cannot_be_drawn(
    a_map: Path, tmp_path: Path, arguments: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LandcoverError, match=sentence):
        sample.main([str(a_map), '--output', 's.gpkg', *arguments])
    assert [p.name for p in tmp_path.iterdir()] == ['map.tif']


def test_errors_of_the_command_line_are_one_line(tmp_path: Path) -> None:
    done = run('areas', tmp_path / 'absent.tif')
    assert done.returncode == 1 and done.stderr.startswith('landcover: error: ') and done.stderr.count('\n') == 1
