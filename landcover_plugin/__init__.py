"""Land cover from Sentinel-2 mosaics: a TorchGeo plugin.

Importing the package costs nothing: the public names load their modules (and torch) on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .datasets.icgc import ICGCLandCover
    from .datasets.sentinel2 import CataloniaSentinel2
    from .training.datamodule import CataloniaDataModule
    from .training.task import LandCoverSegmentation

_HOMES = {
    'CataloniaDataModule': '.training.datamodule',
    'CataloniaSentinel2': '.datasets.sentinel2',
    'ICGCLandCover': '.datasets.icgc',
    'LandCoverSegmentation': '.training.task',
}

__all__ = [
    'CataloniaDataModule',
    'CataloniaSentinel2',
    'ICGCLandCover',
    'LandCoverSegmentation',
    '__version__',
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = getattr(importlib.import_module(_HOMES[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
