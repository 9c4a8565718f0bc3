"""Checks of what digital numbers mean: names of bands, scale and offset."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..legend import LEGEND
from ..rasters.mosaics import CATLC_BANDS
from . import spectra
from .facts import Facts
from .findings import Finding
from .sample import ENOUGH, Sample


def check_bands(files: Sequence[Facts], bands: Sequence[str], given: bool) -> Iterator[Finding]:
    """Where the names of the bands come from."""
    data = {'bands': list(bands)}
    bare = [f.name for f in files if not all(f.descriptions)]
    if not bare:
        yield Finding('bands', 'ok', f'{len(bands)} bands, named {" ".join(bands)}', data=data)
    elif given:
        yield Finding('bands', 'ok', f'{len(bands)} bands, by your order {" ".join(bands)}', data=data)
    else:
        yield Finding(
            'bands',
            'note',
            f'{bare[0]} does not name its bands; the CatLC order is assumed: {" ".join(bands)}',
            "compare with the product's description; other orders are named with --data.band_order '[B02, …]'",
            data,
        )
    strange = [b for b in bands if b not in CATLC_BANDS]
    if strange:
        yield Finding(
            'bands',
            'note',
            f'{", ".join(strange)}: not among the bands of CatLC ({" ".join(CATLC_BANDS)}), kept as '
            'they are; a map needs images that have them too',
            data={'strange': strange},
        )


_GREEN = ('forest', 'scrub, meadows and grasslands')
_BARE = ('bare soil', 'urban area', 'industrial, commercial and leisure areas', 'mining or landfills')

#: What land shows in every season: ground, the darker band, the brighter one. Leaves take red for their work and throw
#: infrared back, and the water in them takes the longer waves; soil and roofs brighten from blue to red.
_ORDERS = (
    ('forest and meadows', _GREEN, 'B04', 'B08'),
    ('forest and meadows', _GREEN, 'B05', 'B06'),
    ('forest and meadows', _GREEN, 'B12', 'B11'),
    ('bare soil and built-up ground', _BARE, 'B02', 'B04'),
)
_COLOURS = {
    'B02': 'blue', 'B04': 'red', 'B05': 'red edge', 'B06': 'red edge', 'B08': 'near infrared',
    'B11': 'short-wave infrared', 'B12': 'short-wave infrared',
}  # fmt: skip


def check_order(sample: Sample) -> Iterator[Finding]:
    """Whether bands outshine each other as they do over land in every season; the first pair that does not is told."""
    for date, pixels, valid in zip(sample.dates, sample.pixels, sample.valid, strict=True):
        numbers = spectra.by_name(pixels, sample.bands)
        for ground, classes, darker, brighter in _ORDERS:
            here = valid & np.isin(sample.codes, [LEGEND.code(name) for name in classes])
            if not {darker, brighter} <= numbers.keys() or here.sum() < ENOUGH:
                continue
            low, high = (float(np.median(numbers[band][here])) for band in (darker, brighter))
            if high <= low:
                yield Finding(
                    'bands',
                    'warning',
                    f'{date}: over {ground} {_COLOURS[brighter]} ({brighter}, {high:,.0f}) is not brighter than '
                    f'{_COLOURS[darker]} ({darker}, {low:,.0f}): the bands carry wrong names, or the labels lie '
                    'elsewhere',
                    'name the bands in the order of the file with --data.band_order, or mend their names',
                    {'date': date, 'darker': darker, 'brighter': brighter, 'low': low, 'high': high},
                )
                break


def check_scale(sample: Sample, dtypes: Sequence[str], scale: float, offset: float) -> Iterator[Finding]:
    """Whether digital numbers become the reflectance that land shows, with the given scale and offset."""
    floats = any(d.startswith('float') for d in dtypes)
    found = [
        _check_month(date, pixels, sample.bands, floats, scale, offset) for date, pixels in sample.measured_pixels()
    ]
    doubtful = [f for f in found if f is not None]
    months_differ = 0 < sum(bool(f.keys) for f in doubtful) < len(found)
    for f in doubtful:
        if f.keys and months_differ:
            data = {k: v for k, v in f.data.items() if k not in ('keys', 'suggested')}
            yield replace(f, way_out='bring all months to one scale and offset (gdal_calc.py)', data=data)
        else:
            yield f
    if found and not doubtful:
        told = f' with an offset of {-offset:,.0f}' if offset else ', no offset'
        yield Finding('scale', 'ok', f'digital numbers look like reflectance x {scale:,.0f}{told}')


def _check_month(
    date: str, pixels: NDArray[np.float32], bands: Sequence[str], floats: bool, scale: float, offset: float
) -> Finding | None:
    """What is doubtful about the numbers of a month, if anything."""
    low, median, high = (float(v) for v in np.percentile(pixels, (1, 50, 99)))
    data: dict[str, Any] = {'date': date, 'p1': low, 'median': median, 'p99': high}
    numbers = spectra.by_name(pixels, bands)
    nir = _nir(numbers, scale, offset)
    if pixels.max() == pixels.min():
        sentence = f'{date}: every measured pixel is {pixels.max():g} in all bands'
        return Finding('scale', 'error', sentence, 'fetch the file again', data)
    if floats and 0 < high <= spectra.MOST_REFLECTANCE < scale:
        sentence = (
            f'{date}: 99 % of the values are at most {high:.2f}: reflectance itself, not reflectance x {scale:,.0f}'
        )
        return _suggest(sentence, 'reflectance_scale', 1, data)
    if pixels.max() <= 255 < scale:
        sentence = (
            f'{date}: no value is above {pixels.max():.0f}: 8-bit pictures made for the eye, stretched by a rule that '
            'other mosaics do not share'
        )
        return Finding('scale', 'warning', sentence, 'use the surface reflectance product (16 bits)', data)
    if spectra.has_offset(numbers) and offset == 0:
        sentence = (
            f'{date}: the darkest percent of the pixels lies at {low:,.0f}, where water and shadow should be near 0: '
            'the offset of processing baseline 04.00 (+1,000) is still in'
        )
        return _suggest(sentence, 'reflectance_offset', -spectra.BASELINE_OFFSET, data)
    if offset < 0 and low < -offset / 2:
        sentence = (
            f'{date}: an offset of {offset:g} is added, but the darkest percent of the pixels lies at {low:,.0f}, so '
            'water and shadow become negative'
        )
        return Finding('scale', 'warning', sentence, 'leave the offset at 0', data)
    if nir is not None and not spectra.NIR_RANGE[0] <= nir <= spectra.NIR_RANGE[1]:
        sentence = (
            f'{date}: the median of near infrared (B08) is a reflectance of {nir:.3g}; land lies between '
            f'{spectra.NIR_RANGE[0]} and {spectra.NIR_RANGE[1]}'
        )
        way_out = 'set --data.reflectance_scale to the QUANTIFICATION_VALUE of the product'
        return Finding('scale', 'warning', sentence, way_out, {**data, 'nir': nir})
    return None


def _suggest(sentence: str, name: str, value: float, data: dict[str, Any]) -> Finding:
    key = f'--data.{name} {value:g}'
    return Finding('scale', 'warning', sentence, f'add {key}', {**data, 'keys': [key], 'suggested': {name: value}})


def _nir(numbers: dict[str, NDArray[np.float32]], scale: float, offset: float) -> float | None:
    """Median reflectance of near infrared over land: where it is brighter than green."""
    if not {'B03', 'B08'} <= numbers.keys():
        return None
    land = numbers['B08'][numbers['B08'] > numbers['B03']]
    return (float(np.median(land)) + offset) / scale if len(land) >= ENOUGH else None
