"""Class names of a raster for GDAL and QGIS: category names and a raster attribute table in ``FILE.aux.xml``."""

from pathlib import Path
from xml.etree import ElementTree as ET

from ..legend import Legend
from .outputs import cannot_write, write_whole

#: Name, GDALRATFieldType and GDALRATFieldUsage of the columns.
_COLUMNS = (('Value', 0, 5), ('Class', 2, 2), ('R', 0, 6), ('G', 0, 7), ('B', 0, 8))


def aux_path(path: Path) -> Path:
    """The file beside a raster in which GDAL looks for what the raster itself cannot hold.

    Examples:
        >>> aux_path(Path('out/map.tif'))
        PosixPath('out/map.tif.aux.xml')
    """
    return path.with_name(f'{path.name}.aux.xml')


def band_xml(legend: Legend) -> str:
    """GDAL's XML of the category names and the attribute table of a band, as in a VRT.

    Examples:
        >>> from landcover_plugin.legend import LEGEND
        >>> '<Category>forest</Category>' in band_xml(LEGEND)
        True
    """
    categories, table = ET.Element('CategoryNames'), ET.Element('GDALRasterAttributeTable', tableType='thematic')
    for index, column in enumerate(_COLUMNS):
        field = ET.SubElement(table, 'FieldDefn', index=str(index))
        for tag, value in zip(('Name', 'Type', 'Usage'), column, strict=True):
            ET.SubElement(field, tag).text = str(value)
    for c in legend:
        ET.SubElement(categories, 'Category').text = c.name
        row = ET.SubElement(table, 'Row', index=str(c.code))
        for value in (c.code, c.name, *c.colour):
            ET.SubElement(row, 'F').text = str(value)
    return ''.join(ET.tostring(part, encoding='unicode') for part in (categories, table))


def attribute_table(legend: Legend) -> str:
    """The content of ``FILE.aux.xml``: category names and a raster attribute table, which QGIS offers as a style."""
    return f'<PAMDataset><PAMRasterBand band="1">{band_xml(legend)}</PAMRasterBand></PAMDataset>\n'


def write_attribute_table(path: Path, legend: Legend) -> Path:
    """Write ``FILE.aux.xml`` beside a raster of codes; an older one is replaced.

    Args:
        path: The raster.
        legend: Codes, names and colours.

    Returns:
        The file written.

    Raises:
        LandcoverError: If it cannot be written.
    """
    target = aux_path(path)
    try:
        write_whole(target, lambda staging: staging.write_text(attribute_table(legend), encoding='utf-8'))
    except OSError as e:
        raise cannot_write(target, e) from e
    return target
