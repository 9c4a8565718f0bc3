"""The land-cover legend as data: codes, names, colours, and the 41-class parent.

The code on disk, the channel of the network and the value in the map are one number
(0 is no data), so everything that needs a class count, a name or a colour asks :data:`LEGEND`.

The 12 classes are those of CatLC (ICGC land cover of Catalonia 2018, aggregated); the parent is the
*Mapa de cobertes del sòl de Catalunya* (MCSC) of the ICGC, 41 classes, CC BY 4.0.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

#: Code of 'no data' on disk, in tensors (``ignore_index``) and in maps.
NODATA = 0

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class LandCoverClass:
    """One class: code on disk, English and Catalan name, colour as 8-bit RGB."""

    code: int
    name: str
    name_ca: str
    colour: Colour


@dataclass(frozen=True)
class Legend:
    """An ordered set of classes whose codes run from 0 (no data) without a gap.

    Examples:
        >>> len(LEGEND), LEGEND.num_classes, LEGEND[12].name
        (13, 13, 'watercourses and water bodies')
        >>> LEGEND.code('urban area')
        6
    """

    classes: tuple[LandCoverClass, ...]

    def __post_init__(self) -> None:
        if [c.code for c in self.classes] != list(range(len(self.classes))):
            raise ValueError('legend codes must run 0, 1, 2, … in order')

    def __len__(self) -> int:
        return len(self.classes)

    def __iter__(self) -> Iterator[LandCoverClass]:
        return iter(self.classes)

    def __getitem__(self, code: int) -> LandCoverClass:
        return self.classes[code]

    @property
    def num_classes(self) -> int:
        """Number of codes including 0: the number of channels of a network's logits."""
        return len(self.classes)

    @property
    def codes(self) -> range:
        """Codes of real classes, without 0."""
        return range(NODATA + 1, len(self.classes))

    @property
    def names(self) -> list[str]:
        """English names, indexed by code."""
        return [c.name for c in self.classes]

    @property
    def colormap(self) -> dict[int, tuple[int, int, int, int]]:
        """Colour table for a GeoTIFF: code to 8-bit RGBA; no data is transparent."""
        return {c.code: (*c.colour, 0 if c.code == NODATA else 255) for c in self.classes}

    @property
    def palette(self) -> NDArray[np.uint8]:
        """Colours as an array of shape ``(num_classes, 3)``: ``palette[codes]`` paints a map."""
        return np.array([c.colour for c in self.classes], dtype=np.uint8)

    def code(self, name: str) -> int:
        """Code of the class with this English or Catalan name.

        Raises:
            KeyError: If no class has that name.
        """
        for c in self.classes:
            if name.casefold() in (c.name.casefold(), c.name_ca.casefold()):
                return c.code
        raise KeyError(f'no class is named {name!r}; the names are {self.names}')

    def with_colours(self, colours: Mapping[int, tuple[int, ...]]) -> 'Legend':
        """This legend with the colours of a raster's own colour table where it has them.

        Codes that the table leaves out, or paints black like an unused entry, keep their colour.
        """

        def colour(c: LandCoverClass) -> Colour:
            r, g, b = colours.get(c.code, (0, 0, 0))[:3]
            return (r, g, b) if (r, g, b) != (0, 0, 0) else c.colour

        return Legend(tuple(replace(c, colour=colour(c)) for c in self.classes))


def _rgb(text: str) -> Colour:
    r, g, b = bytes.fromhex(text)
    return r, g, b


# Colours: the closest pair is 22 CIELAB units apart in normal vision and in simulated protanopia,
# deuteranopia and tritanopia (Machado et al. 2009, https://doi.org/10.1109/TVCG.2009.113).
_CLASSES = (
    (0, 'no data', 'sense dades', '000000'),
    (1, 'herbaceous crops', 'conreus herbacis', 'FDFF3E'),
    (2, 'woody crops', 'conreus llenyosos', 'FB7607'),
    (3, 'forest', 'boscos', '0D520F'),
    (4, 'scrub, meadows and grasslands', 'matollars, prats i herbassars', 'A4F35D'),
    (5, 'bare soil', 'sòl nu', 'F7C6AA'),
    (6, 'urban area', 'zones urbanes', 'CD0C36'),
    (7, 'isolated urban areas', 'zones urbanes aïllades', 'E79562'),
    (8, 'green areas', 'zones verdes', '08C0BE'),
    (9, 'industrial, commercial and leisure areas', 'zones industrials, comercials i de lleure', '9A2192'),
    (10, 'mining or landfills', "zones d'extracció minera i abocadors", '442B32'),
    (11, 'transport network', 'xarxa de transport', '8E677A'),
    (12, 'watercourses and water bodies', "cursos i masses d'aigua", '1081CA'),
)

