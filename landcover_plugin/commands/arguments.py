"""Options on a command line, before a parser has seen them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import LandcoverError


def options(args: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each option with the value behind it or behind its equals sign, empty where there is none.

    Examples:
        >>> list(options(['map.tif', '--output', 'a.gpkg', '--overwrite', '--mmu=500']))
        [('--output', 'a.gpkg'), ('--overwrite', ''), ('--mmu', '500')]
    """
    for number, word in enumerate(args):
        name, equals, own = word.partition('=')
        if name.startswith('-'):
            following = '' if equals else next(iter(args[number + 1 : number + 2]), '')
            yield name, own if equals or following.startswith('--') else following


def last_value(args: Sequence[str], option: str) -> str | None:
    """The last value of an option, None where it has none."""
    return next((value for name, value in reversed(list(options(args))) if name == option and value), None)


def yaml_given(name: str, value: str) -> Mapping[str, Any]:
    """What a YAML file among the options holds; nothing for other options.

    Raises:
        LandcoverError: If the file is no valid YAML.
    """
    if name not in ('-c', '--config') or not Path(value).is_file():
        return {}
    import yaml  # not for commands without one

    try:
        content = yaml.safe_load(Path(value).read_text(encoding='utf-8'))
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise LandcoverError(f'{value} is not valid YAML: {" ".join(str(e).split())}') from e
    return content if isinstance(content, Mapping) else {}
