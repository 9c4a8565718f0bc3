"""Writes the reference pages that come from the code: commands, keys, and what can be chosen by name.

Run by ``conf.py`` at the start of each build, in a process of its own: reading the parsers of fit and its companions
loads torch, and the command line takes over messages. By hand: ``python docs/generate_reference.py FOLDER``.
"""

import argparse
import contextlib
import inspect
import io
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from reference_choices import choice_pages
from reference_markdown import directive, escaped, unformatted

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
            'keep.',
            'resume',
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
    table = directive('list-table', '', '\n'.join(rows), widths='1 4')
    toc = directive('toctree', '', '\n'.join(cli.COMMANDS), hidden='')
    text = 'Each is explained by its own `--help`, which these pages repeat.'
    yield 'commands/index', f'# Commands\n\n{text}\n\n{table}\n\n{toc}\n'
    for name, command in cli.COMMANDS.items():
        help_text = directive('code-block', 'text', help_of(name))
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
    text = key.text if key.name.startswith(OURS) else unformatted(key.text.split('\n\n')[0])
    return directive('confval', key.name, escaped(text), **options)


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


if __name__ == '__main__':
    main(Path(sys.argv[1]))
