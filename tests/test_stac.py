"""STAC items and styles beside maps, read back by others' means."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pystac
import pytest
import shapely
from affine import Affine
from conftest import write_raster
from pyproj import CRS, Transformer
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from rasterio.crs import CRS as RasterCRS

from landcover_plugin.errors import LandcoverError
from landcover_plugin.grid import PixelGrid, PixelWindow
from landcover_plugin.legend import LEGEND, Legend
from landcover_plugin.mapping.stac import write_stac
from landcover_plugin.rasters.attribute_table import write_attribute_table
from landcover_plugin.rasters.qml import write_qml
from landcover_plugin.rasters.writing import MapFolder

TAGS = {
    'MODEL': 'unet',
    'CHECKPOINT': 'best.ckpt',
    'DATES': '2018-04 2018-08',
    'SOFTWARE': 'landcover 1.0, torch 2.14.1',
}


@pytest.fixture
def class_map(tmp_path: Path) -> Path:
    """A map as predict writes it, with everything beside it."""
    path = tmp_path / 'map.tif'
    grid = PixelGrid(RasterCRS.from_epsg(32631), Affine(10, 0, 400000, 0, -10, 4600000), 30, 50)
    folder = MapFolder(path, grid, ['confidence', 'probabilities'])
    folder.open({}, overwrite=False)
    codes = np.arange(1500, dtype=np.uint8).reshape(1, 30, 50) % 13
    layers = {'classes': codes, 'confidence': codes, 'probabilities': np.repeat(codes, 12, axis=0)}
    folder.strips.write(PixelWindow(0, 0, 30, 50), layers, {})
    folder.join([PixelWindow(0, 0, 30, 50)], TAGS)
    folder.publish()
    write_qml(path, LEGEND)
    (tmp_path / 'map.json').write_text('{}')
    return path


def test_the_item_is_valid_and_read_back(class_map: Path) -> None:
    path = write_stac(class_map)
    assert path.name == 'map.stac.json'
    text = json.loads(path.read_text(encoding='utf-8'))
    pytest.importorskip('jsonschema')
    JsonSchemaSTACValidator().validate_core(text, pystac.STACObjectType.ITEM, '1.1.0')
    item = pystac.Item.from_file(str(path))
    assert item.id == 'map' and item.datetime is None
    assert item.common_metadata.start_datetime == datetime(2018, 4, 1, tzinfo=UTC)
    assert item.common_metadata.end_datetime == datetime(2018, 8, 31, 23, 59, 59, tzinfo=UTC)
    assert item.properties['processing:software'] == {'landcover': '1.0', 'torch': '2.14.1'}
    assert item.properties['processing:lineage'] == 'network unet, checkpoint best.ckpt'
    assert set(item.stac_extensions) == {
        f'https://stac-extensions.github.io/{name}/schema.json'
        for name in ('projection/v2.0.0', 'raster/v2.0.0', 'processing/v1.2.0', 'file/v2.1.0', 'classification/v2.0.0')
    }


def test_where_the_map_is(class_map: Path) -> None:
    item = pystac.Item.from_file(str(write_stac(class_map)))
    proj = item.ext.proj
    assert (proj.code, proj.shape) == ('EPSG:32631', [30, 50])
    assert proj.transform == [10, 0, 400000, 0, -10, 4600000]
    assert proj.bbox == [400000, 4599700, 400500, 4600000]
    assert CRS(proj.wkt2).to_epsg() == 32631
    footprint = shapely.geometry.shape(item.geometry)
    assert footprint.is_valid and footprint.exterior.is_ccw
    assert np.allclose(footprint.bounds, item.bbox)
    to_degrees = Transformer.from_crs(32631, 4326, always_xy=True).transform
    for x, y in ((400000, 4600000), (400500, 4599700), (400250, 4600000)):
        assert footprint.boundary.distance(shapely.Point(to_degrees(x, y))) < 1e-6


def test_what_the_files_hold(class_map: Path) -> None:
    item = pystac.Item.from_file(str(write_stac(class_map)))
    names = {
        'classes': 'map.tif', 'confidence': 'map_confidence.tif', 'probabilities': 'map_probabilities.tif',
        'report': 'map.json', 'style': 'map.qml', 'attribute_table': 'map.tif.aux.xml',
    }  # fmt: skip
    assert {key: Path(asset.href).name for key, asset in item.assets.items()} == names
    for key, asset in item.assets.items():
        content = Path(asset.get_absolute_href() or '').read_bytes()
        assert asset.ext.file.size == len(content), key
        assert asset.ext.file.checksum == '1220' + hashlib.sha256(content).hexdigest()
    classes = item.assets['classes'].ext.classification.classes
    assert [(c.value, c.title, c.color_hint) for c in classes or ()] == [
        (c.code, c.name, bytes(c.colour).hex().upper()) for c in LEGEND
    ]
    assert [c.nodata for c in classes or ()] == [True] + [None] * 12
    probabilities = item.assets['probabilities'].extra_fields
    assert [band['name'] for band in probabilities['bands']] == LEGEND.names[1:]
    assert (probabilities['data_type'], probabilities['nodata'], probabilities['unit']) == ('uint8', 255, '%')
    assert item.assets['classes'].extra_fields['nodata'] == 0
    assert item.assets['classes'].extra_fields['raster:spatial_resolution'] == 10


def test_a_map_without_tags_or_code(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wkt = CRS(32631).to_wkt().replace('ID["EPSG",32631]', 'ID["LOCAL",1]').replace('UTM zone 31N', 'mine')
    path = write_raster(tmp_path / 'map.tif', np.ones((4, 5), np.uint8), crs=wkt)
    text = json.loads(write_stac(path).read_text(encoding='utf-8'))
    assert 'does not say from which months' in caplog.text
    assert text['properties']['datetime'] is not None and text['properties']['proj:wkt2']
    pytest.importorskip('jsonschema')
    JsonSchemaSTACValidator().validate_core(text, pystac.STACObjectType.ITEM, '1.1.0')


def test_no_map_no_item(tmp_path: Path) -> None:
    with pytest.raises(LandcoverError, match='cannot be opened as a raster'):
        write_stac(tmp_path / 'nothing.tif')
    assert not list(tmp_path.iterdir())


def test_the_style_of_a_raster(tmp_path: Path) -> None:
    legend = LEGEND.with_colours({3: (1, 2, 3)})
    path = write_qml(tmp_path / 'map.tif', legend)
    assert path == tmp_path / 'map.qml' and [p.name for p in tmp_path.iterdir()] == ['map.qml']
    renderer = ET.parse(path).getroot().find('pipe/rasterrenderer')
    assert renderer is not None and renderer.get('type') == 'paletted' and renderer.get('band') == '1'
    entries = [(int(e.get('value', '')), e.get('color'), e.get('label')) for e in renderer.iter('paletteEntry')]
    assert entries == [(c, '#' + bytes(legend[c].colour).hex(), legend[c].name) for c in legend.codes]
    assert entries[2] == (3, '#010203', 'forest')


def test_the_attribute_table_reads_as_gdal_reads_it(tmp_path: Path) -> None:
    path = write_raster(tmp_path / 'map.tif', np.ones((4, 5), np.uint8))
    legend = Legend((LEGEND[0], LEGEND[1].__class__(1, 'fields & <meadows>', 'camps', (1, 2, 3))))
    write_attribute_table(path, legend)
    root = ET.parse(tmp_path / 'map.tif.aux.xml').getroot()
    assert [c.text for c in root.iter('Category')] == ['no data', 'fields & <meadows>']
    rows = [[f.text for f in row.iter('F')] for row in root.iter('Row')]
    assert rows == [['0', 'no data', '0', '0', '0'], ['1', 'fields & <meadows>', '1', '2', '3']]


@pytest.mark.parametrize('write', [write_qml, write_attribute_table])
def test_a_style_that_cannot_be_written(tmp_path: Path, write: object) -> None:
    (tmp_path / 'file').touch()
    with pytest.raises(LandcoverError, match='cannot be written'):
        write(tmp_path / 'file' / 'map.tif', LEGEND)  # type: ignore[operator]
