"""The rounds: every check in turn, whatever the ones before it found."""

import itertools
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import rasterio
from rasterio.errors import RasterioError

from ..errors import LandcoverError
from ..rasters.landcover import LabelRasters
from ..rasters.mosaics import Mosaics
from ..rasters.reading import pixels_across
from . import alignment, classes, files, grids, layout, leakage, months, pyramids, radiometry, storage
from .examination import Examination, Settings
from .facts import Facts
from .findings import Finding
from .sample import (
    BUDGET,
    FEWEST_WINDOWS,
    MOST_WINDOWS,
    Sample,
    check_reading,
    spread_windows,
    take_sample,
    window_size,
)


@dataclass(frozen=True)
class Rasters:
    """What could be opened.

    Args:
        images: Mosaics on one grid, a look for each month.
        labels: Label rasters, if they can be used with them.
        images_of: Facts of the mosaics.
        labels_of: Facts of the label rasters.
        factor: Label pixels along a pixel of the mosaics, as near as may be.
    """

    images: Mosaics
    labels: LabelRasters | None
    images_of: Sequence[Facts]
    labels_of: Sequence[Facts]
    factor: int = 1


def examine(settings: Settings, *, progress: bool = False) -> Examination:
    """Look at the rasters from every side, in bounded time and memory.

    Args:
        settings: What to look at.
        progress: Show a progress bar on stderr.

    Raises:
        LandcoverError: If a setting is out of range; whatever is wrong with the data is a finding.
    """
    settings.check()
    started = time.monotonic()
    found = Examination(settings)
    with _quiet():
        survey = found.attempt(files.FILES, files.survey_files, settings.root)
        if survey is not None:
            found.findings += survey.findings
            found.attempt('reading', _examine_files, found, survey, progress)
    found.seconds = time.monotonic() - started
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """GDAL's complaints about damaged files become findings; they need not be told twice."""
    log = logging.getLogger('rasterio')
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with rasterio.Env(CPL_LOG_ERRORS='OFF'):
            yield
    finally:
        log.setLevel(level)


def _examine_files(found: Examination, survey: files.Survey, progress: bool) -> None:
    """Everything behind the first look at the files."""
    images_of, other_images = grids.common_part(survey.images)
    labels_of, other_labels = grids.common_part(survey.labels)
    found.run('grid', grids.check_one_grid, images_of, other_images)
    found.run('grid', grids.check_one_grid, labels_of, other_labels)
    images = _open_images(found, images_of) if images_of else None
    labels = _open_labels(found, labels_of) if labels_of else None
    if images is None:
        if labels is not None:
            found.run('legend', classes.check_legend, labels)
            found.run('pyramids', pyramids.check_pyramids, labels_of, labels, 10)
        return
    rasters = _fit_together(found, images, labels, images_of, labels_of)
    found.run('bands', radiometry.check_bands, images_of, images.bands, bool(found.settings.band_order))
    _examine_pixels(found, rasters, progress)
    found.run('pyramids', pyramids.check_pyramids, [*images_of, *labels_of], rasters.labels, rasters.factor)
    _examine_use(found, rasters)


def _open_images(found: Examination, usable: Sequence[Facts]) -> Mosaics | None:
    """The mosaics as training would open them, or after a finding in the nearest way that works."""
    s, paths = found.settings, [f.path for f in usable]
    options = {'bands': s.bands, 'band_order': s.band_order, 'nodata': s.nodata}
    images = found.attempt('bands', Mosaics, paths, **options)
    numbered = [f'band {i + 1}' for i in range(usable[0].bands)]
    for some, names in itertools.product((paths, paths[:1]), (None, numbered)):
        if images is not None:
            break
        try:
            images = Mosaics(some, band_order=names)
        except (LandcoverError, RasterioError):
            continue
    return images


def _open_labels(found: Examination, usable: Sequence[Facts]) -> LabelRasters | None:
    paths = [f.path for f in usable]
    return found.attempt('legend', LabelRasters, paths, source_legend=found.settings.source_legend)


