"""Runs the examples of pages, in their order and in the current folder: ``python docs/run_page.py PAGE…``.

Blocks of Python on a page share their names and, where they begin with ``>>>``, have to print what they show.
Blocks of the shell hold ``landcover`` commands, which run in this process, so that torch is loaded once.
"""

import doctest
import functools
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from sybil import Example, Sybil
from sybil.parsers.myst import CodeBlockParser, PythonCodeBlockParser

from landcover_plugin import cli


def run_page(page: Path, also: Mapping[str, Sequence[str]] | None = None) -> int:
    """Run all examples of a page.

    Args:
        page: Markdown.
        also: Arguments that are added to a command, by its name, where a page speaks of more ground than there is.

    Returns:
        Number of examples.

    Raises:
        AssertionError: If a command fails or is none of this package.
        SybilFailure: If an example prints something else than it shows.
    """
    run = functools.partial(_run_commands, also=also or {})
    parsers = [PythonCodeBlockParser(doctest_optionflags=doctest.ELLIPSIS), CodeBlockParser('sh', run)]
    examples = [example for example in Sybil(parsers).parse(page).examples() if caption_of(example) is None]
    for example in examples:
        example.evaluate()
    return len(examples)


def caption_of(example: Example) -> str | None:
    """The caption of a block: the name of a file that it shows, which is not to be run."""
    return example.region.lexemes.get('options', {}).get('caption')


def commands_of(block: str) -> list[list[str]]:
    r"""Words of each command of a shell block.

    Examples:
        >>> commands_of('landcover doctor data  # looks\nlandcover predict \\\n  --output.path "a b.tif"\n')
        [['landcover', 'doctor', 'data'], ['landcover', 'predict', '--output.path', 'a b.tif']]
    """
    lines = block.replace('\\\n', ' ').splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def _run_commands(example: Example, also: Mapping[str, Sequence[str]]) -> None:
    for program, *arguments in commands_of(example.parsed):
        arguments.extend(also.get(arguments[0], ()))
        assert program == 'landcover', f'{example.path}:{example.line} runs {program}, which is not of this package'
        code = cli.main(arguments)
        warned = arguments[0] == 'doctor' and code == 2
        assert code == 0 or warned, f'{example.path}:{example.line}: {shlex.join(arguments)} ended with {code}'


if __name__ == '__main__':
    for page in sys.argv[1:]:
        sys.stdout.write(f'{page}: {run_page(Path(page).resolve())} examples\n')
