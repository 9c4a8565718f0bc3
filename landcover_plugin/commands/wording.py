"""What a parser of jsonargparse found wrong, as one sentence: the key, what it may be, what was given, a way out."""

import argparse
import difflib
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

_VALUE = re.compile(r'Parser key "([\w.]+)".*\b(?:Got|Given) value: (.*)$')
_MISSING = re.compile(r'following arguments are required: (.+)$')
_UNKNOWN = re.compile(r"(?:arguments: --|option ')([\w.]+)")

_WORDS = {
    int: 'a whole number', float: 'a number', bool: 'true or false', str: 'a text', type(None): 'null',
    Path: 'a path', dict: 'a mapping {name: value, …}',
}  # fmt: skip
_PLURALS = {int: 'whole numbers', float: 'numbers', str: 'texts'}


def sentence(parser: argparse.ArgumentParser, message: str) -> str:
    """What is wrong with an argument or a line of YAML.

    Args:
        parser: Whose keys may be meant.
        message: What jsonargparse says.

    Examples:
        >>> parser = argparse.ArgumentParser()
        >>> action = parser.add_argument('--data.seasons')
        >>> action._typehint = typing.Literal['separate', 'stack']
        >>> sentence(parser, 'Parser key "data.seasons": Expected a typing.Literal[…]. Got value: stacks')
        "data.seasons must be separate or stack, got stacks; did you mean 'stack'?"
    """
    text = ' '.join(message.split())
    if missing := _MISSING.search(text):
        names = ' and '.join(f'--{name.partition(".")[2] or name}' for name in missing[1].split(', '))
        return f'{names} must be given'
    text = re.sub(r'^Parser key "([\w.]+)": (File does not exist)', r'--\1: \2', text)
    keys = dict(_keys(parser))
    if (found := _VALUE.search(text)) and (allowed := type_words(hint := keys.get(found[1]))):
        key, value = found.groups()
        near = difflib.get_close_matches(value, _choices(hint), n=1, cutoff=0.5)
        return f'{key} must be {allowed}, got {value}' + (f'; did you mean {near[0]!r}?' if near else '')
    unknown = _UNKNOWN.search(text)
    near = difflib.get_close_matches(unknown[1], keys, n=1) if unknown else []
    return f'{text}; ' + (
        f'did you mean {near[0]}?' if near else 'landcover COMMAND --help lists the keys of a command'
    )


def _keys(parser: argparse.ArgumentParser) -> Iterator[tuple[str, Any]]:
    """Names of all keys of a parser and of its commands, and their types."""
    for action in parser._actions:
        yield action.dest, getattr(action, '_typehint', None)
        commands = action.choices.values() if isinstance(action.choices, Mapping) else ()
        for command in commands:
            if isinstance(command, argparse.ArgumentParser):
                yield from _keys(command)


def _parts(hint: Any) -> list[Any]:
    """The types that a union joins; None comes last."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    parts = [part for member in typing.get_args(hint) for part in _parts(member)] if union else [hint]
    return sorted(parts, key=lambda part: part is type(None))


def _choices(hint: Any) -> list[str]:
    """The words of a closed set."""
    return [str(v) for part in _parts(hint) if typing.get_origin(part) is typing.Literal for v in typing.get_args(part)]


def type_words(hint: Any) -> str | None:
    """What a type is called in a sentence, or None where there is no short word."""
    words: list[str] = []
    for part in _parts(hint):
        origin, inner = typing.get_origin(part), typing.get_args(part)
        if origin is typing.Literal:
            words += map(str, inner)
        elif part in _WORDS or origin is dict:
            words.append(_WORDS[origin or part])
        elif isinstance(origin, type) and issubclass(origin, Iterable) and inner:
            words.append(f'a list of {_PLURALS[inner[0]]} [a, b, …]' if inner[0] in _PLURALS else 'a list [a, b, …]')
        else:
            return None
    words = list(dict.fromkeys(words))
    return f'{", ".join(words[:-1])} or {words[-1]}' if len(words) > 1 else ''.join(words) or None
