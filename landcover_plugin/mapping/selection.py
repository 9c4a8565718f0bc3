"""The largest values of a square window as a program of comparisons, the same for each pixel.

A program without branches runs on many pixels at once. Columns of the window are sorted once and used by all windows
that they are part of; sorted lists are merged by odd-even merging (Batcher 1968,
https://doi.org/10.1145/1468075.1468121; Knuth, The Art of Computer Programming 3, 5.3.4). Pure arithmetic.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

#: Kinds of instructions ``(kind, a, b, shift)`` on lines of values: ``a`` becomes ``b``, read ``shift`` pixels to the
#: right; ``a`` becomes the larger and ``b`` the smaller of the two; ``a`` becomes the larger.
COPY, ORDER, LARGER = 0, 1, 2

_Instruction = tuple[int, int, int, int]


@cache
def selection_program(window: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Instructions that find the ``count`` largest values of each window of ``window`` x ``window`` pixels.

    Lines 0 to ``window - 1`` hold the rows of the image. After the program, pixel ``c`` of the result lines belongs to
    the window whose leftmost column is ``c``.

    Returns:
        Instructions, shape ``(n, 4)``; the result lines, shape ``(count,)``, in no order; and how many lines there are.

    Examples:
        >>> program, lines, number = selection_program(3, 5)
        >>> program.shape, lines.shape, number
        ((21, 4), (5,), 12)
    """
    maker = _Maker(window, count)
    result = maker.select()
    program = _needed(maker.program, result)
    return np.array(program, dtype=np.int64), np.array(result, dtype=np.int64), maker.lines


class _Maker:
    """Writes a program; lists of lines are sorted, the largest value first.

    Args:
        window: Edge of the window.
        count: How many of the largest values are wanted; longer lists are cut.
    """

    def __init__(self, window: int, count: int) -> None:
        self.window, self.count, self.lines = window, count, window
        self.program: list[_Instruction] = []

    def select(self) -> list[int]:
        """Lines of the largest values, from sorted runs of 1, 2, 4, … columns that fill the window."""
        runs = {1: self._sorted(list(range(self.window)))}
        while 2 * max(runs) <= self.window:
            n = max(runs)
            runs[2 * n] = self._merged(self._moved(runs[n], 0), self._moved(runs[n], n))
        widths = [n for n in sorted(runs, reverse=True) if self.window & n]
        at, rest = widths[0], list[int]()
        for n in widths[1:]:
            rest = self._merged(rest, self._moved(runs[n], at))
            at += n
        return self._largest(runs[widths[0]], rest)

    def _sorted(self, lines: list[int]) -> list[int]:
        half = len(lines) // 2
        return self._merged(self._sorted(lines[:half]), self._sorted(lines[half:])) if half else lines

    def _moved(self, lines: Sequence[int], shift: int) -> list[int]:
        fresh = list(range(self.lines, self.lines + len(lines)))
        self.lines += len(lines)
        self.program += [(COPY, a, b, shift) for a, b in zip(fresh, lines, strict=True)]
        return fresh

    def _merged(self, first: list[int], second: list[int]) -> list[int]:
        """One sorted list of two, as far as it is needed."""
        return self._merge(first, second)[: self.count]

    def _merge(self, first: list[int], second: list[int]) -> list[int]:
        if not first or not second:
            return first or second
        if len(first) == len(second) == 1:
            self.program.append((ORDER, first[0], second[0], 0))
            return [first[0], second[0]]
        odd, even = self._merge(first[::2], second[::2]), self._merge(first[1::2], second[1::2])
        merged, pairs = odd[:1], min(len(odd) - 1, len(even))
        for a, b in zip(even[:pairs], odd[1 : 1 + pairs], strict=True):
            self.program.append((ORDER, a, b, 0))
            merged += [a, b]
        return merged + even[pairs:] + odd[1 + pairs :]

    def _largest(self, first: list[int], second: list[int]) -> list[int]:
        """The largest of two sorted lists together: the larger ones of pairs that are matched crosswise."""
        found = []
        for n in range(self.count):
            pair = [lines[i] for lines, i in ((first, n), (second, self.count - 1 - n)) if i < len(lines)]
            if len(pair) == 2:
                self.program.append((LARGER, pair[0], pair[1], 0))
            found += pair[:1]
        return found


def _needed(program: Sequence[_Instruction], result: Sequence[int]) -> list[_Instruction]:
    """The instructions that the result depends on."""
    wanted, kept = set(result), []
    for kind, a, b, shift in reversed(program):
        if a not in wanted and (kind != ORDER or b not in wanted):
            continue
        kept.append((kind, a, b, shift))
        if kind == COPY:
            wanted.discard(a)
        else:
            wanted.add(a)
        wanted.add(b)
    return kept[::-1]
