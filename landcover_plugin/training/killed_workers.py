"""A process that reads patches and is killed, told in one sentence: what it read, why it may be, and the way out."""

import os
import re
import signal
import time
from collections.abc import Iterable, Sequence

from ..datasets.patches import CataloniaPatches
from ..datasets.reading_notes import Doing
from ..errors import LandcoverError

#: What torch says of it, in a RuntimeError raised wherever the training is at that moment.
_TOLD = re.compile(
    r'DataLoader worker \(pid(?:\(s\))? (?P<pid>\d+)[\d, ]*\) (?:is killed by signal: (?P<signal>[^.]+)|exited)'
)

#: Where only the connection to a worker breaks, seconds until the system surely tells that the worker ended.
_PATIENCE = 2.0

_MEMORY = 'choose a smaller --data.num_workers, --data.batch_size or --data.patch_size'

#: Causes and ways out by the name of the signal.
_CAUSES = {
    'Killed': f'most often the system does so when memory runs out: {_MEMORY}',
    'Bus error': f'most often shared memory is full: give more (/dev/shm; docker run --shm-size), or {_MEMORY}',
}
_OTHER = 'with --data.num_workers 0 the training reads by itself, and may tell more'


def killed_worker(error: BaseException, datasets: Iterable[CataloniaPatches]) -> str | None:
    """What happened, where a training failed because a worker of a loader ended.

    Args:
        error: Of the training: torch tells of the worker, or the connection to it broke.
        datasets: What workers read.

    Returns:
        The sentence, or None for other errors.

    Examples:
        >>> error = RuntimeError('DataLoader worker (pid 7) is killed by signal: Killed. ')
        >>> killed_worker(error, []).partition(': ')[0]
        "a process that reads patches (pid 7) was ended by the signal 'Killed' before it had read anything"
    """
    if isinstance(error, LandcoverError) or not isinstance(error, RuntimeError | OSError | EOFError):
        return None
    read = [dataset for dataset in datasets if dataset.notes]
    pid: int | None
    if told := _TOLD.search(str(error)):
        pid, by = int(told['pid']), told['signal']
    else:
        patience = _PATIENCE if isinstance(error, ConnectionError | EOFError) else 0
        try:
            pid, by = _found_dead([pid for data in read if data.notes for pid in data.notes.pids], patience)
        except RuntimeError as late:  # of torch, which tells of the worker whatever is done just then
            return killed_worker(late, read)
    if pid is None:
        return None
    by = by.strip() if by else None  # torch knows no signal where the worker was waited for before
    ended = f'was ended by the signal {by!r}' if by else 'ended'
    cause = _CAUSES.get(by or 'Killed', _OTHER)
    return f'a process that reads patches (pid {pid}) {ended} {_last_seen(pid, read)}: {cause}'


def _found_dead(pids: Sequence[int], patience: float) -> tuple[int | None, str | None]:
    """The first of some children that a signal ended, and the name of the signal."""
    deadline = time.monotonic() + patience
    while pids and hasattr(os, 'waitid'):
        for pid in pids:
            try:
                state = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:  # no child of ours, or it was waited for
                continue
            if state and state.si_code in (os.CLD_KILLED, os.CLD_DUMPED):
                return pid, signal.strsignal(state.si_status)
        if time.monotonic() >= deadline:
            break
        time.sleep(0.05)
    return None, None


def _last_seen(pid: int, datasets: Iterable[CataloniaPatches]) -> str:
    for dataset in datasets:
        note = dataset.notes.of(pid) if dataset.notes else None
        if note is not None:
            words = 'after it had read' if note.doing is Doing.NOTHING else 'while it read'
            return f'{words} {dataset.place_of(note)}'
    return 'before it had read anything'
