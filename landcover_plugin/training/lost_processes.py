"""One of several processes that train together and ends: what the others say of it."""

import logging
import re

from lightning.pytorch import Trainer

log = logging.getLogger(__name__)

#: How gloo and NCCL tell that the other end is gone.
_GONE = re.compile(
    r'connection (?:closed|reset) by peer|remote process exited|socket closed|broken pipe|timed out waiting',
    re.IGNORECASE,
)

#: Of Lightning, which watches the processes that it started.
_WATCHER = 'lightning.fabric.strategies.launchers.subprocess_script'

_ENDED = re.compile(r'Child process with PID (\d+) terminated with code (-?\d+)')


def lost_process(error: BaseException, trainer: Trainer) -> str | None:
    """What happened, where an error says that another process of a training is gone.

    Args:
        error: Of the training.
        trainer: Of this process.

    Returns:
        The sentence, or None for other errors and trainings of one process.
    """
    if trainer.world_size < 2 or not isinstance(error, RuntimeError | OSError) or not _GONE.search(str(error)):
        return None
    return (
        f'another of the {trainer.world_size} processes is gone, so process {trainer.global_rank} ends too; what the '
        'other one said tells why, and where it said nothing it was killed, most often because memory ran out'
    )


class _Reworded(logging.Filter):
    """Puts the message about a process that ended in our words; passes no other below warnings."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the message is told as it is."""
        found = _ENDED.search(record.getMessage())
        if found:
            log.error(
                'process %s of this run ended with code %s, so all are ended; where it said nothing it was killed, '
                'most often because memory ran out', *found.groups(),
            )  # fmt: skip
        return not found and record.levelno >= logging.WARNING


def announce_lost_processes() -> None:
    """Let the first process tell that it ends because another one did, which Lightning notes at level INFO."""
    watcher = logging.getLogger(_WATCHER)
    watcher.setLevel(logging.INFO)
    if not any(isinstance(known, _Reworded) for known in watcher.filters):
        watcher.addFilter(_Reworded())
