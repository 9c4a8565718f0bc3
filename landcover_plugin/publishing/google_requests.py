"""What Google Cloud is asked for, as plain JSON: made, shown and tested without its client.

Bodies are written as the REST interface of Vertex AI (v1) and Cloud Storage (v1) document them.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..errors import LandcoverError

#: Machines with A100 devices, and what Vertex AI calls these. A machine has as many as its name says.
DEVICES = {'highgpu': 'NVIDIA_TESLA_A100', 'ultragpu': 'NVIDIA_A100_80GB'}
MACHINES = tuple(f'a2-{kind}-{count}g' for kind in DEVICES for count in (1, 2, 4, 8))


@dataclass(frozen=True)
class Place:
    """Project, region and bucket of all requests.

    Attributes:
        project: Identifier of the project.
        region: In which jobs run and models lie; the bucket should lie there too.
        bucket: ``gs://BUCKET`` or ``gs://BUCKET/FOLDER``.

    Examples:
        >>> place = Place('land-cover', 'europe-west4', 'gs://land/cover')
        >>> place.parent, place.uri('a', 'b'), mounted(place.uri('a'))
        ('projects/land-cover/locations/europe-west4', 'gs://land/cover/a/b', '/gcs/land/cover/a')
    """

    project: str
    region: str
    bucket: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r'[a-z][a-z0-9-]{4,28}[a-z0-9]', self.project):
            raise LandcoverError(
                f'a project is named by 6 to 30 lower-case letters, digits and "-", got {self.project!r}'
            )
        if not re.fullmatch(r'[a-z]+-[a-z]+\d+', self.region):
            raise LandcoverError(f'{self.region!r} is no region: expected a name such as europe-west4')
        if not re.fullmatch(r'gs://[a-z0-9][a-z0-9._-]{1,61}[a-z0-9](/[\w.-]+)*', self.bucket):
            raise LandcoverError(f'{self.bucket!r} is no bucket: expected gs://BUCKET or gs://BUCKET/FOLDER')

    @property
    def parent(self) -> str:
        """Of jobs and models."""
        return f'projects/{self.project}/locations/{self.region}'

    @property
    def endpoint(self) -> str:
        """Host of Vertex AI in the region."""
        return f'{self.region}-aiplatform.googleapis.com'

    def uri(self, *parts: str) -> str:
        """Address of an object below the folder of the bucket."""
        return '/'.join((self.bucket, *parts))

    def call(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """A request to Vertex AI."""
        return {'method': 'POST', 'url': f'https://{self.endpoint}/v1/{path}', 'body': dict(body)}


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and name of an object.

    Examples:
        >>> split_uri('gs://land/cover/a.yaml')
        ('land', 'cover/a.yaml')
    """
    bucket, _, name = uri.removeprefix('gs://').partition('/')
    return bucket, name


def mounted(uri: str) -> str:
    """Where a job finds a ``gs://`` address: Vertex AI mounts buckets below ``/gcs``."""
    return f'/gcs/{uri.removeprefix("gs://")}'


def upload(uri: str, *, text: str | None = None, file: Path | None = None) -> dict[str, Any]:
    """The upload of a text or of a file."""
    bucket, name = split_uri(uri)
    url = f'https://storage.googleapis.com/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(name, safe="")}'
    return {'method': 'POST', 'url': url, **({'body': text} if file is None else {'file': str(file)})}


def check_identifier(name: str) -> str:
    """A name that Vertex AI takes as identifier and label.

    Raises:
        LandcoverError: If it does not.

    Examples:
        >>> check_identifier('catalonia-unet')
        'catalonia-unet'
    """
    if not re.fullmatch(r'[a-z][a-z0-9_-]{0,62}', name):
        raise LandcoverError(
            f'a name on Google Cloud begins with a lower-case letter, followed by up to 62 of a-z, 0-9, "-" and "_", '
            f'got {name!r}; give another by --name'
        )
    return name


