"""Writes the reference pages that come from the code: commands, keys, and what can be chosen by name.

Run by ``conf.py`` at the start of each build, in a process of its own: reading the parsers of fit and its companions
loads torch, and the command line takes over messages. By hand: ``python docs/generate_reference.py FOLDER``.
"""

import argparse
import contextlib
import dataclasses
import importlib
import inspect
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from landcover_plugin import cli

#: Width of the help texts; argparse asks for it when it formats.
COLUMNS = '110'

#: Pages of keys: title, what they are, and the commands and starts of the keys that stand on them.
KEY_PAGES = {
    'data': ('Data', 'What is read, how it is split and what a batch is. Kept in the checkpoint.', 'fit', ('data.',)),
    'model': ('Model', 'Network, loss and learning. Kept in the checkpoint.', 'fit', ('model.',)),
    'fit': (
        'Training',
        'The other keys of `landcover fit`: what is looked for before it starts, checkpoints, when to stop.',
        'fit',
        (
            'find.',
            'checkpoint.',
            'early_stopping.',
            'seed_everything',
            'optimizer',
            'lr_scheduler',
            'ckpt_path',
            'weights_only',
        ),
    ),
    'validate': ('Validation', 'What `landcover validate` takes beyond data and model.', 'validate', ('calibrate',)),
    'test': ('Report', 'What `landcover test` takes beyond data and model.', 'test', ('output.',)),
    'predict': ('Map', 'What `landcover predict` takes beyond data and model.', 'predict', ('output.',)),
    'trainer': (
        'Trainer',
        "Lightning's own keys, in its own words: devices, precision, epochs, loggers.",
        'fit',
        ('trainer.',),
    ),
}

#: Starts of the keys whose texts are written in this package.
OURS = ('data.', 'model.', 'find.', 'output.', 'calibrate')


class Key(NamedTuple):
    """A key of YAML and command line: its name, its type and default in words, and what it means."""

    name: str
    type: str
    default: str
    text: str


def main(target: Path) -> None:
    """Write all pages below a folder; those that nothing makes any more go."""
    os.environ['COLUMNS'] = COLUMNS
    pages = dict([*command_pages(), *key_pages(), *choice_pages()])
    for name, text in pages.items():
        path = target / f'{name}.md'
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text(encoding='utf-8') != text:  # an unchanged page is not built again
            path.write_text(text, encoding='utf-8')
    for path in target.rglob('*.md'):
        if path.relative_to(target).with_suffix('').as_posix() not in pages:
            path.unlink()


# Commands


def command_pages() -> Iterator[tuple[str, str]]:
    """A page for each command, and one that lists them in the order in which they are used."""
    rows = [f'* - {{doc}}`{name} <{name}>`\n  - {command.summary}' for name, command in cli.COMMANDS.items()]
    table = _directive('list-table', '', '\n'.join(rows), widths='1 4')
    toc = _directive('toctree', '', '\n'.join(cli.COMMANDS), hidden='')
    text = 'Each is explained by its own `--help`, which these pages repeat.'
    yield 'commands/index', f'# Commands\n\n{text}\n\n{table}\n\n{toc}\n'
    for name, command in cli.COMMANDS.items():
        help_text = _directive('code-block', 'text', help_of(name))
        summary = command.summary[0].upper() + command.summary[1:]
        yield f'commands/{name}', f'# landcover {name}\n\n{summary}.\n\n{help_text}\n'


def help_of(command: str) -> str:
    """What ``landcover COMMAND --help`` prints.

    Raises:
        RuntimeError: If it prints no usage.
    """
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        cli.main([command, '--help'])
    if not text.getvalue().startswith('usage: landcover'):
        raise RuntimeError(f'landcover {command} --help printed no usage, but {text.getvalue()[:200]!r}')
    return text.getvalue().rstrip()


# Keys


class _Found(Exception):  # noqa: N818 - no error
    """Carries the parser of a command out of the command line."""


