"""A STAC item beside a map: where, when, which classes, made how, and checksums, for any STAC catalogue.

STAC 1.1 with the extensions projection, raster, classification, file and processing. Everything comes from the files
and their tags.
"""

import calendar
import itertools
import json
import logging
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pystac
import rasterio
from pyproj import CRS
from pystac import MediaType
from pystac.extensions.classification import Classification
from rasterio.warp import transform_geom

from ..errors import LandcoverError
from ..grid import PixelGrid
from ..legend import NODATA, Legend
from ..rasters.attribute_table import aux_path
from ..rasters.identity import sha256
from ..rasters.outputs import PathLike, cannot_write, write_whole
from ..rasters.pixel_size import metres_per_unit
from ..rasters.qml import qml_path
from .tiled_map import coloured_legend

#: Extensions that pystac has no class for, or only an older one.
_RASTER = 'https://stac-extensions.github.io/raster/v2.0.0/schema.json'
_PROCESSING = 'https://stac-extensions.github.io/processing/v1.2.0/schema.json'

#: Points along each edge of the footprint, since the edges of a map are curves in degrees.
_EDGE_POINTS = 20

log = logging.getLogger(__name__)


class _Kind(NamedTuple):
    """A file that may lie beside a map."""

    title: str
    media_type: str
    roles: tuple[str, ...]


_KINDS = {
    'classes': _Kind('Land cover', MediaType.COG, ('data',)),
    'confidence': _Kind('Confidence of the class in percent', MediaType.COG, ('data',)),
    'entropy': _Kind('Entropy of the classes in percent', MediaType.COG, ('data',)),
    'probabilities': _Kind('Probability of each class in percent', MediaType.COG, ('data',)),
    'polygons': _Kind('Land cover as polygons', MediaType.GEOPACKAGE, ('data',)),
    'report': _Kind('Report of the run', MediaType.JSON, ('metadata',)),
    'style': _Kind('Style for QGIS', 'application/xml', ('metadata',)),
    'attribute_table': _Kind('Raster attribute table for GDAL', 'application/xml', ('metadata',)),
    'thumbnail': _Kind('Preview', MediaType.PNG, ('thumbnail',)),
}


def item_path(path: PathLike) -> Path:
    """The STAC item of a map.

    Examples:
        >>> item_path('out/map.tif')
        PosixPath('out/map.stac.json')
    """
    return Path(path).with_suffix('.stac.json')


def map_files(path: PathLike) -> dict[str, Path]:
    """The files of a map that are there, by kind; the class map first."""
    target = Path(path)
    beside = {
        'classes': target,
        **{kind: target.with_stem(f'{target.stem}_{kind}') for kind in ('confidence', 'entropy', 'probabilities')},
        'polygons': target.with_suffix('.gpkg'),
        'report': target.with_suffix('.json'),
        'style': qml_path(target),
        'attribute_table': aux_path(target),
        'thumbnail': target.with_suffix('.png'),
    }
    return {kind: file for kind, file in beside.items() if kind == 'classes' or file.is_file()}


def write_stac(path: PathLike, *, files: Mapping[str, Path] | None = None) -> Path:
    """Write the STAC item of a map beside it, after all its other files; an older one is replaced.

    Args:
        path: The class map.
        files: What belongs to it, see :func:`map_files`, which finds them by their names.

    Returns:
        The file written, for example ``map.stac.json``.

    Raises:
        LandcoverError: If the map cannot be read, or the item cannot be written.
    """
    target = item_path(path)
    item = stac_item(path, files=files)
    text = json.dumps(item.to_dict(include_self_link=False), indent=2, ensure_ascii=False) + '\n'
    try:
        write_whole(target, lambda staging: staging.write_text(text, encoding='utf-8'))
    except OSError as e:
        raise cannot_write(target, e) from e
    return target


def stac_item(path: PathLike, *, files: Mapping[str, Path] | None = None) -> pystac.Item:
    """The STAC item of a map, with links relative to its folder.

    Args:
        path: The class map.
        files: What belongs to it, see :func:`map_files`.

    Raises:
        LandcoverError: If a raster cannot be read, or has no CRS or georeference.
    """
    files = map_files(path) if files is None else files
    try:
        with rasterio.open(path) as src:
            grid, tags = PixelGrid.of(src), src.tags()
    except (OSError, rasterio.errors.RasterioError) as e:
        raise LandcoverError(f'{path} cannot be opened as a raster ({e}); a STAC item describes a finished map') from e
    start, end = _period(tags.get('DATES', '').split())
    footprint = _footprint(grid)
    item = pystac.Item(
        id=Path(path).stem, geometry=footprint, bbox=_bbox(footprint), datetime=None if start else datetime.now(UTC),
        properties=_properties(tags, grid), start_datetime=start, end_datetime=end,
    )  # fmt: skip
    _project(item, grid)
    item.stac_extensions += [_RASTER, _PROCESSING]
    for kind, file in files.items():
        item.add_asset(kind, _asset(kind, file))
        _checksum(item.assets[kind], file)
    _classify(item.assets['classes'], coloured_legend(path))
    return item


