"""Class maps as polygons: exact, whole at every size of tiles, without gaps, and a GeoPackage that any GIS reads."""

import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import rasterio
import rasterio.features
import shapely
from conftest import write_raster
from numpy.typing import NDArray
from pyproj import Geod
from rasterio.transform import from_origin

from landcover_plugin.commands.polygonize import main
from landcover_plugin.errors import LandcoverError
from landcover_plugin.grid import PixelGrid
from landcover_plugin.legend import LEGEND
from landcover_plugin.mapping.outlines import OUTSIDE, find_regions, outlines
from landcover_plugin.mapping.polygonize import Polygons, polygons_of
from landcover_plugin.mapping.tiled_map import TiledMap
from landcover_plugin.rasters.pixel_size import pixel_areas

TRANSFORM = from_origin(400000, 4600000, 10, 10)


def random_codes(seed: int, height: int = 40, width: int = 33, classes: int = 4) -> NDArray[np.uint8]:
    """Regions of all sizes, holes, diagonal touches and no data."""
    rng = np.random.default_rng(seed)
    coarse = np.kron(rng.integers(0, classes, (height // 5 + 1, width // 5 + 1)), np.ones((5, 5), int))
    fine = rng.integers(0, classes, (height, width))
    return np.where(rng.random((height, width)) < 0.3, fine, coarse[:height, :width]).astype(np.uint8)


def polygons(path: Path, **options: Any) -> Polygons:
    """All polygons in the order of their regions."""
    source = TiledMap(path, options.pop('confidence', None))
    batches = list(polygons_of(source, path.parent, progress=False, **options))
    found = Polygons(*(np.concatenate(column) for column in zip(*batches, strict=True)))
    order = np.argsort(found.regions, kind='stable')
    return Polygons(*(column[order] for column in found))


def rasterised(found: Polygons, shape: tuple[int, int]) -> NDArray[np.uint8]:
    pairs = zip(shapely.from_wkb(found.geometry), found.codes.tolist(), strict=True)
    return rasterio.features.rasterize(pairs, shape, transform=TRANSFORM, dtype='uint8')


def check_coverage(geometry: NDArray[Any]) -> None:
    assert (shapely.get_type_id(geometry) == shapely.GeometryType.POLYGON).all()
    assert shapely.is_valid(geometry).all()
    assert shapely.coverage_is_valid(geometry)


@pytest.mark.parametrize('seed', range(12))
def test_the_same_polygons_at_every_size_of_tiles(tmp_path: Path, seed: int) -> None:
    codes = random_codes(seed, classes=2 + seed % 4)
    path = write_raster(tmp_path / 'map.tif', codes)
    whole = polygons(path, tile=64)
    for tile in (2, 7, 16):
        cut = polygons(path, tile=tile)
        for name, expected, got in zip(Polygons._fields, whole, cut, strict=True):
            assert np.array_equal(expected, got, equal_nan=name == 'confidence'), (tile, name)


@pytest.mark.parametrize('seed', range(8))
def test_polygons_are_those_of_gdal(tmp_path: Path, seed: int) -> None:
    codes = random_codes(seed)
    found = polygons(write_raster(tmp_path / 'map.tif', codes), tile=7)
    geometry = shapely.from_wkb(found.geometry)
    check_coverage(geometry)
    assert shapely.is_ccw(shapely.get_exterior_ring(geometry)).all()
    assert np.array_equal(rasterised(found, codes.shape), codes)
    shapes = [
        (shapely.geometry.shape(shape), int(value))
        for shape, value in rasterio.features.shapes(codes, codes > 0, connectivity=4, transform=TRANSFORM)
    ]
    assert len(shapes) == len(geometry)
    tree = shapely.STRtree(geometry)
    for shape, value in shapes:
        same = [i for i in tree.query(shape) if found.codes[i] == value and shape.equals(geometry[i])]
        assert len(same) == 1
        assert found.pixels[same[0]] == shape.area / 100
    assert np.array_equal(shapely.area(geometry), found.areas)
    assert np.array_equal(shapely.length(geometry), found.perimeters)


def test_what_regions_count(tmp_path: Path) -> None:
    codes = random_codes(3)
    confidence = np.random.default_rng(0).integers(0, 101, codes.shape).astype(np.uint8)
    confidence[codes == 0] = 255
    confidence[codes == 2] = 255
    path = write_raster(tmp_path / 'map.tif', codes)
    beside = write_raster(tmp_path / 'map_confidence.tif', confidence, nodata=255)
    found = polygons(path, tile=7, confidence=beside)
    for code in (1, 2, 3):
        of_code = found.codes == code
        assert found.pixels[of_code].sum() == (codes == code).sum()
        assert found.areas[of_code].sum() == (codes == code).sum() * 100.0
    labels = find_regions(codes).labels
    for region, mean in zip(found.regions, found.confidence, strict=True):
        pixels = confidence[labels == labels.flat[region]]
        assert np.flatnonzero(labels == labels.flat[region])[0] == region
        known = pixels[pixels != 255]
        assert np.isnan(mean) if not len(known) else mean == known.mean()


def test_regions_that_touch_in_corners_and_holes_in_holes() -> None:
    ring = np.full((7, 7), 1, np.uint8)
    ring[1:6, 1:6] = 2
    ring[2:5, 2:5] = 1
    ring[3, 3] = 2
    ring[1, 1] = 1  # the inner square's corner does not reach it; the outer ring grows
    ring[2, 2] = 2
    labels = find_regions(ring).labels
    shapes = outlines(labels, np.pad(ring.astype(np.int16), 1, constant_values=OUTSIDE))
    check_coverage(shapes)
    assert [s.area for s in shapes] == np.bincount(labels.ravel()).tolist()
    board = (np.indices((6, 9)).sum(0) % 2).astype(np.uint8)
    labels = find_regions(board).labels
    shapes = outlines(labels, np.pad(board.astype(np.int16), 1, constant_values=OUTSIDE))
    assert len(shapes) == board.size and (shapely.area(shapes) == 1).all()
    check_coverage(shapes)


@pytest.mark.parametrize('tile', [9, 16, 64])
def test_simplified_borders_are_still_shared(tmp_path: Path, tile: int) -> None:
    rows, cols = np.mgrid[:48, :60]
    codes = (1 + (rows + cols) // 17 % 3).astype(np.uint8)  # borders in steps of one pixel
    codes[(rows - 24) ** 2 + (cols - 20) ** 2 < 150] = 4
    codes[(rows - 20) ** 2 + (cols - 50) ** 2 < 60] = 0
    path = write_raster(tmp_path / 'map.tif', codes)
    exact, found = polygons(path, tile=tile), polygons(path, tile=tile, simplify=15)
    geometry, original = shapely.from_wkb(found.geometry), shapely.from_wkb(exact.geometry)
    check_coverage(geometry)
    assert len(geometry) == len(original)
    assert shapely.get_num_coordinates(geometry).sum() < 0.5 * shapely.get_num_coordinates(original).sum()
    for attribute in ('codes', 'regions', 'pixels', 'areas'):
        assert np.array_equal(getattr(found, attribute), getattr(exact, attribute))
    assert shapely.hausdorff_distance(shapely.union_all(geometry), shapely.union_all(original)) < 30
    assert (shapely.area(shapely.symmetric_difference(geometry, original)) < 0.5 * exact.areas + 1500).all()


def test_large_regions_stay_in_pieces(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    codes = random_codes(5, classes=3)
    path = write_raster(tmp_path / 'map.tif', codes)
    whole, found = polygons(path, tile=7), polygons(path, tile=7, max_vertices=60)
    assert 'stay in pieces' in caplog.text
    assert len(found.codes) > len(whole.codes)
    assert set(found.regions) == set(whole.regions)
    check_coverage(shapely.from_wkb(found.geometry))
    assert np.array_equal(rasterised(found, codes.shape), codes)
    for region, pixels in zip(whole.regions, whole.pixels, strict=True):
        assert found.pixels[found.regions == region].sum() == pixels


def test_areas_in_degrees_are_those_of_the_ellipsoid() -> None:
    from affine import Affine
    from rasterio.crs import CRS

    grid = PixelGrid(CRS.from_epsg(4326), Affine(0.25, 0, 1, 0, -0.5, 43), 3, 2)
    for row, area in enumerate(pixel_areas(grid)):
        south, north = 43 - 0.5 * (row + 1), 43 - 0.5 * row
        xs = np.linspace(1, 1.25, 2001)  # a parallel is no geodesic: many short ones
        edge_x = np.concatenate([xs, xs[::-1]])
        edge_y = np.concatenate([np.full(2001, south), np.full(2001, north)])
        reference, _ = Geod(ellps='WGS84').polygon_area_perimeter(edge_x, edge_y)
        assert area == pytest.approx(reference, rel=1e-7)


# --- the command


def run(*arguments: Any) -> int:
    return main([str(a) for a in arguments])


@pytest.fixture
def class_map(tmp_path: Path) -> Path:
    """A map with its confidence."""
    codes = random_codes(1, classes=5)
    write_raster(tmp_path / 'map_confidence.tif', np.where(codes, 80, 255).astype(np.uint8), nodata=255)
    return write_raster(tmp_path / 'map.tif', codes, nodata=0, colours=LEGEND.colormap)


def test_a_geopackage_that_any_gis_reads(class_map: Path) -> None:
    with rasterio.open(class_map, 'r+') as dst:
        dst.update_tags(MODEL='unet', DATES='2018-04')
        codes = dst.read(1)
    assert run(class_map) == 0
    path = class_map.with_suffix('.gpkg')
    info = pyogrio.read_info(path, layer='land_cover')
    assert info['crs'] == 'EPSG:32631' and info['geometry_type'] == 'Polygon'
    assert info['capabilities']['fast_spatial_filter']
    assert info['layer_metadata']['MODEL'] == 'unet'
    assert list(info['fields']) == [
        'code', 'class', 'class_ca', 'area_ha', 'area_m2', 'perimeter_m', 'pixels', 'confidence', 'region',
    ]  # fmt: skip
    frame = gpd.read_file(path, layer='land_cover')
    assert frame.area.tolist() == frame.area_m2.tolist()
    assert np.allclose(frame.area_ha * 1e4, frame.area_m2, rtol=1e-12)
    assert (frame.confidence == 80).all()
    assert set(zip(frame.code, frame['class'], frame.class_ca, strict=True)) == {
        (c.code, c.name, c.name_ca) for c in LEGEND if c.code in frame.code.to_numpy()
    }
    assert frame.groupby('code').pixels.sum().to_dict() == {c: (codes == c).sum() for c in np.unique(codes[codes > 0])}
    pairs = zip(frame.geometry, frame.code, strict=True)
    assert np.array_equal(rasterio.features.rasterize(pairs, codes.shape, transform=TRANSFORM), codes)
    assert not [p for p in class_map.parent.iterdir() if p.name.startswith('.') or p.name.endswith('-wal')]


def test_qgis_finds_names_and_colours(class_map: Path) -> None:
    run(class_map)
    with closing(sqlite3.connect(class_map.with_suffix('.gpkg'))) as db:
        ((table, column, qml, default),) = db.execute(
            'SELECT f_table_name, f_geometry_column, styleQML, useAsDefault FROM layer_styles'
        ).fetchall()
        tables = dict(db.execute('SELECT table_name, data_type FROM gpkg_contents').fetchall())
        assert db.execute('PRAGMA integrity_check').fetchone() == ('ok',)
    assert (table, column, default) == ('land_cover', 'geom', 1)
    assert tables == {'land_cover': 'features', 'layer_styles': 'attributes'}
    renderer = ET.fromstring(qml).find('renderer-v2')
    assert renderer is not None and renderer.get('attr') == 'code'
    fills = {
        s.get('name'): s.find(".//Option[@name='color']").get('value')  # type: ignore[union-attr]
        for s in renderer.iterfind('symbols/symbol')
    }
    found = {int(c.get('value')): (c.get('label'), fills[c.get('symbol')]) for c in renderer.iter('category')}
    expected = {c: (LEGEND[c].name, ','.join(map(str, (*LEGEND[c].colour, 255)))) for c in LEGEND.codes}
    assert found == expected


def test_the_minimum_mapping_unit_and_simplification_together(class_map: Path, tmp_path: Path) -> None:
    out = tmp_path / 'out' / 'small.gpkg'
    assert run(class_map, '--mmu', 500, '--simplify', 12, '--output', out) == 0
    frame = gpd.read_file(out, layer='land_cover')
    before = polygons(class_map)
    assert len(frame) < len(before.codes) and frame.pixels.sum() == before.pixels.sum()
    # what is left of small regions touches no large one
    small = frame[frame.pixels < 5]
    large = frame[frame.pixels >= 5]
    assert not any(large.relate_pattern(g, '****1****').any() for g in small.geometry)
    check_coverage(frame.geometry.to_numpy())


def test_only_what_lies_in_the_area(class_map: Path, tmp_path: Path) -> None:
    triangle = shapely.Polygon([(400041.3, 4599991.7), (400292.9, 4599803.1), (400063.7, 4599651.9)])
    aoi = tmp_path / 'aoi.gpkg'
    gpd.GeoDataFrame(geometry=[triangle], crs='EPSG:32631').to_crs('EPSG:4326').to_file(aoi)
    assert run(class_map, '--aoi', aoi, '--output', tmp_path / 'part.gpkg') == 0
    frame = gpd.read_file(tmp_path / 'part.gpkg', layer='land_cover')
    with rasterio.open(class_map) as src:
        codes = src.read(1)
    inside = rasterio.features.rasterize([triangle], codes.shape, transform=TRANSFORM)
    pairs = zip(frame.geometry, frame.code, strict=True)
    burnt = rasterio.features.rasterize(pairs, codes.shape, transform=TRANSFORM)
    assert np.array_equal(burnt, codes * inside)


def test_a_map_in_degrees(tmp_path: Path) -> None:
    path = write_raster(tmp_path / 'map.tif', random_codes(2), crs='EPSG:4326', origin=(1, 42), gsd=(0.0001, 0.0001))
    assert run(path, '--simplify', 20) == 0
    frame = gpd.read_file(path.with_suffix('.gpkg'), layer='land_cover')
    assert 'perimeter_m' not in frame.columns and 'confidence' not in frame.columns
    assert frame.area_m2.sum() == pytest.approx(frame.pixels.sum() * 8.27 * 11.11, rel=0.01)


@pytest.mark.parametrize(
    ('array', 'options', 'sentence'),
    [
        (np.ones((4, 5), np.float32), {}, 'is no class map: it has 1 band.s. of float32'),
        (np.ones((3, 4, 5), np.uint8), {}, 'is no class map: it has 3 band.s. of uint8'),
        (np.full((4, 5), 41, np.uint8), {}, 'holds the value 41, which is no class: codes are 0 .no data. to 12'),
        (np.full((4, 5), -3, np.int16), {}, 'holds the value -3, which is no class'),
        (np.zeros((4, 5), np.uint8), {}, 'holds no class in the area'),
        (np.ones((4, 5), np.uint8), {'crs': None}, 'has no CRS; assign the right one'),
    ],
)
def test_what_is_no_map(tmp_path: Path, array: NDArray[Any], options: dict[str, Any], sentence: str) -> None:
    path = write_raster(tmp_path / 'map.tif', array, **options)
    with pytest.raises(LandcoverError, match=sentence):
        run(path)
    assert [p.name for p in tmp_path.iterdir()] == ['map.tif']


def test_other_mistakes(class_map: Path, tmp_path: Path) -> None:
    with pytest.raises(LandcoverError, match=r'nothing.tif does not exist: name the class map'):
        run(tmp_path / 'nothing.tif')
    with pytest.raises(LandcoverError, match=r"name ends in .gpkg, got 'x.shp'"):
        run(class_map, '--output', tmp_path / 'x.shp')
    wrong = write_raster(tmp_path / 'wrong.tif', np.full((40, 33), 50, np.uint8), origin=(400010, 4600000))
    with pytest.raises(LandcoverError, match='does not lie on the grid of the map'):
        run(class_map, '--confidence', wrong)
    run(class_map)
    with pytest.raises(LandcoverError, match=r'exists already: choose another name, or allow .* with --overwrite'):
        run(class_map)
    assert run(class_map, '--overwrite') == 0
    (tmp_path / 'map.gpkg-wal').touch()
    with pytest.raises(LandcoverError, match='is open in another program'):
        run(class_map, '--overwrite')


def test_values_of_options_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    for text in ('-1', '0', 'nan', 'wide'):
        with pytest.raises(SystemExit):
            run('map.tif', '--simplify', text)
        assert 'expected a positive number' in capsys.readouterr().err


def test_from_the_shell(class_map: Path) -> None:
    command = [sys.executable, '-m', 'landcover_plugin', 'polygonize', str(class_map)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.search(r'map.gpkg: layer land_cover, [\d,]+ polygons', done.stdout)
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 1 and again.stderr.count('\n') == 2 and 'Traceback' not in again.stderr


_LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
from landcover_plugin.cli import main
sys.exit(main(['polygonize', sys.argv[2]]))
"""


@pytest.mark.parametrize('limit', [20_000, 150_000])
def test_a_full_disk_leaves_nothing(tmp_path: Path, limit: int) -> None:
    path = write_raster(tmp_path / 'map.tif', np.random.default_rng(0).integers(1, 13, (70, 60)).astype(np.uint8))
    done = subprocess.run([sys.executable, '-c', _LIMITED, str(limit), str(path)], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert 'map.gpkg cannot be written' in done.stderr and 'MB are free' in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ['map.tif']


def test_an_interruption_leaves_nothing(class_map: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr('landcover_plugin.mapping.stitching.Stitcher.finish', stop)
    with pytest.raises(KeyboardInterrupt):
        run(class_map)
    assert sorted(p.name for p in class_map.parent.iterdir()) == ['map.tif', 'map_confidence.tif']


_PEAK = """
import resource, sys
from landcover_plugin.commands.polygonize import main
main([sys.argv[1]])
sys.stdout.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    peaks = []
    tile = np.kron(random_codes(0, 128, 256, 12), np.ones((4, 4), np.uint8))  # 512 x 1024 px
    for copies in (6, 24):
        path = tmp_path / f'{copies}.tif'
        write_raster(path, np.tile(tile, (copies, 2)), tiled=True, compress='deflate')
        done = subprocess.run([sys.executable, '-c', _PEAK, str(path)], capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout.splitlines()[-1]))
    assert peaks[1] < 1.1 * peaks[0], peaks
