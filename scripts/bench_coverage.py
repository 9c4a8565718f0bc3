"""How often 95 % intervals cover the truth, on simulated maps whose truth is known.

    python scripts/bench_coverage.py [--repetitions 500] [--json coverage.json]

Areas and accuracies: the map and the truth are rasters; in each repetition the functions of `landcover sample` draw a
sample of the map with another seed, the truth is looked up at its points, and the estimators of `landcover areas` give
intervals. IoU and accuracies by block bootstrap: a population of blocks of ground, alike within; each repetition draws
some of them, and the truth is the score of all. Coverage of 500 repetitions is itself known to +-1.9 points.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin

from landcover_plugin.evaluation.allocation import allocate
from landcover_plugin.evaluation.bootstrap import block_bootstrap, iou, overall_accuracy, producers_accuracy
from landcover_plugin.evaluation.class_map import ClassMap, count
from landcover_plugin.evaluation.drawing import draw
from landcover_plugin.evaluation.estimation import INTERVAL_METHODS, Estimates, StratifiedSample, assess
from landcover_plugin.legend import LEGEND, NODATA

CODES = np.array(LEGEND.codes)

#: Shares of the classes in the map and their user's accuracies: like Catalonia, from 0.2 % to 39 % of the ground.
SHARES = np.array([14, 9, 39, 22, 3, 3, 2, 0.5, 1, 0.2, 3.2, 3.1]) / 100
USERS = np.array([0.85, 0.80, 0.93, 0.75, 0.60, 0.85, 0.60, 0.60, 0.80, 0.60, 0.55, 0.90])


@dataclass(frozen=True)
class Design:
    """A way of sampling."""

    name: str
    n: int
    allocation: str
    minimum: int


DESIGNS = (
    Design('800 points, neyman, at least 50', 800, 'neyman', 50),
    Design('600 points, equal', 600, 'equal', 50),
    Design('240 points, equal', 240, 'equal', 20),
)


@dataclass(frozen=True, eq=False)
class Ground:
    """A map, its truth, and what an assessment should find."""

    codes: NDArray[np.uint8]
    truth: NDArray[np.uint8]

    def targets(self) -> dict[str, NDArray[np.float64]]:
        """Areas in hectares, user's and producer's accuracies of the classes, and the overall accuracy."""
        k = LEGEND.num_classes
        pairs = np.bincount(self.codes.ravel().astype(int) * k + self.truth.ravel(), minlength=k * k)
        matrix = pairs.reshape(k, k)[1:, 1:]
        hits = np.diag(matrix)
        return {
            'area': matrix.sum(0) * 0.01,
            'users': hits / matrix.sum(1),
            'producers': hits / matrix.sum(0),
            'overall': np.array([hits.sum() / matrix.sum()]),
        }


def simulate(seed: int = 0, shape: tuple[int, int] = (700, 900)) -> Ground:
    """A map with the shares above, and a truth that differs from it as the accuracies say."""
    rng = np.random.default_rng(seed)
    codes = rng.choice(CODES, size=shape, p=SHARES / SHARES.sum()).astype(np.uint8)
    wrong = rng.random(shape) > USERS[codes - 1]
    others = rng.choice(CODES, size=shape, p=SHARES / SHARES.sum()).astype(np.uint8)
    return Ground(codes, np.where(wrong, others, codes).astype(np.uint8))


def samples(ground: Ground, design: Design, repetitions: int, folder: Path) -> Iterator[StratifiedSample]:
    """Samples of the map, drawn from its file as the command does."""
    path = folder / 'map.tif'
    profile = {'driver': 'GTiff', 'crs': 'EPSG:32631', 'transform': from_origin(400000, 4600000, 10, 10)}
    height, width = ground.codes.shape
    with rasterio.open(path, 'w', count=1, height=height, width=width, dtype='uint8', **profile) as dst:
        dst.write(ground.codes, 1)
    source = ClassMap(path)
    counts = count(source, progress=False)
    pixels = counts.pixels.copy()
    pixels[NODATA] = 0
    expected = np.append(0.5, USERS)
    points = allocate(
        pixels, design.n, allocation=design.allocation, expected_accuracy=expected, minimum=design.minimum
    )
    for seed in range(repetitions):
        drawn = draw(source, counts, points, seed=seed, progress=False)
        reference = ground.truth[drawn.rows, drawn.cols].astype(np.int64)
        yield StratifiedSample(drawn.codes - 1, drawn.codes, reference, pixels[1:].astype(float), counts.areas[1:])


def cover_areas(ground: Ground, design: Design, repetitions: int) -> dict[str, dict[str, list[float | None]]]:
    """Share of the repetitions whose interval covers the truth: method, quantity, class."""
    targets = ground.targets()
    hits = {m: {q: np.zeros(len(t)) for q, t in targets.items()} for m in INTERVAL_METHODS}
    defined = {m: {q: np.zeros(len(t)) for q, t in targets.items()} for m in INTERVAL_METHODS}
    with tempfile.TemporaryDirectory() as folder:
        for sample in samples(ground, design, repetitions, Path(folder)):
            for method in INTERVAL_METHODS:
                found = assess(sample, LEGEND.codes, method=method)
                for quantity, target in targets.items():
                    estimates: Estimates = getattr(found, quantity)
                    known = ~np.isnan(estimates.low) & ~np.isnan(estimates.high)
                    defined[method][quantity] += known
                    hits[method][quantity] += known & (estimates.low <= target) & (target <= estimates.high)
    return {m: {q: _shares(hits[m][q], defined[m][q], repetitions) for q in targets} for m in INTERVAL_METHODS}


def _shares(hits: NDArray[np.float64], of: NDArray[np.float64], repetitions: int) -> list[float | None]:
    """Coverage of each class; None where it is defined in less than half of the repetitions."""
    return [float(h / n) if n >= repetitions / 2 else None for h, n in zip(hits, of, strict=True)]


def block_population(rng: np.random.Generator, blocks: int = 20_000, pixels: int = 2000) -> NDArray[np.int64]:
    """Confusion matrices of blocks whose class shares and accuracies vary from block to block, as land does."""
    k = len(CODES)
    shares = rng.dirichlet(4 * k * SHARES, size=blocks)
    ease = rng.beta(12 * USERS, 12 * (1 - USERS), size=(blocks, k))
    spread = np.broadcast_to(SHARES, (k, k)) * (1 - np.eye(k))
    confusion = np.zeros((blocks, LEGEND.num_classes, LEGEND.num_classes), dtype=np.int64)
    support = rng.multinomial(pixels, shares)
    rows = ease[:, :, None] * np.eye(k) + (1 - ease)[:, :, None] * (spread / spread.sum(1, keepdims=True))
    confusion[:, 1:, 1:] = rng.multinomial(support, rows / rows.sum(-1, keepdims=True))
    return confusion


def cover_blocks(blocks: int, repetitions: int, resamples: int = 1000) -> dict[str, list[float | None]]:
    """Share of the repetitions whose bootstrap interval covers the score of the whole population."""
    rng = np.random.default_rng(1)
    population = block_population(rng)
    statistics = {
        'iou': lambda m: iou(m)[..., 1:],
        'producers': lambda m: producers_accuracy(m)[..., 1:],
        'overall': lambda m: overall_accuracy(m)[..., None],
    }
    ends = np.cumsum([len(CODES), len(CODES), 1])

    def together(m: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.concatenate([statistic(m) for statistic in statistics.values()], axis=-1)

    target = together(population.sum(0))
    hits, defined = np.zeros(len(target)), np.zeros(len(target))
    for seed in range(repetitions):
        chosen = population[rng.choice(len(population), size=blocks, replace=False)]
        found = block_bootstrap(chosen, together, n=resamples, seed=seed)
        known = ~np.isnan(found.value)
        defined += known
        hits += known & (found.low <= target) & (target <= found.high)
    shares = _shares(hits, defined, repetitions)
    return {name: shares[a:b] for name, a, b in zip(statistics, np.append(0, ends[:-1]), ends, strict=True)}


def _table(title: str, found: dict[str, list[float | None]]) -> str:
    lines = [title]
    for quantity, shares in found.items():
        known = [100 * s for s in shares if s is not None]
        cells = ' '.join('  n/a' if s is None else f'{100 * s:5.1f}' for s in shares)
        lines.append(f'  {quantity:<10} mean {np.mean(known):5.1f}  least {min(known):5.1f}  | {cells}')
    return '\n'.join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--repetitions', type=int, default=500)
    parser.add_argument('--json', type=Path, help='also write the numbers to this file')
    args = parser.parse_args()
    ground, started = simulate(), time.monotonic()
    results: dict[str, object] = {'repetitions': args.repetitions}
    print(
        'percent of',
        args.repetitions,
        'repetitions in which the 95 % interval covers the truth; classes 1 to 12 behind |',
    )
    print('share of the map in %:', ' '.join(f'{100 * s:g}' for s in SHARES))
    for design in DESIGNS:
        found = cover_areas(ground, design, args.repetitions)
        results[design.name] = found
        for method, quantities in found.items():
            print(_table(f'\n{design.name}; {method} intervals', quantities))
    for blocks in (20, 60):
        found_blocks = cover_blocks(blocks, args.repetitions)
        results[f'{blocks} blocks'] = found_blocks
        print(_table(f'\nblock bootstrap over {blocks} blocks', found_blocks))
    print(f'\n{time.monotonic() - started:.0f} s')
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + '\n', encoding='utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(main())
