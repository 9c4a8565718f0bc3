"""Gets a registered model into a local folder, of which every byte is what was registered."""

import json
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import LandcoverError
from ..mapping.export.exporting import MANIFEST
from ..mapping.exported import ExportedModel, open_export
from ..rasters.identity import sha256
from ..rasters.outputs import whole_folder
from ..rasters.stand_ins import user_cache
from .addresses import ModelAddress, check_file_name
from .mlflow_client import connect, find_registry, told
from .registering import DIGEST

log = logging.getLogger(__name__)


def fetch(address: str, registry: str | None = None, cache: Path | None = None) -> ExportedModel:
    """The model of an address, from the cache or downloaded; nothing of it is executed or unpickled.

    A tag of the version holds the checksum of ``model.json``, which holds those of all files; only these are taken.

    Args:
        address: ``models:/NAME/ALIAS`` or ``models:/NAME/VERSION``.
        registry: Address of the registry (default: as the environment names it).
        cache: Folder that keeps downloaded models (default: ``models`` in that of the user).

    Raises:
        LandcoverError: If there is no such model, it not by ``landcover register``, or it was changed since.
    """
    wanted = ModelAddress.parse(address)
    where = find_registry(registry)
    client = connect(where)
    with told(where):
        version = _version_of(client, wanted)
    digest = str(version.tags.get(DIGEST, ''))
    if not re.fullmatch('[0-9a-f]{64}', digest):
        raise LandcoverError(
            f'version {version.version} of {wanted.name} was not registered by landcover register: its tag {DIGEST} is '
            'missing; register the checkpoint again'
        )
    target = (user_cache() / 'models' if cache is None else cache) / digest
    exported = _kept(target, digest)
    if exported is None:
        with told(where):
            uri = client.get_model_version_download_uri(wanted.name, version.version)
        with whole_folder(target, overwrite=True) as staging:
            with told(where):
                _download(uri, where, staging, digest, wanted)
            exported = replace(open_export(staging), folder=target)
    log.info('%s is version %s, kept in %s', wanted, version.version, target)
    return exported


def _version_of(client: Any, wanted: ModelAddress) -> Any:
    """The version that an address means.

    Raises:
        LandcoverError: If there is none, with the names that there are.
    """
    from mlflow.exceptions import MlflowException

    try:
        if wanted.alias is None:
            return client.get_model_version(wanted.name, str(wanted.version))
        return client.get_model_version_by_alias(wanted.name, wanted.alias)
    except MlflowException as error:
        if error.error_code not in ('RESOURCE_DOES_NOT_EXIST', 'INVALID_PARAMETER_VALUE'):
            raise
        raise LandcoverError(f'the registry holds no {wanted}: {_offer(client, wanted.name)}') from error


def _offer(client: Any, name: str) -> str:
    models = {model.name: model for model in client.search_registered_models(max_results=20)}
    if name not in models:
        return f'its models are {", ".join(models)}' if models else 'it is empty; landcover register fills it'
    aliases = ', '.join(f'{alias} (version {version})' for alias, version in sorted(models[name].aliases.items()))
    return f'aliases of {name}: {aliases}' if aliases else f'{name} has no aliases, name a version by its number'


def _kept(target: Path, digest: str) -> ExportedModel | None:
    """The model in the cache, if it is there and whole."""
    if not target.is_dir():
        return None
    try:
        exported = open_export(target)
    except LandcoverError as error:
        log.warning('the kept copy is downloaded again: %s', error)
        return None
    return exported if sha256(target / MANIFEST) == digest else None


def _download(uri: str, registry: str, folder: Path, digest: str, wanted: ModelAddress) -> None:
    """Download the manifest, then, if it is the one that was registered, the files that it names."""
    _download_file(uri, MANIFEST, registry, folder)
    if sha256(folder / MANIFEST) != digest:
        raise LandcoverError(f'{MANIFEST} of {wanted} is not what was registered: register the checkpoint again')
    files = json.loads((folder / MANIFEST).read_text(encoding='utf-8'))['files']
    log.info('downloading %s, %.1f MB', wanted, sum(int(entry['bytes']) for entry in files.values()) / 1e6)
    for name in files:
        _download_file(uri, check_file_name(name), registry, folder)


def _download_file(uri: str, name: str, registry: str, folder: Path) -> None:
    from mlflow.artifacts import download_artifacts

    place = (folder / name).parent
    place.mkdir(parents=True, exist_ok=True)
    download_artifacts(artifact_uri=f'{uri.rstrip("/")}/{name}', dst_path=str(place), tracking_uri=registry)