def custom_job(
    place: Place, *, name: str, image: str, arguments: Sequence[str], machine: str, hours: float, account: str | None
) -> dict[str, Any]:
    """A ``CustomJob``: one machine with A100 devices that runs the image with the arguments of ``landcover``.

    Args:
        place: Project, region and bucket.
        name: Of the job, and of its folder in the bucket.
        image: Container image, as the Dockerfile of this project makes it; its entry point is ``landcover``.
        arguments: Of ``landcover``.
        machine: One of :data:`MACHINES`.
        hours: After which the job is stopped.
        account: Service account that the job runs as (default: that of the project).

    Raises:
        LandcoverError: If the machine is none of these, or the time is not positive.
    """
    count = devices_of(machine)
    if not 0 < hours <= 168:
        raise LandcoverError(f'a job runs for more than 0 and at most 168 hours (7 days), got {hours:g}')
    kind = machine.split('-')[1]
    pool = {
        'machineSpec': {'machineType': machine, 'acceleratorType': DEVICES[kind], 'acceleratorCount': count},
        'replicaCount': '1',
        'diskSpec': {'bootDiskType': 'pd-ssd', 'bootDiskSizeGb': 200},
        'containerSpec': {'imageUri': image, 'args': list(arguments)},
    }
    spec: dict[str, Any] = {
        'workerPoolSpecs': [pool],
        'scheduling': {'timeout': f'{round(hours * 3600)}s', 'restartJobOnWorkerRestart': False},
        'baseOutputDirectory': {'outputUriPrefix': place.uri(name)},
    }
    if account is not None:
        spec['serviceAccount'] = account
    return {'displayName': name, 'jobSpec': spec, 'labels': {'software': 'landcover'}}


def devices_of(machine: str) -> int:
    """How many devices a machine has.

    Raises:
        LandcoverError: If it is none of :data:`MACHINES`.

    Examples:
        >>> devices_of('a2-highgpu-4g')
        4
    """
    if machine not in MACHINES:
        raise LandcoverError(f'{machine} is no machine with A100 devices: choose one of {", ".join(MACHINES)}')
    return int(machine.rpartition('-')[2].removesuffix('g'))


def model(
    facts: Mapping[str, Any],
    *,
    name: str,
    uri: str,
    image: str,
    card: str,
    alias: str | None,
    settings: Mapping[str, str],
) -> dict[str, Any]:
    """A ``Model`` of the registry of Vertex AI.

    Args:
        facts: What ``model.json`` holds.
        name: Shown in the registry.
        uri: Folder of the exported model in the bucket.
        image: Container image that can read the model; the registry asks for one.
        card: Model card.
        alias: Of this version.
        settings: Network and data in short, for the description of the version.
    """
    network = facts['network']
    labels = {'software': 'landcover', 'network': network['model'], 'backbone': network['backbone']}
    return {
        'displayName': name,
        'description': card,
        'versionDescription': '; '.join(f'{key}: {text}' for key, text in settings.items()),
        'artifactUri': uri,
        'containerSpec': {'imageUri': image},
        'labels': {key: _label(str(text)) for key, text in labels.items()},
        **({'versionAliases': [alias]} if alias else {}),
    }


def evaluation(metrics: Mapping[str, float], schema: str) -> dict[str, Any]:
    """A ``ModelEvaluation`` with the scores of ``landcover test``.

    Args:
        metrics: Numbers by name.
        schema: Address of the schema of the numbers, see :func:`metrics_schema`.
    """
    return {'displayName': 'landcover test', 'metricsSchemaUri': schema, 'metrics': dict(metrics)}


def metrics_schema(metrics: Mapping[str, float]) -> str:
    """The schema of scores as an OpenAPI 3.0.2 object, which Vertex AI wants in the bucket."""
    properties = ''.join(f'  {_quoted(name)}:\n    type: number\n' for name in metrics)
    return f'title: LandcoverScores\ntype: object\nproperties:\n{properties}'


def file_uploads(folder: Path, names: Sequence[str], uri: str) -> Iterator[dict[str, Any]]:
    """The uploads of the files of an exported model."""
    for name in names:
        yield upload(f'{uri}/{name}', file=folder / name)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _label(text: str) -> str:
    return re.sub(r'[^a-z0-9_-]', '-', text.lower())[:63]
