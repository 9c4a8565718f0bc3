"""The report as one page of HTML that needs nothing else: no script, no network, no other file."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib import colormaps
from matplotlib.image import imsave
from numpy.typing import NDArray

from ..legend import NODATA, Legend
from ..rasters.pixel_size import metres_per_unit
from ..training.metrics import CLASS_SCORES, IntArray, labelled, row_normalised
from .breakdowns import Breakdowns, RankedPatch
from .charts import block_map, colour, curve_chart, interval_chart, reliability_chart, scale_colour
from .figures import UNLABELLED
from .report_figures import distance_name
from .report_tables import HEADINGS, percent
from .score_intervals import FEW_BLOCKS

Row = dict[str, Any]

#: Longest side of a picture on the page, in pixels; larger patches are thinned out.
_LONGEST = 384

#: Makes dark ground, such as forest, lighter in pictures.
_GAMMA = 0.7


def write_page(
    path: Path,
    document: Mapping[str, Any],
    confusion: IntArray,
    legend: Legend,
    breakdowns: Breakdowns | None = None,
    *,
    files: Sequence[str] = (),
) -> None:
    """Write the page.

    Args:
        path: The ``.html``.
        document: The numbers, as :func:`~landcover_plugin.evaluation.report.report_document` gives them.
        confusion: Pixel counts, reference in rows.
        legend: Names and colours of the codes.
        breakdowns: Blocks and patches to draw.
        files: Names of the other files of the report.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader('landcover_plugin.evaluation'),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {'percent': percent, 'scale_colour': scale_colour, 'bytes': _bytes}
    text = environment.get_template('report.html').render(
        document=document,
        metadata=document['metadata'],
        headings=HEADINGS,
        class_scores=CLASS_SCORES,
        limits=_limits(document),
        few_blocks=FEW_BLOCKS,
        classes=[{**row, 'colour': colour(legend, row['code'])} for row in document['classes']],
        matrix=_matrix(confusion, legend),
        distances=[{**row, 'name': distance_name(row)} for row in document.get('distances', [])],
        pixel=_pixel_size(breakdowns),
        charts=_charts(document, legend, breakdowns),
        patches=_patches(breakdowns, legend),
        files=files,
    )
    path.write_text(text, encoding='utf-8')


def _limits(document: Mapping[str, Any]) -> dict[tuple[int | None, str], Row]:
    """Rows of the intervals by code and score."""
    rows = document.get('intervals', {}).get('rows', [])
    return {(row['code'], row['score']): row for row in rows}


def _matrix(confusion: IntArray, legend: Legend) -> Row:
    """The confusion matrix without the classes that occur on neither side; no data comes last, where predicted."""
    counts, shares = labelled(confusion), row_normalised(confusion)
    occurs = (counts.sum(0) > 0) | (counts.sum(1) > 0)
    codes = [code for code in legend.codes if occurs[code]]
    columns = codes + [NODATA] * bool(occurs[NODATA])
    rows = [
        {
            'code': i,
            'name': legend[i].name,
            'colour': colour(legend, i),
            'cells': [
                _cell(int(counts[i, j]), float(shares[i, j]), i, j, legend, int(counts[i].sum())) for j in columns
            ],
        }
        for i in codes
    ]
    heads = [{'code': j, 'name': legend[j].name, 'colour': colour(legend, j)} for j in columns]
    return {'columns': heads, 'rows': rows}


def _cell(count: int, share: float, i: int, j: int, legend: Legend, support: int) -> Row:
    told = f'{count:,} of {support:,} pixels of {legend[i].name} are mapped as {legend[j].name}'
    return {'count': count, 'share': 0.0 if math.isnan(share) else share, 'told': told, 'right': i == j}


def _pixel_size(breakdowns: Breakdowns | None) -> float | None:
    """Edge of a pixel in metres, where the grid is in metres."""
    grid = breakdowns.ground.grid if breakdowns is not None and breakdowns.ground is not None else None
    return grid.res[0] * metres_per_unit(grid) if grid is not None and grid.crs.is_projected else None


def _charts(document: Mapping[str, Any], legend: Legend, breakdowns: Breakdowns | None) -> Row:
    """Shapes of the charts that there are numbers for; None for the others."""
    curves = document.get('training_curves', [])
    blocks = document.get('blocks', [])
    mapped = blocks and breakdowns is not None and breakdowns.ground is not None
    return {
        'intervals': interval_chart(document.get('intervals', {}).get('rows', []), legend),
        'blocks': block_map(breakdowns.ground, blocks) if mapped else None,  # type: ignore[union-attr,arg-type]
        'reliability': reliability_chart(document.get('reliability', [])),
        'losses': curve_chart(curves, ('train_loss', 'val_loss')),
        'scores': curve_chart(curves, ('val_mIoU', 'val_OA'), top=1.0),
    }


def _patches(breakdowns: Breakdowns | None, legend: Legend) -> list[Row]:
    named = [] if breakdowns is None else breakdowns.named_patches()
    if not named:
        return []
    limits = np.nanpercentile(np.concatenate([p.picture.rgb.reshape(-1, 3) for _, p in named]), (1, 99))
    return [_patch(name, patch, legend, limits) for name, patch in named]


def _stretched(rgb: NDArray[np.floating], limits: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Colours between limits that all patches share, with dark ground made lighter."""
    low, high = limits
    share = np.clip((np.nan_to_num(rgb) - low) / max(high - low, 1e-6), 0, 1)
    return np.asarray((255 * share**_GAMMA).round(), dtype=np.uint8)


def _patch(name: str, patch: RankedPatch, legend: Legend, limits: NDArray[np.floating]) -> Row:
    """A patch as pictures inside the page, and the classes that they show."""
    p = patch.picture
    step = -(-max(p.label.shape) // _LONGEST)
    paint = legend.palette.copy()
    paint[NODATA] = UNLABELLED
    pictures = {
        'image': _stretched(p.rgb, limits),
        'label': paint[p.label],
        'prediction': paint[p.prediction],
    }
    if p.confidence is not None:
        pictures['confidence'] = (colormaps['viridis'](p.confidence)[..., :3] * 255).round().astype(np.uint8)
    codes = np.union1d(p.label, p.prediction)
    return {
        'name': name,
        'kind': name.partition('_')[0],
        'accuracy': patch.accuracy,
        'labelled_pixels': patch.labelled_pixels,
        'window': patch.window,
        'season': patch.season,
        'pictures': {kind: _data_uri(picture[::step, ::step]) for kind, picture in pictures.items()},
        'classes': [
            {'code': c, 'name': legend[c].name, 'colour': colour(legend, c)} for c in codes.tolist() if c != NODATA
        ],
        'unlabelled': bool((p.label == NODATA).any()),
    }


def _data_uri(picture: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    imsave(file, picture, format='png')
    return f'data:image/png;base64,{base64.b64encode(file.getvalue()).decode("ascii")}'


def _bytes(count: int | None) -> str:
    return 'unknown' if count is None else f'{count:,}'
