"""Finding rasters by their names, and the pixel grid that they share."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import LandcoverError
from ..grid import PixelGrid
from .identity import check_no_copies
from .opening import address, check_whole, open_raster, vsi_path
from .reading import same_ground
from .remote import is_remote, listing

PathLike = str | os.PathLike[str]

#: File that marks a folder as a training store; searches from above pass it by.
STORE_MANIFEST = 'store.json'


def gdal_paths(paths: PathLike | Iterable[PathLike]) -> list[str]:
    """One path or several as a list of names that GDAL finds files under."""
    return [vsi_path(p) for p in ([paths] if isinstance(paths, str | os.PathLike) else paths)]


def find_rasters(paths: Iterable[PathLike], pattern: str, expected: str) -> list[str]:
    """Files whose names match a pattern, in the order of their names; folders are searched to any depth.

    Hidden folders, and training stores below a folder, are passed by: they hold the same ground again.

    Args:
        paths: Folders or files, local or ``/vsi``.
        pattern: Regular expression that the start of the file's name matches.
        expected: What the names look like, for the message.

    Raises:
        LandcoverError: If a path does not exist, nothing matches, or two files of a date are copies of each other.
    """
    names = [os.fspath(path) for path in paths]
    every = {file for name in names for file in files_below(name)}
    found = {file: match for file in every if (match := re.match(pattern, Path(file).name))}
    if not found:
        raise LandcoverError(
            f'no {expected} raster in {", ".join(map(address, names))}; name the folder that holds it or rename the '
            'file'
        )
    check_no_copies((file, found[file].groupdict().get('date', '')) for file in sorted(found))
    return sorted(found)


def files_below(name: str) -> list[str]:
    """The file itself, or all files in a folder."""
    if name.startswith('/vsi'):
        return _remote_files(name)
    if not Path(name).exists():
        raise LandcoverError(f'{name} does not exist; name the folder or file that holds the rasters')
    if Path(name).is_file():
        return [name]
    return list(_walk(name))


def _walk(top: str) -> Iterator[str]:
    """Files in a folder; links are followed, but no folder is entered twice."""
    seen = {os.path.realpath(top)}
    for folder, folders, names in os.walk(top, followlinks=True):
        if STORE_MANIFEST in names and folder != top:
            folders.clear()
            continue
        inside = sorted(f for f in folders if not f.startswith('.'))
        real = {f: os.path.realpath(os.path.join(folder, f)) for f in inside}  # noqa: PTH118 - as os.walk joins them
        folders[:] = [f for f in inside if real[f] not in seen]
        seen.update(real.values())
        files = (os.path.join(folder, n) for n in names if not n.startswith('.'))  # noqa: PTH118
        yield from (file for file in files if Path(file).is_file())


def _remote_files(name: str) -> list[str]:
    """The object itself where its name ends like a raster's, else what the server lists below it."""
    if Path(name).suffix.lower() in ('.tif', '.tiff', '.vrt'):
        return [name]
    if is_remote(name):
        return _visible(name) or _nothing_listed(name)
    import pyogrio  # half a second, and seldom needed
    from pyogrio.errors import DataSourceError

    try:
        listed = pyogrio.vsi_listtree(name)
    except (DataSourceError, NotADirectoryError, FileNotFoundError):
        listed = []
    return [str(f) for f in listed] or _nothing_listed(name)


def _visible(folder: str) -> list[str]:
    """Objects below a folder of a bucket, as GDAL names them; hidden folders and stores are passed by."""
    top = f'{address(folder).rstrip("/")}/'
    below = [stored.address.removeprefix(top) for stored in listing(top)]
    stores = {name.removesuffix(STORE_MANIFEST) for name in below if name.endswith(f'/{STORE_MANIFEST}')}
    seen = (name for name in below if '/.' not in f'/{name}' and not name.startswith(tuple(stores)))
    return [vsi_path(f'{top}{name}') for name in seen]


def _nothing_listed(name: str) -> list[str]:
    raise LandcoverError(
        f'nothing is listed below {address(name)}: check the address and your credentials, or name the files '
        'themselves (servers of plain https seldom list folders)'
    )


def common_grid(files: Iterable[str]) -> tuple[PixelGrid, dict[str, PixelGrid]]:
    """The grid over some files, that of the first grown to their joint extent, and the grid of each.

    Raises:
        LandcoverError: If a file is truncated, has no CRS, or lies on another grid than the first.
    """
    grids = {}
    for path in files:
        check_whole(path)
        grids[path] = PixelGrid.of(open_raster(path))
    first, *others = grids.items()
    for path, grid in others:
        if not same_ground(grid.crs, first[1].crs, grid.bounds()) or not first[1].aligned_with(grid):
            raise LandcoverError(
                f'{path} and {first[0]} lie on different pixel grids (CRS, pixel size or origin); '
                'warp one onto the other (gdalwarp -tap) or load them as two datasets'
            )
    bounds = [g.bounds() for g in grids.values()]
    lows, highs = zip(*((b[:2], b[2:]) for b in bounds), strict=True)
    joint = (*map(min, zip(*lows, strict=True)), *map(max, zip(*highs, strict=True)))
    return first[1].subgrid(first[1].window(joint)), grids
