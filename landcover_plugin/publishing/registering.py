"""Puts an exported model into an MLflow registry."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..mapping.export.exporting import CARD, MANIFEST
from ..mapping.exported import ExportedModel
from ..rasters.identity import sha256
from .addresses import ModelAddress, check_alias, check_name
from .mlflow_client import connect, find_registry, told
from .scores import metrics_of, settings_of

log = logging.getLogger(__name__)

#: Tag of a version that holds the SHA-256 of its ``model.json``, which holds those of all its files.
DIGEST = 'landcover.model.sha256'

#: Where the files lie among those of the run, and the experiment that collects such runs.
FOLDER, EXPERIMENT = 'model', 'landcover'

#: What MLflow says of what is not there, or is there already.
_MISSING, _PRESENT = 'RESOURCE_DOES_NOT_EXIST', 'RESOURCE_ALREADY_EXISTS'


def register(
    exported: ExportedModel,
    *,
    name: str,
    registry: str | None = None,
    alias: str | None = None,
    scores: Mapping[str, Any] | None = None,
) -> ModelAddress:
    """Log an exported model as a new version of a registered model.

    A run of the experiment ``landcover`` holds the files, the settings as parameters and the scores as metrics; the
    version points at it and carries the model card. The alias moves last, when all is there.

    Args:
        exported: With its checksums verified.
        name: Of the registered model, which is made if it is new.
        registry: Address of the registry (default: as the environment names it).
        alias: To be moved to the new version.
        scores: What ``landcover test`` wrote to ``scores.json``.

    Returns:
        The address of the version.

    Raises:
        LandcoverError: If MLflow is missing, or the registry cannot be reached or refuses.
    """
    check_name(name)
    if alias is not None:
        check_alias(alias)
    where = find_registry(registry)
    client = connect(where)
    with told(where):
        run = client.create_run(_experiment(client, where), run_name=name)
        try:
            version = _log(client, run.info, exported, name, scores)
        except BaseException:
            client.set_terminated(run.info.run_id, 'FAILED')
            raise
        client.set_terminated(run.info.run_id)
        if alias is not None:
            client.set_registered_model_alias(name, alias, str(version))
    return ModelAddress(name, version=version)


def _log(client: Any, run: Any, exported: ExportedModel, name: str, scores: Mapping[str, Any] | None) -> int:
    """Files, settings and scores into the run; a version of the model that points at them; returns its number."""
    size = sum(entry['bytes'] for entry in exported.facts['files'].values())
    log.info('sending %.1f MB', size / 1e6)
    client.log_artifacts(run.run_id, str(exported.folder), FOLDER)
    for key, text in settings_of(exported.facts).items():
        client.log_param(run.run_id, key, text)
    for key, value in ({} if scores is None else metrics_of(scores)).items():
        client.log_metric(run.run_id, key, value)
    _make_model(client, name)
    made = client.create_model_version(
        name,
        f'{run.artifact_uri}/{FOLDER}',
        run.run_id,
        tags={DIGEST: sha256(exported.folder / MANIFEST)},
        description=(exported.folder / CARD).read_text(encoding='utf-8'),
    )
    return int(made.version)


def _experiment(client: Any, registry: str) -> str:
    """The experiment that collects registered models; beside the file, where the registry is one."""
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return str(found.experiment_id)
    place = None
    if registry.startswith('sqlite:///'):  # MLflow would take the folder of the process
        place = (Path(registry.removeprefix('sqlite:///')).resolve().parent / 'mlartifacts').as_uri()
    return str(client.create_experiment(EXPERIMENT, artifact_location=place))


def _make_model(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != _PRESENT:
            raise