def _fit_together(
    found: Examination,
    images: Mosaics,
    labels: LabelRasters | None,
    images_of: Sequence[Facts],
    labels_of: Sequence[Facts],
) -> Rasters:
    """Check the grids; labels to which no transformation leads are left out from here on."""
    found.run('grid', grids.check_image_grid, images.grid)
    found.run('overlap', grids.check_duplicates, images_of)
    across = found.attempt('grid', pixels_across, labels.grid, images.grid) if labels is not None else None
    if labels is None or across is None:
        return Rasters(images, None, images_of, labels_of)
    found.run('grid', grids.check_label_grid, images.grid, labels.grid)
    found.run('overlap', grids.check_overlap, images.grid, labels.grid)
    return Rasters(images, labels, images_of, labels_of, max(round(across), 1))


def _examine_pixels(found: Examination, rasters: Rasters, progress: bool) -> None:
    """The checks that look at pixels, all on one sample."""
    images, size = rasters.images, window_size(rasters.images.grid, rasters.factor)
    cost = sum(layout.window_cost(f, size) for f in rasters.images_of)
    cost += sum(layout.window_cost(f, size * rasters.factor) for f in rasters.labels_of)
    count = int(min(max(BUDGET / max(cost, 1), FEWEST_WINDOWS), MOST_WINDOWS))
    windows = spread_windows(images.grid, size, count)
    sample: Sample | None = found.attempt('reading', take_sample, images, rasters.labels, windows, progress=progress)
    if sample is None:
        return
    found.share = sample.share
    found.run('reading', check_reading, sample, len(windows))
    _examine_numbers(found, rasters, sample)
    if rasters.labels is not None:
        ignored = found.settings.unknown_labels == 'ignore'
        found.run('legend', classes.check_legend, rasters.labels)
        found.run('legend', classes.check_values, rasters.labels, sample, ignored)
        found.run('classes', classes.check_classes, sample)
        found.run('shift', alignment.check_shift, sample, rasters.labels_of)
        found.table = classes.class_table(sample)


def _examine_numbers(found: Examination, rasters: Rasters, sample: Sample) -> None:
    """The checks of digital numbers."""
    s, images, images_of = found.settings, rasters.images, rasters.images_of
    dtypes = [f.dtype for f in images_of]
    found.run('bands', radiometry.check_order, sample)
    found.run('scale', radiometry.check_scale, sample, dtypes, s.reflectance_scale, s.reflectance_offset)
    nodata = [images.nodata_of(images.files_of(date)[0]) for date in images.dates]
    declared = s.nodata is not None or all(f.nodata is not None for f in images_of)
    found.run('nodata', months.check_nodata, sample, nodata, declared)
    suggested = {k: v for f in found.findings for k, v in f.data.get('suggested', {}).items()}
    scale, offset = ((asdict(s) | suggested)[k] for k in ('reflectance_scale', 'reflectance_offset'))
    found.run('sky', months.check_sky, sample, scale, offset)
    found.run('seasons', months.check_seasons, sample)
    if s.seasons == 'stack':
        found.run('seasons', months.check_stack, sample)


def _examine_use(found: Examination, rasters: Rasters) -> None:
    """What training would make of the rasters: speed, split, room."""
    s, images, labels = found.settings, rasters.images, rasters.labels
    took = found.attempt('layout', layout.time_patches, images, labels, s.patch_size)
    numbers = (s.patch_size, rasters.factor, len(images.bands), took)
    found.run('layout', layout.check_layout, rasters.images_of, rasters.labels_of, *numbers)
    if labels is not None and found.table:
        found.run('split', _check_split, s, images, labels)
    found.run('storage', storage.check_storage, Path(s.root), rasters.images_of, images, labels)


def _check_split(settings: Settings, images: Mosaics, labels: LabelRasters) -> Iterable[Finding]:
    if settings.seasons == 'stack':
        names = list(images.all_bands)
        images = Mosaics(images.files, bands=images.bands, band_order=names, seasons='stack', nodata=images.nodata)
    inventory = leakage.find_inventory(images, labels, settings.patch_size, Path(settings.root))
    return leakage.check_split(inventory, settings.patch_size)
