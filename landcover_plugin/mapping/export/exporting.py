"""Writes a trained model in all its forms into one folder."""

import json
import logging
import os
from collections.abc import Mapping, Sequence, Set
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from ...errors import LandcoverError
from ...rasters.identity import sha256
from ...rasters.outputs import cannot_write, hidden_name, whole_folder
from ...rasters.remote import is_remote, joined
from ...rasters.stand_ins import local_copy
from ...training.task import LandCoverSegmentation, read_checkpoint
from ...training.temperature import find_temperature, write_temperature
from ..network import MappingNetwork, Member
from .card import model_card
from .facts import facts_of, legend_document, legend_of
from .formats import FILES, FORMATS, MAX_DIFFERENCE, MIN_AGREEMENT, Format, write_format
from .stac import stac_item

log = logging.getLogger(__name__)

#: The manifest, and what else lies in the folder.
MANIFEST, CHECKPOINT, WEIGHTS, LEGEND_FILE, CARD, STAC = (
    'model.json',
    'model.ckpt',
    'weights.safetensors',
    'legend.json',
    'README.md',
    'stac_mlm.json',
)

#: What a checkpoint needs for testing and mapping; the rest is about the training that wrote it.
_KEPT = (
    'pytorch-lightning_version',
    'epoch',
    'global_step',
    'state_dict',
    'hparams_name',
    'hyper_parameters',
    'datamodule_hparams_name',
    'datamodule_hyper_parameters',
    'CataloniaDataModule',
)


