"""What the simulated ground is made of: materials, their spectra, and the recipe of every kind of ground.

The spectra are set by hand, rounded, within the range that public spectral libraries give for such
materials (USGS splib07, https://doi.org/10.3133/ds1035; ECOSTRESS, https://speclib.jpl.nasa.gov); none
is a copy of a measured spectrum. A recipe is a list of shares, as in linear spectral unmixing
(Keshava and Mustard 2002, https://doi.org/10.1109/79.974727), run forwards.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landcover_plugin.errors import LandcoverError

#: Sentinel-2 bands of the simulated images, in file order.
BANDS = ('B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B08', 'B8A', 'B11', 'B12')

#: Months that the spectra know.
MONTHS = ('04', '08')

Spectrum = tuple[int, ...]

# Reflectance x 1,000 in BANDS: (both months) or (April, August).
_MATERIALS: dict[str, tuple[Spectrum, ...]] = {
    'conifer': ((20, 32, 25, 60, 155, 188, 202, 215, 102, 52), (19, 31, 26, 58, 150, 184, 198, 211, 106, 55)),
    'broadleaf': ((27, 54, 38, 98, 235, 288, 308, 326, 168, 88), (22, 47, 28, 85, 265, 335, 355, 372, 165, 76)),
    'sclerophyll': ((26, 43, 34, 76, 188, 228, 248, 264, 142, 78), (27, 44, 38, 76, 178, 218, 238, 255, 152, 86)),
    'shrub': ((35, 58, 52, 98, 196, 232, 252, 270, 198, 122), (44, 66, 72, 114, 184, 215, 236, 256, 246, 160)),
    'grass': ((36, 72, 48, 118, 278, 336, 364, 384, 222, 124), (72, 102, 132, 172, 226, 256, 278, 298, 350, 246)),
    'lawn': ((36, 78, 46, 122, 315, 392, 420, 438, 218, 112), (38, 80, 50, 124, 305, 378, 405, 424, 226, 118)),
    'cereal': ((31, 68, 38, 116, 322, 405, 435, 455, 205, 100), (88, 122, 160, 196, 234, 260, 284, 304, 366, 268)),
    'maize': ((64, 92, 112, 148, 200, 226, 244, 258, 322, 240), (30, 64, 34, 105, 330, 432, 462, 480, 208, 94)),
    'vine': ((66, 94, 126, 162, 192, 210, 226, 240, 330, 262), (38, 70, 50, 112, 258, 314, 340, 358, 212, 116)),
    'olive': ((48, 73, 70, 118, 212, 250, 274, 290, 212, 136), (52, 77, 78, 122, 206, 244, 268, 285, 226, 148)),
    'light soil': ((100, 144, 188, 222, 246, 264, 284, 298, 374, 318),),
    'red soil': ((60, 94, 160, 204, 228, 246, 262, 276, 350, 286),),
    'dark soil': ((52, 70, 92, 112, 128, 142, 156, 166, 240, 200),),
    'rock': ((128, 158, 188, 206, 220, 230, 240, 246, 302, 270),),
    'sand': ((158, 206, 254, 284, 304, 318, 332, 342, 412, 372),),
    'tiles': ((66, 95, 164, 212, 236, 252, 266, 276, 330, 288),),
    'grey roof': ((140, 155, 170, 180, 190, 200, 208, 214, 242, 230),),
    'white roof': ((360, 388, 400, 408, 414, 420, 424, 426, 392, 350),),
    'dark roof': ((62, 66, 72, 77, 82, 87, 92, 94, 116, 112),),
    'asphalt': ((84, 94, 104, 112, 118, 124, 130, 134, 164, 156),),
    'concrete': ((188, 212, 236, 250, 262, 272, 280, 286, 312, 288),),
    'quarry': ((232, 288, 344, 372, 384, 394, 402, 408, 446, 400),),
    'shadow': ((18, 19, 16, 20, 34, 38, 40, 42, 30, 18),),
    'clear water': ((36, 28, 14, 11, 9, 8, 7, 6, 4, 3),),
    'turbid water': ((58, 74, 60, 50, 32, 29, 26, 22, 9, 6),),
}


@dataclass(frozen=True)
class Kind:
    """A kind of ground: its class, and how materials fill it, from the greenest to the barest.

    ``grain`` is the side in metres of a piece of one material; ``patch`` and ``field`` say how far a parcel
    and the smooth vigour field move the shares (0 not at all, 1 from end to end); ``gain`` is the largest
    relative difference in brightness between parcels.
    """

    name: str
    code: int
    grain: float
    patch: float
    field: float
    gain: float
    april: str
    august: str = ''  # as in April


# Shares in percent; the order is the axis along which parcels differ.
_KINDS = (
    Kind(
        'cereal',
        1,
        2,
        1.1,
        0.2,
        0.18,
        '72 cereal 14 red soil 14 light soil',
        '52 cereal 24 light soil 24 red soil',
    ),
    Kind('irrigated', 1, 2, 1.0, 0.1, 0.15, '30 lawn 10 maize 60 dark soil', '12 lawn 58 maize 30 dark soil'),
    Kind('alfalfa', 1, 3, 0.9, 0.2, 0.15, '12 broadleaf 58 lawn 30 red soil', '10 broadleaf 50 lawn 40 red soil'),
    Kind('fallow', 1, 3, 1.0, 0.3, 0.18, '12 shrub 38 grass 30 light soil 20 red soil'),
    Kind('vegetables', 1, 3, 0.9, 0.1, 0.15, '40 lawn 35 dark soil 20 red soil 5 white roof'),
    Kind(
        'vineyard',
        2,
        2,
        1.0,
        0.2,
        0.18,
        '26 grass 16 vine 36 red soil 22 light soil',
        '34 vine 42 red soil 24 light soil',
    ),
    Kind('olives', 2, 3, 1.0, 0.25, 0.16, '36 olive 16 grass 28 red soil 20 light soil'),
    Kind('orchard', 2, 3, 1.0, 0.2, 0.15, '36 broadleaf 28 grass 36 red soil', '44 broadleaf 20 lawn 36 red soil'),
    Kind('conifers', 3, 4, 0.35, 0.5, 0.1, '66 conifer 14 sclerophyll 12 shrub 8 red soil'),
    Kind('broadleaves', 3, 4, 0.35, 0.5, 0.1, '72 broadleaf 8 shadow 12 shrub 8 dark soil'),
    Kind('oaks', 3, 4, 0.4, 0.5, 0.1, '14 conifer 56 sclerophyll 20 shrub 10 rock'),
    Kind('open forest', 3, 3, 0.6, 0.55, 0.12, '26 conifer 18 sclerophyll 28 shrub 16 grass 12 light soil'),
    Kind('riparian', 3, 4, 0, 0.4, 0, '76 broadleaf 8 shadow 12 grass 4 sand'),
    Kind('shrubland', 4, 2, 0.7, 0.6, 0.14, '26 sclerophyll 40 shrub 16 grass 12 light soil 6 rock'),
    Kind('meadow', 4, 3, 0.9, 0.6, 0.14, '10 broadleaf 14 shrub 54 grass 14 red soil 8 light soil'),
    Kind('soil', 5, 3, 0.9, 0.6, 0.18, '14 shrub 16 grass 32 light soil 38 red soil'),
    Kind('rocks', 5, 3, 0.5, 0.6, 0.12, '10 sclerophyll 14 shrub 8 grass 52 rock 16 light soil'),
    Kind('beach', 5, 3, 0, 0.3, 0, '4 grass 12 dark soil 84 sand'),
    Kind('old town', 6, 9, 0.25, 0.2, 0.12, '5 broadleaf 14 shadow 50 tiles 19 asphalt 12 concrete'),
    Kind(
        'town',
        6,
        11,
        0.3,
        0.2,
        0.12,
        '10 broadleaf 4 lawn 11 shadow 24 tiles 24 asphalt 20 grey roof 7 white roof',
    ),
    Kind('suburb', 6, 7, 0.35, 0.2, 0.1, '20 broadleaf 16 lawn 4 shadow 22 tiles 16 asphalt 10 red soil 12 concrete'),
    Kind('street', 6, 3, 0.3, 0.1, 0.08, '12 broadleaf 8 shadow 62 asphalt 18 concrete'),
    Kind('house', 7, 7, 0.4, 0.1, 0.12, '14 broadleaf 10 grass 40 tiles 16 red soil 20 concrete'),
    Kind('lawns', 8, 4, 0.5, 0.3, 0.1, '24 broadleaf 52 lawn 8 shadow 10 red soil 6 concrete'),
    Kind('park', 8, 5, 0.5, 0.3, 0.1, '56 broadleaf 18 lawn 6 shadow 14 red soil 6 concrete'),
    Kind('sheds', 9, 22, 0.3, 0.1, 0.15, '4 shadow 16 dark roof 14 asphalt 34 grey roof 32 white roof'),
    Kind('yards', 9, 8, 0.5, 0.2, 0.12, '8 grass 12 red soil 44 asphalt 26 concrete 10 grey roof'),
    Kind('quarry', 10, 8, 0.2, 0.5, 0.1, '5 shrub 8 shadow 30 light soil 57 quarry'),
    Kind('landfill', 10, 7, 0.3, 0.5, 0.1, '8 grass 34 dark soil 30 light soil 18 grey roof 10 quarry'),
    Kind('road', 11, 3, 0.2, 0.2, 0.08, '5 grass 80 asphalt 8 red soil 7 concrete'),
    Kind('lane', 11, 3, 0.5, 0.2, 0.12, '10 grass 46 asphalt 34 light soil 10 red soil'),
    Kind('river', 12, 4, 0.2, 0.5, 0.1, '4 grass 30 clear water 56 turbid water 10 sand'),
    Kind('lake', 12, 2, 0.6, 0.4, 0.1, '55 clear water 45 turbid water'),
    Kind('sea', 12, 2, 0, 0.35, 0, '88 clear water 12 turbid water'),
)

#: Kinds by their value in the simulated ground; 0 is none.
KINDS = (Kind('none', 0, 1, 0, 0, 0, '100 shadow'), *_KINDS)

#: Value of a kind by its name.
KIND = {kind.name: value for value, kind in enumerate(KINDS)}

#: Steps of a recipe: shares are rounded to 1/128.
STEPS = 128


def _shares(recipe: str) -> list[tuple[float, str]]:
    """Parse '80 cereal 20 red soil' into shares that sum to 1."""
    shares: list[tuple[float, str]] = []
    for word in recipe.split():
        if word.isdigit():
            shares.append((int(word) / 100, ''))
        else:
            share, name = shares.pop()
            shares.append((share, f'{name} {word}'.strip()))
    return shares


def _row(recipe: str) -> NDArray[np.uint8]:
    """Material of each of the :data:`STEPS` of a recipe."""
    shares = _shares(recipe)
    ends = np.cumsum([share for share, _ in shares])
    names = list(_MATERIALS)
    materials = np.array([names.index(name) for _, name in shares], dtype=np.uint8)
    middle = (np.arange(STEPS) + 0.5) / STEPS * ends[-1]
    return materials[np.searchsorted(ends, middle)]


def materials(month: str) -> NDArray[np.float32]:
    """Reflectance (0-1) of every material in a month: shape ``(materials, bands)``.

    Raises:
        LandcoverError: If the month is not in :data:`MONTHS`.

    Examples:
        >>> materials('04').shape[1] == len(BANDS)
        True
    """
    if month not in MONTHS:
        raise LandcoverError(f'spectra exist for the months {", ".join(MONTHS)}, got {month!r}')
    column = MONTHS.index(month)
    rows = [spectra[min(column, len(spectra) - 1)] for spectra in _MATERIALS.values()]
    return (np.array(rows) / 1000).astype(np.float32)


def recipes(month: str) -> NDArray[np.uint8]:
    """Material of each step of each kind's recipe in a month: shape ``(kinds, STEPS)``."""
    return np.stack([_row(kind.august or kind.april if month == '08' else kind.april) for kind in KINDS])


def codes() -> NDArray[np.uint8]:
    """Class code of every kind: ``codes()[kinds]`` turns kinds into labels.

    Examples:
        >>> sorted(set(codes().tolist())) == list(range(13))
        True
    """
    return np.array([kind.code for kind in KINDS], dtype=np.uint8)


def habits() -> NDArray[np.float32]:
    """Grain, patch, field and gain of every kind: shape ``(kinds, 4)``."""
    return np.array([(k.grain, k.patch, k.field, k.gain) for k in KINDS], dtype=np.float32)