def parser_of(command: str) -> argparse.ArgumentParser:
    """The parser of fit, validate, test or predict, with the defaults of this package in it."""
    from landcover_plugin.commands.lightning import LandcoverCLI

    class Looking(LandcoverCLI):
        def parse_arguments(self, parser: Any, args: Any) -> NoReturn:
            raise _Found(self._subcommand_parsers[self.command])

    try:
        Looking(command, [])
    except _Found as found:
        return found.args[0]
    raise AssertionError('unreachable')


def keys_of(parser: argparse.ArgumentParser) -> list[Key]:
    """The keys of a parser that a user may set, in its order."""
    from landcover_plugin.commands.wording import type_words

    keys = []
    for action in parser._actions:
        hint = getattr(action, '_typehint', None)
        if hint is None or action.default == argparse.SUPPRESS or action.dest.endswith('.help'):
            continue
        words = type_words(hint) or f'`{_plain(hint)}`'
        keys.append(Key(action.dest, words, _value(action.default), inspect.cleandoc(action.help or '')))
    return keys


def key_pages() -> Iterator[tuple[str, str]]:
    """The pages of :data:`KEY_PAGES`.

    Raises:
        RuntimeError: If a key of fit would stand on none of them.
    """
    every = {
        name: keys_of(parser_of(name)) for name in dict.fromkeys(command for _, _, command, _ in KEY_PAGES.values())
    }
    described = tuple(start for _, _, command, starts in KEY_PAGES.values() if command == 'fit' for start in starts)
    if left := [key.name for key in every['fit'] if not key.name.startswith(described)]:
        raise RuntimeError(f'no page describes {", ".join(left)}: add them to KEY_PAGES')
    for page, (title, text, command, starts) in KEY_PAGES.items():
        keys = [key for key in every[command] if key.name.startswith(starts)]
        # `output.…` are other keys in test than in predict: links lead to those of predict
        shown = [key_entry(key, linked=page != 'test') for key in keys]
        yield f'keys/{page}', f'# {title}\n\n{text}\n\n' + '\n\n'.join(shown) + '\n'


def key_entry(key: Key, *, linked: bool) -> str:
    """One key as an entry, to which links lead if that is wanted; of the texts of Lightning the first paragraph."""
    options = {'type': key.type, 'default': key.default} | ({} if linked else {'no-index': ''})
    text = key.text if key.name.startswith(OURS) else _unformatted(key.text.split('\n\n')[0])
    return _directive('confval', key.name, _escaped(text), **options)


def _plain(hint: Any) -> str:
    """A type as it stands in code, without the modules that it comes from."""
    text = hint.__name__ if isinstance(hint, type) else str(hint)
    return re.sub(r'\b(?:\w+\.)+(?=\w)', '', text)


def _value(default: Any) -> str:
    """A default as YAML writes it."""
    import yaml

    if isinstance(default, list) and default and not isinstance(default[0], str | int | float):
        return ', '.join(f'`{type(item).__name__}`' for item in default)
    return f'`{yaml.safe_dump(default, default_flow_style=True).removesuffix("...\n").strip()}`'


def _unformatted(text: str) -> str:
    """The marks of reStructuredText taken out of a text of another package."""
    text = re.sub(r':\w+:`~?(?:[\w.]+\.)?(\w+)`', r'`\1`', text).replace('``', '`')
    return re.sub(r'\.\. (\w+)::', r'\1:', text)


def _escaped(text: str) -> str:
    r"""A text whose brackets, asterisks and underlines are those of the text, except in code.

    Examples:
        >>> _escaped('S2_*.tif in `a_b`')
        'S2\\_\\*.tif in `a_b`'
    """
    parts = re.split(r'(`[^`]*`)', text)
    return ''.join(part if part.startswith('`') else re.sub(r'[<*_]', r'\\\g<0>', part) for part in parts)


# What can be chosen by name


def choice_pages() -> Iterator[tuple[str, str]]:
    """Networks, losses, ways to mix, engines, classes."""
    yield (
        'choices',
        '\n\n'.join(['# Names to choose from', *(part() for part in (_networks, _losses, _mixes, _engines))]),
    )
    yield 'legend', '\n\n'.join(['# Legend', *_legend()])


