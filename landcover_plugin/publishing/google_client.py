"""Sends the requests of :mod:`google_requests` by Google's client. Not run on the real service by the tests."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ..errors import LandcoverError
from .google_requests import Place

log = logging.getLogger(__name__)


class GoogleCloud:
    """Vertex AI and the buckets of a project, with the credentials that Google's client finds.

    Args:
        place: Project, region and bucket.

    Raises:
        LandcoverError: If the client is not installed, or finds no credentials.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        try:
            from google.cloud import aiplatform_v1, storage
        except ImportError as error:
            raise LandcoverError(
                f"Google's client is not installed ({error.name} is missing): pip install 'landcover-plugin[google]'; "
                '--dry-run shows the requests without it'
            ) from error
        self._types: Any = aiplatform_v1
        with _told():
            self._options = {'api_endpoint': place.endpoint}
            self._storage = storage.Client(project=place.project)

    def send(self, upload: Mapping[str, Any]) -> None:
        """Send a text or file to its bucket; an object appears when it is whole."""
        url = urlsplit(upload['url'])
        (name,) = parse_qs(url.query)['name']
        blob = self._storage.bucket(url.path.split('/')[-2]).blob(name)
        with _told():
            if 'file' in upload:
                log.info('sending %s', Path(upload['file']).name)
                blob.upload_from_filename(upload['file'], checksum='crc32c')
            else:
                blob.upload_from_string(upload['body'], content_type='application/yaml', checksum='crc32c')

    def create_job(self, body: Mapping[str, Any]) -> str:
        """Submit a custom training job; returns its resource name."""
        job = self._types.CustomJob.from_json(json.dumps(body))
        with _told():
            client = self._types.JobServiceClient(client_options=self._options)
            return str(client.create_custom_job(parent=self.place.parent, custom_job=job).name)

    def create_model(self, name: str, first: Mapping[str, Any], later: Mapping[str, Any]) -> str:
        """Put a model into the registry; returns the resource name of its version.

        Args:
            name: Resource name of the model.
            first: Request if there is no such model yet.
            later: Request for a further version.
        """
        from google.api_core.exceptions import NotFound

        with _told():
            client = self._types.ModelServiceClient(client_options=self._options)
            try:
                client.get_model(name=name)
                body = later
            except NotFound:
                body = first
            request = self._types.UploadModelRequest.from_json(json.dumps({'parent': self.place.parent, **body}))
            answer = client.upload_model(request=request).result()
        return f'{answer.model}@{answer.model_version_id}'

    def import_evaluation(self, model: str, body: Mapping[str, Any]) -> None:
        """Add scores to a version of a model."""
        evaluation = self._types.ModelEvaluation.from_json(json.dumps(body))
        with _told():
            client = self._types.ModelServiceClient(client_options=self._options)
            client.import_model_evaluation(parent=model, model_evaluation=evaluation)


@contextmanager
def _told() -> Iterator[None]:
    """Errors of Google's client as one sentence.

    Raises:
        LandcoverError: In the place of one of them.
    """
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except GoogleAuthError as error:
        raise LandcoverError(
            f'Google Cloud has no credentials to go by ({_first_line(error)}): run gcloud auth application-default '
            'login, or set GOOGLE_APPLICATION_CREDENTIALS'
        ) from error
    except (GoogleAPIError, OSError) as error:
        raise LandcoverError(f'Google Cloud refuses: {_first_line(error)}') from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip('.')
