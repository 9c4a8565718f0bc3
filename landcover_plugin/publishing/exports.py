"""A model as a verified export, whether it comes as a checkpoint or as a folder."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from ..mapping.export.exporting import CHECKPOINT, check_scores, export, read_scores
from ..mapping.export.formats import Format
from ..mapping.exported import ExportedModel, is_export, open_export


def as_export(
    model: str | os.PathLike[str],
    folder: Path,
    *,
    formats: Sequence[Format] | None = None,
    report: str | os.PathLike[str] | None = None,
) -> ExportedModel:
    """An exported model, verified; a checkpoint is exported first.

    Args:
        model: Checkpoint of ``landcover fit``, or folder of ``landcover export``.
        folder: To be made for the export of a checkpoint.
        formats: Of a checkpoint's network (default: all that can be had).
        report: Report of ``landcover test``, for the card of a checkpoint.

    Raises:
        LandcoverError: If it can be neither read nor exported, or the report is that of another model.
    """
    if is_export(model):
        exported = open_export(model)
        if report is not None:
            digests = {exported.facts['checkpoint']['sha256'], exported.facts['files'][CHECKPOINT]['sha256']}
            check_scores(read_scores(report), digests, report=report, model=model)
        return exported
    logging.getLogger('torch').setLevel(logging.ERROR)
    export(model, folder, formats=formats, report=report)
    return open_export(folder)
