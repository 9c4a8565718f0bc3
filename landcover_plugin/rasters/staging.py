"""Hidden folders in which long work is kept until it is whole: locked against other runs, gone on with after a kill."""

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from .outputs import cannot_write, write_whole

LOCK, PLAN = '.lock', 'plan.json'


def read_plan(folder: Path) -> dict[str, Any] | None:
    """What the run that left a folder was to make, if it left a plan."""
    with suppress(OSError, ValueError):
        return dict(json.loads((folder / PLAN).read_text()))
    return None


def begin(folder: Path, plan: dict[str, Any]) -> list[str]:
    """Empty a locked folder, unless a run with the same plan left it, and note the plan in it.

    Args:
        folder: The folder; exists.
        plan: What decides the result, as JSON.

    Returns:
        Names of the settings in which an older plan, whose work was thrown away, differs.
    """
    old, new = read_plan(folder), json.loads(json.dumps(plan))
    if old == new:
        return []
    for path in folder.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    write_small(folder / PLAN, lambda p: p.write_text(json.dumps(plan, indent=1)))
    if old is None:
        return []
    return sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))


def write_small(path: Path, write: Callable[[Path], object]) -> None:
    """Write a small file that is whole or not there; a full disk is told in words."""
    try:
        write_whole(path, write)
    except OSError as e:
        raise cannot_write(path, e) from e
