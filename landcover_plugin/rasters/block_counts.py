"""Counting label pixels by block: the loops behind :mod:`landcover_plugin.rasters.labels`."""

import numba
import numpy as np


@numba.njit(cache=True, nogil=True, inline='always')
def _count(  # type: ignore[no-untyped-def]  # pragma: no cover
    flat, width, slots, words, factor, weights, method, codes, purity, labelled, areas
):
    """As :func:`count_blocks`. A block of one value, the usual case, is told by comparing rows."""
    rows, cols, total = codes.shape[0], codes.shape[1], factor * factor
    num_codes = len(weights)
    differs = np.empty(width, dtype=np.uint8)
    counts = np.zeros(areas.shape[1], dtype=np.int64)
    pure = np.zeros(areas.shape[1], dtype=np.int64)
    for row in range(rows):
        top = flat[row * factor * width : (row * factor + 1) * width]
        differs[:] = 0
        for i in range(1, factor):
            line = flat[(row * factor + i) * width : (row * factor + i + 1) * width]
            for c in range(width):
                differs[c] |= line[c] ^ top[c]
        for col in range(cols):
            start = numba.uintp(col * factor)
            first, mixed = top[start], np.uint8(0)
            for c in range(start, start + numba.uintp(factor)):
                mixed |= differs[numba.uintp(c)] | (top[numba.uintp(c)] ^ first)
            if not mixed:
                slot = slots[first]
                pure[slot] += 1
                known = 0 < slot < num_codes
                codes[row, col] = slot if known else 0
                purity[row, col] = labelled[row, col] = 100 if known else 0
                continue
            corner = numba.uintp(row * factor * width + col * factor)
            if total <= 255:  # what the 8-bit counters hold
                low, high = np.uint64(0), np.uint64(0)
                for begin in range(corner, corner + numba.uintp(factor * width), numba.uintp(width)):
                    for p in range(begin, begin + numba.uintp(factor)):
                        value = flat[numba.uintp(p)]
                        low += words[value, 0]
                        high += words[value, 1]
                for slot in range(len(counts)):
                    word = low if slot < 8 else high
                    counts[slot] = (word >> np.uint64(8 * (slot & 7))) & np.uint64(255)
            else:
                counts[:] = 0
                for i in range(factor):
                    for value in flat[corner + numba.uintp(i * width) :][:factor]:
                        counts[slots[value]] += 1
            mode, weighted, some = 0, 0, 0
            most, cover = 0, 0.0
            for code in range(1, num_codes):
                some += counts[code]
                if counts[code] > most:
                    mode, most = code, counts[code]
                if counts[code] * weights[code] > cover:
                    weighted, cover = code, counts[code] * weights[code]
            if 2 * some < total:
                mode = weighted = 0
            middle = slots[flat[(row * factor + factor // 2) * width + col * factor + factor // 2]]
            nearest = np.int64(middle) if middle < num_codes else 0
            for slot in range(len(counts)):
                areas[0, slot] += counts[slot]
            areas[1, mode] += total
            areas[2, nearest] += total
            areas[3, weighted] += total
            best = mode if method == 0 else nearest if method == 1 else weighted
            codes[row, col] = best
            purity[row, col] = counts[best] * 100 // total if best else 0
            labelled[row, col] = some * 100 // total
    for slot in range(len(pure)):
        areas[0, slot] += pure[slot] * total
        areas[1:, slot if slot < num_codes else 0] += pure[slot] * total


@numba.njit(cache=True, nogil=True)
def count_blocks(  # type: ignore[no-untyped-def]  # pragma: no cover
    flat, width, slots, words, factor, weights, method, codes, purity, labelled, areas
):
    """Count the label pixels of each block, and choose its code; see :func:`~landcover_plugin.rasters.labels.tally`.

    Args:
        flat: Raster values, row after row.
        width: Their number in a row.
        slots: Shape ``(256,)``: the counter of each value; codes have the first ones.
        words: Shape ``(256, 2)``: what each value adds to the two words of eight 8-bit counters each.
        factor: Values along a block.
        weights: Of the codes.
        method: 0 majority, 1 nearest, 2 weighted majority.
        codes: Where the codes go, shape ``(rows, cols)``.
        purity: Where the percent of the block goes that the code covers.
        labelled: Where the percent goes that any code covers.
        areas: What is added to: values by counter, shape ``(4, counters)``, before and after each method.
    """
    if factor == 10:  # 1 m in 10 m: loops whose length is known when they are compiled take two thirds of the time
        _count(flat, width, slots, words, 10, weights, method, codes, purity, labelled, areas)
    else:
        _count(flat, width, slots, words, factor, weights, method, codes, purity, labelled, areas)


@numba.njit(cache=True, nogil=True)
def share_blocks(flat, width, table, factor, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    """The percent of each block that each class covers; see :func:`~landcover_plugin.rasters.labels.class_shares`."""
    total = factor * factor
    counts = np.zeros(256, dtype=np.int64)
    for row in range(out.shape[1]):
        for col in range(out.shape[2]):
            counts[:] = 0
            for r in range(row * factor, (row + 1) * factor):
                for c in range(r * width + col * factor, r * width + (col + 1) * factor):
                    counts[table[flat[c]]] += 1
            for code in range(1, out.shape[0] + 1):
                out[code - 1, row, col] = (counts[code] * 200 + total) // (2 * total)
