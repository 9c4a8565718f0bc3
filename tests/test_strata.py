"""Which pixels are pure, mixed, at a border or inside, against NumPy; counting on one process and on two."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from landcover_plugin.training.strata import STRATA, StrataConfusion, strata


def labels(seed: int, *, classes: int = 12, size: tuple[int, int, int] = (3, 17, 11)) -> tuple[Any, Any]:
    """Clumped codes with unlabelled ground, and a purity of 100 % for about half of them."""
    draw = np.random.default_rng(seed)
    batch, height, width = size
    coarse = draw.integers(0, classes + 1, (batch, -(-height // 3), -(-width // 3)))
    mask = coarse.repeat(3, axis=1).repeat(3, axis=2)[:, :height, :width].astype(np.uint8)
    mask[draw.random(mask.shape) < 0.1] = 0
    purity = np.where(draw.random(mask.shape) < 0.5, 100, draw.integers(1, 100, mask.shape)) * (mask > 0)
    return mask, purity.astype(np.uint8)


def border_by_numpy(mask: NDArray[Any]) -> NDArray[np.bool_]:
    """Pixel by pixel: any of the nine in its 3 x 3 that is another class."""
    border = np.zeros(mask.shape, dtype=bool)
    for b, r, c in np.argwhere(mask > 0):
        around = mask[b, max(r - 1, 0) : r + 2, max(c - 1, 0) : c + 2]
        border[b, r, c] = bool(set(around.ravel().tolist()) - {0, int(mask[b, r, c])})
    return border


@pytest.mark.parametrize('dtype', [torch.uint8, torch.int64])
@pytest.mark.parametrize('seed', range(5))
def test_strata_agree_with_numpy(seed: int, dtype: torch.dtype) -> None:
    mask, purity = labels(seed, classes=12 if seed else 2)
    border = border_by_numpy(mask)
    wanted = {
        'pure': (mask > 0) & (purity == 100),
        'mixed': (mask > 0) & (purity < 100),
        'border': border,
        'interior': (mask > 0) & ~border,
    }
    found = strata(torch.from_numpy(mask).to(dtype), torch.from_numpy(purity))
    assert tuple(found) == STRATA == tuple(wanted)
    for name, pixels in found.items():
        assert pixels.dtype == torch.bool and pixels.any()
        np.testing.assert_array_equal(pixels.numpy(), wanted[name], err_msg=name)


@pytest.mark.parametrize(('row', 'col'), [(r, c) for r in range(3) for c in range(3) if (r, c) != (1, 1)])
def test_each_of_the_eight_neighbours_makes_a_border(row: int, col: int) -> None:
    mask = torch.zeros(1, 3, 3, dtype=torch.uint8)
    mask[0, 1, 1], mask[0, row, col] = 4, 9
    assert strata(mask)['border'].nonzero().tolist() == sorted([[0, 1, 1], [0, row, col]])
    mask[0, row, col] = 4
    assert not strata(mask)['border'].any()


def test_no_data_makes_no_border_and_patches_do_not_see_each_other() -> None:
    mask = torch.zeros(2, 4, 4, dtype=torch.uint8)
    mask[0, :2], mask[1] = 3, 5
    found = strata(mask)
    assert not found['border'].any() and torch.equal(found['interior'], mask > 0)


def test_without_purity_there_is_neither_pure_nor_mixed() -> None:
    assert set(strata(torch.ones(1, 2, 2))) == {'border', 'interior'}


@pytest.mark.parametrize('size', [(1, 1, 1), (2, 1, 5), (1, 5, 1)])
def test_narrow_patches(size: tuple[int, int, int]) -> None:
    mask, purity = labels(1, size=size)
    found = strata(torch.from_numpy(mask), torch.from_numpy(purity))
    np.testing.assert_array_equal(found['border'].numpy(), border_by_numpy(mask))


def test_the_labels_stay_as_they_were() -> None:
    mask, purity = (torch.from_numpy(a) for a in labels(2))
    before = mask.clone(), purity.clone()
    strata(mask, purity)
    assert torch.equal(mask, before[0]) and torch.equal(purity, before[1])


def batches(seed: int) -> list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
    draw = np.random.default_rng(seed)
    return [(m, p, draw.integers(1, 13, m.shape)) for m, p in (labels(10 * seed + i) for i in range(3))]


def counted(metric: StrataConfusion, seed: int) -> StrataConfusion:
    for mask, purity, prediction in batches(seed):
        target = torch.from_numpy(mask).long()
        metric.update(torch.from_numpy(prediction), target, strata(target, torch.from_numpy(purity)))
    return metric


def wanted_counts(seeds: list[int]) -> NDArray[Any]:
    total = np.zeros((len(STRATA), 13, 13), dtype=np.int64)
    for mask, purity, prediction in (b for seed in seeds for b in batches(seed)):
        border = border_by_numpy(mask)
        for i, pixels in enumerate((purity == 100, purity < 100, border, ~border)):
            seen = pixels & (mask > 0)
            total[i] += confusion_matrix(mask[seen], prediction[seen], labels=range(13))
    return total


def test_counts_agree_with_scikit_learn_and_can_be_reset() -> None:
    metric = StrataConfusion()
    for seed in (0, 1):
        counts = counted(metric, seed).compute()
        assert counts.dtype == torch.int64
        np.testing.assert_array_equal(counts.numpy(), wanted_counts([seed]))
        metric.reset()
    assert not metric.counts.any()


def test_a_stratum_without_pixels_counts_nothing() -> None:
    metric, mask = StrataConfusion(), torch.zeros(1, 4, 4, dtype=torch.long)
    metric.update(mask + 1, mask, strata(mask, mask))
    assert not metric.compute().any()


PROCESS = """
import sys
import torch.distributed as dist
from test_strata import StrataConfusion, counted, wanted_counts
rank, store = int(sys.argv[1]), sys.argv[2]
dist.init_process_group('gloo', init_method=f'file://{store}', rank=rank, world_size=2)
metric = counted(StrataConfusion(), rank)
counts = metric.compute().numpy()
assert (counts == wanted_counts([0, 1])).all(), 'every process has the sum'
assert (metric.counts.numpy() == wanted_counts([rank])).all(), 'and goes on with its own counts'
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_add_up_their_counts(tmp_path: Path) -> None:
    commands = [[sys.executable, '-c', PROCESS, str(rank), str(tmp_path / 'store')] for rank in range(2)]
    running = [subprocess.Popen(c, cwd=Path(__file__).parent, stderr=subprocess.PIPE, text=True) for c in commands]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
