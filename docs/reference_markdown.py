"""Markdown, as Sphinx reads it with MyST."""

import inspect
import re
from collections.abc import Iterable
from typing import Any


def summary(documented: Any) -> str:
    """First sentence of a docstring, in one line, as Markdown."""
    first = (inspect.getdoc(documented) or '').split('\n\n')[0]
    return re.sub(r'https?://[^\s)]*[^\s),.;]', r'<\g<0>>', unformatted(' '.join(first.split())))


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table, from its head and its rows."""
    lines = [head, tuple('---' for _ in head), *rows]
    return '\n'.join('| ' + ' | '.join(cell.replace('|', '\\|') for cell in line) + ' |' for line in lines) + '\n'


def directive(name: str, argument: str, content: str, **options: str) -> str:
    """A directive of MyST, in a fence that its content does not close."""
    fence = '`' * max(3, *(len(m) + 1 for m in re.findall(r'`{3,}', content)), 3)
    lines = [f':{k}: {v}'.rstrip() for k, v in options.items()]
    return '\n'.join([f'{fence}{{{name}}} {argument}'.rstrip(), *lines, *([''] if lines else []), content, fence])


def unformatted(text: str) -> str:
    """The marks of reStructuredText taken out of a text of another package."""
    text = re.sub(r':\w+:`~?(?:[\w.]+\.)?(\w+)`', r'`\1`', text).replace('``', '`')
    return re.sub(r'\.\. (\w+)::', r'\1:', text)


def escaped(text: str) -> str:
    r"""A text whose brackets, asterisks and underlines are those of the text, except in code.

    Examples:
        >>> escaped('S2_*.tif in `a_b`')
        'S2\\_\\*.tif in `a_b`'
    """
    parts = re.split(r'(`[^`]*`)', text)
    return ''.join(part if part.startswith('`') else re.sub(r'[<*_]', r'\\\g<0>', part) for part in parts)
