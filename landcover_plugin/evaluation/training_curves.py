"""Losses and scores of the training that a checkpoint comes from, read back from what its loggers left."""

import csv
import logging
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

#: Curves of the report and their names in the logs.
CURVES = {
    'train_loss': ('train_loss_epoch', 'train_loss'),
    'val_loss': ('val_loss',),
    'val_mIoU': ('val_mIoU',),
    'val_OA': ('val_OA',),
    'learning_rate': ('learning_rate',),
}

Points = list[tuple[int, float]]


@dataclass(frozen=True)
class TrainingCurves:
    """Curves of one run.

    Attributes:
        source: The file that they were read from.
        curves: Epoch and value of each point, by the names of :data:`CURVES`.
    """

    source: Path
    curves: Mapping[str, Points]

    def rows(self) -> list[dict[str, float | int | str]]:
        """One row for each point."""
        return [
            {'curve': name, 'epoch': epoch, 'value': value}
            for name, points in self.curves.items()
            for epoch, value in points
        ]


def find_training_curves(
    checkpoint: str | os.PathLike[str] | None, log_dir: str | os.PathLike[str] | None = None
) -> TrainingCurves | None:
    """Curves from ``metrics.csv`` or a TensorBoard event file beside a checkpoint, or in the folder of its run.

    Args:
        checkpoint: The checkpoint; its folder and the one above it are searched.
        log_dir: Where the run logged, if the checkpoint tells.

    Returns:
        None where there is neither, or they hold no curve.
    """
    folders = [Path(log_dir)] if log_dir else []
    if checkpoint:
        here = Path(checkpoint).resolve().parent
        folders += [here, here.parent]
    for folder in folders:
        for pattern, read in (('metrics.csv', _from_csv), ('events.out.tfevents.*', _from_events)):
            for path in sorted(folder.glob(pattern), key=lambda p: p.stat().st_mtime, reverse=True):
                try:
                    curves = read(path)
                except Exception as e:  # whatever a damaged file makes its reader raise
                    log.warning('%s holds no training curves that can be read (%s)', path, type(e).__name__)
                    continue
                if curves:
                    return TrainingCurves(path, curves)
    return None


def _from_csv(path: Path) -> dict[str, Points]:
    with path.open(encoding='utf-8', newline='') as file:
        rows = list(csv.DictReader(file))
    names = [name for group in CURVES.values() for name in group]
    return _curves({name: [(row['epoch'], row.get(name)) for row in rows] for name in names})


def _curves(columns: Mapping[str, Iterable[tuple[object, object]]]) -> dict[str, Points]:
    """The last value of each epoch, of the first name of each curve that has any."""
    found = {}
    for curve, names in CURVES.items():
        for name in names:
            points = {
                int(float(str(epoch))): float(str(value))
                for epoch, value in columns.get(name, ())
                if epoch not in (None, '') and value not in (None, '')
            }
            if points := {e: v for e, v in points.items() if math.isfinite(v)}:
                found[curve] = sorted(points.items())
                break
    return found


def _from_events(path: Path) -> dict[str, Points]:
    from tensorboard.backend.event_processing.event_accumulator import (  # a second to import
        SCALARS,
        EventAccumulator,
    )

    events = EventAccumulator(str(path), size_guidance={SCALARS: 0, 'images': 1}).Reload()
    known = set(events.Tags()['scalars'])
    if 'epoch' not in known:
        return {}
    epochs = {e.step: e.value for e in events.Scalars('epoch')}
    names = [n for group in CURVES.values() for n in group if n in known]
    return _curves({n: ((epochs.get(e.step), e.value) for e in events.Scalars(n)) for n in names})
