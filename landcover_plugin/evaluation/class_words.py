"""Classes as people write them: codes, or English or Catalan names."""

import difflib
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import LandcoverError
from ..legend import LEGEND, NODATA, Legend


def class_code(value: Any, legend: Legend = LEGEND) -> int:
    """Code of a class that is written as a code or a name; 0 for an empty cell.

    Raises:
        LandcoverError: If there is no such class.

    Examples:
        >>> class_code('Boscos'), class_code('3'), class_code(3.0), class_code(None), class_code('')
        (3, 3, 3, 0, 0)
        >>> class_code('forrest')
        Traceback (most recent call last):
        landcover_plugin.errors.LandcoverError: there is no class 'forrest'; did you mean 'forest'?
    """
    text = '' if value is None or (isinstance(value, float) and math.isnan(value)) else str(value).strip()
    if text in ('', '<NA>', 'nan', 'None', 'NULL'):
        return NODATA
    try:
        number = float(text)
    except ValueError:
        return _code_of_name(text, legend)
    if number not in legend.codes:
        raise LandcoverError(f'there is no class {text}: codes are {legend.codes[0]} to {legend.codes[-1]}')
    return int(number)


def _code_of_name(text: str, legend: Legend) -> int:
    try:
        return legend.code(text)
    except KeyError:
        names = {n.casefold(): n for c in legend if c.code != NODATA for n in (c.name, c.name_ca)}
        near = difflib.get_close_matches(text.casefold(), names, n=1)
        hint = f'did you mean {names[near[0]]!r}?' if near else f'the names are {", ".join(legend.names[1:])}'
        raise LandcoverError(f'there is no class {text!r}; {hint}') from None


def class_codes(values: Iterable[Any], where: str) -> NDArray[np.int64]:
    """Codes of a column; 0 for empty cells.

    Raises:
        LandcoverError: If there is no such class; the message starts with ``where``.
    """
    known: dict[Any, int] = {}
    found = []
    for value in values:
        key = str(value)
        if key not in known:
            try:
                known[key] = class_code(value)
            except LandcoverError as e:
                raise LandcoverError(f'{where}: {e}') from None
        found.append(known[key])
    return np.array(found, dtype=np.int64)
