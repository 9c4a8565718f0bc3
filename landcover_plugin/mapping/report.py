"""The report beside a map: from what it was made, how long that took, and what it holds."""

import json
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..grid import PixelGrid
from ..rasters.identity import sha256
from ..rasters.pixel_size import HECTARE, projected_pixel_area
from .maps import MapJob, Tally


def report_of(
    job: MapJob, plan: Mapping[str, Any], tags: Mapping[str, str], figures: Mapping[str, Any], tally: Tally
) -> dict[str, Any]:
    """All that a reader of a map needs to know, as JSON.

    Args:
        job: The map, joined but not yet published.
        plan: What decided it.
        tags: Where it comes from.
        figures: Of this run of the command.
        tally: What its strips add up to.
    """
    grid = job.folder.grid
    hectares = hectares_of_pixel(grid)
    mapped = max(tally.mapped, 1)
    classes = [
        {
            'code': code,
            'name': job.legend[code].name,
            'pixels': tally.counts[code],
            'share': tally.counts[code] / mapped,
            **({} if hectares is None else {'hectares': round(tally.counts[code] * hectares, 2)}),
        }
        for code in job.legend.codes
    ]
    folder = job.folder
    made = [folder.folder / path.name for path in folder.paths.values()]
    return {
        'map': folder.target.name,
        'created': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()),
        'grid': {
            'crs': grid.crs.to_string(),
            'transform': list(grid.transform)[:6],
            'bounds': list(grid.bounds()),
            'shape': [grid.height, grid.width],
        },
        'pixels': {'all': grid.height * grid.width, 'wanted': tally.wanted, 'mapped': tally.mapped},
        'windows': {'run': tally.run, 'skipped': tally.skipped},
        'classes': classes,
        'holes': tally.holes,
        'run': dict(figures),
        'provenance': dict(tags),
        'settings': dict(plan),
        'machine': {'system': platform.platform(), 'processors': os.cpu_count()},
        'files': {path.name: {'sha256': sha256(path), 'bytes': path.stat().st_size} for path in made},
    }


def write_report(path: Path, report: Mapping[str, Any]) -> None:
    """Write it as JSON."""
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding='utf-8')


def hectares_of_pixel(grid: PixelGrid) -> float | None:
    """Area of a pixel of a projected grid; None on degrees."""
    if not grid.crs.is_projected:
        return None
    return projected_pixel_area(grid) / HECTARE
