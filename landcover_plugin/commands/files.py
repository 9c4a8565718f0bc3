"""Output files of commands whose options are words with dashes."""

from pathlib import Path

from ..errors import LandcoverError


def free_output(path: str, *, overwrite: bool, suffix: str | None = None) -> Path:
    """The absolute path of a file that can be written, told before any work.

    Raises:
        LandcoverError: If it exists and may not be replaced, has another suffix, or cannot be written.
    """
    from ..rasters.outputs import check_output

    if suffix is not None and Path(path).suffix.lower() != suffix:
        raise LandcoverError(f'the name of the file must end in {suffix}, got {Path(path).name!r}')
    if Path(path).is_file() and not overwrite:
        raise LandcoverError(f'{path} exists already: choose another name, or replace it with --overwrite')
    return check_output(path, overwrite=overwrite)
