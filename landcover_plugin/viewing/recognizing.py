"""What the given files are: images, labels, maps with the rasters beside them, suspects of an audit."""

import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import rasterio

from ..errors import LandcoverError
from ..legend import LEGEND
from ..rasters.finding import files_below
from ..rasters.landcover import COMPANIONS, LABEL_EXAMPLE, LABEL_NAME
from ..rasters.layers import Kind, output_paths
from ..rasters.mosaics import MOSAIC_EXAMPLE, MOSAIC_NAME
from ..rasters.opening import address, open_raster, vsi_path
from .suspects import is_audit, layer_names

log = logging.getLogger(__name__)

#: The rasters that ``predict`` writes beside a map.
BESIDE: tuple[Kind, ...] = ('confidence', 'entropy', 'probabilities')

What = Literal['image', 'labels', 'map', 'confidence', 'entropy', 'probabilities', 'suspects', 'beside labels']

_LOOKED_AT = re.compile(r'(?i).*\.(?:tif|tiff|vrt|gpkg)$')
_BESIDE_LABELS = re.compile(rf'(?i)^(?:{"|".join(COMPANIONS)})_')
_BESIDE_MAP = re.compile(rf'(?i)^.+_({"|".join(BESIDE)})$')

_EXPECTED = (
    f'images are named {MOSAIC_EXAMPLE}, labels {LABEL_EXAMPLE}; maps hold the codes 0 to {LEGEND.codes[-1]} in one '
    'band of 8 bits; audits are GeoPackages with a layer "suspects"'
)


@dataclass(frozen=True)
class Found:
    """The files that are to be looked at, in the order in which they were given.

    Attributes:
        images: Mosaics of one or several months.
        labels: Label rasters of one or several years.
        maps: Maps, and what was predicted beside each.
        percents: Confidence, entropy and probabilities that were given without their map.
        suspects: GeoPackages of audits.
    """

    images: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    maps: dict[str, dict[Kind, str]] = field(default_factory=dict)
    percents: dict[str, Kind] = field(default_factory=dict)
    suspects: list[str] = field(default_factory=list)


def recognize(paths: Sequence[str | os.PathLike[str]]) -> Found:
    """Find out what files, and the files in folders, are.

    Args:
        paths: Files and folders, local or remote. A folder is searched for images and labels by their names, for maps
            by the class names in them, and for audits.

    Raises:
        LandcoverError: If a path does not exist, a named file is nothing that can be shown, or nothing is found.
    """
    found, seen = Found(), set()
    for name in map(vsi_path, paths):
        named = not _is_folder(name)
        for file in sorted(files_below(name)):
            real = os.path.realpath(file)
            if (named or _LOOKED_AT.match(file)) and real not in seen and _add(found, file, named=named):
                seen.add(real)
    _join_beside(found)
    if not (found.images or found.labels or found.maps or found.percents or found.suspects):
        raise LandcoverError(f'there is nothing to look at in {", ".join(map(str, paths))}: {_EXPECTED}')
    return found


def _is_folder(name: str) -> bool:
    return Path(name).is_dir() or (name.startswith('/vsi') and not _LOOKED_AT.match(name))


def _add(found: Found, file: str, *, named: bool) -> bool:
    """Note what a file is, if it can be shown; one that was named must be."""
    match what_is(file, named=named):
        case 'image':
            found.images.append(file)
        case 'labels':
            found.labels.append(file)
        case 'map':
            found.maps[file] = dict(_beside(file))
        case 'confidence' | 'entropy' | 'probabilities' as kind:
            found.percents[file] = kind
        case 'suspects':
            found.suspects.append(file)
        case None if named:
            raise LandcoverError(f'{address(file)} is nothing that can be shown{_why(file)}: {_EXPECTED}')
        case other:
            log.debug('%s is left out (%s)', file, other)
            return False
    return True


def what_is(file: str, *, named: bool) -> What | None:
    """What a file is, by its name and its header; None if it is nothing that can be shown.

    Args:
        file: As GDAL reads it.
        named: The user named the very file: then a raster of codes needs no class names to count as a map.

    Raises:
        LandcoverError: If a raster cannot be opened.
    """
    name = Path(file).name
    if name.lower().endswith('.gpkg'):
        return 'suspects' if is_audit(file) else None
    if re.match(MOSAIC_NAME, name):
        return 'image'
    if re.match(LABEL_NAME, name):
        return 'labels'
    if _BESIDE_LABELS.match(name):
        return 'beside labels' if not named else None
    return _raster_kind(file, named=named)


def _raster_kind(file: str, *, named: bool) -> What | None:
    """Map, or what is predicted beside maps, by the header."""
    try:
        src = open_raster(file)
    except LandcoverError:
        if named:
            raise
        log.warning('%s is left out: it cannot be opened as a raster', file)
        return None
    if set(src.dtypes) != {'uint8'}:
        return None
    if match := _BESIDE_MAP.match(Path(file).stem):
        kind: What = match[1].lower()  # type: ignore[assignment]
        return kind if src.count == (len(LEGEND.codes) if kind == 'probabilities' else 1) else None
    return 'map' if src.count == 1 and (named or 'CLASS_1' in src.tags()) else None


def _beside(path: str) -> Iterator[tuple[Kind, str]]:
    """The rasters that were predicted beside a map."""
    if Path(path).suffix.lower() not in ('.tif', '.tiff'):
        return
    for kind, beside in output_paths(path, BESIDE).items():
        if kind != 'classes' and beside.is_file():
            yield kind, str(beside)


def _join_beside(found: Found) -> None:
    """Take away from the rasters without a map those that lie beside one."""
    taken = {os.path.realpath(path) for beside in found.maps.values() for path in beside.values()}
    for path in [p for p in found.percents if os.path.realpath(p) in taken]:
        del found.percents[path]


def _why(file: str) -> str:
    if file.lower().endswith('.gpkg'):
        return f' (its layers are {", ".join(layer_names(file)) or "none"})'
    try:
        with rasterio.open(file) as src:
            return f' ({src.count} bands of {src.dtypes[0]})'
    except rasterio.errors.RasterioError:
        return ''
