"""A picture of a class map with its legend."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioError

from ..errors import LandcoverError
from ..legend import LEGEND, NODATA, Legend
from .opening import open_raster, read_failed
from .outputs import PathLike, cannot_write, check_output, hidden_name

#: Rows that are counted at a time.
_STRIP = 512

# Pixels, then inches.
_ENLARGED = 1000  # side up to which a small map is enlarged
_LONGER = 8.0  # longer side of the map: text keeps its size beside it
_MARGIN, _TITLE, _LINE, _PANEL = 0.25, 0.4, 0.26, 4.2  # the last two: line height and width of the legend


def write_preview(
    path: PathLike, map_path: PathLike, legend: Legend = LEGEND, *, max_size: int = 2000, overwrite: bool = False
) -> Path:
    """Draw a class map as a PNG, with the names of the classes that occur and their shares of the mapped area.

    Each pixel of the picture shows the majority of the map pixels under it (without overviews); shares are
    counted on all map pixels. They are shares of a map, not area estimates. Small maps are enlarged.

    Args:
        path: The ``.png``.
        map_path: Class map: codes in its first band.
        legend: Names and colours of the codes.
        max_size: Longer side of the map in the picture, in pixels; title and legend come in addition.
        overwrite: Replace an older file.

    Returns:
        The absolute path of the PNG.

    Raises:
        LandcoverError: If the map cannot be read, holds no data or codes that are not in the legend, or if the
            PNG cannot be written.
    """
    if Path(path).suffix.lower() != '.png' or max_size < 100:
        raise LandcoverError(f'a preview is a .png of at least 100 px, got {Path(path).name!r} and {max_size} px')
    target = check_output(path, overwrite=overwrite)
    counts = _count_codes(map_path, legend)
    figure = _draw_preview(_read_decimated(map_path, max_size), counts, legend, Path(map_path).name)
    draft = hidden_name(target, 'preview')
    try:
        figure.savefig(draft)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft.replace(target)
    except OSError as error:
        raise cannot_write(target, error) from error
    finally:
        draft.unlink(missing_ok=True)
    return target


def _count_codes(path: PathLike, legend: Legend) -> NDArray[np.int64]:
    """Pixels of each code, shape ``(num_classes,)``."""
    src = open_raster(path)
    if src.dtypes[0] != 'uint8':
        raise LandcoverError(f'{path} is not a class map: its pixels are {src.dtypes[0]}, not uint8')
    counts = np.zeros(256, dtype=np.int64)
    try:
        for row in range(0, src.height, _STRIP):
            strip = src.read(1, window=((row, min(row + _STRIP, src.height)), (0, src.width)))
            counts += np.bincount(strip.ravel(), minlength=256)
    except RasterioError as error:
        raise read_failed(os.fspath(path), error) from error
    if counts[legend.num_classes :].any():
        stranger = legend.num_classes + int(counts[legend.num_classes :].argmax())
        raise LandcoverError(
            f'{path} is no map with this legend: codes end at {legend.num_classes - 1}, got {stranger}'
        )
    if not counts[NODATA + 1 :].any():
        raise LandcoverError(f'{path} holds no data at all, so there is nothing to draw')
    return counts[: legend.num_classes]


def _read_decimated(path: PathLike, max_size: int) -> NDArray[np.uint8]:
    """The map with its longer side at most ``max_size``; small ones enlarged by a whole number."""
    src = open_raster(path)
    longer = max(src.height, src.width)
    if longer > max_size:
        shape = tuple(max(round(side * max_size / longer), 1) for side in src.shape)
        return src.read(1, out_shape=shape, resampling=Resampling.mode)
    codes = src.read(1)
    factor = max(min(_ENLARGED, max_size) // longer, 1)
    return codes.repeat(factor, axis=0).repeat(factor, axis=1)


def _draw_preview(codes: NDArray[np.uint8], counts: NDArray[np.int64], legend: Legend, title: str) -> Any:
    """The figure: one pixel of ``codes`` is one of the picture."""
    from matplotlib.figure import Figure  # only who draws waits for it

    dpi = max(max(codes.shape) / _LONGER, 100)
    height, width = (side / dpi for side in codes.shape)
    shown = [code for code in legend.codes if counts[code]]
    panel_height = _LINE * (len(shown) + 2)
    size = 3 * _MARGIN + width + _PANEL, 2 * _MARGIN + _TITLE + max(height, panel_height)
    figure = Figure(figsize=size, dpi=dpi)

    def axes_at(left: float, box_width: float, box_height: float) -> Any:
        top = size[1] - _MARGIN - _TITLE
        return figure.add_axes(
            (left / size[0], (top - box_height) / size[1], box_width / size[0], box_height / size[1])
        )

    paint = legend.palette.copy()
    paint[NODATA] = 255
    picture = axes_at(_MARGIN, width, height)
    picture.imshow(paint[codes], interpolation='none', aspect='auto')
    picture.set(xticks=[], yticks=[])
    picture.spines[:].set(color='0.6', linewidth=0.6)
    points = min(13.0, 72 * (size[0] - 2 * _MARGIN) / (0.7 * len(title)))  # a bold letter is 0.7 of its size wide
    y = 1 - (_MARGIN + _TITLE / 3) / size[1]
    figure.text(_MARGIN / size[0], y, title, size=points, weight='bold', va='center', parse_math=False)
    _draw_legend(axes_at(2 * _MARGIN + width, _PANEL, panel_height), counts, shown, legend)
    return figure


def _draw_legend(axes: Any, counts: NDArray[np.int64], shown: Sequence[int], legend: Legend) -> None:
    """One line per class: colour, name, share."""
    from matplotlib.patches import Rectangle

    axes.set(xlim=(0, _PANEL), ylim=((len(shown) + 2) * _LINE, 0))  # inches, from the top
    axes.axis('off')
    mapped = counts[shown].sum()
    for line, code in enumerate(shown):
        y, share = line * _LINE, 100 * counts[code] / mapped
        colour = legend.palette[code] / 255
        axes.add_patch(Rectangle((0.01, y), 0.3, 0.8 * _LINE, facecolor=colour, edgecolor='0.4', linewidth=0.5))
        axes.text(0.42, y + 0.4 * _LINE, legend[code].name, size=10, va='center')
        number = f'{share:.1f} %' if share >= 0.05 else '<0.1 %'
        axes.text(_PANEL - 0.05, y + 0.4 * _LINE, number, size=10, va='center', ha='right')
    note = 'percent of the mapped pixels'
    if counts[NODATA]:
        note += f'; {100 * counts[NODATA] / counts.sum():.1f} % of the raster is no data'
    axes.text(0.01, (len(shown) + 0.6) * _LINE, note, size=8, va='center', color='0.35')
