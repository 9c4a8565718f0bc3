"""Schedules equal their formulas, optimisers have what their names say."""

import math
from typing import Any

import pytest
import torch
from torch.optim import SGD, Adam, AdamW

from landcover_plugin.errors import LandcoverError
from landcover_plugin.training.optimization import make_optimizer, make_schedule


def parameters() -> list[dict[str, Any]]:
    return [{'params': [torch.nn.Parameter(torch.ones(2))], 'lr': lr} for lr in (1.0, 0.1)]


def rates(name: Any, steps: int, warmup: float) -> list[list[float]]:
    """Learning rates of both groups at each step."""
    optimizer = make_optimizer('sgd', parameters(), lr=1.0, weight_decay=0)
    made = make_schedule(name, optimizer, steps=steps, warmup=warmup, patience=1, monitor='val_loss')
    assert made is not None and made['interval'] == 'step'
    seen = []
    for _ in range(steps):
        seen.append([group['lr'] for group in optimizer.param_groups])
        optimizer.step()
        made['scheduler'].step()
    return seen


@pytest.mark.parametrize('warmup', [0, 0.2])
def test_cosine_rises_and_falls_as_the_formula(warmup: float) -> None:
    steps, rise = 50, round(50 * warmup)
    expected = [0.01 + 0.99 * i / rise for i in range(rise)]
    expected += [(1 + math.cos(math.pi * i / (steps - rise))) / 2 for i in range(steps - rise)]
    for peak, found in zip((1.0, 0.1), zip(*rates('cosine', steps, warmup), strict=True), strict=True):
        assert found == pytest.approx([peak * v for v in expected], abs=1e-6)


def test_onecycle_peaks_after_the_warm_up_and_keeps_the_scale_of_groups() -> None:
    high, low = zip(*rates('onecycle', 40, 0.25), strict=True)
    assert high.index(max(high)) == 9 and max(high) == pytest.approx(1) and high[-1] < 1e-3 > low[-1]
    assert low == pytest.approx([0.1 * v for v in high])


def test_plateau_halves_and_constant_does_nothing() -> None:
    optimizer = make_optimizer('adamw', parameters(), lr=1.0, weight_decay=0.1)
    made = make_schedule('plateau', optimizer, steps=math.inf, warmup=0, patience=1, monitor='val_loss')
    assert made is not None and made['monitor'] == 'val_loss'
    for loss in (1.0, 1.0, 1.0):
        made['scheduler'].step(loss)
    assert [group['lr'] for group in optimizer.param_groups] == [0.5, 0.05]
    assert make_schedule('constant', optimizer, steps=math.inf, warmup=0, patience=1, monitor='x') is None


@pytest.mark.parametrize(('name', 'kind', 'decay'), [('adam', Adam, 0), ('adamw', AdamW, 0.1), ('sgd', SGD, 0.1)])
def test_optimisers_are_what_their_names_say(name: Any, kind: type, decay: float) -> None:
    made = make_optimizer(name, parameters(), lr=1.0, weight_decay=0.1)
    assert type(made) is kind and made.defaults['weight_decay'] == decay


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        ({'name': 'step'}, "lr_schedule must be one of plateau, cosine, onecycle, constant, got 'step'"),
        ({'warmup': 1}, r'warmup is a share of the steps in \[0, 1\), got 1'),
        ({'name': 'cosine', 'steps': math.inf}, 'lr_schedule cosine needs an end of training'),
    ],
)
def test_a_wrong_schedule_is_told(change: Any, sentence: str) -> None:
    optimizer = make_optimizer('adam', parameters(), lr=1.0, weight_decay=0)
    given = {'name': 'plateau', 'steps': 10, 'warmup': 0, 'patience': 1, 'monitor': 'val_loss'} | change
    with pytest.raises(LandcoverError, match=sentence):
        make_schedule(given.pop('name'), optimizer, **given)


def test_a_wrong_optimiser_is_told() -> None:
    with pytest.raises(LandcoverError, match="optimizer_name must be one of adam, adamw, sgd, got 'lion'"):
        make_optimizer('lion', parameters(), lr=1.0, weight_decay=0)  # type: ignore[arg-type]
    with pytest.raises(LandcoverError, match='lr must be > 0 and weight_decay >= 0, got 0 and 0'):
        make_optimizer('adam', parameters(), lr=0, weight_decay=0)
