"""QGIS styles: names and colours of the legend, for rasters of codes and for polygons.

QGIS loads ``map.qml`` beside ``map.tif``, and the default style of a GeoPackage, by itself.
"""

from pathlib import Path
from xml.etree import ElementTree as ET

from ..legend import Colour, Legend
from .outputs import PathLike, cannot_write, write_whole

_DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"

#: Styles of this version are read by all later ones.
_VERSION = '3.22'


def qml_path(path: PathLike) -> Path:
    """The style that QGIS loads with a layer.

    Examples:
        >>> qml_path('out/map.tif')
        PosixPath('out/map.qml')
    """
    return Path(path).with_suffix('.qml')


def write_qml(path: PathLike, legend: Legend) -> Path:
    """Write the style of a raster of codes beside it; an older one is replaced.

    Args:
        path: The raster, for example ``map.tif``.
        legend: Codes, names and colours.

    Returns:
        The file written, for example ``map.qml``.

    Raises:
        LandcoverError: If it cannot be written.
    """
    target = qml_path(path)
    try:
        write_whole(target, lambda staging: staging.write_text(raster_qml(legend), encoding='utf-8'))
    except OSError as e:
        raise cannot_write(target, e) from e
    return target


def raster_qml(legend: Legend) -> str:
    """Style of a raster of codes: a palette with the names of the classes; no data is transparent and not listed.

    Examples:
        >>> from landcover_plugin.legend import LEGEND
        >>> '<paletteEntry value="3" color="#0d520f" alpha="255" label="forest" />' in raster_qml(LEGEND)
        True
    """
    qgis = _qgis()
    pipe = ET.SubElement(qgis, 'pipe')
    renderer = ET.SubElement(
        pipe, 'rasterrenderer', type='paletted', band='1', opacity='1', alphaBand='-1', nodataColor=''
    )
    ET.SubElement(renderer, 'rasterTransparency')
    palette = ET.SubElement(renderer, 'colorPalette')
    for code in legend.codes:
        c = legend[code]
        ET.SubElement(palette, 'paletteEntry', value=str(code), color=_hex(c.colour), alpha='255', label=c.name)
    ET.SubElement(pipe, 'rasterresampler', maxOversampling='2')
    ET.SubElement(qgis, 'blendMode').text = '0'
    return _document(qgis)


def polygons_qml(legend: Legend, attribute: str) -> str:
    """Style of polygons: filled in the colour of their class, named in the layer tree.

    A hairline of the same colour covers the bright seams that smoothing would leave between neighbours.

    Args:
        legend: Codes, names and colours.
        attribute: Name of the attribute that holds the code.
    """
    qgis = _qgis(styleCategories='Symbology')
    renderer = ET.SubElement(
        qgis, 'renderer-v2', type='categorizedSymbol', attr=attribute, enableorderby='0', forceraster='0',
        symbollevels='0',
    )  # fmt: skip
    categories = ET.SubElement(renderer, 'categories')
    symbols = ET.SubElement(renderer, 'symbols')
    for i, code in enumerate(legend.codes):
        c = legend[code]
        ET.SubElement(categories, 'category', value=str(code), type='long', symbol=str(i), label=c.name, render='true')
        symbol = ET.SubElement(symbols, 'symbol', name=str(i), type='fill', alpha='1', clip_to_extent='1')
        layer = ET.SubElement(symbol, 'layer', {'class': 'SimpleFill'}, enabled='1', locked='0')
        colour = ','.join(map(str, (*c.colour, 255)))
        settings = {'color': colour, 'style': 'solid', 'outline_color': colour, 'outline_width': '0'}  # a hairline
        options = ET.SubElement(layer, 'Option', type='Map')
        for name, value in settings.items():
            ET.SubElement(options, 'Option', name=name, value=value, type='QString')
            ET.SubElement(layer, 'prop', k=name, v=value)  # what QGIS before 3.26 reads
    ET.SubElement(qgis, 'blendMode').text = '0'
    return _document(qgis)


def _qgis(**attributes: str) -> ET.Element:
    return ET.Element('qgis', {'version': _VERSION, **attributes})


def _document(root: ET.Element) -> str:
    ET.indent(root)
    return _DOCTYPE + ET.tostring(root, encoding='unicode') + '\n'


def _hex(colour: Colour) -> str:
    return '#' + bytes(colour).hex()
