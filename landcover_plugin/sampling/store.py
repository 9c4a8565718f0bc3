"""The training store: what it is, which sources it was made from, and whether they are still the same."""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import LandcoverError
from ..rasters.finding import STORE_MANIFEST
from ..rasters.identity import identity
from ..rasters.labels import code_weights
from ..rasters.landcover import LabelRasters
from ..rasters.mosaics import Mosaics
from ..rasters.opening import address
from ..rasters.remote import find, is_remote, joined, listing, read
from ..rasters.stand_ins import local_copy
from .inventory import Inventory
from .inventory_table import read_table

log = logging.getLogger(__name__)

#: Written into the manifest; a store of another version is not used.
VERSION = 1

#: Where a store lies unless told otherwise, below the folder of the rasters.
STORE_FOLDER = Path('.landcover', 'store')

#: Its table of the ground.
INVENTORY = 'inventory.parquet'

#: What the manifest must tell.
_KEYS = ('store', 'images', 'labels', 'sources', 'nodata', 'band_order', 'label_settings', 'inventory')


@dataclass(frozen=True)
class Store:
    """A store that was finished.

    Args:
        folder: Where it lies.
        manifest: What ``store.json`` says.
    """

    folder: Path | str
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path | str) -> 'Store | None':
        """The store in a folder, here or in a bucket, or None where there is none.

        Raises:
            LandcoverError: If it is damaged, incomplete or of another version.
        """
        path = joined(folder, STORE_MANIFEST)
        if (text := _manifest_text(path)) is None:
            return None
        again = f'make it again (landcover prepare --overwrite) or delete {folder}'
        try:
            manifest = json.loads(text)
            version = manifest['version']
            files = {str(name): int(size) for name, size in manifest['files'].items()}
            missing = [key for key in _KEYS if key not in manifest]
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise LandcoverError(f'{path} is damaged ({type(e).__name__}): {again}') from e
        if version != VERSION:
            raise LandcoverError(f'{path} is of version {version}, this program reads {VERSION}: {again}')
        if missing:
            raise LandcoverError(f'{path} is damaged (it tells no {", ".join(missing)}): {again}')
        sizes = _sizes(folder, files)
        for name, size in files.items():
            if sizes.get(name) != size:
                raise LandcoverError(f'{joined(folder, name)} is missing or not of its {size:,} bytes: {again}')
        return cls(folder if is_remote(folder) else Path(folder), manifest)

    @property
    def layout(self) -> str:
        """``fast``, ``compact`` or ``labels``: what the images are."""
        return str(self.manifest['store'])

    @property
    def images(self) -> list[str]:
        """Its mosaics; none in a store of labels alone."""
        return [joined(self.folder, name) for name in self.manifest['images']]

    @property
    def labels(self) -> list[str]:
        """Its label rasters."""
        return [joined(self.folder, name) for name in self.manifest['labels']]

    @property
    def has_shares(self) -> bool:
        """Whether its label rasters know the share of each class in each pixel."""
        return bool(self.manifest['shares'])

    @property
    def unknown(self) -> int:
        """Label pixels of the sources with values outside the legend."""
        return int(self.manifest['inventory']['unknown'])

    def image_mismatch(self, images: Mosaics) -> str | None:
        """Why its images cannot stand for these mosaics, or None where they can."""
        if not self.images:
            return 'it holds labels alone'
        if changed := _changed(self.manifest['sources']['images'], images.files):
            return changed
        now = image_settings(images)
        names = [words for key, words in _IMAGE_SETTINGS.items() if self.manifest[key] != now[key]]
        return f'{" and ".join(names)} differ' if names else None

    def label_mismatch(self, labels: LabelRasters) -> str | None:
        """Why its labels cannot stand for these, or None where they can."""
        if changed := _changed(self.manifest['sources']['labels'], labels.files):
            return changed
        wanted = label_settings(labels)
        known = self.manifest['label_settings']
        names = [name for name, value in wanted.items() if known.get(name) != value]
        if not names:
            return None
        told = f' (it holds {known.get("aggregation")} labels, this run asks for {labels.aggregation})'
        return f'{" and ".join(names)} differ{told}: give --data.{names[0]} as for prepare, or prepare again'

    def inventory(self, images: Mosaics, cell: int) -> Inventory | None:
        """The inventory that was taken then, in cells of a size, or None where it does not fit.

        Args:
            images: The store's own mosaics.
            cell: Edge of a cell in pixels.
        """
        known = self.manifest['inventory']
        fits = known['seasons'] == images.seasons and known['bands'] == images.bands and cell % known['cell'] == 0
        if not fits:
            return None
        path = joined(self.folder, INVENTORY)
        try:
            taken = read_table(local_copy(path), images.grid, known['cell'], known['looks'], images.channels)
        except (OSError, ValueError, KeyError) as e:  # of its right size, yet damaged
            log.warning('%s is damaged (%s): the ground is counted again', path, type(e).__name__)
            return None
        return replace(taken.coarsened(cell // known['cell']), unknown=self.unknown)


def _manifest_text(path: str) -> str | None:
    """What a manifest says, None where there is none."""
    if is_remote(path):
        return read(path).decode(errors='replace') if find(path) else None
    try:
        return Path(path).read_text(errors='replace') if Path(path).is_file() else None
    except OSError as e:
        raise LandcoverError(f'{path} cannot be read ({e.strerror}): ask for the right to read it') from e


def _sizes(folder: Path | str, names: Iterable[str]) -> dict[str, int]:
    """Bytes of those files of a store that are there."""
    if is_remote(folder):
        top = f'{address(folder).rstrip("/")}/'
        return {stored.address.removeprefix(top): stored.size for stored in listing(folder)}
    found = {name: Path(folder, name) for name in names}
    return {name: file.stat().st_size for name, file in found.items() if file.is_file()}


def _changed(known: Sequence[Mapping[str, Any]], files: Sequence[str]) -> str | None:
    """Which sources are not what they were; their folder may have moved."""
    before, now = [source['name'] for source in known], [Path(file).name for file in files]
    if before != now:
        new, gone = (
            sorted((Counter(now) - Counter(before)).elements()),
            sorted((Counter(before) - Counter(now)).elements()),
        )
        told = [f'{_few(names)} {verb}' for names, verb in ((new, 'came'), (gone, 'went')) if names]
        return f'since then {" and ".join(told)}' if told else 'the order of its sources differs'
    for source, file in zip(known, files, strict=True):
        if source != (found := identity(file)):
            same = {k: v for k, v in source.items() if k != 'modified'} == {
                k: v for k, v in found.items() if k != 'modified'
            }
            copied = ' (only its time; copies keep it with cp -p or rsync -t)' if same else ''
            return f'{address(file)} has changed since{copied}: run landcover prepare --overwrite'
    return None


def _few(names: Sequence[str]) -> str:
    return ', '.join(names[:3]) + (f' and {len(names) - 3} more' if len(names) > 3 else '')


#: What decides the digital numbers, and how it is called in a sentence.
_IMAGE_SETTINGS = {'nodata': 'nodata', 'band_order': 'the order of the bands'}


def image_settings(images: Mosaics) -> dict[str, Any]:
    """What decides the digital numbers, as JSON holds it; nodata as text, since NaN equals nothing."""
    nodata = None if images.nodata is None else str(float(images.nodata))
    return {'nodata': nodata, 'band_order': list(images.all_bands)}


def label_settings(labels: LabelRasters) -> dict[str, Any]:
    """What decides the codes, as JSON holds it; what was told by the files and what was said alike."""
    weights = code_weights(labels.class_weights).tolist() if labels.aggregation == 'weighted' else None
    return {
        'aggregation': labels.aggregation,
        'source_legend': ['41' if labels.parents[file] else '12' for file in labels.files],
        'aggregation_weights': weights,
    }


def look_names(images: Mosaics) -> list[str]:
    """Names of the looks: the months, or all of them joined where they are stacked."""
    return images.dates if images.seasons == 'separate' else ['+'.join(images.dates)]
