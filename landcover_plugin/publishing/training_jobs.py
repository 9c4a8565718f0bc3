"""A training on Google Cloud: which requests it takes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..errors import LandcoverError
from .google_requests import Place, check_identifier, custom_job, devices_of, mounted, upload


def training_requests(
    place: Place,
    configs: Sequence[Path],
    *,
    name: str,
    image: str,
    machine: str,
    hours: float = 24,
    data: str | None = None,
    account: str | None = None,
    options: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """The uploads of the YAML files, then the job that trains with them.

    The job reads and writes the bucket where Vertex AI mounts it; runs and checkpoints go to ``BUCKET/NAME/runs``.

    Args:
        place: Project, region and bucket.
        configs: YAML files of ``landcover fit``, in their order.
        name: Of the job.
        image: Container image of this project.
        machine: One of :data:`~landcover_plugin.publishing.google_requests.MACHINES`.
        hours: After which the job is stopped.
        data: ``gs://`` folder of the rasters (default: as the YAML says).
        account: Service account.
        options: Further options of ``landcover fit``, which win over all others.

    Raises:
        LandcoverError: If a file is no YAML of a training, or a name cannot be used.
    """
    check_identifier(name)
    if data is not None and not data.startswith('gs://'):
        raise LandcoverError(f'{data} is not in a bucket: the job cannot see local files, copy them to gs://BUCKET/…')
    uris = [place.uri(name, f'{number}-{path.name}') for number, path in enumerate(configs, start=1)]
    arguments = ['fit', *(f'--config={mounted(uri)}' for uri in uris)]
    arguments += [f'--data.root={mounted(data)}'] if data else []
    arguments += [f'--trainer.default_root_dir={mounted(place.uri(name, "runs"))}']
    arguments += ['--trainer.accelerator=gpu', f'--trainer.devices={devices_of(machine)}', *options]
    job = custom_job(place, name=name, image=image, arguments=arguments, machine=machine, hours=hours, account=account)
    uploads = [upload(uri, text=_read(path)) for uri, path in zip(uris, configs, strict=True)]
    return [*uploads, place.call(f'{place.parent}/customJobs', job)]


def _read(path: Path) -> str:
    try:
        text = path.read_text(encoding='utf-8')
        content = yaml.safe_load(text)
    except OSError as error:
        raise LandcoverError(f'{path} cannot be read ({error.strerror}); name the YAML of a training') from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise LandcoverError(f'{path} cannot be read as YAML: {" ".join(str(error).split())}') from error
    if not isinstance(content, Mapping):
        raise LandcoverError(f'{path} is no YAML of landcover fit: it holds no settings')
    return text
