"""Rules of the data's settings, and what follows from them where they are not given."""

import os
import shutil
from pathlib import Path
from typing import Any

from ..errors import LandcoverError
from ..rasters.remote import is_remote
from ..rasters.stand_ins import short_digest, user_cache

#: Folder beside the rasters in which inventories are kept.
CACHE_FOLDER = '.landcover'

#: Shares of pixels or patches, and strengths, which are not negative.
_SHARES = ('balance', 'min_labelled', 'min_valid', 'max_water', 'mix_p', 'band_dropout')
_STRENGTHS = ('brightness', 'contrast', 'noise')


def check_settings(settings: Any) -> None:
    """Refuse what no experiment can be made with.

    Args:
        settings: Those of :class:`CataloniaDataModule`.

    Raises:
        LandcoverError: If one is out of its range, or two contradict each other.
    """
    s = settings
    for name in ('patch_size', 'batch_size', 'length', 'block_size', 'crop'):
        if s[name] is not None and s[name] < 1:
            raise LandcoverError(f'{name} must be at least 1, got {s[name]}')
    for name in _SHARES:
        if not 0 <= s[name] <= 1:
            raise LandcoverError(f'{name} must be in [0, 1], got {s[name]:g}')
    for name in _STRENGTHS:
        if not 0 <= s[name] < float('inf'):
            raise LandcoverError(f'{name} must be at least 0, which leaves it out, got {s[name]:g}')
    if not 0 < s.reflectance_scale < float('inf'):
        raise LandcoverError(
            f'reflectance_scale must be a number > 0, such as 10000 for Sentinel-2, got {s.reflectance_scale:g}'
        )
    if s.overlap is not None and s.overlap < 0:
        raise LandcoverError(f'overlap must be in [0, {s.patch_size}) px, the patch size, got {s.overlap}')
    smallest = min(s.patch_sizes or [s.patch_size])
    if smallest < 1:
        raise LandcoverError(f'patch_sizes must be at least 1, got {s.patch_sizes}')
    if s.crop is not None and s.crop > smallest:
        raise LandcoverError(f'crop must be at most the patch size, {smallest} px, got {s.crop}')
    if (s.mean is None) != (s.std is None):
        raise LandcoverError('mean and std go together: give both or neither')
    if s.std is not None and not all(v > 0 for v in s.std):
        raise LandcoverError(f'std must be greater than 0 for each channel, got {s.std}')
    if s.cache_size is not None and not s.cache_size >= 0:
        raise LandcoverError(f'cache_size must be at least 0 GB, got {s.cache_size}')
    if s.bbox is not None and s.bbox_wgs84 is not None:
        raise LandcoverError('give the area either as bbox or as bbox_wgs84, not both')


def cache_folder(cache: str | None, root: str) -> Path:
    """Where inventories and blocks are kept: as given, else below the root, or here for a root in a bucket."""
    if cache:
        return Path(cache)
    return user_cache() / 'data' / short_digest(root) if is_remote(root) else Path(root) / CACHE_FOLDER


def block_bytes(cache_size: float | None, root: Any, cache: Path) -> int:
    """What blocks of rasters on servers may take on the disk, in bytes.

    Args:
        cache_size: As given, in gigabytes.
        root: Of the rasters.
        cache: Folder in which the blocks would be.
    """
    if cache_size is not None:
        return int(cache_size * 1e9)
    if not isinstance(root, str | os.PathLike) or not is_remote(root):
        return 0
    there = next(path for path in (cache, *cache.absolute().parents) if path.exists())
    return min(shutil.disk_usage(there).free // 4, 20 * 10**9)
