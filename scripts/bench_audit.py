"""How well `landcover audit` finds errors that were planted into the label of a simulated scene.

    python scripts/bench_audit.py [--seeds 0 1 2] [--size 448] [--folds 3] [--epochs 16] [--work DIR] [--json FILE]

For each seed a scene is simulated, whose label is right, and errors of three kinds are planted into the label:

* wrong class: a whole field, wood or quarter gets the class of a neighbour;
* removed: a small object (building, pond, industrial area) gets the class that surrounds it;
* change below 2 ha: part of a region gets another class, as if the ground had changed since the label was drawn and
  the change was too small for the update.

Then the command runs with its defaults. A polygon is right if at least half of its pixels are planted. Precision@k is
the share of right ones among the first k. An error is found if at least half of its pixels lie in polygons (of the
first k, or in any); errors below 500 m2 are planted too, but do not count, since the command leaves such polygons
out. For comparison, the same polygons are ordered by confidence, by area and at random, and `plain` polygons are those
of all disagreement between label and cross-fitted map, by area, without confident learning.

Scores on a simulated scene say nothing about real land.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
import rasterio.features
from numpy.typing import NDArray
from scipy import ndimage

from landcover_plugin.datasets.simulated import Scene, write_scene
from landcover_plugin.grid import PixelGrid
from landcover_plugin.legend import LEGEND

#: Metres of a label pixel, and label pixels along an image pixel.
GSD, FACTOR = 2, 5

#: Planted errors of each kind in 100,000 image pixels (10 km2).
PLANTED = {'wrong class': 12, 'removed': 8, 'change below 2 ha': 20}

#: Image pixels of a region that gets a wrong class: 0.3 to 15 ha.
_FIELDS = (30, 1500)

#: Image pixels of an object that is removed, and classes of which it may be.
_OBJECTS, _REMOVABLE = (3, 200), (6, 7, 8, 9, 10, 12)

#: Image pixels of a change: 0.03 to 2 ha.
_CHANGES = (3, 200)

#: Classes that cover ground in patches; roads do not come and go with them.
_GROUND = (1, 2, 3, 4, 5, 6, 8, 9, 12)

KS = (10, 25, 50, 100)

_YAML = """\
seed_everything: 0
trainer: {{max_epochs: {epochs}, accelerator: cpu, enable_model_summary: false, enable_progress_bar: false}}
model: {{model: unet_scratch, backbone: spectral32, weights: false, class_weights: none, lr: 3.0e-3,
  lr_schedule: cosine}}
early_stopping: {{patience: 1000}}
data: {{root: {root}, seasons: stack, patch_size: 32, batch_size: 8, length: 480, num_workers: 0}}
"""


@dataclass(frozen=True, eq=False)
class Planted:
    """What was done to a label.

    Attributes:
        errors: Number of the error of each image pixel, 0 for none.
        kinds: Kind of each error, from 1.
        truth: Codes of the image pixels before.
    """

    errors: NDArray[np.int32]
    kinds: dict[int, str]
    truth: NDArray[np.uint8]


def plant(scene: Scene, seed: int) -> Planted:
    """Plant errors into the label of a scene, in place; on whole image pixels, so that nothing is mixed by it."""
    rng = np.random.default_rng(seed)
    with rasterio.open(scene.label, 'r+') as src:
        fine = src.read(1)
        truth = majority(fine)
        label, errors, kinds = truth.copy(), np.zeros(truth.shape, dtype=np.int32), {}
        for kind, per in PLANTED.items():
            wanted = round(per * truth.size / 1e5)
            for where, code in _chosen(kind, truth, errors > 0, wanted, rng):
                number = len(kinds) + 1
                kinds[number], errors[where], label[where] = kind, number, code
        changed = np.repeat(np.repeat(errors > 0, FACTOR, 0), FACTOR, 1)
        painted = np.repeat(np.repeat(label, FACTOR, 0), FACTOR, 1)
        fine[changed] = painted[changed]
        src.write(fine, 1)
    return Planted(errors, kinds, truth)


def prepared(root: Path, seed: int, size: int) -> tuple[Scene, Planted]:
    """A scene with errors: made now, or by an earlier run, whose networks are used again then."""
    record = root / 'planted.npz'
    if not record.exists():
        scene = write_scene(root, size=size, seed=seed, label_gsd=GSD, overwrite=True)
        planted = plant(scene, seed)
        np.savez(record, errors=planted.errors, truth=planted.truth, kinds=np.array(list(planted.kinds.values())))
        return scene, planted
    kept, images = np.load(record), sorted(root.glob('S2_*.tif'))
    if kept['truth'].shape != (size, size):
        raise SystemExit(f'{root} holds a scene of another size: choose another --work')
    scene = Scene(tuple(path.name[7:13] for path in images), tuple(images), next(root.glob('LC_*.tif')))
    return scene, Planted(kept['errors'], dict(enumerate(kept['kinds'].tolist(), 1)), kept['truth'])


def majority(fine: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The most frequent code of each image pixel."""
    rows, cols = fine.shape[0] // FACTOR, fine.shape[1] // FACTOR
    blocks = fine.reshape(rows, FACTOR, cols, FACTOR)
    return np.stack([(blocks == code).sum((1, 3)) for code in range(LEGEND.num_classes)]).argmax(0).astype(np.uint8)


