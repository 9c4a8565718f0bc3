"""Polygons to map, and what is said of those that are none."""

import logging
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS

from landcover_plugin.errors import LandcoverError
from landcover_plugin.grid import PixelGrid, PixelWindow
from landcover_plugin.sampling.regions import file_name, read_polygons, region_of, regions_by

GRID = PixelGrid(CRS.from_epsg(32631), Affine(10, 0, 400000, 0, -10, 4600000), 80, 120)
STAR = shapely.Polygon([(400103, 4599907), (400707, 4599791), (400311, 4599403), (400405, 4599703)])


def write(path: Path, *geometry: Any, crs: Any = 'EPSG:32631', **columns: Any) -> Path:
    gpd.GeoDataFrame(columns, geometry=list(geometry), crs=crs).to_file(path)
    return path


def region(path: Any, area: PixelWindow = GRID.full):
    return region_of(GRID, area, read_polygons(path, GRID), what='the aoi')


def centres(window: PixelWindow) -> Any:
    xmin, _, _, ymax = GRID.bounds(window)
    x, y = np.meshgrid(xmin + 5 + 10 * np.arange(window.width), ymax - 5 - 10 * np.arange(window.height))
    return shapely.points(x, y)


@pytest.mark.parametrize('suffix', ['gpkg', 'geojson', 'shp'])
def test_pixels_belong_to_the_polygon_that_holds_their_centre(tmp_path: Path, suffix: str) -> None:
    crs = 'EPSG:4326' if suffix == 'geojson' else 'EPSG:25831'
    there = gpd.GeoSeries([STAR], crs=GRID.crs.to_wkt()).to_crs(crs)
    found = region(write(tmp_path / f'a.{suffix}', *there, crs=crs))
    assert found.area == PixelWindow(9, 10, 51, 61)
    inside = shapely.contains(STAR, centres(found.area))
    assert np.array_equal(found.mask(found.area), inside) and 0 < inside.mean() < 1
    part = PixelWindow(20, 5, 13, 40)  # a part has the pixels of the whole
    assert np.array_equal(found.mask(part), shapely.contains(STAR, centres(part)))


def test_windows_that_touch_no_polygon_are_known(tmp_path: Path) -> None:
    two = [shapely.box(400100, 4599800, 400200, 4599900), shapely.box(401000, 4599300, 401100, 4599400)]
    found = region([write(tmp_path / f'{i}.gpkg', box) for i, box in enumerate(two)])
    assert found.area == PixelWindow(10, 10, 60, 100)
    between = PixelWindow(30, 40, 10, 10)
    assert not found.meets(between) and found.meets(between, halo=21)
    assert found.meets(PixelWindow(15, 15, 3, 3)) and found.mask(between).sum() == 0
    assert found.mask(found.area).sum() == 200


def test_a_bbox_and_polygons_intersect(tmp_path: Path) -> None:
    found = region(write(tmp_path / 'a.gpkg', STAR), PixelWindow(0, 0, 30, 30))
    assert found.area == PixelWindow(9, 10, 21, 20)


def test_unsound_polygons_are_repaired_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger('landcover_plugin'), 'propagate', True)
    bow = shapely.Polygon([(400100, 4599500), (400300, 4599700), (400300, 4599500), (400100, 4599700)])
    found = region(write(tmp_path / 'a.gpkg', bow))
    assert '1 polygons cross themselves, and were repaired' in caplog.text
    assert found.mask(found.area).sum() == pytest.approx(200, abs=20)


def test_bad_files_are_told_in_a_sentence(tmp_path: Path) -> None:
    square = shapely.box(400100, 4599800, 400200, 4599900)
    (tmp_path / 'text.gpkg').write_text('hello')
    (tmp_path / 'crs.wkt.csv').write_text('a,b\n1,2\n')
    files = {
        'nowhere.gpkg does not exist; --data.aoi names': tmp_path / 'nowhere.gpkg',
        'text.gpkg cannot be read as a vector file': tmp_path / 'text.gpkg',
        'csv holds no geometry': tmp_path / 'crs.wkt.csv',
        'none.gpkg holds no geometry': write(tmp_path / 'none.gpkg'),
        'crs.shp has no CRS; assign the right one': write(tmp_path / 'crs.shp', square, crs=None),
        'line.gpkg holds LineString: an area to map': write(
            tmp_path / 'line.gpkg', shapely.LineString(square.exterior)
        ),
        'point.gpkg holds Point:': write(tmp_path / 'point.gpkg', square.centroid),
        'flat.gpkg holds no polygon with an area': write(
            tmp_path / 'flat.gpkg', shapely.Polygon([(400000, 4599000), (400100, 4599000), (400050, 4599000)])
        ),
        'far.gpkg: the coordinates .* do not exist in its CRS': write(
            tmp_path / 'far.gpkg', shapely.box(0, 900, 10, 1000), crs='EPSG:4326'
        ),
        'the aoi lies outside the area that can be mapped, .400000.0, 4599200.0': write(
            tmp_path / 'out.gpkg', shapely.box(0, 0, 10, 10)
        ),
    }
    for sentence, path in files.items():
        with pytest.raises(LandcoverError, match=sentence) as e:
            region(path)
        assert '\n' not in str(e.value)
    with pytest.raises(LandcoverError, match='aoi names no file'):
        region([])


def test_maps_are_named_by_an_attribute(tmp_path: Path) -> None:
    boxes = [shapely.box(400100 + 300 * i, 4599800, 400200 + 300 * i, 4599900) for i in range(3)]

    def regions(names: list[Any], column: str = 'name'):
        path = tmp_path / 'a.gpkg'
        write(path, *boxes[: len(names)], name=names)
        return regions_by(column, GRID, GRID.full, read_polygons(path, GRID))

    found = regions(['Alt Empordà', 'b/c', 'd'])
    assert [r.name for r in found] == ['Alt_Empordà', 'b_c', 'd']
    assert [r.area for r in found] == [PixelWindow(10, 10 + 30 * i, 10, 10) for i in range(3)]
    assert file_name('../../etc') == 'etc'
    for names, column, sentence in (
        (['a', 'b'], 'nom', "no attribute 'nom' to name maps by; it has name"),
        (['a', 'A'], 'name', "several polygons of the aoi are called 'A'"),
        (['a', None], 'name', 'a polygon of the aoi has no name'),
        (['a', '//'], 'name', 'a polygon of the aoi has no name'),
    ):
        with pytest.raises(LandcoverError, match=sentence):
            regions(names, column)
