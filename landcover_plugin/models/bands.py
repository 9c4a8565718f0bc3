"""Filters by the name of the band: which of the pretrained ones each channel of the image starts from."""

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..errors import LandcoverError
from ..rasters.wavelengths import WAVELENGTHS

#: The bands that stand for red, green and blue.
RGB_BANDS = ('B04', 'B03', 'B02')

#: nm within which a band stands for another: B8A for B08, B04 for B05, B02 for B01, but red never for infrared.
REACH = 60

_COLOURS = {'R': 'B04', 'RED': 'B04', 'G': 'B03', 'GREEN': 'B03', 'B': 'B02', 'BLUE': 'B02'}

_HOW = {
    'same': 'same band',
    'neighbours': f'nearest within {REACH} nm',
    'mean': 'mean of all, none is near',
}


class BandMatch(NamedTuple):
    """Where the filters of one channel come from.

    Attributes:
        channel: Name of the channel, as given.
        sources: Names of the bands whose filters are averaged.
        indices: Their positions in the pretrained layer.
        how: The same band, the nearest shorter and longer one, or the mean of all.
    """

    channel: str
    sources: tuple[str, ...]
    indices: tuple[int, ...]
    how: Literal['same', 'neighbours', 'mean']


def band_name(channel: str) -> str:
    """The band of a channel as Sentinel-2 products write it, without the season in front.

    Examples:
        >>> [band_name(c) for c in ('B4', 'b8a', '2018-04 B04', 'B12', 'red', 'NDVI')]
        ['B04', 'B8A', 'B04', 'B12', 'B04', 'NDVI']
    """
    name = channel.split()[-1].upper() if channel.strip() else channel
    if plain := re.fullmatch(r'B0*(\d{1,2}A?)', name):
        name = f'B{plain[1]:0>2}'
    return _COLOURS.get(name, name)


def match_bands(source: Sequence[str], wanted: Sequence[str]) -> list[BandMatch]:
    """Which pretrained bands each channel starts from, by name and else by centre wavelength.

    The same band if there is one (where both name it equally often, in that order: seasons stay apart); else the mean
    of the nearest shorter and the nearest longer band within :data:`REACH`; else the mean of all.

    Args:
        source: Bands of the pretrained layer, in its order.
        wanted: Channels of the image; a season may stand in front of the band.

    Raises:
        LandcoverError: If there are no channels, or none of the pretrained bands is one of Sentinel-2.

    Examples:
        >>> for match in match_bands(['B4', 'B3', 'B2'], ['B02', 'B04', 'B05', 'B08']):
        ...     print(match.channel, match.sources, match.how)
        B02 ('B2',) same
        B04 ('B4',) same
        B05 ('B4',) neighbours
        B08 ('B4', 'B3', 'B2') mean
    """
    theirs, ours = [band_name(b) for b in source], [band_name(c) for c in wanted]
    if not ours:
        raise LandcoverError('there are no channels to find filters for; name at least one with --data.bands')
    if not set(theirs) & set(WAVELENGTHS):
        raise LandcoverError(
            f'none of the pretrained bands {", ".join(source)} is one of Sentinel-2 ({", ".join(WAVELENGTHS)}); choose '
            'other weights, or --model.weights false'
        )
    matches = []
    for position, band in enumerate(ours):
        same = [i for i, b in enumerate(theirs) if b == band]
        if len(same) == ours.count(band):
            same = [same[ours[:position].count(band)]]
        near = _neighbours(theirs, band)
        how: Literal['same', 'neighbours', 'mean'] = 'same' if same else 'neighbours' if near else 'mean'
        indices = same or near or [i for i, b in enumerate(theirs) if b in WAVELENGTHS]
        matches.append(BandMatch(wanted[position], tuple(source[i] for i in indices), tuple(indices), how))
    return matches


def _neighbours(names: Sequence[str], band: str) -> list[int]:
    """Positions of the nearest shorter and the nearest longer band within reach."""
    if band not in WAVELENGTHS:
        return []
    steps = {i: WAVELENGTHS[b] - WAVELENGTHS[band] for i, b in enumerate(names) if b in WAVELENGTHS}
    sides = ([s for s in steps.values() if -REACH <= s < 0], [s for s in steps.values() if 0 < s <= REACH])
    nearest = {min(side, key=abs) for side in sides if side}
    return [i for i, step in steps.items() if step in nearest]


def adapt_first_layer(weight: Tensor, matches: Sequence[BandMatch]) -> Tensor:
    """Filters for the channels of the image from those of the pretrained bands.

    Each channel takes the mean of the filters of its sources. Then one factor for the whole layer keeps its response to
    a change that all channels share, in the mean square over filters: neighbouring bands are close to such a change.
    So bands in another order keep their filters, n seasons take each filter divided by n, one grey channel takes the
    sum of red, green and blue, and a colour repeated n times takes 1/n: the rule of
    :func:`~landcover_plugin.models.first_layer.spread_filters`, whatever the bands.

    Args:
        weight: Shape ``(out_channels, bands, rows, cols)``.
        matches: One for each channel, see :func:`match_bands`.

    Returns:
        Shape ``(out_channels, channels, rows, cols)``.

    Examples:
        >>> rgb = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1)
        >>> adapt_first_layer(rgb, match_bands(['B04', 'B03', 'B02'], ['B02', 'B03', 'B04'])).flatten().tolist()
        [3.0, 2.0, 1.0]
        >>> adapt_first_layer(rgb, match_bands(['B04', 'B03', 'B02'], 2 * ['B02', 'B03', 'B04'])).flatten().tolist()
        [1.5, 1.0, 0.5, 1.5, 1.0, 0.5]
    """
    spread = torch.stack([weight[:, list(match.indices)].mean(dim=1) for match in matches], dim=1)
    before, after = weight.sum(dim=1).norm(), spread.sum(dim=1).norm()
    return spread * (before / after) if before > 0 and after > 0 else spread


def match_table(source: Sequence[str], matches: Sequence[BandMatch]) -> str:
    """The matches as a text: one line for each channel, and what is not used.

    Examples:
        >>> print(match_table(['B4', 'B3', 'B2'], match_bands(['B4', 'B3', 'B2'], ['B03', 'B8A'])))
        channel  filters of  how
        B03      B3          same band
        B8A      B4, B3, B2  mean of all, none is near
        not used: none
    """
    rows = [('channel', 'filters of', 'how')]
    rows += [(match.channel, ', '.join(match.sources), _HOW[match.how]) for match in matches]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    used = {i for match in matches for i in match.indices}
    unused = [band for i, band in enumerate(source) if i not in used]
    lines = [f'{channel:{first}}  {bands:{second}}  {how}' for channel, bands, how in rows]
    return '\n'.join([*lines, f'not used: {", ".join(unused) or "none"}'])