def export(
    checkpoint: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    formats: Sequence[Format] | None = None,
    report: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the model of a checkpoint into a folder, which appears whole or not at all.

    Args:
        checkpoint: That ``landcover fit`` wrote.
        folder: To be made.
        formats: Of the network; each of them must succeed (default: those that can be had, the others are named).
        report: Report folder of ``landcover test``, or its ``scores.json``, for the model card.
        overwrite: Replace an older export there.

    Returns:
        What ``model.json`` holds.

    Raises:
        LandcoverError: If something cannot be read or written, or a format does not compute what PyTorch does.
    """
    target = check_export_folder(folder, overwrite=overwrite)
    scores = None if report is None else read_scores(report)
    checkpoint = local_copy(checkpoint)
    if scores is not None:
        check_scores(scores, {sha256(checkpoint)}, report=report, model=checkpoint)
    state = read_checkpoint(checkpoint)
    facts = facts_of(state, checkpoint, sum(t.numel() for t in _weights(state).values()))
    task = LandCoverSegmentation.load_from_checkpoint(checkpoint, map_location='cpu')
    network = MappingNetwork([Member(task.model)]).requires_grad_(False)
    with whole_folder(target, overwrite=overwrite) as staging:
        facts |= _write_formats(network, facts, staging, formats)
        torch.save({k: state[k] for k in _KEPT if k in state}, staging / CHECKPOINT)
        if (temperature := find_temperature(checkpoint)) is not None:
            write_temperature(staging / CHECKPOINT, temperature, {})
        weights = {k: v.contiguous() for k, v in _weights(state).items()}
        (staging / WEIGHTS).write_bytes(save(weights))
        _write_words(staging, facts, state, scores, target.name)
    return facts


def check_export_folder(folder: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """Find out, before any computing, whether the folder may be written; only an older export is ever replaced.

    Returns:
        The absolute path.

    Raises:
        LandcoverError: If it may not.
    """
    if '://' in os.fspath(folder) or os.fspath(folder).startswith('/vsi'):
        raise LandcoverError(f'{folder} is not on a local disk: export to a local folder and upload it afterwards')
    target = Path(folder).resolve()
    try:
        if target.exists() and not (target.is_dir() and not any(target.iterdir())):
            if not (target / MANIFEST).is_file():
                raise LandcoverError(f'{target} is no exported model, and would not be replaced: choose another folder')
            if not overwrite:
                raise LandcoverError(
                    f'{target} exists already: choose another folder, or allow replacing it by --output.overwrite'
                )
        probe = hidden_name(target, 'probe')
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise cannot_write(target, error) from error
    return target


def _weights(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of the network, by their names in it."""
    state = checkpoint['state_dict']
    return {k.removeprefix('model.'): v for k, v in state.items() if k.startswith('model.')}


def _write_formats(
    network: nn.Module, facts: Mapping[str, Any], folder: Path, formats: Sequence[Format] | None
) -> dict[str, Any]:
    """Write the formats: what was written, and what was left out and why."""
    written: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for name in FORMATS if formats is None else formats:
        log.info('%s: converting, and comparing with PyTorch', name)
        try:
            written[name] = write_format(name, network, len(facts['channels']), facts['patch_size'], folder)
        except LandcoverError as e:
            if formats is not None:
                raise
            log.warning('%s is left out: %s', name, e)
            left_out[name] = str(e)
            _discard(name, folder)
    bounds = {'max_difference': MAX_DIFFERENCE, 'agreement': MIN_AGREEMENT}
    return {'formats': written, 'left_out': left_out, 'parity_bounds': bounds}


def _discard(name: Format, folder: Path) -> None:
    """Remove what a failed conversion may have left."""
    path = folder / FILES[name]
    for file in (path, path.with_suffix('.bin')):
        file.unlink(missing_ok=True)
    if path.parent != folder and path.parent.exists():
        path.parent.rmdir()


def _write_words(
    folder: Path, facts: dict[str, Any], state: Mapping[str, Any], scores: Mapping[str, Any] | None, name: str
) -> None:
    """Legend, card, STAC item and, last, the manifest with the checksums of all others."""
    legend = legend_of(state)
    _write_json(folder / LEGEND_FILE, legend_document(legend))
    (folder / CARD).write_text(model_card(facts, legend, scores, folder=name), encoding='utf-8')
    facts['files'] = _files(folder)
    created = datetime.now(UTC).strftime('%Y-%m-%dT%H:%M:%SZ')
    _write_json(folder / STAC, stac_item(facts, legend, created=created))
    facts['files'] = _files(folder)
    _write_json(folder / MANIFEST, facts)


def _files(folder: Path) -> dict[str, dict[str, Any]]:
    paths = sorted(path for path in folder.rglob('*') if path.is_file())
    return {
        path.relative_to(folder).as_posix(): {'bytes': path.stat().st_size, 'sha256': sha256(path)} for path in paths
    }


def _write_json(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + '\n', encoding='utf-8')


def check_scores(scores: Mapping[str, Any], digests: Set[str], *, report: object, model: object) -> None:
    """See whether scores are those of a model.

    Args:
        scores: Of a report.
        digests: SHA-256 of the checkpoints that hold the model.
        report: Its name, for messages.
        model: Likewise.

    Raises:
        LandcoverError: If they are those of another checkpoint.
    """
    tested = ((scores.get('metadata') or {}).get('checkpoint_file') or {}).get('sha256')
    if tested is None:
        log.warning('warning: the report %s does not tell which checkpoint it scores; it is taken for this one', report)
    elif tested not in digests:
        raise LandcoverError(
            f'the report {report} scores another checkpoint (SHA-256 {tested[:12]}…) than {model}: give the report '
            f'that landcover test --ckpt_path {model} writes'
        )


def read_scores(report: str | os.PathLike[str]) -> dict[str, Any]:
    """The scores in a report folder of ``landcover test``, or in its ``scores.json``.

    Raises:
        LandcoverError: If there are none.
    """
    if is_remote(report):
        path = local_copy(report if str(report).endswith('.json') else joined(report, 'scores.json'))
    else:
        path = Path(report, 'scores.json') if Path(report).is_dir() else Path(report)
    try:
        scores = json.loads(path.read_text(encoding='utf-8'))
        if not (isinstance(scores['overall'], dict) and isinstance(scores['classes'], list)):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise LandcoverError(f'{path} is no report of landcover test: name the folder that --output.path named') from e
    return dict(scores)
