"""From finished strips to maps under their names, with all that lies beside them."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import LandcoverError
from ..rasters.preview import write_preview
from ..rasters.qml import qml_path, write_qml
from ..sampling.runs import Strip
from .maps import MapJob, Tally
from .progress import duration
from .report import report_of, write_report
from .stac import item_path, write_stac

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Extras:
    """What is written beside the rasters of a map: report and QGIS style always, picture and STAC item if wanted."""

    png: bool = False
    stac: bool = True

    def paths(self, target: Path) -> list[Path]:
        """Their names beside a map."""
        picture = [target.with_suffix('.png')] if self.png else []
        return [target.with_suffix('.json'), qml_path(target), *picture, *([item_path(target)] if self.stac else [])]

    def add(self, job: MapJob, report: dict[str, Any]) -> None:
        """Make them in the folder of a map that is not yet published."""
        folder, target = job.folder.folder, job.folder.target
        path = folder / target.with_suffix('.json').name
        write_report(path, report)
        job.folder.add(path)
        job.folder.add(write_qml(folder / target.name, job.legend))
        if self.png:
            picture = folder / target.with_suffix('.png').name
            write_preview(picture, folder / target.name, job.legend, overwrite=True)
            job.folder.add(picture)
        if self.stac:
            job.folder.add(write_stac(folder / target.name))


@dataclass(frozen=True)
class Effort:
    """What one run of the command did, all processes together.

    Attributes:
        strips: What it computed.
        seconds: How long that took.
        processes: How many did it.
        trials: How the engine was chosen, in lines.
    """

    strips: Sequence[Strip]
    seconds: float
    processes: int
    trials: str

    @property
    def mpx(self) -> float:
        """Megapixels of the map that were computed."""
        return sum(s.window.height * s.window.width for s in self.strips) / 1e6

    def figures(self, number: int, job: MapJob, joining: float) -> dict[str, Any]:
        """What it did for one of several maps.

        Args:
            number: Of the map.
            job: The map.
            joining: Seconds for joining its strips.
        """
        pixels = sum(s.window.height * s.window.width for s in self.strips if s.map == number)
        return {
            'pixels': pixels,
            'pixels_of_earlier_runs': sum(s.height * s.width for s in job.strips) - pixels,
            'seconds': round(self.seconds, 3),
            'mpx_per_second': round(self.mpx / self.seconds, 4),
            'seconds_joining': round(joining, 3),
            'processes': self.processes,
            'engines': self.trials.splitlines(),
        }


def finish_maps(
    jobs: Mapping[int, MapJob], plans: Sequence[dict[str, Any]], tags: dict[str, str], effort: Effort, extras: Extras
) -> None:
    """Join the strips of maps, describe the maps and give the files their names; say what was written.

    A map of several in which nothing was measured is left out with a warning.

    Args:
        jobs: The maps by number, their strips whole.
        plans: Of all maps.
        tags: Provenance, for the rasters.
        effort: Of this run of the command.
        extras: What is written beside the rasters.

    Raises:
        LandcoverError: If nothing was measured in any of them.
    """
    tallies = {n: Tally.of(job) for n, job in jobs.items()}
    if jobs and not any(tally.mapped for tally in tallies.values()):
        for job in jobs.values():
            job.folder.remove()
        bounds = [job.region.grid.bounds(job.region.area) for job in jobs.values()]
        raise LandcoverError(
            f'no pixel of the area {bounds[0]} was measured: it is all nodata; '
            'choose another bbox, or check --data.nodata'
        )
    for number, job in jobs.items():
        tally = tallies[number]
        if not tally.mapped:
            log.warning('%s is not written: nothing was measured there', job.folder.target)
            job.folder.remove()
            continue
        begun = time.monotonic()
        job.join(tags)
        figures = effort.figures(number, job, time.monotonic() - begun)
        extras.add(job, report_of(job, plans[number], tags, figures, tally))
        job.folder.publish()
        _tell(job, tally)
    if effort.strips:
        log.info(
            'mapped %.3g Mpx in %s (%.3g Mpx/s)', effort.mpx, duration(effort.seconds), effort.mpx / effort.seconds
        )


def _tell(job: MapJob, tally: Tally) -> None:
    area = job.region.area
    for kind, target in job.folder.paths.items():
        log.info('%s: %s (%d x %d px)', kind, target, area.width, area.height)
    if tally.mapped < tally.wanted:
        log.info('%.1f %% of the area was not measured and is no data', 100 * (1 - tally.mapped / tally.wanted))
    if tally.holes:
        log.warning(
            '%d blocks could not be read and may be holes in %s: %s lists them',
            len(tally.holes), job.folder.target.name, job.folder.target.with_suffix('.json')
        )  # fmt: skip
