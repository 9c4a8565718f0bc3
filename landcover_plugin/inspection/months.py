"""Checks of the months: how much each measured, under what sky, and whether they differ."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from . import spectra
from .findings import Finding
from .sample import ENOUGH, Sample

#: Shares of a month from which clouds or snow are a note and a warning.
_NOTEWORTHY, _GRAVE = 0.01, 0.05


def check_nodata(sample: Sample, nodata: Sequence[float], declared: bool) -> Iterator[Finding]:
    """How much each month measured, and holes that would pass as measurements."""
    shares = sample.measured / max(sample.read, 1)
    for date, pixels, valid, value in zip(sample.dates, sample.pixels, sample.valid, nodata, strict=True):
        yield from _check_holes(date, pixels, valid, value)
    for date, share in zip(sample.dates, shares, strict=True):
        if share == 0 and date not in sample.failures:
            yield Finding(
                'nodata',
                'error',
                f'{date}: nothing was measured (every pixel is nodata or NaN)',
                'fetch the file again, or give the right nodata with --data.nodata',
                {'date': date},
            )
    if len(shares) > 1 and shares.min() < 0.5 * shares.max() and not sample.failures:
        poor, rich = int(shares.argmin()), int(shares.argmax())
        yield Finding(
            'nodata',
            'warning',
            f'{sample.dates[poor]} measured {shares[poor]:.0%} of the ground, {sample.dates[rich]} '
            f'{shares[rich]:.0%}: the emptier month is seen less in training',
            'fetch the rest of that month, or leave it out',
            {'measured': dict(zip(sample.dates, shares.tolist(), strict=True))},
        )
    elif shares.any():
        named = ', '.join(f'{d} {s:.0%}' for d, s in zip(sample.dates, shares, strict=True))
        how = f'nodata {nodata[0]:g}' + ('' if declared else ', which the files do not declare')
        yield Finding(
            'nodata',
            'ok',
            f'measured: {named} of the ground ({how})',
            data={'measured': dict(zip(sample.dates, shares.tolist(), strict=True))},
        )


def _check_holes(date: str, pixels: NDArray[np.float32], valid: NDArray[np.bool_], nodata: float) -> Iterator[Finding]:
    seen = pixels[valid]
    if not len(seen):
        return
    fill = spectra.fill_value(seen)
    if fill is not None:
        yield Finding(
            'nodata',
            'warning',
            f'{date}: at least 2 % of the measured pixels are {fill:g} in every band, which looks like '
            'an undeclared nodata value',
            f'add --data.nodata {fill:g}',
            {'keys': [f'--data.nodata {fill:g}'], 'date': date},
        )
    empty = (seen == nodata).mean(0)
    if pixels.shape[1] > 1 and empty.max() > 0.005:
        band = int(empty.argmax())
        yield Finding(
            'nodata',
            'warning',
            f'{date}: {empty[band]:.1%} of the measured pixels have nodata ({nodata:g}) in some bands '
            f'and values in others (band {band + 1} of those chosen most); they train as reflectance 0',
            'fill these holes, or set all bands to nodata there',
            {'date': date, 'share_by_band': empty},
        )
    broken = float((~np.isfinite(pixels)).any(1).mean())
    if broken > 0 and not np.isnan(nodata):
        yield Finding(
            'nodata',
            'note',
            f'{date}: {broken:.1%} of the pixels are NaN or infinite in some band; they count as not measured',
            data={'date': date, 'share': broken},
        )


def check_sky(sample: Sample, scale: float, offset: float) -> Iterator[Finding]:
    """Shares of cloud and snow in each month, by cheap thresholds."""
    shares: dict[str, dict[str, float]] = {}
    for date, pixels in sample.measured_pixels():
        reflectance = spectra.by_name((pixels + np.float32(offset)) / np.float32(scale), sample.bands)
        for kind, mask in (('cloud', spectra.clouds(reflectance)), ('snow', spectra.snow(reflectance))):
            if mask is not None:
                shares.setdefault(kind, {})[date] = float(mask.mean())
    for kind, by_date in shares.items():
        seen = {date: share for date, share in by_date.items() if share >= _NOTEWORTHY}
        if seen:
            grave = max(seen.values()) >= _GRAVE
            told = ', '.join(f'{date} {share:.1%}' for date, share in seen.items())
            yield Finding(
                'sky',
                'warning' if grave else 'note',
                f'looks like {kind}: {told} of the measured pixels (thresholds of Fmask and Sen2Cor; bright roofs, '
                'quarries and beaches pass too)',
                f'set {kind} to nodata, or choose another date' if grave else '',
                {'kind': kind, 'shares': by_date},
            )
    if shares and all(share < _NOTEWORTHY for by_date in shares.values() for share in by_date.values()):
        yield Finding('sky', 'ok', 'less than 1 % of any month looks like cloud or snow', data={'shares': shares})


def check_seasons(sample: Sample) -> Iterator[Finding]:
    """Whether there are several months, and they differ."""
    if len(sample.dates) == 1:
        yield Finding(
            'seasons',
            'note',
            f'one month ({sample.dates[0]}): crops, meadows and woods differ most between spring and summer',
            'a mosaic of another season beside it usually helps',
            {'dates': list(sample.dates)},
        )
    for i, j in itertools.combinations(range(len(sample.dates)), 2):
        both = sample.valid[i] & sample.valid[j]
        if both.sum() < ENOUGH:
            continue
        same = float((sample.pixels[i][both] == sample.pixels[j][both]).all(1).mean())
        if same > 0.2:
            yield Finding(
                'seasons',
                'warning',
                f'{sample.dates[i]} and {sample.dates[j]} are identical in {same:.0%} of the pixels: '
                'one file under two names?',
                'fetch the month that is missing, or take the copy away',
                {'dates': [sample.dates[i], sample.dates[j]], 'identical': same},
            )


def check_stack(sample: Sample) -> Iterator[Finding]:
    """How much ground is left where all months must have measured, as stacking asks."""
    every, some = int(sample.valid.all(0).sum()), int(sample.valid.any(0).sum())
    if some and every < 0.9 * some:
        yield Finding(
            'seasons',
            'warning' if every < 0.5 * some else 'note',
            f'stacked months need all of them: {every / some:.0%} of the measured ground is left',
            '--data.seasons separate uses the rest too',
            {'share': every / some},
        )
