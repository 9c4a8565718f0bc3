"""Runs the examples of a page, in its order and in the current folder: ``python docs/run_page.py PAGE``.

Blocks of Python share their names and, where they show a session (``>>>``), have to print what they show. Blocks of the
shell hold ``landcover`` commands, which run in this process, so that torch is loaded once.
"""

import doctest
import shlex
import sys
from pathlib import Path

from sybil import Example, Sybil
from sybil.parsers.myst import CodeBlockParser, PythonCodeBlockParser

from landcover_plugin import cli


def run_page(page: Path) -> int:
    """Run all examples of a page.

    Returns:
        Number of examples.

    Raises:
        AssertionError: If a command fails or is none of this package.
        SybilFailure: If a session prints something else than it shows.
    """
    parsers = [PythonCodeBlockParser(doctest_optionflags=doctest.ELLIPSIS), CodeBlockParser('sh', _run_commands)]
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


def _run_commands(example: Example) -> None:
    for program, *arguments in commands_of(example.parsed):
        assert program == 'landcover', f'{example.path}:{example.line} runs {program}, which is not of this package'
        code = cli.main(arguments)
        warned = arguments[0] == 'doctor' and code == 2
        assert code == 0 or warned, f'{example.path}:{example.line}: {shlex.join(arguments)} ended with {code}'


if __name__ == '__main__':
    sys.stdout.write(f'{run_page(Path(sys.argv[1]).resolve())} examples\n')
