"""The rasters of an experiment, opened once: those of a training store where one fits, else the sources."""

import logging
import os
from typing import Any

from ..datasets.icgc import ICGCLandCover
from ..datasets.sentinel2 import CataloniaSentinel2
from ..errors import LandcoverError
from ..legend import LEGEND, Legend
from ..rasters.landcover import year
from ..rasters.remote import joined
from ..sampling.store import STORE_FOLDER, Store

log = logging.getLogger(__name__)


class Sources:
    """Mosaics and labels, as the settings of a data module name them.

    Args:
        settings: Those of :class:`CataloniaDataModule`.
    """

    def __init__(self, settings: Any) -> None:
        self.settings = settings
        self.images: CataloniaSentinel2 | None = None  #: Once they are open.
        self.labels: ICGCLandCover | None = None  #: Once they are open.
        self.store: Store | None = None  #: Where the labels are read from, if not from the sources.
        self.trained_legend = LEGEND  #: Of the checkpoint, where there is one.

    @property
    def legend(self) -> Legend:
        """Names and colours of the classes: those of the label raster, or of the one that the checkpoint knew."""
        return self.trained_legend if self.labels is None else self.labels.legend

    def open_images(self) -> CataloniaSentinel2:
        """The mosaics, opened once: those of the training store where there is one that fits."""
        if self.images is None:
            self.images = self._images_in(self.settings.root)
            store = self._find_store()
            if store and store.images and self._fits('images', store, store.image_mismatch(self.images.mosaics)):
                self.images = self._images_in(store.images)
        return self.images

    def open_labels(self) -> ICGCLandCover:
        """The labels on the grid of the mosaics, opened once: those of the training store where they fit."""
        if self.labels is None:
            images = self.open_images()
            self.labels = self.labels_at_source()
            if store := self._find_store():
                why = store.label_mismatch(self.labels.rasters)
                if why is None and self.settings.purity == 'soft' and not store.has_shares:
                    why = 'it was prepared without class shares (landcover prepare --shares)'
                if self._fits('labels', store, why):
                    self.labels, self.store = self._labels_in(store.labels, source_legend='12'), store
            self.labels.crs, self.labels.res = images.crs, images.res
        return self.labels

    def labels_at_source(self) -> ICGCLandCover:
        """The labels as they came, also where a store holds them."""
        return self._labels_in(self.settings.root)

    def warn_of_years(self) -> None:
        """Say so where labels and images are not of the same year."""
        images, labels = self.open_images(), self.open_labels()
        years = {f[:4] for f in images.dates}
        named = {y for f in labels.files if (y := year(f))}
        if named and not named & years:
            log.warning('labels of %s are used with images of %s', ', '.join(sorted(named)), ', '.join(sorted(years)))

    def _images_in(self, paths: str | list[str]) -> CataloniaSentinel2:
        s = self.settings
        return CataloniaSentinel2(
            paths,
            bands=s.bands,
            band_order=s.band_order,
            seasons=s.seasons,
            reflectance_scale=s.reflectance_scale,
            reflectance_offset=s.reflectance_offset,
            nodata=s.nodata,
            raw=True,
        )

    def _labels_in(self, paths: str | list[str], **changed: Any) -> ICGCLandCover:
        s = self.settings
        given = {'source_legend': s.source_legend, 'aggregation': s.aggregation, **changed}
        return ICGCLandCover(paths, class_weights=s.aggregation_weights, timeless=True, **given)

    def _fits(self, kind: str, store: Store, why: str | None) -> bool:
        """Say whether images or labels are read from a store or, for a reason, from the sources.

        Raises:
            LandcoverError: If the settings name a store that does not fit.
        """
        if why is None:
            layout = f'{store.layout} ' if kind == 'images' else ''  # of labels it matters little
            log.info('%s are read from the %sstore %s', kind, layout, store.folder)
        elif self.settings.store is not None:
            raise LandcoverError(f'the store {store.folder} does not fit: {why}; --data.store none reads the sources')
        else:
            log.warning('%s are read from the sources, not from the store %s: %s', kind, store.folder, why)
        return why is None

    def _find_store(self) -> Store | None:
        """The training store to read from, if there is one.

        Raises:
            LandcoverError: If there is none where the settings name one.
        """
        named, root = self.settings.store, self.settings.root
        if named == 'none' or (named is None and not isinstance(root, str | os.PathLike)):
            return None
        if named is not None:
            if (store := Store.open(named)) is None:
                raise LandcoverError(
                    f'{named} holds no training store; make one with landcover prepare --output {named}'
                )
            return store
        try:
            return Store.open(joined(root, *STORE_FOLDER.parts))
        except LandcoverError as e:
            log.warning('the sources are read: %s', e)
            return None