def _chosen(
    kind: str, truth: NDArray[np.uint8], taken: NDArray[np.bool_], wanted: int, rng: np.random.Generator
) -> Any:
    """Places of errors, apart from each other, and the code that each gets."""
    taken = taken.copy()
    candidates = _blobs(truth, rng) if kind == 'change below 2 ha' else _regions(kind, truth, rng)
    for where in candidates:
        if wanted == 0:
            return
        code = _neighbour(truth, where, rng)
        if code is None or (taken & ndimage.binary_dilation(where, iterations=3)).any():
            continue
        taken |= where
        wanted -= 1
        yield where, code


def _regions(kind: str, truth: NDArray[np.uint8], rng: np.random.Generator) -> Any:
    """Whole regions of a class in random order."""
    low, high = _FIELDS if kind == 'wrong class' else _OBJECTS
    found = []
    for code in _GROUND if kind == 'wrong class' else _REMOVABLE:
        numbers, _ = ndimage.label(truth == code)
        sizes = np.bincount(numbers.ravel())
        found += [(code, int(n)) for n in np.flatnonzero((sizes >= low) & (sizes <= high)) if n]
    for index in rng.permutation(len(found)):
        code, number = found[index]
        yield ndimage.label(truth == code)[0] == number


def _blobs(truth: NDArray[np.uint8], rng: np.random.Generator) -> Any:
    """Round pieces of a region, at random places."""
    rows, cols = np.indices(truth.shape)
    while True:
        row, col = (int(rng.integers(n)) for n in truth.shape)
        if truth[row, col] not in _GROUND:
            continue
        size = np.exp(rng.uniform(*np.log(_CHANGES)))
        stretch = np.exp(rng.uniform(-0.5, 0.5))
        near = ((rows - row) * stretch) ** 2 + ((cols - col) / stretch) ** 2 <= size / np.pi
        where = near & (truth == truth[row, col])
        if where.sum() >= max(0.7 * near.sum(), _CHANGES[0]):
            yield where


def _neighbour(truth: NDArray[np.uint8], where: NDArray[np.bool_], rng: np.random.Generator) -> int | None:
    """Another class within 200 m, drawn by its share; what the label might hold by mistake."""
    own = int(truth[where][0])
    around = truth[ndimage.binary_dilation(where, iterations=20)]
    counts = np.bincount(around, minlength=LEGEND.num_classes).astype(np.float64)
    counts[[code for code in range(LEGEND.num_classes) if code == own or code not in _GROUND]] = 0
    return int(rng.choice(LEGEND.num_classes, p=counts / counts.sum())) if counts.sum() else None