#: The 12 classes and no data.
LEGEND = Legend(tuple(LandCoverClass(code, name, ca, _rgb(rgb)) for code, name, ca, rgb in _CLASSES))


@dataclass(frozen=True)
class ParentClass:
    """One of the 41 MCSC classes: value on disk, published code, Catalan name, code among the 12.

    ``code`` is a reading of the class names, **not official**: the ICGC's own 41-to-12 table is not known
    to this project. The least certain are named in :data:`UNCERTAIN_PARENTS`.
    """

    value: int
    mcsc: int
    name_ca: str
    code: int


_PARENTS = (
    (1, 111, 'Conreus herbacis', 1),
    (2, 112, 'Horta, vivers i conreus forçats', 1),
    (3, 113, 'Vinyes', 2),
    (4, 114, 'Oliverars', 2),
    (5, 115, 'Altres conreus llenyosos', 2),
    (6, 116, 'Conreus en transformació', 1),
    (7, 221, "Boscos densos d'aciculifolis", 3),
    (8, 222, 'Boscos densos de caducifolis, planifolis', 3),
    (9, 223, "Boscos densos d'esclerofil·les i laurifolis", 3),
    (10, 224, 'Matollar', 4),
    (11, 225, "Boscos clars d'aciculifolis", 3),
    (12, 226, 'Boscos clars de caducifolis, planifolis', 3),
    (13, 227, "Boscos clars d'esclerofil·les i laurifolis", 3),
    (14, 228, 'Prats i herbassars', 4),
    (15, 229, 'Bosc de ribera', 3),
    (16, 230, 'Sòl nu forestal', 5),
    (17, 231, 'Zones cremades', 5),
    (18, 232, 'Roquissars i congestes', 5),
    (19, 233, 'Platges', 5),
    (20, 234, 'Zones humides', 4),
    (21, 341, 'Casc urbà', 6),
    (22, 342, 'Eixample', 6),
    (23, 343, 'Zones urbanes laxes', 6),
    (24, 344, "Edificacions aïllades en l'espai rural", 7),
    (25, 345, 'Àrees residencials aïllades', 7),
    (26, 346, 'Zones verdes', 8),
    (27, 347, 'Zones industrials, comercials i/o de serveis', 9),
    (28, 348, 'Zones esportives i de lleure', 9),
    (29, 349, "Zones d'extracció minera i/o abocadors", 10),
    (30, 350, 'Zones en transformació', 6),
    (31, 351, 'Xarxa viària', 11),
    (32, 352, 'Sòl nu urbà', 5),
    (33, 353, 'Zones aeroportuàries', 11),
    (34, 354, 'Xarxa ferroviària', 11),
    (35, 355, 'Zones portuàries', 11),
    (36, 461, 'Embassaments', 12),
    (37, 462, 'Llacs i llacunes', 12),
    (38, 463, "Cursos d'aigua", 12),
    (39, 464, 'Basses', 12),
    (40, 465, 'Canals artificials', 12),
    (41, 466, 'Mar', 12),
)

#: The 41 MCSC classes, in the order of their values on disk.
PARENTS = tuple(ParentClass(*row) for row in _PARENTS)

#: MCSC codes whose place among the 12 classes is the least certain.
UNCERTAIN_PARENTS = (112, 116, 234, 350, 352)

#: Value that a lookup table gives to values that the legend does not know, before they become no data.
UNKNOWN = 255


def lookup_table(parent: bool) -> NDArray[np.uint8]:
    """Table of 256 entries from the values of a label raster to the 12-class codes.

    Args:
        parent: The raster holds the 41 MCSC values rather than the 12 codes.

    Returns:
        Shape ``(256,)``: codes 0-12, and :data:`UNKNOWN` for values outside the legend.

    Examples:
        >>> [int(lookup_table(parent=True)[v]) for v in (0, 1, 41, 42)]
        [0, 1, 12, 255]
        >>> [int(lookup_table(parent=False)[v]) for v in (0, 12, 13)]
        [0, 12, 255]
    """
    table = np.full(256, UNKNOWN, dtype=np.uint8)
    table[NODATA] = NODATA
    if parent:
        for p in PARENTS:
            table[p.value] = p.code
    else:
        table[list(LEGEND.codes)] = list(LEGEND.codes)
    return table
