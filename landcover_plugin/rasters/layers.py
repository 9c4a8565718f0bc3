"""The rasters that make up a map: what each holds, how its overviews are made, and under which name it lies."""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import LandcoverError
from ..legend import NODATA, Legend

PathLike = str | os.PathLike[str]

Kind = Literal['classes', 'confidence', 'entropy', 'probabilities']

#: Confidence, entropy, and percent of a class, where nothing was mapped.
PERCENT_NODATA = 255


@dataclass(frozen=True)
class Layer:
    """What distinguishes the files of a map, all of them uint8.

    Attributes:
        bands: Names of the bands.
        nodata: Value where nothing was mapped.
        options: Of GDAL's COG driver.
        legend: Of the codes, where the values are codes.
        unit: Of the values.
    """

    bands: Sequence[str]
    nodata: int
    options: Mapping[str, str]
    legend: Legend | None = None
    unit: str = ''


def map_layers(legend: Legend) -> dict[Kind, Layer]:
    """The layers that a map may have."""
    average = {'overview_resampling': 'average', 'predictor': 'yes'}
    names = [legend[code].name for code in legend.codes]
    return {
        'classes': Layer(['land cover'], NODATA, {'overview_resampling': 'mode'}, legend=legend),
        'confidence': Layer(['confidence'], PERCENT_NODATA, average, unit='%'),
        'entropy': Layer(['entropy'], PERCENT_NODATA, average, unit='%'),
        # One class can be read without the other eleven. GDAL before 3.11 warns and interleaves by pixel.
        'probabilities': Layer(names, PERCENT_NODATA, {**average, 'interleave': 'band'}, unit='%'),
    }


def output_paths(path: PathLike, kinds: Collection[Kind] = ()) -> dict[Kind, Path]:
    """The rasters that make up a map, the class map last.

    Args:
        path: The class map.
        kinds: The layers beside it.

    Raises:
        LandcoverError: If the path does not end in ``.tif`` or ``.tiff``.

    Examples:
        >>> list(output_paths('out/map.tif', ['confidence']).values())
        [PosixPath('out/map_confidence.tif'), PosixPath('out/map.tif')]
    """
    target = Path(path)
    if target.suffix.lower() not in ('.tif', '.tiff'):
        raise LandcoverError(f'a map is a GeoTIFF whose name ends in .tif, got {target.name!r}: rename the output')
    order: tuple[Kind, ...] = ('probabilities', 'entropy', 'confidence')
    companions = {kind: target.with_stem(f'{target.stem}_{kind}') for kind in order if kind in kinds}
    return {**companions, 'classes': target}