def _networks() -> str:
    from landcover_plugin.models import NETWORKS

    rows = []
    for name, network in NETWORKS.items():
        builder = getattr(importlib.import_module(f'landcover_plugin.models.{network.module}'), network.builder)
        what = f'{network.args[0]} of segmentation_models_pytorch' if network.args else _summary(builder)
        rows.append((f'`{name}`', what, f'`{network.backbone}`'))
    return '## Networks\n\n{confval}`model.model`, with {confval}`model.backbone` as encoder.\n\n' + _table(
        ('name', 'what it is', 'default encoder'), rows
    )


def _losses() -> str:
    from landcover_plugin.training.losses import LOSSES, RANGES

    rows = []
    for name, loss in LOSSES.items():
        settings = [
            f'`{f.name}` {f.default:g} [{RANGES[f.name][0]:g} to {RANGES[f.name][1]:g}]'
            for f in dataclasses.fields(loss)
        ]
        rows.append((f'`{name}`', _summary(loss), ', '.join(settings)))
    return (
        '## Losses\n\n{confval}`model.loss`, or a sum of them; {confval}`model.loss_args` holds their settings.\n\n'
        + (_table(('name', 'what it is', 'settings, defaults [and limits]'), rows))
    )


def _mixes() -> str:
    import numpy as np

    from landcover_plugin.legend import LEGEND
    from landcover_plugin.training import mixing

    made = {name: mixing.mixing(name, 0.5, lambda: np.ones(LEGEND.num_classes)) for name in mixing.MIXES}
    rows = [(f'`{name}`', ', '.join(_summary(type(m)) for m in mixes) or 'Nothing.') for name, mixes in made.items()]
    return (
        '## Mixing of patches\n\n{confval}`data.mix`, each patch with probability {confval}`data.mix_p`.\n\n'
        + _table(('name', 'what it does'), rows)
    )


def _engines() -> str:
    from landcover_plugin.mapping.engines import ENGINES

    names = ', '.join(f'`{name}`' for name in ENGINES)
    return f'## Engines\n\n{{confval}}`output.engine`: {names}, or `auto`; `{ENGINES[0]}` is the reference.\n'


def _legend() -> Iterator[str]:
    from landcover_plugin.legend import LEGEND, PARENTS, UNCERTAIN_PARENTS

    yield 'Code on disk, channel of the network and value in the map are one number.'
    yield _table(
        ('code', 'class', 'classe', 'colour'),
        ((str(c.code), c.name, c.name_ca, '`#{:02X}{:02X}{:02X}`'.format(*c.colour)) for c in LEGEND),
    )
    yield '## The 41 classes of the MCSC'
    yield (
        'Rasters with the 41 values are turned into the 12 codes by this table. It is a reading of the class names and '
        f'**not official**; the least certain are {", ".join(map(str, UNCERTAIN_PARENTS))}.'
    )
    yield _table(
        ('value', 'MCSC', 'classe', 'code', 'class'),
        ((str(p.value), str(p.mcsc), p.name_ca, str(p.code), LEGEND[p.code].name) for p in PARENTS),
    )


# Markdown


def _summary(documented: Any) -> str:
    """First sentence of a docstring, in one line, as Markdown."""
    first = (inspect.getdoc(documented) or '').split('\n\n')[0]
    return re.sub(r'https?://[^\s)]*[^\s),.;]', r'<\g<0>>', _unformatted(' '.join(first.split())))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple('---' for _ in head), *rows]
    return '\n'.join('| ' + ' | '.join(cell.replace('|', '\\|') for cell in line) + ' |' for line in lines) + '\n'


def _directive(name: str, argument: str, content: str, **options: str) -> str:
    """A directive of MyST, in a fence that its content does not close."""
    fence = '`' * max(3, *(len(m) + 1 for m in re.findall(r'`{3,}', content)), 3)
    given: Mapping[str, str] = options
    lines = [f':{k}: {v}'.rstrip() for k, v in given.items()]
    return '\n'.join([f'{fence}{{{name}}} {argument}'.rstrip(), *lines, *([''] if lines else []), content, fence])


if __name__ == '__main__':
    main(Path(sys.argv[1]))
