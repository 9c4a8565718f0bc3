"""Keeping two runs out of one folder: a lock that ends with its process, however it ends."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import LandcoverError

try:
    import fcntl
except ImportError:  # Windows: two runs at once are not noticed there
    fcntl = None  # type: ignore[assignment]

#: What network disks answer that know no locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)


@contextmanager
def locked(path: Path, taken: str) -> Iterator[None]:
    """Hold a lock as long as the context lasts.

    Args:
        path: Of the lock file; made, and left to the caller.
        taken: What to say where another run holds it.

    Raises:
        LandcoverError: If another run holds it.
        OSError: If the file cannot be made.
    """
    with path.open('w') as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as e:
                raise LandcoverError(taken) from e
            except OSError as e:
                if e.errno not in _NO_LOCKS:
                    raise
        yield
