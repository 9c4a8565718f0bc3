"""Pictures of a search: which settings went together with good scores, and which mattered."""

import logging
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..rasters.outputs import write_whole
from .outcomes import Outcome, plain
from .space import Space

if TYPE_CHECKING:
    from optuna import Study

log = logging.getLogger(__name__)

#: Scored trials below which nothing can be said of what mattered.
FEWEST = 4


def study_of(outcomes: Sequence[Outcome], space: Space, mode: str) -> 'Study':
    """The scored trials as a study of Optuna, in memory."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction='maximize' if mode == 'max' else 'minimize')
    distributions = space.distributions()
    for outcome in _scored(outcomes):
        study.add_trial(
            optuna.trial.create_trial(params=dict(outcome.drawn), distributions=distributions, value=outcome.score)
        )
    return study


def importances(outcomes: Sequence[Outcome], space: Space, mode: str) -> dict[str, float]:
    """Share of the variance of the scores that each setting explains by itself and with others, most first.

    By fANOVA (Hutter et al. 2014, https://proceedings.mlr.press/v32/hutter14.html). Trials that were stopped early
    count by the score they had then. Empty for fewer than four scored trials, or where all score alike.
    """
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    scores = {outcome.score for outcome in _scored(outcomes)}
    if len(scores) < FEWEST:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        found = get_param_importances(study_of(outcomes, space, mode), evaluator=FanovaImportanceEvaluator(seed=0))
    return {key: float(value) for key, value in found.items()}


def draw_importances(shares: Mapping[str, float], metric: str) -> Figure:
    """Bars, the longest on top."""
    figure = Figure(figsize=(7, 1.2 + 0.4 * len(shares)), layout='constrained')
    axes = figure.add_subplot()
    keys = list(shares)[::-1]
    bars = axes.barh(keys, [shares[key] for key in keys], color='#3b6fa0')
    axes.bar_label(bars, fmt='%.2f', padding=3)
    axes.set_xlim(0, 1.12 * max(shares.values()))
    axes.set_xlabel(f'share of the variance of {metric} (fANOVA)')
    axes.spines[['top', 'right']].set_visible(False)
    return figure


def draw_parallel(outcomes: Sequence[Outcome], space: Space, metric: str, mode: str) -> Figure:
    """A line for each scored trial through its values of the settings to its score; the better, the darker."""
    scored = sorted(_scored(outcomes), key=lambda o: o.score or 0.0, reverse=mode == 'min')  # the best on top
    scores = np.array([o.score for o in scored], float)
    names = [*space.dimensions, metric]
    figure = Figure(figsize=(max(6.0, 1.7 * len(names)), 4.5), layout='constrained')
    axes = figure.add_subplot()
    columns = [_positions(space, key, [o.drawn[key] for o in scored]) for key in space.dimensions]
    low, high = float(scores.min()), float(scores.max())
    columns.append((scores - low) / ((high - low) or 1))
    from matplotlib import colormaps

    for row, heights in enumerate(np.column_stack(columns)):
        rank = (row + 1) / len(scored)
        axes.plot(heights, color=colormaps['viridis_r'](0.1 + 0.9 * rank), alpha=0.85, lw=1 + 1.5 * (rank == 1))
    for place, key in enumerate(space.dimensions):
        _label(axes, place, *_ticks(space, key))
    _label(axes, len(names) - 1, [0.0, 1.0], [f'{low:.3f}', f'{high:.3f}'])
    axes.set_xticks(range(len(names)), names, rotation=20, ha='right')
    axes.set_yticks([])
    axes.set_xlim(-0.2, len(names) - 0.4)
    axes.spines[:].set_visible(False)
    return figure


def _positions(space: Space, key: str, drawn: Sequence[Any]) -> Any:
    """Heights in [0, 1] of values of a setting."""
    dimension = space.dimensions[key]
    if dimension.kind == 'choice':
        return np.array([dimension.values.index(v) for v in drawn]) / (len(dimension.values) - 1)
    scale: Callable[[Any], Any] = np.log if dimension.kind == 'loguniform' else np.asarray
    low, high = (scale(float(v)) for v in dimension.values[:2])
    return (scale(np.array(drawn, float)) - low) / (high - low)


def _ticks(space: Space, key: str) -> tuple[list[float], list[str]]:
    values = space.dimensions[key].probes()
    texts = [f'{v:.3g}' if isinstance(v, int | float) else str(plain(v)) for v in values]
    return list(_positions(space, key, values)), [t if len(t) < 22 else f'{t[:20]}…' for t in texts]


def _label(axes: Axes, place: int, heights: Sequence[float], texts: Sequence[str]) -> None:
    axes.axvline(place, color='grey', lw=0.8, zorder=0)
    for height, text in zip(heights, texts, strict=True):
        axes.text(place + 0.04, height, text, fontsize=8, va='center', bbox={'fc': 'white', 'ec': 'none', 'alpha': 0.7})


def write_plots(folder: Path, outcomes: Sequence[Outcome], space: Space, metric: str, mode: str) -> dict[str, float]:
    """Write what can be drawn, as PNG and SVG.

    Returns:
        The importances.
    """
    figures: dict[str, Figure] = {}
    if len(_scored(outcomes)) > 1:
        figures['parallel_coordinates'] = draw_parallel(outcomes, space, metric, mode)
    if shares := importances(outcomes, space, mode):
        figures['importance'] = draw_importances(shares, metric)
    else:
        log.info('fewer than %d trials have scores that differ: what mattered cannot be told', FEWEST)
    for name, figure in figures.items():
        for kind in ('png', 'svg'):
            write_whole(folder / f'{name}.{kind}', partial(figure.savefig, dpi=150))
    return shares


def write_hparams(folder: Path, outcomes: Sequence[Outcome], metric: str) -> None:
    """Write the settings and scores of all scored trials for TensorBoard's tab HPARAMS, in place of older ones."""
    from torch.utils.tensorboard import SummaryWriter

    shutil.rmtree(folder, ignore_errors=True)
    for outcome in _scored(outcomes):
        settings = {key: plain(value) for key, value in outcome.drawn.items()}
        with SummaryWriter(str(folder / outcome.identity)) as writer:
            scores = {f'best_{metric}': outcome.score, 'epochs': outcome.epochs}
            writer.add_hparams(settings, scores, run_name='.')


def _scored(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return [o for o in outcomes if o.score is not None and np.isfinite(o.score)]
