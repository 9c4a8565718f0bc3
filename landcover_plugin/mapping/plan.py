"""What decides a map, to the last bit: strips of another plan are not gone on with."""

import hashlib
from typing import Any

import shapely

from .._version import __version__
from ..rasters.identity import identity
from ..sampling.lattice import STRIP_HEIGHT, SWATH_WIDTH
from ..sampling.regions import Region
from ..training.datamodule import CataloniaDataModule

#: Settings of the data module that decide what a window holds and which there are.
_OF_DATA = ('patch_size', 'batch_size', 'reflectance_scale', 'reflectance_offset', 'nodata', 'damaged')


def settings_of(data: CataloniaDataModule) -> dict[str, Any]:
    """What the data contribute to a plan, as JSON."""
    images, (mean, std) = data.open_images(), data.normalisation()
    return {
        'software': __version__,
        'sources': [identity(path) for path in images.files],
        'channels': images.channels,
        'seasons': images.mosaics.seasons,
        'mean': mean,
        'std': std,
        'overlap': data.overlap,
        'strips': [STRIP_HEIGHT, SWATH_WIDTH],
        **{name: data.settings[name] for name in _OF_DATA},
    }


def area_of(region: Region) -> dict[str, Any]:
    """What a region contributes to a plan, as JSON."""
    polygons = region.polygons
    digest = None if polygons is None else hashlib.sha256(b''.join(shapely.to_wkb(polygons))).hexdigest()
    return {'area': list(region.area), 'polygons': digest}
