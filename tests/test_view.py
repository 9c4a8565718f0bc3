"""`landcover view`: tiles, points and verdicts as a browser gets them, and what is refused."""

import http.client
import io
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from conftest import BANDS, RELOCATED, analytic_codes, analytic_image, write_image, write_label, write_raster
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import Resampling
from rasterio.transform import from_bounds
from rasterio.vrt import WarpedVRT
from starlette.testclient import TestClient

from landcover_plugin.commands import view
from landcover_plugin.errors import LandcoverError
from landcover_plugin.grid import PixelGrid
from landcover_plugin.legend import LEGEND, PARENTS
from landcover_plugin.rasters.writing import MapFolder
from landcover_plugin.viewing import suspects as suspects_module
from landcover_plugin.viewing.app import STATIC, make_app
from landcover_plugin.viewing.handles import HANDLES
from landcover_plugin.viewing.scene import Scene
from landcover_plugin.viewing.serving import listen
from landcover_plugin.viewing.suspects import Suspects
from landcover_plugin.viewing.tiles import Tile, TileSource

HOST = 'http://127.0.0.1:8018'
JSON = {'Content-Type': 'application/json', 'Origin': HOST, 'Sec-Fetch-Site': 'same-origin'}

#: Beside the corner of the test rasters, in EPSG:32631.
ORIGIN = (400000, 4600000)


@pytest.fixture(autouse=True)
def _no_handles() -> Iterator[None]:
    yield
    HANDLES.close()