def audit(root: Path, folds: int, epochs: int) -> Path:
    """Run the command; returns the GeoPackage."""
    config, target = root / 'audit.yaml', root / 'audit.gpkg'
    config.write_text(_YAML.format(root=root, epochs=epochs))
    command = [
        sys.executable,
        '-m',
        'landcover_plugin',
        'audit',
        '--config',
        config,
        '--folds',
        folds,
        '--output',
        target,
    ]
    done = subprocess.run([*map(str, command), '--overwrite'], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return target


def score(planted: Planted, polygons: Sequence[NDArray[np.bool_]]) -> dict[str, Any]:
    """Precision and recall of polygons, given as pixels, in their order."""
    right = np.array([(planted.errors[p] > 0).mean() >= 0.5 for p in polygons])
    sizes = np.bincount(planted.errors.ravel(), minlength=len(planted.kinds) + 1)
    counted = [n for n in planted.kinds if sizes[n] >= 5]
    covered, found_at = np.zeros(len(sizes)), {}
    for rank, pixels in enumerate(polygons, 1):
        covered += np.bincount(planted.errors[pixels], minlength=len(sizes))
        for number in counted:
            if number not in found_at and covered[number] >= 0.5 * sizes[number]:
                found_at[number] = rank
    recall = {kind: [n in found_at for n in counted if planted.kinds[n] == kind] for kind in PLANTED}
    return {
        'errors': len(counted),
        'polygons': len(polygons),
        'precision': {k: float(right[:k].mean()) for k in KS if len(right) >= k},
        'recall_at': {k: sum(r <= k for r in found_at.values()) / len(counted) for k in KS},
        'recall': len(found_at) / len(counted),
        'recall_of_kind': {kind: float(np.mean(hits)) if hits else float('nan') for kind, hits in recall.items()},
    }


def measure(root: Path, seed: int, size: int, folds: int, epochs: int) -> dict[str, Any]:
    """Scores of all orders of the polygons of one scene."""
    scene, planted = prepared(root, seed, size)
    target = audit(root, folds, epochs)
    frame = gpd.read_file(target, layer='suspects')
    with rasterio.open(scene.images[0]) as src:
        grid = PixelGrid.of(src)
    pixels = [_pixels(geometry, grid) for geometry in frame.geometry]
    rng = np.random.default_rng(seed)
    orders = {
        'score': np.arange(len(frame)),
        'confidence': np.argsort(-frame['confidence'].to_numpy(), kind='stable'),
        'area': np.argsort(-frame['area_m2'].to_numpy(), kind='stable'),
        'random': rng.permutation(len(frame)),
    }
    found = {name: score(planted, [pixels[i] for i in order]) for name, order in orders.items()}
    found['plain'] = score(planted, plain(root, planted, grid))
    labelled = planted.truth > 0
    summary = json.loads(target.with_suffix('.json').read_text())
    return {
        'orders': found,
        'planted_share': float((planted.errors[labelled] > 0).mean()),
        'estimated_wrong': summary['estimated_wrong'],
    }


def _pixels(geometry: Any, grid: PixelGrid) -> NDArray[np.bool_]:
    shape = grid.height, grid.width
    return rasterio.features.rasterize([geometry], shape, transform=grid.transform, dtype=np.uint8).astype(bool)


def plain(root: Path, planted: Planted, grid: PixelGrid) -> list[NDArray[np.bool_]]:
    """Regions of 5 px or more in which label and cross-fitted map differ in the same way, the largest first."""
    label, mapped = planted.truth.copy(), np.zeros_like(planted.truth)
    with rasterio.open(next(root.glob('LC_*'))) as src:
        label = majority(src.read(1))
    for path in root.glob('audit_folds/fold-*/map.tif'):
        with rasterio.open(path) as src:
            window = grid.window_of(PixelGrid.of(src))
            part = mapped[window.slices_in(grid.full)]
            codes = src.read(1)
            part[codes > 0] = codes[codes > 0]
    pairs = np.where((label != mapped) & (label > 0) & (mapped > 0), label.astype(int) * 100 + mapped, 0)
    regions = []
    for pair in np.unique(pairs[pairs > 0]):
        numbers, _ = ndimage.label(pairs == pair)
        sizes = np.bincount(numbers.ravel())
        regions += [(int(sizes[n]), int(pair), int(n)) for n in np.flatnonzero(sizes >= 5) if n]
    regions.sort(reverse=True)
    return [ndimage.label(pairs == pair)[0] == number for _, pair, number in regions]


def table(results: Sequence[dict[str, Any]]) -> str:
    """Means over the seeds, and their least and greatest."""
    lines = [f'{"order":<12}{"polygons":>9}' + ''.join(f'{f"P@{k}":>18}' for k in KS) + f'{"recall":>18}']
    for name in results[0]['orders']:
        rows = [r['orders'][name] for r in results]
        cells = [_cell([row['precision'].get(k, np.nan) for row in rows]) for k in KS]
        count = np.mean([row['polygons'] for row in rows])
        lines.append(f'{name:<12}{count:>9.0f}' + ''.join(cells) + _cell([row['recall'] for row in rows]))
    first = [r['orders']['score'] for r in results]
    lines += ['', 'recall of the errors of 500 m2 or more:']
    for k in KS:
        lines.append(f'  {f"first {k}":<22}{_cell([row["recall_at"][k] for row in first])}')
    for kind in PLANTED:
        lines.append(f'  {kind:<22}{_cell([row["recall_of_kind"][kind] for row in first])}')
    told = [f'{100 * r["planted_share"]:.1f} ({100 * r["estimated_wrong"]:.1f})' for r in results]
    lines += ['', f'errors that count: {[row["errors"] for row in first]}']
    lines.append(f'percent of labelled pixels that are planted (estimated to be wrong): {", ".join(told)}')
    return '\n'.join(lines)


def _cell(values: Sequence[float]) -> str:
    return f'{np.nanmean(values):>8.2f} [{np.nanmin(values):.2f}-{np.nanmax(values):.2f}]'.rjust(18)


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], metavar='N', help='scenes (default: 0 1 2)')
    parser.add_argument('--size', type=int, default=448, metavar='PX', help='edge of a scene (default: 448)')
    parser.add_argument('--folds', type=int, default=3, metavar='K', help='networks of each audit (default: 3)')
    parser.add_argument('--epochs', type=int, default=16, metavar='N', help='of each network (default: 16)')
    parser.add_argument('--work', type=Path, metavar='DIR', help='keep scenes and audits here (default: nowhere)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='also write all numbers here')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        results = []
        for seed in args.seeds:
            results.append(measure(work / f'seed-{seed}', seed, args.size, args.folds, args.epochs))
            sys.stdout.write(f'seed {seed}: {json.dumps(results[-1]["orders"]["score"])}\n')
            sys.stdout.flush()
    sys.stdout.write(table(results) + '\n')
    if args.json:
        args.json.write_text(json.dumps({'arguments': vars(args), 'results': results}, indent=1, default=str))
    return 0


if __name__ == '__main__':
    sys.exit(main())
