"""A model in the registry of Vertex AI: which requests it takes."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..mapping.export.exporting import CARD, MANIFEST
from ..mapping.exported import ExportedModel
from ..rasters.identity import sha256
from .google_requests import (
    Place,
    check_identifier,
    evaluation,
    file_uploads,
    metrics_schema,
    model,
    upload,
)
from .scores import metrics_of, settings_of


class Registration(NamedTuple):
    """The requests in their order.

    Attributes:
        uploads: Of the files, the manifest last.
        model: Resource name of the model.
        first: Request if there is no such model yet.
        later: Request for a further version.
        evaluation: Scores of the version, if there are any.
    """

    uploads: list[dict[str, Any]]
    model: str
    first: dict[str, Any]
    later: dict[str, Any]
    evaluation: dict[str, Any] | None

    def shown(self, place: Place) -> list[dict[str, Any]]:
        """All requests as JSON; of two that exclude each other, when which is sent."""
        upload_model = f'{place.parent}/models:upload'
        steps = [
            *self.uploads,
            {'method': 'GET', 'url': f'https://{place.endpoint}/v1/{self.model}'},
            {'when': 'there is no such model (404)', **place.call(upload_model, self.first)},
            {'when': 'the model exists: a further version', **place.call(upload_model, self.later)},
        ]
        if self.evaluation is not None:
            path = f'{self.model}@VERSION/evaluations:import'
            steps.append(place.call(path, {'modelEvaluation': self.evaluation}))
        return steps


def registration(
    place: Place,
    exported: ExportedModel,
    *,
    name: str,
    image: str,
    alias: str | None = None,
    scores: Mapping[str, Any] | None = None,
) -> Registration:
    """What puts an exported model with its card, checksums and scores into the registry of Vertex AI.

    Args:
        place: Project, region and bucket.
        exported: With its checksums verified.
        name: Identifier of the model.
        image: Container image of this project.
        alias: Of the version.
        scores: What ``landcover test`` wrote to ``scores.json``.

    Raises:
        LandcoverError: If the name cannot be used.
    """
    check_identifier(name)
    folder = place.uri('models', name, sha256(exported.folder / MANIFEST)[:16])
    uploads = list(file_uploads(exported.folder, [*exported.facts['files'], MANIFEST], folder))
    metrics = {} if scores is None else metrics_of(scores)
    scored = None
    if metrics:
        schema = f'{folder}/metrics_schema.yaml'
        uploads.append(upload(schema, text=metrics_schema(metrics)))
        scored = evaluation(metrics, schema)
    body = model(
        exported.facts,
        name=name,
        uri=folder,
        image=image,
        card=(exported.folder / CARD).read_text(encoding='utf-8'),
        alias=alias,
        settings=settings_of(exported.facts),
    )
    resource = f'{place.parent}/models/{name}'
    return Registration(
        uploads, resource, {'modelId': name, 'model': body}, {'parentModel': resource, 'model': body}, scored
    )
