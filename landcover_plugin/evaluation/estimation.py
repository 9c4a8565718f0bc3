"""Areas and accuracies from a stratified random sample of pixels, with their standard errors.

One set of estimators serves both cases: strata that are the classes of the map (Olofsson et al. 2014,
https://doi.org/10.1016/j.rse.2014.02.015, equations 1-11) and strata that differ from them (Stehman 2014,
https://doi.org/10.1080/01431161.2014.930207): every quantity is the mean of an indicator over the ground, or a ratio
of two such means, and the first case is the second with the map class as stratum.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import LandcoverError
from .intervals import Interval, Parts, linear_interval, normal_interval, ratio_interval

IntervalMethod = Literal['wilson', 'normal']
INTERVAL_METHODS: tuple[IntervalMethod, ...] = ('wilson', 'normal')


@dataclass(frozen=True, eq=False)
class StratifiedSample:
    """Interpreted points of a stratified random sample.

    Args:
        stratum: Number of each point's stratum, 0 to H - 1, shape ``(n,)``.
        map_code: What the map shows at each point, shape ``(n,)``.
        reference: Reference code of each point, shape ``(n,)``.
        pixels: Pixels of each stratum, shape ``(H,)``.
        areas: Area of each stratum in hectares, shape ``(H,)``.
        pixel_area: Area of each point's pixel in any unit, shape ``(n,)`` (default: all alike, as in a projected CRS).

    Raises:
        LandcoverError: If a stratum that covers ground has no point, or more points than pixels.
    """

    stratum: NDArray[np.int64]
    map_code: NDArray[np.int64]
    reference: NDArray[np.int64]
    pixels: NDArray[np.float64]
    areas: NDArray[np.float64]
    pixel_area: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if not len(self.stratum):
            raise LandcoverError('the sample holds no interpreted point: fill in reference codes first')
        if (empty := np.flatnonzero((self.counts == 0) & (self.pixels > 0))).size:
            raise LandcoverError(
                f'{empty.size} strata have no interpreted point (number {empty[0]} in the order of the table): '
                'interpret some of each, or merge strata'
            )
        if (self.counts > self.pixels).any():
            h = int(np.argmax(self.counts - self.pixels))
            raise LandcoverError(
                f'a stratum has more points than pixels ({self.counts[h]} > {self.pixels[h]:.0f}): the stratum sizes '
                'are pixels of the whole map, check them'
            )

    @property
    def counts(self) -> NDArray[np.int64]:
        """Points of each stratum, shape ``(H,)``."""
        return np.bincount(self.stratum, minlength=len(self.pixels))

    @property
    def single(self) -> NDArray[np.int64]:
        """Strata with one point: they have no variance of their own."""
        return np.flatnonzero((self.counts == 1) & (self.pixels > 1))


@dataclass(frozen=True, eq=False)
class Estimates:
    """A number for each class, with standard error and confidence interval; arrays of shape ``(classes,)``.

    Attributes:
        value: Estimate; NaN where it is not defined (no point of the class).
        se: Standard error; NaN where it is not defined (a stratum with a single point).
        low: Lower confidence limit.
        high: Upper confidence limit.
    """

    value: NDArray[np.float64]
    se: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Assessment:
    """Everything that a sample tells about a map.

    Attributes:
        codes: The classes, shape ``(classes,)``; the arrays of the other attributes have this order.
        area: Error-adjusted area in hectares.
        users: User's accuracy, a share in 0..1.
        producers: Producer's accuracy, a share in 0..1.
        overall: Overall accuracy; arrays of shape ``(1,)``.
        matrix: Estimated area in hectares of each combination, map codes in rows, reference codes in columns.
        points: Number of points in each cell of ``matrix``.
    """

    codes: NDArray[np.int64]
    area: Estimates
    users: Estimates
    producers: Estimates
    overall: Estimates
    matrix: NDArray[np.float64]
    points: NDArray[np.int64]


def assess(
    sample: StratifiedSample,
    codes: Sequence[int],
    *,
    level: float = 0.95,
    method: IntervalMethod = 'wilson',
) -> Assessment:
    """Error-adjusted areas and accuracies of the classes.

    Args:
        sample: The interpreted points.
        codes: Codes of the classes; every code of the sample is one of them.
        level: Of the confidence intervals.
        method: ``normal`` is estimate ± z times standard error, as the papers print it; ``wilson`` combines the Wilson
            limits of the strata (see :mod:`landcover_plugin.evaluation.intervals`), which keep what they promise for
            rare classes too.

    Examples:
        The worked example of Olofsson et al. (2014), table 8: deforestation, forest gain, stable forest and stable
        non-forest.

        >>> points = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
        >>> mapped, reference = (np.repeat(i.ravel(), points.ravel()) for i in np.indices((4, 4)))
        >>> areas = np.array([200_000, 150_000, 3_200_000, 6_450_000])
        >>> sample = StratifiedSample(mapped, mapped, reference, areas / 0.09, areas)
        >>> found = assess(sample, range(4), method='normal')
        >>> f'{found.area.value[0]:,.0f} ha ± {1.96 * found.area.se[0]:,.0f} ha'
        '235,086 ha ± 68,418 ha'
    """
    code = np.asarray(codes)
    maps, truths = sample.map_code[:, None] == code, sample.reference[:, None] == code
    hits = maps & truths
    correct = (sample.map_code == sample.reference)[:, None]
    total = sample.areas.sum()
    joint = _Means(sample, (maps[:, :, None] & truths[:, None, :]).reshape(len(maps), -1))
    shown, hidden = _seen(sample, maps), _seen(sample, ~maps)
    truth, right = _Means(sample, truths), _Means(sample, correct)
    hit, committed = _Means(sample, hits, shown), _Means(sample, maps & ~truths, shown)
    omitted = _Means(sample, truths & ~maps, hidden)
    return Assessment(
        codes=code,
        area=_linear(truth, level, method, 1.0),
        users=_ratio(hit, committed, level, method),
        producers=_ratio(hit, omitted, level, method),
        overall=_linear(right, level, method, total),
        matrix=joint.total.reshape(len(code), len(code)),
        points=(maps[:, :, None] & truths[:, None, :]).sum(0),
    )


class _Means:
    """Means of indicators in each stratum.

    Where pixels differ in area, a mean is that over the ground: points are weighted by the area of their pixel, and
    variances are those of the linearised ratio (Cochran 1977, section 6.12).
    """

    def __init__(
        self, sample: StratifiedSample, indicator: NDArray[np.bool_], possible: NDArray[np.bool_] | None = None
    ) -> None:
        self.sample, self.possible = sample, possible
        n = sample.counts
        weight = np.ones(len(sample.stratum)) if sample.pixel_area is None else np.asarray(sample.pixel_area, float)
        sums = np.bincount(sample.stratum, weight, len(n))
        weight = weight * (n / np.where(sums > 0, sums, 1))[sample.stratum]  # mean 1 in each stratum
        self.mean = self._sum(indicator * weight[:, None]) / np.maximum(n, 1)[:, None]
        self.residual = weight[:, None] * (indicator - self.mean[sample.stratum])
        self.finite = np.where(sample.pixels > 0, 1 - n / np.maximum(sample.pixels, 1), 0)

    def _sum(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        order = np.argsort(self.sample.stratum, kind='stable')
        starts = np.searchsorted(self.sample.stratum[order], np.arange(len(self.sample.pixels)))
        padded = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values[order], axis=0)])
        ends = np.append(starts[1:], len(order))
        return padded[ends] - padded[starts]

    @property
    def total(self) -> NDArray[np.float64]:
        """Estimated hectares of each indicator (Stehman 2014, equation 3)."""
        return self.sample.areas @ self.mean

    def se(self, residual: NDArray[np.float64]) -> NDArray[np.float64]:
        """Standard error of a total (Stehman 2014, equation 25); NaN where a stratum has a single point."""
        n = self.sample.counts
        with np.errstate(divide='ignore', invalid='ignore'):
            variance = self._sum(residual**2) / (n - 1)[:, None]
            parts = (self.sample.areas**2 * self.finite / n)[:, None] * variance
        present = (self.sample.pixels > 0) & (self.finite > 0)
        return np.sqrt(np.maximum(parts[present].sum(0), 0))

    def parts(self) -> Parts:
        """What the intervals are made of; a census of a stratum counts as a sample without end."""
        with np.errstate(divide='ignore'):
            n = self.sample.counts / np.where(self.finite > 0, self.finite, 1e-12)
        return Parts(self.mean, n, self.sample.areas, self.possible)


def _seen(sample: StratifiedSample, what: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """In which strata the sample has points like these, shape ``(strata, classes)``.

    Where the map shows nothing of a class in a stratum (a stratum that is another class of the map), nothing of it can
    be right or wrong there.
    """
    seen = np.zeros((len(sample.pixels), what.shape[1]), dtype=bool)
    np.logical_or.at(seen, sample.stratum, what)
    return seen


def _linear(means: _Means, level: float, method: IntervalMethod, divisor: float) -> Estimates:
    value, se = means.total, means.se(means.residual)
    if method == 'normal':
        limits = normal_interval(value, se, level, upper=float(means.sample.areas.sum()))
    else:
        limits = linear_interval(means.parts(), level)
    return Estimates(*(v / divisor for v in (value, se, *limits)))


def _ratio(hit: _Means, missed: _Means, level: float, method: IntervalMethod) -> Estimates:
    """``hit / (hit + missed)`` (Stehman 2014, equation 27) and its standard error (equation 28)."""
    whole = hit.total + missed.total
    with np.errstate(divide='ignore', invalid='ignore'):
        value = hit.total / whole
        se = hit.se(hit.residual - value * (hit.residual + missed.residual)) / whole
    if method == 'normal':
        limits = normal_interval(value, se, level)
    else:
        limits = ratio_interval(hit.parts(), missed.parts(), level)
    undefined = ~(whole > 0)
    return Estimates(value, se, *Interval(*(np.where(undefined, np.nan, v) for v in limits)))
