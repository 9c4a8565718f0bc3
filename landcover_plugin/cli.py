"""The command line: names the commands, then imports the one that is asked for."""

import difflib
import importlib
import logging
import re
import sys
import warnings
from collections.abc import Sequence
from typing import NamedTuple, TextIO

from ._version import __version__
from .errors import LandcoverError, LandcoverWarning


class Command(NamedTuple):
    """A command: the module that runs it by ``main(argv)`` and the line that tells what it is for."""

    module: str
    summary: str


#: Commands in the order in which they are used.
COMMANDS = {
    'simulate': Command('simulate', 'write a simulated scene in CatLC layout, to try everything on'),
    'doctor': Command('doctor', 'look at rasters before training: will they train well, and if not, what to do'),
    'prepare': Command('prepare', 'read the rasters once and write a training store: small labels, fast images'),
    'fit': Command('lightning', 'train a network on mosaics and labels'),
    'tune': Command('tune', 'search for better settings of a training: Ray Tune, Optuna, ASHA'),
    'validate': Command('lightning', 'score a checkpoint on the validation ground'),
    'test': Command('lightning', 'score a checkpoint on the test ground and write a report'),
    'predict': Command('lightning', 'map a bounding box, or all of the mosaics, as a GeoTIFF'),
    'polygonize': Command('polygonize', 'turn a class map into polygons: a GeoPackage for any GIS'),
    'export': Command('export', 'write a trained model as PyTorch, ONNX and OpenVINO files with a model card'),
    'register': Command('register', 'put a trained model into an MLflow registry, from where predict takes it by name'),
    'cloud': Command('cloud', 'train on Google Cloud, and register a model there'),
    'sample': Command('sample', 'draw points of a map to be interpreted in QGIS, for an accuracy assessment'),
    'areas': Command('areas', 'areas of the classes of a map, by zone, and as a sample corrects them'),
    'audit': Command('audit', 'rank places where labels are probably wrong or the ground has changed'),
    'compare': Command('compare', 'where and how two maps, or a map and a label, differ'),
    'view': Command('view', 'look at images, labels, maps and audits on a web map in the browser'),
}

_EXAMPLES = """\
examples:
  landcover simulate data
  landcover fit --config configs/unet.yaml
  landcover test --ckpt_path best.ckpt --output.path report
  landcover predict --ckpt_path best.ckpt --data.bbox '[400000, 4590000, 420000, 4600000]' --output.path map.tif

'landcover COMMAND --help' explains a command. Every path may lie in a bucket, gs://… or s3://….
"""


def _usage() -> str:
    lines = [f'  {name:<10} {command.summary}' for name, command in COMMANDS.items()]
    return '\n'.join(
        [
            'usage: landcover [--help] [--version] COMMAND ...',
            '',
            'Land cover from Sentinel-2 mosaics: train, test and map.',
            '',
            'commands:',
            *lines,
            '',
            _EXAMPLES,
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Arguments (default: those of the process).

    Returns:
        0 on success, 1 on an error that the user can mend, which is told in one sentence, 130 when interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ('-h', '--help', 'help'):
        sys.stdout.write(_usage())
        return 0
    if arguments[0] in ('-V', '--version'):
        from .inspection.environment import stack  # rasterio: not for --help

        sys.stdout.write(f'landcover {__version__} ({stack()})\n')
        return 0
    _set_up_messages()
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        sys.stderr.write('landcover: interrupted\n')
        return 130
    except Exception as e:
        sentence = explain(e)
        if sentence is None:
            raise
        sys.stderr.write(f'landcover: error: {sentence}\n')
        return 1


def _run(arguments: list[str]) -> int:
    name, *rest = arguments
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f'did you mean {near[0]!r}?' if near else f'the commands are {", ".join(COMMANDS)}'
        raise LandcoverError(f'there is no command {name!r}; {hint}')
    from .commands.buckets import outputs_in_buckets

    with outputs_in_buckets(name, rest) as local:
        if local is None:
            return 0
        module = importlib.import_module(f'landcover_plugin.commands.{COMMANDS[name].module}')
        return int(module.main(local) if COMMANDS[name].module == name else module.main(name, local))


def explain(error: BaseException) -> str | None:
    """The sentence for an error that the user can mend, or None for a fault of the program.

    Looks through the causes of the error, and into errors that a loader's worker process sent as text.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, LandcoverError):
            text = str(seen)
            sent = re.findall(r'LandcoverError: (.*)', text)
            return sent[-1] if sent and 'Traceback' in text else ' '.join(text.split())
        if isinstance(seen, OSError) and seen.strerror and seen.filename:
            return f'{seen.filename}: {seen.strerror}'
        if isinstance(seen, OSError) and seen.errno == 28:
            return 'the disk is full; free some space and run the command again'
        seen = seen.__cause__ or seen.__context__
    return None


def _set_up_messages() -> None:
    """Our own messages and warnings as plain lines on stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter('landcover: %(message)s'))
    log = logging.getLogger('landcover_plugin')
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.INFO)
    usual = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, LandcoverWarning):
            log.warning('warning: %s', message)
        else:
            usual(message, category, filename, lineno, file, line)

    warnings.showwarning = show
    warnings.simplefilter('always', LandcoverWarning)


if __name__ == '__main__':
    sys.exit(main())
