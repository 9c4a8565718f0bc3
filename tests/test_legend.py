"""The legend: 13 codes, the reading of the 41 parents, and colours that everybody can tell apart."""

import numpy as np
import pytest
from numpy.typing import NDArray

from landcover_plugin.legend import (
    LEGEND,
    NODATA,
    PARENTS,
    UNCERTAIN_PARENTS,
    UNKNOWN,
    LandCoverClass,
    Legend,
    lookup_table,
)

# The reading by name that the project agreed on, written the other way round than in the package.
MCSC_OF_CODE = {
    1: [111, 112, 116],
    2: [113, 114, 115],
    3: [221, 222, 223, 225, 226, 227, 229],
    4: [224, 228, 234],
    5: [230, 231, 232, 233, 352],
    6: [341, 342, 343, 350],
    7: [344, 345],
    8: [346],
    9: [347, 348],
    10: [349],
    11: [351, 353, 354, 355],
    12: [461, 462, 463, 464, 465, 466],
}

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
VISION = {
    'normal': np.eye(3),
    'protan': [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    'deutan': [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    'tritan': [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def cielab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear sRGB (n, 3) in CIELAB, D65."""
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    xyz = rgb @ np.transpose(to_xyz) / [0.95047, 1.0, 1.08883]
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


def test_codes_run_from_no_data_to_twelve() -> None:
    assert len(LEGEND) == LEGEND.num_classes == 13 == len(list(LEGEND))
    assert [c.code for c in LEGEND] == list(range(13)) and LEGEND.codes == range(1, 13)
    assert NODATA == 0 and LEGEND[0].name == 'no data' and LEGEND.colormap[0] == (0, 0, 0, 0)
    assert len({c.name for c in LEGEND}) == len({c.name_ca for c in LEGEND}) == 13
    assert LEGEND.palette.shape == (13, 3) and LEGEND.palette.dtype == np.uint8
    for c in LEGEND:
        assert LEGEND.code(c.name.upper()) == LEGEND.code(c.name_ca) == c.code == LEGEND[c.code].code
        assert tuple(LEGEND.palette[c.code]) == c.colour == LEGEND.colormap[c.code][:3]
    with pytest.raises(KeyError, match="no class is named 'tundra'; the names are"):
        LEGEND.code('tundra')


def test_a_legend_with_a_gap_is_refused() -> None:
    with pytest.raises(ValueError, match='must run 0, 1, 2'):
        Legend((LEGEND[0], LandCoverClass(2, 'x', 'x', (1, 2, 3))))


def test_the_parents_map_as_agreed() -> None:
    assert len(PARENTS) == 41 and [p.value for p in PARENTS] == list(range(1, 42))
    values = [*range(111, 117), *range(221, 235), *range(341, 356), *range(461, 467)]
    assert [p.mcsc for p in PARENTS] == values
    assert {p.mcsc: p.code for p in PARENTS} == {m: code for code, ms in MCSC_OF_CODE.items() for m in ms}
    assert set(UNCERTAIN_PARENTS) <= set(values) and len({p.name_ca for p in PARENTS}) == 41
    assert 'not official' in (type(PARENTS[0]).__doc__ or '')


@pytest.mark.parametrize('parent', [False, True])
def test_lookup_tables_know_what_they_do_not_know(parent: bool) -> None:
    table = lookup_table(parent)
    known = {0: 0} | ({p.value: p.code for p in PARENTS} if parent else {c: c for c in LEGEND.codes})
    assert table.dtype == np.uint8 and [int(v) for v in table] == [known.get(v, UNKNOWN) for v in range(256)]
    table[:] = 0  # a copy: the next caller is not harmed
    assert lookup_table(parent)[1] == 1


def test_the_rasters_own_colours_win_where_it_has_some() -> None:
    coloured = LEGEND.with_colours({1: (1, 2, 3, 255), 2: (0, 0, 0, 255), 12: (9, 8, 7)})
    assert coloured[1].colour == (1, 2, 3) and coloured[12].colour == (9, 8, 7)
    assert coloured[2].colour == LEGEND[2].colour and coloured[3] == LEGEND[3]
    assert [c.name for c in coloured] == LEGEND.names and LEGEND[1].colour != (1, 2, 3)


@pytest.mark.parametrize('vision', VISION)
def test_colours_differ_for_every_eye(vision: str) -> None:
    srgb = LEGEND.palette[1:] / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    lab = cielab((linear @ np.transpose(VISION[vision])).clip(0, 1))
    distance = np.linalg.norm(lab[:, None] - lab, axis=-1) + 1000 * np.eye(len(lab))
    assert distance.min() >= 20, np.unravel_index(distance.argmin(), distance.shape)