def write_audit(path: Path, count: int = 4, **more: Any) -> Path:
    """An audit as `landcover audit` lays it out: squares from west to east, the rank from east to west."""
    x = ORIGIN[0] + 40 * np.arange(count)
    columns = {
        'rank': np.arange(count, 0, -1),
        'label': 3,
        'label_name': LEGEND[3].name,
        'predicted': 6,
        'predicted_name': LEGEND[6].name,
        'confidence': 0.915,
        'score': 0.8,
        'area_m2': 400.0,
        'verdict': gpd.pd.array([None] * count, dtype='string'),
        'remark': gpd.pd.array([None] * count, dtype='string'),
        **more,
    }
    squares = [shapely.box(v, ORIGIN[1] - 60, v + 20, ORIGIN[1] - 40) for v in x]
    frame = gpd.GeoDataFrame(columns, geometry=squares, crs='EPSG:32631')
    frame.to_file(path, layer='suspects', driver='GPKG')
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two months with a border of no data, labels of the pixels' size, a map with all that lies beside it, an audit."""
    image = analytic_image()
    image[:, :5] = 0
    write_image(tmp_path, image, nodata=0)
    write_image(tmp_path, image // 2, month='201808', nodata=0)
    codes = analytic_codes()
    write_label(tmp_path, codes, gsd=10)
    predicted = np.where(np.arange(53) < 20, codes, 3).astype(np.uint8)
    predicted[:4] = 0
    percent = np.broadcast_to((np.arange(12) * 2)[:, None, None], (12, 41, 53)).astype(np.uint8)
    write_raster(tmp_path / 'map.tif', predicted, nodata=0)
    write_raster(tmp_path / 'map_confidence.tif', np.where(predicted, 40 + codes, 255).astype(np.uint8), nodata=255)
    write_raster(tmp_path / 'map_probabilities.tif', np.where(predicted, percent, 255).astype(np.uint8), nodata=255)
    write_audit(tmp_path / 'audit.gpkg')
    return tmp_path


@pytest.fixture
def client(folder: Path) -> TestClient:
    return browser(folder, folder / 'map.tif')


def browser(*paths: Path) -> TestClient:
    return TestClient(make_app(Scene(paths)), base_url=HOST)


def picture(client: TestClient, layer: str, tile: Tile, query: str = '') -> NDArray[np.uint8]:
    answer = client.get(f'/api/tiles/{layer}/{tile.z}/{tile.x}/{tile.y}.png?{query}')
    assert (answer.status_code, answer.headers['content-type']) == (200, 'image/png'), answer.text
    return np.asarray(Image.open(io.BytesIO(answer.content)).convert('RGBA'))


def tile_at(x: float, y: float, zoom: int) -> Tile:
    """The tile of a place in EPSG:32631, by plain arithmetic."""
    (mx,), (my,) = rasterio.warp.transform('EPSG:32631', 'EPSG:3857', [x], [y])
    edge = 2 * np.pi * 6378137 / 2**zoom
    return Tile(zoom, int((mx + np.pi * 6378137) // edge), int((np.pi * 6378137 - my) // edge))


def warped(path: Path, tile: Tile, resampling: Resampling, indexes: Any = None) -> NDArray[Any]:
    """The pixels of a tile from rasterio alone."""
    edge = 2 * np.pi * 6378137 / 2**tile.z
    left, top = tile.x * edge - np.pi * 6378137, np.pi * 6378137 - tile.y * edge
    transform = from_bounds(left, top - edge, left + edge, top, 256, 256)
    with (
        rasterio.open(path) as src,
        WarpedVRT(src, crs='EPSG:3857', transform=transform, width=256, height=256, resampling=resampling) as vrt,
    ):
        return vrt.read(indexes)


MIDDLE = (ORIGIN[0] + 265, ORIGIN[1] - 205)


@pytest.mark.parametrize('zoom', [12, 15, 17])
def test_tiles_of_classes_are_the_warped_raster_in_the_colours_of_the_legend(
    client: TestClient, folder: Path, zoom: int
) -> None:
    tile = tile_at(*MIDDLE, zoom)
    codes = warped(folder / 'map.tif', tile, Resampling.nearest)[0]
    shown = picture(client, 'map-0', tile)
    assert codes.any() and (shown[..., 3] == np.where(codes, 255, 0)).all()
    assert (shown[codes > 0, :3] == LEGEND.palette[codes[codes > 0]]).all()
    hidden = picture(client, 'map-0', tile, 'hide=3,7')
    assert (hidden[..., 3] == np.where((codes > 0) & ~np.isin(codes, (3, 7)), 255, 0)).all()


def test_image_tiles_are_stretched_by_percentiles_over_the_months(client: TestClient, folder: Path) -> None:
    tile = tile_at(*MIDDLE, 15)
    months = [rasterio.open(p).read() for p in sorted(folder.glob('S2_*'))]
    pixels = np.concatenate([m[:, m.any(0)] for m in months], axis=1)
    for bands in (('B04', 'B03', 'B02'), ('B12', 'B8A', 'B02')):
        numbers = [BANDS.index(b) + 1 for b in bands]
        low, high = np.percentile(pixels[[n - 1 for n in numbers]], (2, 98), axis=1)[..., None, None]
        values = warped(next(folder.glob('S2_*201804*')), tile, Resampling.nearest, numbers)
        shown = picture(client, 'image-2018-04', tile, f'bands={",".join(bands)}')
        assert (shown[..., 3] == np.where(values.any(0), 255, 0)).all()
        expected = ((values - low) / (high - low)).clip(0, 1) ** (1 / 1.25) * 255
        difference = np.moveaxis(shown[..., :3], -1, 0) - expected
        assert np.abs(difference[:, values.any(0)]).max() <= 1.01
    assert 'no band B99' in client.get(f'/api/tiles/image-2018-04/15/{tile.x}/{tile.y}.png?bands=B99,B03,B02').text


def test_confidence_and_probabilities_lie_on_their_ramps(client: TestClient, folder: Path) -> None:
    tile = tile_at(*MIDDLE, 15)
    ramps = client.get('/api/scene').json()['ramps']
    percent = warped(folder / 'map_probabilities.tif', tile, Resampling.nearest)
    shown = picture(client, 'map-0-probabilities', tile, 'class=6')
    assert set(np.unique(percent[5])) == {10, 255}
    assert (shown[..., 3] == np.where(percent[5] == 255, 0, 255)).all()
    assert {tuple(c) for c in shown[percent[5] == 10, :3]} == {tuple(bytes.fromhex(ramps['probabilities'][1][1:]))}
    confidence = warped(folder / 'map_confidence.tif', tile, Resampling.nearest)[0]
    shown = picture(client, 'map-0-confidence', tile)
    assert {tuple(c) for c in shown[confidence == 50, :3]} == {tuple(bytes.fromhex(ramps['confidence'][5][1:]))}


def test_disagreement_is_where_map_and_labels_differ(client: TestClient, folder: Path) -> None:
    tile = tile_at(*MIDDLE, 15)
    first = warped(folder / 'map.tif', tile, Resampling.nearest)[0]
    second = warped(next(folder.glob('LC_*')), tile, Resampling.nearest)[0]
    shown = picture(client, 'disagreement-0', tile)
    known = (first > 0) & (second > 0)
    assert ((shown[..., 3] == 255) == (known & (first != second))).all()
    assert ((shown[..., 3] > 0) == known).all()
    forest = picture(client, 'disagreement-0', tile, f'hide={",".join(str(c) for c in LEGEND.codes if c != 3)}')
    assert ((forest[..., 3] > 0) == (known & ((first == 3) | (second == 3)))).all()


def test_overviews_are_used_and_rasters_without_them_are_not_read_from_afar(tmp_path: Path) -> None:
    codes = np.full((3000, 3000), 3, dtype=np.uint8)
    options = {'tiled': True, 'blockxsize': 256, 'blockysize': 256, 'compress': 'deflate'}
    plain = write_raster(tmp_path / 'LC_2018.tif', np.tile(codes, (2, 2)), gsd=1, **options)
    far = TileSource(str(plain), 0)
    assert far.min_zoom > 0 and far._bytes(far.min_zoom) <= 2**25 < far._bytes(far.min_zoom - 1)
    client = browser(plain)
    told = client.get('/api/scene').json()['layers'][0]
    assert told['min_zoom'] == far.min_zoom and 'gdaladdo -r mode LC_2018.tif' in told['notice']
    tile = tile_at(ORIGIN[0] + 500, ORIGIN[1] - 500, far.min_zoom - 1)
    answer = client.get(f'/api/tiles/labels-2018/{tile.z}/{tile.x}/{tile.y}.png')
    assert answer.status_code == 422 and 'no overviews' in answer.text
    with rasterio.open(plain, 'r+') as dst:
        dst.build_overviews([2, 4, 8, 16], Resampling.mode)
        dst.write(np.full((3000, 3000), 6, dtype=np.uint8), 1, window=((0, 3000), (0, 3000)))
    HANDLES.close()
    client = browser(plain)
    assert client.get('/api/scene').json()['layers'][0]['min_zoom'] == 0
    inside = ORIGIN[0] + 1500, ORIGIN[1] - 1500  # overviews still say 3 where the pixels say 6
    assert {tuple(c) for c in picture(client, 'labels-2018', tile_at(*inside, 12)).reshape(-1, 4)} >= {
        (*LEGEND[3].colour, 255)
    }
    close = picture(client, 'labels-2018', tile_at(*inside, 18)).reshape(-1, 4)
    assert {tuple(c) for c in close} == {(*LEGEND[6].colour, 255)}


def test_a_point_tells_the_very_pixel(client: TestClient, folder: Path) -> None:
    row, col = 17, 31
    x, y = ORIGIN[0] + 10 * col + 3.25, ORIGIN[1] - 10 * row - 7.5
    (lon,), (lat,) = rasterio.warp.transform('EPSG:32631', 'EPSG:4326', [x], [y])
    found = client.get('/api/point', params={'lon': lon, 'lat': lat}).json()
    place = found['place']
    assert (place['crs'], place['row'], place['col'], place['inside']) == ('EPSG:32631', row, col, True)
    assert (place['x'], place['y']) == pytest.approx((x, y), abs=1e-4)
    lats, lons = zip(*place['outline'], strict=True)
    xs, ys = rasterio.warp.transform('EPSG:4326', 'EPSG:32631', lons, lats)
    expected = (ORIGIN[0] + 310, ORIGIN[0] + 320, ORIGIN[1] - 180, ORIGIN[1] - 170)
    assert (min(xs), max(xs), min(ys), max(ys)) == pytest.approx(expected, abs=1e-3)
    april, august = found['spectra']
    for spectrum, image in ((april, analytic_image()), (august, analytic_image() // 2)):
        values = dict(zip(BANDS, (image[:, row, col] / 10_000).tolist(), strict=True))
        assert spectrum['reflectance'] == pytest.approx(values, abs=1e-5)
    label = int(analytic_codes()[row, col])
    assert [c['code'] for c in found['classes']] == [label, 3]
    by_kind = {p['kind']: p for p in found['percents']}
    assert by_kind['confidence']['values'] == [40 + label]
    assert by_kind['probabilities']['by_code'] == {str(c): 2 * (c - 1) for c in LEGEND.codes}
    nowhere = client.get('/api/point', params={'lon': lon + 1, 'lat': lat}).json()
    assert not nowhere['place']['inside'] and [s['reflectance'] for s in nowhere['spectra']] == [None, None]
    assert {c['code'] for c in nowhere['classes']} == {0}
    for query, status in (({'lon': 'x', 'lat': 1}, 400), ({'lon': 1}, 400), ({'lon': 999, 'lat': 1}, 422)):
        assert client.get('/api/point', params=query).status_code == status


def test_verdicts_are_in_the_file_at_once(client: TestClient, folder: Path) -> None:
    rows = client.get('/api/audits/suspects-0').json()
    assert [r['rank'] for r in rows] == [1, 2, 3, 4] and {r['verdict'] for r in rows} == {None}
    outline = client.get(f'/api/audits/suspects-0/{rows[0]["fid"]}').json()
    assert shapely.from_geojson(json.dumps(outline)).bounds == pytest.approx(rows[0]['bounds'], abs=1e-6)
    said = [('accept', 'new "road"; DROP TABLE suspects'), ('reject', None), ('unsure', None)]
    for row, (verdict, remark) in zip(rows, said, strict=False):
        body = json.dumps({'verdict': verdict, 'remark': remark})
        answer = client.post(f'/api/audits/suspects-0/{row["fid"]}', content=body, headers=JSON)
        assert answer.json() == {'fid': row['fid'], 'verdict': verdict}
    read = gpd.read_file(folder / 'audit.gpkg', layer='suspects').sort_values('rank')
    assert read['verdict'].tolist()[:3] == ['accept', 'reject', 'unsure'] and read['verdict'].isna().tolist()[3]
    assert read['remark'].tolist()[0] == said[0][1] and read.geometry.area.tolist() == pytest.approx([400] * 4)
    client.post(f'/api/audits/suspects-0/{rows[1]["fid"]}', content='{"verdict": null}', headers=JSON)
    again = client.get('/api/audits/suspects-0').json()
    assert [r['verdict'] for r in again] == ['accept', None, 'unsure', None]


@pytest.mark.parametrize(
    ('body', 'status', 'said'),
    [
        ('{"verdict": "yes"}', 422, 'one of accept, reject, unsure'),
        ('{"verdict": 3}', 400, 'text or null'),
        ('{}', 400, 'verdict is JSON'),
        ('[1]', 400, 'verdict is JSON'),
        ('no', 400, 'verdict is JSON'),
        (json.dumps({'verdict': 'accept', 'remark': 'x' * 2001}), 422, 'at most 2000 characters'),
        (json.dumps({'verdict': 'accept', 'remark': 'x' * 30_000}), 413, 'at most 20000 bytes'),
    ],
)
def test_other_verdicts_are_refused(client: TestClient, folder: Path, body: str, status: int, said: str) -> None:
    answer = client.post('/api/audits/suspects-0/1', content=body, headers=JSON)
    assert answer.status_code == status and said in answer.text
    assert client.post('/api/audits/suspects-0/99', content='{"verdict": "accept"}', headers=JSON).status_code == 404
    assert gpd.read_file(folder / 'audit.gpkg')['verdict'].isna().all()


def test_a_locked_audit_says_so_and_keeps_what_it_had(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspects_module, '_PATIENCE', 0.05)
    audit = Suspects(folder / 'audit.gpkg')
    with sqlite3.connect(folder / 'audit.gpkg', isolation_level=None) as other:
        other.execute('BEGIN EXCLUSIVE')
        with pytest.raises(LandcoverError, match=r'audit.gpkg is being written by another program \(QGIS'):
            audit.judge(1, 'accept')
        other.execute('ROLLBACK')
    audit.judge(1, 'accept')
    assert audit.rows()[-1]['verdict'] == 'accept'
    (folder / 'audit.gpkg').unlink()
    with pytest.raises(LandcoverError, match='write-protected or gone'):
        audit.judge(1, 'reject')
    assert not (folder / 'audit.gpkg').exists()


@pytest.mark.parametrize(
    'path',
    [
        '/static/../app.py',
        '/static/..%2fapp.py',
        '/static/%2e%2e/app.py',
        '/static/%2e%2e%2f%2e%2e%2f%2e%2e%2fpyproject.toml',
        '/static//etc/passwd',
        '/../../etc/passwd',
        '/api/tiles/..%2f..%2fsecret/3/1/1.png',
        '/api/tiles/%2fetc%2fpasswd/3/1/1.png',
        '/api/tiles/map-0/3/9/1.png',
        '/api/tiles/map-0/40/1/1.png',
        '/api/tiles/map-0/-1/0/0.png',
        '/api/audits/..%2faudit.gpkg',
        '/api/audits/suspects-1',
        '/audit.gpkg',
        '/map.tif',
    ],
)
def test_no_other_file_is_read(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404 and len(answer.content) < 60


def test_only_our_own_page_is_answered(client: TestClient, folder: Path) -> None:
    for host in ('evil.example', '127.0.0.1.evil.example', '', 'evil.example:8018', '[::'):
        assert client.get('/api/scene', headers={'Host': host}).status_code == 403
    for host in ('127.0.0.1:8018', 'localhost:8018', '[::1]:8018', '192.168.1.7:8018', 'LOCALHOST'):
        assert client.get('/api/scene', headers={'Host': host}).status_code == 200
    url, body = '/api/audits/suspects-0/1', '{"verdict": "accept"}'
    for wrong in (
        {'Origin': 'http://evil.example'},
        {'Origin': 'null'},
        {'Origin': ''},
        {'Origin': 'http://127.0.0.1:9999'},
        {'Sec-Fetch-Site': 'cross-site'},
        {'Sec-Fetch-Site': 'same-site'},
    ):
        assert client.post(url, content=body, headers=JSON | wrong).status_code == 403
    assert client.post(url, content=body, headers=JSON | {'Content-Type': 'text/plain'}).status_code == 415
    for method in ('PUT', 'DELETE', 'PATCH', 'OPTIONS'):
        assert client.request(method, url, headers=JSON).status_code == 405
    assert client.post('/api/scene', content=body, headers=JSON).status_code == 405
    assert gpd.read_file(folder / 'audit.gpkg')['verdict'].isna().all()


def test_the_page_loads_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get('/')
    policy = dict(part.split(' ', 1) for part in page.headers['content-security-policy'].split('; '))
    assert policy['default-src'] == "'none'" and policy['script-src'] == policy['connect-src'] == "'self'"
    assert policy['frame-ancestors'] == "'none'" and page.headers['x-content-type-options'] == 'nosniff'
    assert 'style=' not in page.text and '<style' not in page.text and page.text.count('<script') == 2
    for file in STATIC.glob('*.*'):
        text = file.read_text(encoding='utf-8')
        allowed = text.replace('http://www.w3.org/2000/svg', '')
        assert 'innerHTML' not in text and 'eval(' not in text and 'http' not in allowed and '@import' not in text
        assert client.get(f'/static/{file.name}').status_code == 200
    assert client.get('/static/vendor/leaflet/leaflet.js').text.count('sourceMappingURL') == 0
    assert 'BSD 2-Clause' in (STATIC / 'vendor' / 'leaflet' / 'LICENSE').read_text(encoding='utf-8')


def test_a_folder_is_searched_for_what_predict_wrote(tmp_path: Path) -> None:
    codes = analytic_codes()
    with rasterio.open(write_raster(tmp_path / 'grid.tif', codes.astype(np.uint16))) as src:
        grid = PixelGrid.of(src)
    written = MapFolder(tmp_path / 'girona.tif', grid, ['confidence', 'entropy', 'probabilities'])
    written.open({}, overwrite=False)
    layers = {'classes': codes[None], 'confidence': codes[None], 'entropy': codes[None]}
    written.strips.write(grid.full, layers | {'probabilities': np.repeat(codes[None], 12, axis=0)}, {})
    written.join([grid.full], {})
    written.publish()
    client = browser(tmp_path)
    told = client.get('/api/scene').json()['layers']
    assert [layer['id'].removeprefix('map-0') for layer in told] == ['', '-probabilities', '-entropy', '-confidence']
    assert {layer['min_zoom'] for layer in told} == {0} and {f for layer in told for f in layer['files']} == {
        'girona.tif', 'girona_confidence.tif', 'girona_entropy.tif', 'girona_probabilities.tif',
    }  # fmt: skip
    assert picture(client, 'map-0', tile_at(*MIDDLE, 15)).any()
    alone = browser(tmp_path / 'girona_entropy.tif').get('/api/scene').json()['layers']
    assert [(layer['kind'], layer['name']) for layer in alone] == [('entropy', 'girona entropy')]


def test_the_browser_is_told_no_path(client: TestClient, folder: Path) -> None:
    told = client.get('/api/scene')
    assert str(folder) not in told.text
    assert [layer['id'] for layer in told.json()['layers']] == [
        'image-2018-04', 'image-2018-08', 'labels-2018', 'map-0', 'map-0-probabilities', 'map-0-confidence',
        'disagreement-0',
    ]  # fmt: skip
    west, south, east, north = told.json()['bounds']
    assert west < east and south < north and abs(north - 41.54) < 0.1
    assert told.json()['combinations'][0] == {'name': 'true colour', 'bands': ['B04', 'B03', 'B02']}


def test_files_that_vanish_or_break_are_told(client: TestClient, folder: Path) -> None:
    tile = tile_at(*MIDDLE, 15)
    url = f'/api/tiles/map-0/{tile.z}/{tile.x}/{tile.y}.png'
    data = (folder / 'map.tif').read_bytes()
    (folder / 'map.tif').write_bytes(data[:300])
    answer = client.get(url)
    assert answer.status_code == 422 and answer.text.startswith('map.tif is truncated')
    (folder / 'map.tif').unlink()
    assert client.get(url).text.startswith('map.tif is gone')
    (folder / 'map.tif').write_bytes(data)
    assert client.get(url).status_code == 200


def test_a_file_that_is_replaced_is_shown_anew(client: TestClient, folder: Path) -> None:
    tile = tile_at(*MIDDLE, 18)
    before = client.get('/api/scene').json()['layers'][3]['version']
    assert picture(client, 'map-0', tile)[..., 3].any()
    write_raster(folder / 'map.tif', np.full((41, 53), 12, dtype=np.uint8), nodata=0)
    os.utime(folder / 'map.tif', (2e9, 2e9))
    assert {tuple(c) for c in picture(client, 'map-0', tile).reshape(-1, 4)} == {(*LEGEND[12].colour, 255)}
    assert client.get('/api/scene').json()['layers'][3]['version'] != before


def damaged(folder: Path) -> Path:
    (folder / 'bad.gpkg').write_bytes(b'SQLite format 3\0' + b'x' * 200)
    return folder / 'bad.gpkg'


def other_layer(folder: Path) -> Path:
    frame = gpd.GeoDataFrame({'a': [1]}, geometry=[shapely.box(0, 0, 1, 1)], crs='EPSG:32631')
    frame.to_file(folder / 'other.gpkg', layer='blocks')
    return folder / 'other.gpkg'


def cut(folder: Path) -> Path:
    path = write_raster(folder / 'cut.tif', analytic_codes(300, 300))
    path.write_bytes(path.read_bytes()[:-50_000])
    return path


BAD = {
    'missing': (lambda f: f / 'nothing', 'does not exist'),
    'empty folder': (lambda f: (f / 'empty').mkdir() or f / 'empty', 'nothing to look at'),
    'damaged GeoPackage': (damaged, 'bad.gpkg cannot be read as a GeoPackage'),
    'another layer': (other_layer, r'its layers are blocks\)'),
    'audit without verdicts': (
        lambda f: write_audit(f / 'a.gpkg').rename(f / 'b.gpkg') and drop_verdict(f / 'b.gpkg'),
        'no column verdict',
    ),
    'text': (lambda f: f / 'a.tif' if (f / 'a.tif').write_text('no') else f, 'cannot be opened as a raster'),
    'floats': (lambda f: write_raster(f / 'a.tif', np.ones((9, 9))), r'nothing that can be shown \(1 bands of float64'),
    'no CRS': (lambda f: write_raster(f / 'a.tif', analytic_codes(), crs=None), 'has no CRS'),
    'cut off': (cut, 'cut.tif is truncated'),
    'no bands': (
        lambda f: write_raster(f / 'S2_X_201804.tif', analytic_image(bands=3), descriptions=[None] * 3),
        'has 3 bands without names',
    ),
}


def drop_verdict(path: Path) -> Path:
    with sqlite3.connect(path) as database:
        database.execute('ALTER TABLE suspects DROP COLUMN verdict')
    return path


@pytest.mark.parametrize('what', BAD)
def test_bad_input_ends_with_a_sentence(what: str, tmp_path: Path) -> None:
    make, said = BAD[what]
    with pytest.raises(LandcoverError, match=said):
        view.main([str(make(tmp_path)), '--no-open'])


def test_bad_options_end_with_a_sentence(folder: Path) -> None:
    for options, said in (
        (['--port', '99999'], r'--port must be in \[0, 65535\]'),
        (['--host', '203.0.113.7'], '203.0.113.7 is no address of this machine'),
        (['--reflectance-scale', '0'], 'must be a number > 0'),
        (['--band-order', 'B02'], 'band_order names 1 bands'),
    ):
        with pytest.raises(LandcoverError, match=said):
            view.main([str(folder), '--no-open', *options])
    with pytest.raises(LandcoverError, match='name the image and the labels too'):
        view.main([str(folder / 'audit.gpkg'), '--no-open'])


def test_a_missing_package_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'rio_tiler', None)
    with pytest.raises(LandcoverError, match=r"rio_tiler is missing.*pip install 'landcover-plugin\[view\]'"):
        view.main([str(folder)])


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, '-m', 'landcover_plugin', 'view', *map(str, arguments), '--no-open']
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_command_serves_until_interrupted_and_names_a_taken_port(folder: Path) -> None:
    with start(folder, folder / 'map.tif', '--port', 0) as server:
        try:
            line = server.stdout.readline() if server.stdout else ''
            port = int(line.rpartition(':')[2].partition('/')[0])
            assert line.startswith('7 layers, 1 audits: http://127.0.0.1:')
            connection = http.client.HTTPConnection('127.0.0.1', port, timeout=20)
            connection.request('GET', '/')
            answer = connection.getresponse()
            assert answer.status == 200 and b'<title>landcover' in answer.read()
            connection.close()
            with socket.socket() as other, pytest.raises(OSError):  # not on other addresses of this machine
                other.settimeout(1)
                other.connect(('127.0.0.2', port))
            with pytest.raises(LandcoverError, match=f'port {port} of 127.0.0.1 is taken .*--port 0'):
                view.main([str(folder), '--no-open', '--port', str(port)])
        finally:
            server.send_signal(signal.SIGINT)
            _, error = server.communicate(timeout=20)
    assert server.returncode == 0 and 'Traceback' not in error


def test_help_needs_no_package() -> None:
    code = (
        'import sys; from landcover_plugin.cli import main; sys.modules["rio_tiler"] = sys.modules["rasterio"] = None'
    )
    done = subprocess.run(
        [sys.executable, '-c', f'{code}; main(["view", "--help"])'], capture_output=True, text=True, check=True
    )
    assert '127.0.0.1' in done.stdout and 'landcover view data map.tif' in done.stdout


def test_answers_are_not_held_back() -> None:
    with listen('127.0.0.1', 0) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_files_of_a_month_are_one_layer(tmp_path: Path) -> None:
    image = analytic_image()
    for number, columns in enumerate((slice(0, 30), slice(24, 53))):
        origin = ORIGIN[0] + 10 * columns.start, ORIGIN[1]
        part = image[:, :, columns]
        write_image(tmp_path / f'part{number}', part, origin=origin, nodata=0)
    whole = write_image(tmp_path / 'whole', image, nodata=0)
    tile = tile_at(*MIDDLE, 15)
    parts = browser(tmp_path / 'part0', tmp_path / 'part1')
    assert [layer['id'] for layer in parts.get('/api/scene').json()['layers']] == ['image-2018-04']
    assert (
        picture(parts, 'image-2018-04', tile)[..., 3] == picture(browser(whole), 'image-2018-04', tile)[..., 3]
    ).all()


def test_reflectance_in_floats_with_nan_is_shown_and_told(tmp_path: Path) -> None:
    image = (analytic_image() / 65_536).astype(np.float32)
    image[:, :, :9] = np.nan
    write_image(tmp_path, image, nodata=np.nan)
    client = TestClient(make_app(Scene([tmp_path], reflectance_scale=2, reflectance_offset=-0.1)), base_url=HOST)
    tile = tile_at(*MIDDLE, 15)
    valid = np.isfinite(warped(next(tmp_path.glob('S2_*')), tile, Resampling.nearest)[0])
    assert 0 < valid.mean() < 1 and (picture(client, 'image-2018-04', tile)[..., 3] == 255 * valid).all()
    (lon,), (lat,) = rasterio.warp.transform('EPSG:32631', 'EPSG:4326', [MIDDLE[0]], [MIDDLE[1]])
    told = client.get('/api/point', params={'lon': lon, 'lat': lat}).json()['spectra'][0]['reflectance']
    assert told['B03'] == pytest.approx((float(image[1, 20, 26]) - 0.1) / 2, abs=1e-5)


def test_the_41_values_become_the_12_classes(tmp_path: Path) -> None:
    values = (np.arange(41 * 30).reshape(30, 41) % 41 + 1).astype(np.uint8)
    label = write_label(tmp_path, values, name='cobertes_2018.tif', gsd=10)
    tile = tile_at(ORIGIN[0] + 200, ORIGIN[1] - 150, 17)
    found = warped(label, tile, Resampling.nearest)[0]
    table = np.array([0, *(p.code for p in PARENTS)], dtype=np.uint8)
    shown = picture(browser(label), 'labels-2018', tile)
    assert (shown[found > 0, :3] == LEGEND.palette[table[found[found > 0]]]).all() and (found > 0).any()


@pytest.mark.skipif(not RELOCATED.exists(), reason='needs the relocated pixels')
def test_real_pixels_are_shown(tmp_path: Path) -> None:
    client = browser(RELOCATED)
    west, south, east, north = client.get('/api/scene').json()['bounds']
    (x,), (y,) = rasterio.warp.transform('EPSG:4326', 'EPSG:32631', [(west + east) / 2], [(south + north) / 2])
    tile = tile_at(x, y, 14)
    for layer in ('image-2018-04', 'labels-2018'):
        shown = picture(client, layer, tile)
        assert (shown[..., 3] == 255).mean() > 0.2 and len(np.unique(shown.reshape(-1, 4), axis=0)) > 3


def test_pictures_are_png_that_others_read(client: TestClient) -> None:
    tile = tile_at(*MIDDLE, 15)
    content = client.get(f'/api/tiles/map-0/{tile.z}/{tile.x}/{tile.y}.png').content
    assert content[:8] == b'\x89PNG\r\n\x1a\n' and zlib.crc32(content[12:29]) == int.from_bytes(content[29:33], 'big')
    empty = picture(client, 'map-0', Tile(15, 0, 0))
    assert empty.shape == (256, 256, 4) and not empty.any()