def _period(months: Iterable[str]) -> tuple[datetime | None, datetime | None]:
    """From the first moment of the first month to the last second of the last one.

    Examples:
        >>> [str(moment) for moment in _period(['2018-04', '2018-08'])]
        ['2018-04-01 00:00:00+00:00', '2018-08-31 23:59:59+00:00']
    """
    found = sorted((int(m[1]), int(m[2])) for text in months if (m := re.fullmatch(r'(\d{4})-(\d\d)', text)))
    if not found:
        log.warning('the map does not say from which months it is: its STAC item carries the present time')
        return None, None
    (year, month), (last_year, last_month) = found[0], found[-1]
    last_day = calendar.monthrange(last_year, last_month)[1]
    return (
        datetime(year, month, 1, tzinfo=UTC),
        datetime(last_year, last_month, last_day, 23, 59, 59, tzinfo=UTC),
    )


def _footprint(grid: PixelGrid) -> dict[str, Any]:
    """The outline of a grid in degrees, counterclockwise."""
    xmin, ymin, xmax, ymax = grid.bounds()
    corners = [(xmin, ymin), (xmax, ymin), (xmax, ymax), (xmin, ymax), (xmin, ymin)]
    ring = [
        (x0 + (x1 - x0) * i / _EDGE_POINTS, y0 + (y1 - y0) * i / _EDGE_POINTS)
        for (x0, y0), (x1, y1) in itertools.pairwise(corners)
        for i in range(_EDGE_POINTS)
    ]
    outline = {'type': 'Polygon', 'coordinates': [[*ring, corners[0]]]}
    moved = transform_geom(grid.crs, 'EPSG:4326', outline, precision=7)
    return {'type': 'Polygon', 'coordinates': [[list(point) for point in moved['coordinates'][0]]]}


def _bbox(footprint: Mapping[str, Any]) -> list[float]:
    xs, ys = zip(*footprint['coordinates'][0], strict=True)
    return [min(xs), min(ys), max(xs), max(ys)]


def _properties(tags: Mapping[str, str], grid: PixelGrid) -> dict[str, Any]:
    """What the tags say about how the map was made."""
    made = {name: version for name, _, version in (p.partition(' ') for p in tags.get('SOFTWARE', '').split(', '))}
    network = ', '.join(
        f'{word} {tags[tag]}'
        for word, tag in (
            ('network', 'MODEL'), ('checkpoint', 'CHECKPOINT'), ('SHA-256', 'CHECKPOINT_SHA256'),
            ('bands', 'BANDS'), ('seasons', 'SEASONS'), ('mosaics', 'SOURCES'),
        )
        if tag in tags
    )  # fmt: skip
    return {
        'title': 'Land cover',
        'description': 'Land cover, mapped from Sentinel-2 mosaics by a neural network.',
        'created': datetime.now(UTC).strftime('%Y-%m-%dT%H:%M:%SZ'),
        **({'gsd': grid.res[0] * metres_per_unit(grid)} if grid.crs.is_projected else {}),
        **({'processing:software': {k: v for k, v in made.items() if v}} if any(made.values()) else {}),
        **({'processing:lineage': network} if network else {}),
    }


def _project(item: pystac.Item, grid: PixelGrid) -> None:
    crs = CRS(grid.crs.to_wkt())
    authority = crs.to_authority()
    item.ext.add('proj')
    item.ext.proj.apply(
        code=':'.join(authority) if authority else None,
        wkt2=crs.to_wkt('WKT2_2019'),
        bbox=list(grid.bounds()),
        shape=[grid.height, grid.width],
        transform=list(grid.transform)[:6],
    )


def _asset(kind: str, file: Path) -> pystac.Asset:
    """A file, with its bands if it is a raster."""
    title, media_type, roles = _KINDS[kind]
    asset = pystac.Asset(f'./{file.name}', title=title, media_type=media_type, roles=list(roles))
    if media_type != MediaType.COG:
        return asset
    with rasterio.open(file) as src:
        asset.extra_fields |= {'data_type': src.dtypes[0], 'raster:sampling': 'area'}
        if src.crs is not None and src.crs.is_projected:
            asset.extra_fields['raster:spatial_resolution'] = src.res[0] * src.crs.linear_units_factor[1]
        if src.nodata is not None:
            asset.extra_fields['nodata'] = int(src.nodata) if float(src.nodata).is_integer() else src.nodata
        if src.units[0]:
            asset.extra_fields['unit'] = src.units[0]
        names = [name or f'band {i}' for i, name in enumerate(src.descriptions, start=1)]
        asset.extra_fields['bands'] = [{'name': name} for name in names]
    return asset


def _classify(asset: pystac.Asset, legend: Legend) -> None:
    asset.ext.add('classification')
    asset.ext.classification.apply(
        classes=[
            Classification.create(
                value=c.code,
                name=re.sub(r'\W+', '_', c.name),
                title=c.name,
                description=f'{c.name} ({c.name_ca})',
                color_hint=bytes(c.colour).hex().upper(),
                nodata=True if c.code == NODATA else None,
            )
            for c in legend
        ]
    )


def _checksum(asset: pystac.Asset, path: Path) -> None:
    """Size and SHA-256 as a multihash: code 0x12, length 0x20, digest."""
    asset.ext.add('file')
    asset.ext.file.apply(size=path.stat().st_size, checksum=f'1220{sha256(path)}')
