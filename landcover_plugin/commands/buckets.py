"""Outputs in buckets: a command writes to a local stand-in, which is uploaded when the command is done."""

import io
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

from ..errors import LandcoverError
from .arguments import last_value, options, yaml_given

if TYPE_CHECKING:
    from ..rasters.stand_ins import StandIn

log = logging.getLogger(__name__)

#: Options that name outputs, and the file that makes a folder of them whole.
OUTPUTS = {
    'prepare': {'--output': 'store.json'},
    'test': {'--output.path': 'report.html'},
    'predict': {'--output.path': ''},
    'export': {'--output.path': 'model.json'},
    'polygonize': {'--output': ''},
    'sample': {'--output': ''},
    'areas': {'--csv': '', '--json': ''},
    'compare': {'--output': 'components.json'},
    'audit': {'--output': '', '--out': ''},
}

_BUCKETS = ('s3://', 'gs://')

#: In a stand-in: the command whose finished output waits there for its upload.
_WAITING = '.upload.json'


@contextmanager
def outputs_in_buckets(command: str, arguments: Sequence[str]) -> Iterator[list[str] | None]:
    """Let a command write what is to lie in buckets to local stand-ins, and upload it at the end.

    Yields:
        The arguments with local paths; None where all that is left to do of an earlier run is to upload it.

    Raises:
        LandcoverError: Before the command runs, if an output cannot be written; afterwards, if it cannot be uploaded.
    """
    args = _with_defaults(command, list(arguments))
    wanted = {option: value for option in OUTPUTS.get(command, {}) if _is_bucket(value := last_value(args, option))}
    if not wanted or {'-h', '--help'} & set(args):
        yield list(arguments)
        return
    from ..rasters.stand_ins import StandIn

    stand_ins = {option: StandIn.of(str(path), OUTPUTS[command][option]) for option, path in wanted.items()}
    local = _replaced(args, {option: str(place.local) for option, place in stand_ins.items()})
    if not is_first_process():  # the first one looks after them
        yield local
        return
    places = list(stand_ins.values())
    with ExitStack() as stack:
        for place in places:
            stack.enter_context(_held(place))
        waiting = all(_waits(place, command, arguments) for place in places)
        for place in places:
            place.check(overwrite=_overwrite(command, args), permission=_permission(command))
            if not waiting:
                place.clear()
        stack.enter_context(_addresses(places))
        if waiting:
            log.info('this command has run before, and only its upload failed: that is made up for')
        yield None if waiting else local
        _upload(places, [command, *arguments])


def _upload(places: Sequence['StandIn'], words: Sequence[str]) -> None:
    """Upload what a command made; until that is done, its words are kept beside it."""
    for place in places:
        (place.folder / _WAITING).write_text(json.dumps(words))
    for place in places:
        try:
            place.upload()
        except LandcoverError as e:
            raise LandcoverError(f'{e}; the finished files are in {place.folder}, the same command uploads them') from e


@contextmanager
def _held(place: 'StandIn') -> Iterator[None]:
    """Keep other runs out of a stand-in, and leave none behind that holds nothing."""
    from ..rasters.locking import locked

    place.folder.mkdir(parents=True, exist_ok=True)
    lock = place.folder / '.lock'
    with locked(lock, f'another landcover command is writing {place.address}: wait for it, or stop it'):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
            if place.folder.exists() and not any(place.folder.iterdir()):
                place.folder.rmdir()


def _waits(place: 'StandIn', command: str, arguments: Sequence[str]) -> bool:
    try:
        return bool(json.loads((place.folder / _WAITING).read_text()) == [command, *arguments])
    except (OSError, ValueError):
        return False


def _with_defaults(command: str, args: list[str]) -> list[str]:
    """Say in words where a command writes by itself, if that is in a bucket."""
    before = dict(zip(args[1:], args, strict=False))
    source = next((a for a in args if _is_bucket(a) and not before.get(a, '').startswith('--')), None)
    if command in ('prepare', 'polygonize') and source is not None and last_value(args, '--output') is None:
        beside = (
            f'{source.rstrip("/")}/.landcover/store' if command == 'prepare' else f'{source.rsplit(".", 1)[0]}.gpkg'
        )
        return [*args, '--output', beside]
    if command in ('test', 'predict') and last_value(args, '--output.path') is None:
        found = _in_yaml(args, 'path')
        return [*args, '--output.path', str(found)] if _is_bucket(found) else args
    return args


def _in_yaml(args: Sequence[str], key: str) -> Any:
    """A setting of the output in the YAML files among the arguments."""
    found = None
    for option, value in options(args):
        output = yaml_given(option, value).get('output')
        found = output.get(key, found) if isinstance(output, Mapping) else found
    return found


def _replaced(args: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """The arguments with other values of some options."""
    kept, skip = [], False
    for name in args:
        if not skip and name.partition('=')[0] not in values:
            kept.append(name)
        skip = not skip and name in values
    return [*kept, *(f'{option}={value}' for option, value in values.items())]


def _is_bucket(value: object) -> bool:
    return isinstance(value, str) and value.startswith(_BUCKETS)


def _overwrite(command: str, args: Sequence[str]) -> bool:
    if command == 'audit':
        return False
    if command in ('test', 'predict', 'export'):
        said = last_value(args, '--output.overwrite')
        if said is None and '--output.overwrite' not in args:
            said = str(_in_yaml(args, 'overwrite'))
        return said is None or said.lower() not in ('false', 'none', 'no', '0')
    return '--overwrite' in args


def _permission(command: str) -> str:
    if command == 'audit':
        return ' (it may hold verdicts, and is not replaced)'
    option = '--output.overwrite true' if command in ('test', 'predict', 'export') else '--overwrite'
    return f', or allow replacing it with {option}'


def is_first_process() -> bool:
    """Whether this is the only process of the command, or the first of several that Lightning or a cluster started."""
    ranks = (os.environ.get(name) for name in ('RANK', 'SLURM_PROCID', 'LOCAL_RANK'))
    return next((rank for rank in ranks if rank), '0') == '0'


@contextmanager
def _addresses(places: Sequence['StandIn']) -> Iterator[None]:
    """Let messages and standard output name what they are about by its address, not by the place of its stand-in."""
    names = {str(place.folder): place.parent for place in places}

    def told(text: str) -> str:
        for local, name in names.items():
            text = text.replace(local, name)
        return text

    class Words(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            record.msg, record.args = told(record.getMessage()), ()
            return True

    class Output(io.TextIOBase):
        def write(self, text: str) -> int:
            stdout.write(told(text))
            return len(text)

        def flush(self) -> None:
            stdout.flush()

    stdout, words = sys.stdout, Words()
    handlers = list(logging.getLogger('landcover_plugin').handlers)
    for handler in handlers:
        handler.addFilter(words)
    try:
        with redirect_stdout(Output()):
            yield
    finally:
        for handler in handlers:
            handler.removeFilter(words)
