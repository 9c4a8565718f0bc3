"""Checks of files: found, named as expected, readable, whole, georeferenced."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import LandcoverError
from ..rasters.finding import find_rasters, gdal_paths
from ..rasters.landcover import LABEL_EXAMPLE, LABEL_NAME, year
from ..rasters.mosaics import MOSAIC_EXAMPLE, MOSAIC_NAME, month
from .facts import Facts, read_facts
from .findings import Finding, told_by

#: Name of the check.
FILES = 'files'


@dataclass(frozen=True)
class Survey:
    """The files that can be used, and what was found on the way to them."""

    images: tuple[Facts, ...]
    labels: tuple[Facts, ...]
    findings: tuple[Finding, ...]


def survey_files(root: str) -> Survey:
    """Find the rasters below a folder and read what they say about themselves."""
    images, found_images = _read_all(root, MOSAIC_NAME, MOSAIC_EXAMPLE)
    labels, found_labels = _read_all(root, LABEL_NAME, LABEL_EXAMPLE)
    findings = [*found_images]
    findings += [f for f in found_labels if f not in findings]  # a folder that is missing is missing once
    if not images or not labels:
        kinds = [kind for kind, of_kind in (('mosaics', images), ('labels', labels)) if not of_kind]
        findings += _misnamed(root, ' and '.join(kinds))
    if images and labels and not findings:
        findings.append(_summary(images, labels))
    findings += _years(images, labels)
    return Survey(images, labels, tuple(findings))


def _read_all(root: str, pattern: str, example: str) -> tuple[tuple[Facts, ...], list[Finding]]:
    """Facts of the usable files of a kind, and an error for each other one."""
    try:
        paths = find_rasters(gdal_paths(root), pattern, example)
    except LandcoverError as e:
        return (), [told_by(FILES, e)]
    facts, findings = [], []
    for path in paths:
        try:
            facts.append(read_facts(path))
        except LandcoverError as e:
            findings.append(told_by(FILES, e))
    return tuple(facts), findings


def _misnamed(root: str, kind: str) -> Iterator[Finding]:
    """A note of the rasters that carry other names, where a kind is missing."""
    if not Path(root).is_dir():
        return
    every = sorted(p for p in Path(root).rglob('*') if p.suffix.lower() in ('.tif', '.tiff', '.vrt', '.jp2'))
    others = [
        str(p.relative_to(root)) for p in every if not any(re.match(n, p.name) for n in (MOSAIC_NAME, LABEL_NAME))
    ]
    if others:
        named = ', '.join(others[:3]) + (f' and {len(others) - 3} more' if len(others) > 3 else '')
        yield Finding(
            FILES,
            'note',
            f'{named}: passed by, named neither like a mosaic nor like a label raster',
            f'if these are the {kind}, rename them like S2_CAT_201804_10m.tif (month) and LC_2018_1m.tif (year)',
            {'passed_by': others},
        )


def _summary(images: Sequence[Facts], labels: Sequence[Facts]) -> Finding:
    months = sorted({month(f.path) for f in images})
    years = sorted({y for f in labels if (y := year(f.path))})
    size = sum(f.file_bytes for f in (*images, *labels))
    sentence = (
        f'{len(images)} mosaic{"s" * (len(images) > 1)} ({", ".join(months)}), {len(labels)} label '
        f'raster{"s" * (len(labels) > 1)} ({", ".join(years)}), {size / 1e6:,.1f} MB'
    )
    return Finding(FILES, 'ok', sentence, data={'images': [f.path for f in images], 'labels': [f.path for f in labels]})


def _years(images: Sequence[Facts], labels: Sequence[Facts]) -> Iterator[Finding]:
    """A note where no label is of the year of a mosaic."""
    seen = {month(f.path)[:4] for f in images}
    labelled = {y for f in labels if (y := year(f.path))}
    if seen and labelled and not seen & labelled:
        yield Finding(
            FILES,
            'note',
            f'labels of {", ".join(sorted(labelled))} meet mosaics of {", ".join(sorted(seen))}: what was '
            'built, felled or flooded between counts as label noise',
            data={'label_years': sorted(labelled), 'image_years': sorted(seen)},
        )
