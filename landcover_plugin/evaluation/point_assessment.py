"""From reference points to estimates: which points count, in which strata, and what must be told about them."""

import logging
from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ..errors import LandcoverError
from ..legend import LEGEND, NODATA
from .class_map import ClassMap, MapCounts
from .estimation import StratifiedSample
from .reference import ReferencePoints, class_name, map_codes

log = logging.getLogger(__name__)


def stratified_sample(
    source: ClassMap, counts: MapCounts, points: ReferencePoints, *, other_map: bool = False
) -> StratifiedSample:
    """The interpreted points as a stratified sample of the map.

    Points that are not interpreted count as non-response: they are left out, and those of their stratum stand for them.

    Args:
        source: The map that is assessed.
        counts: Its counts.
        points: Reference points.
        other_map: The sample was drawn from another map, whose classes are the strata (Stehman 2014).

    Raises:
        LandcoverError: If the sample was drawn from another map without ``other_map``, nothing is interpreted, or a
            stratum lacks points or pixels.
    """
    if points.sample is not None and not other_map:
        _check_same_map(points, source, counts)
    codes = map_codes(source, points)
    labels: NDArray[np.object_] = codes.astype(object) if points.stratum is None else points.stratum
    on_map = _on_map(points, codes)
    answered = points.reference != NODATA
    use = answered & on_map
    if not use.any():
        raise LandcoverError(
            f'none of the {len(use)} points has a reference class yet: fill in the column of the reference class '
            '(in QGIS, the form of the layer), then run this again'
        )
    _tell_missing(labels, use, on_map)
    names, pixels, areas = _strata(points, counts)
    stratum = _numbers(labels[use], names, source)
    _check_strata(stratum, names, pixels)
    return StratifiedSample(
        stratum=stratum,
        map_code=codes[use],
        reference=points.reference[use],
        pixels=pixels,
        areas=areas,
        pixel_area=source.row_areas[points.rows[use]] if source.grid.crs.is_geographic else None,
    )


def _check_same_map(points: ReferencePoints, source: ClassMap, counts: MapCounts) -> None:
    info = points.sample.info  # type: ignore[union-attr]
    if info.map_digest != counts.digest:
        raise LandcoverError(
            f'the sample was drawn from another map ({info.map_name}, grid {info.grid}) than {source.path}: name that '
            'one, or say --other-map to assess this map with the classes of that one as strata'
        )


def _on_map(points: ReferencePoints, codes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Points that count: those on ground that the map knows, where strata are what the map shows."""
    off = codes == NODATA
    if points.strata is not None:
        if answered := int((off & (points.reference != NODATA)).sum()):
            log.warning('warning: the map shows no data at %d interpreted points, which counts as wrong', answered)
        return np.ones(len(codes), dtype=bool)
    if off.any():
        log.warning('warning: %d points lie outside the map or on its no data and are left out', off.sum())
    return ~off


def _tell_missing(labels: NDArray[np.object_], answered: NDArray[np.bool_], asked: NDArray[np.bool_]) -> None:
    missing = Counter(labels[asked & ~answered])
    if not missing:
        return
    drawn = Counter(labels[asked])
    told = ', '.join(f'{class_name(k)} {missing[k]} of {drawn[k]}' for k in sorted(missing, key=str))
    log.warning(
        'warning: %d of %d points have no reference class and are left out (%s); within each stratum the others stand '
        'for them, which is right only if what was left out is not different',
        missing.total(),
        drawn.total(),
        told,
    )


def _strata(
    points: ReferencePoints, counts: MapCounts
) -> tuple[list[object], NDArray[np.float64], NDArray[np.float64]]:
    """Labels, pixels and hectares of the strata."""
    if points.strata is None:
        codes = [code for code in LEGEND.codes if counts.pixels[code]]
        return list(codes), counts.pixels[codes].astype(float), counts.areas[codes]
    pixels = points.strata['pixels'].to_numpy(float)
    if 'area_ha' in points.strata:
        areas = points.strata['area_ha'].to_numpy(float)
    else:
        areas = pixels * counts.areas.sum() / counts.pixels[NODATA + 1 :].sum()
    return points.strata.index.to_list(), pixels, areas


def _numbers(labels: NDArray[np.object_], names: list[object], source: ClassMap) -> NDArray[np.int64]:
    numbers = {name: i for i, name in enumerate(names)}
    for label in labels:
        if label not in numbers:
            raise LandcoverError(
                f'the sample has the stratum {class_name(label)!r}, of which {source.path} has no pixel: the sample '
                'belongs to another map; give the sizes of its strata (--stratum-sizes)'
            )
    return np.array([numbers[label] for label in labels], dtype=np.int64)


def _check_strata(stratum: NDArray[np.int64], names: list[object], pixels: NDArray[np.float64]) -> None:
    n = np.bincount(stratum, minlength=len(names))
    if (empty := np.flatnonzero(n == 0)).size:
        share = 100 * pixels[empty].sum() / pixels.sum()
        raise LandcoverError(
            f'no point is interpreted in {_listed(names, empty)} ({share:.1f} % of the ground): interpret at least two '
            'points of each stratum'
        )
    if (single := np.flatnonzero((n == 1) & (pixels > 1))).size:
        log.warning(
            'warning: only one point is interpreted in %s: a variance takes two, so standard errors that need it are '
            'not given; interpret more of them', _listed(names, single)
        )  # fmt: skip


def _listed(names: list[object], which: Iterable[np.integer]) -> str:
    return ', '.join(class_name(names[int(i)]) for i in which)
