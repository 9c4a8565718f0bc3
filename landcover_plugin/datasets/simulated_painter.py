"""Any window of a simulated scene: ground, then light."""

import numpy as np
from numpy.typing import NDArray

from landcover_plugin.datasets import simulated_ground as ground
from landcover_plugin.datasets import simulated_light as light
from landcover_plugin.datasets import simulated_objects as objects
from landcover_plugin.datasets import simulated_spectra as spectra
from landcover_plugin.datasets.simulated_layout import Layout
from landcover_plugin.datasets.simulated_noise import BORDER, VIGOUR, WARP, fields
from landcover_plugin.legend import NODATA

# Side weight of the blur: bands that the sensor takes at 20 m are softer than those at 10 m.
_BLUR = np.array([0.12 if band in ('B02', 'B03', 'B04', 'B08') else 0.24 for band in spectra.BANDS], np.float32)


class Painter:
    """Computes any window of a planned scene."""

    def __init__(self, layout: Layout, months: tuple[str, ...], label_gsd: int, clouds: bool) -> None:
        self.layout = layout
        self.label_gsd = label_gsd
        self.clouds = clouds
        self.per_cell = light.IMAGE_GSD // label_gsd
        self.habits, self.codes = spectra.habits(), spectra.codes()
        self.recipes = np.stack([spectra.recipes(month) for month in months])
        self.materials = np.stack([spectra.materials(month) for month in months])

    def paint(self, row: int, col: int, rows: int, cols: int) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
        """Images ``(seasons, bands, rows, cols)`` and label of a window of image pixels.

        One more pixel on every side is computed for the blur.
        """
        x0, y0 = (col - 1) * 10.0, (row - 1) * 10.0
        xs = x0 + 10 * np.arange(cols + 3, dtype=np.float64)
        ys = y0 + 10 * np.arange(rows + 3, dtype=np.float64)
        rules, n = self.layout.rules, self.per_cell
        planes = fields(xs, ys, self.layout.size, rules.salt)
        frame = ground.Frame(x0, y0, float(self.label_gsd), n)
        kind, patch = self._ground(planes, frame)
        mixed = light.mix(
            kind, patch, planes[VIGOUR], frame, self.habits, self.recipes, self.materials, rules.salt + 80
        )
        light.shade(mixed, planes, rules.farmland, self.layout.relief)
        images = np.stack([self._expose(mixed[s], s, planes, row, col) for s in range(len(mixed))])
        label = self.codes[kind]
        label[ground.abroad(planes[BORDER], n, kind.shape)] = NODATA
        return images, np.ascontiguousarray(label[n:-n, n:-n])

    def _ground(self, planes: NDArray[np.float32], frame: ground.Frame) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
        """Kind and patch of every label pixel: nature first, then what was drawn on it."""
        rows, cols = ((side - 1) * frame.per_cell for side in planes.shape[1:])
        kind, patch = np.empty((rows, cols), np.uint8), np.empty((rows, cols), np.uint16)
        layout, warp = self.layout, planes[WARP]
        ground.draw_land(planes, frame, layout.rules, layout.regions, kind, patch)
        objects.draw_towns(warp, frame, layout.towns, kind, patch)
        objects.draw_rectangles(frame, layout.rectangles, kind, patch)
        objects.draw_discs(warp, frame, layout.discs, kind, patch)
        objects.draw_lines(warp, frame, layout.rivers, kind, patch)
        objects.draw_rectangles(frame, layout.houses, kind, patch)
        objects.draw_lines(warp, frame, layout.roads, kind, patch)
        return kind, patch

    def _expose(
        self, image: NDArray[np.float32], season: int, planes: NDArray[np.float32], row: int, col: int
    ) -> NDArray[np.uint16]:
        """One season of a window: clouds, blur, noise; no data a little further out than the label's."""
        salt = self.layout.rules.salt + 1000 * (season + 1)
        if self.clouds:
            x0, y0 = (col - 1) * 10.0, (row - 1) * 10.0
            light.cover_with_clouds(image, x0, y0, self.layout.clouds[season], salt + 90)
        out = light.expose(image, row, col, _BLUR, salt)
        abroad = planes[BORDER][1:-2, 1:-2] < -0.012 * min(self.layout.size) * (season + 1)
        out[:, abroad] = NODATA
        return out
