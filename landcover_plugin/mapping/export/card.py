"""The model card: what the model is, what it is good for, and where it fails, for people."""

from collections.abc import Iterator, Mapping
from typing import Any

from ...legend import NODATA, Legend

_USE = """\
## Use

    landcover predict --ckpt_path {folder} --data.root DIR --output.path map.tif

Elsewhere: normalise each channel of an image, (reflectance - mean) / std, set pixels that were not measured to 0 in all
channels, and give `images` (B, {channels}, H, W) in float32 to one of the formats below. `probabilities`
(B, {classes}, H, W) come back; the channel is the code of the class, and channel 0 (no data) is always 0.
"""

_LIMITS = """\
## Limits

- Trained on the ground and the dates named above; other regions, seasons, sensors or processing baselines are not what
  the scores speak of.
- A pixel of 10 m holds one class: narrow roads and isolated buildings are smaller than that and are often missed.
- Probabilities are those of the network; they are not calibrated unless the command that maps says so.
- The labels come from photointerpretation; their errors and their date are part of what was learned.
"""

_LICENCE = """\
## Licence

The software is MIT. The weights are derived from the training data, whose terms hold: Copernicus Sentinel-2 data are
free to use with attribution; the *Mapa de cobertes del sòl de Catalunya* of the ICGC is CC BY 4.0. ImageNet weights,
where the training began with them, have terms of their own.
"""


def model_card(facts: Mapping[str, Any], legend: Legend, scores: Mapping[str, Any] | None, *, folder: str) -> str:
    """The model card as Markdown.

    Args:
        facts: As ``model.json`` holds them.
        legend: Classes and colours.
        scores: What ``landcover test`` wrote to ``scores.json``, if it is at hand.
        folder: Name of the folder, for the example.
    """
    network = facts['network']
    use = _USE.format(folder=folder, channels=len(facts['channels']), classes=legend.num_classes)
    parts = [
        f'# Land cover by {network["model"]} with {network["backbone"]}\n',
        f'Land cover from Sentinel-2 for each pixel of 10 m. {network["parameters"]:,} weights, written by '
        f'{facts["software"]} from {facts["checkpoint"]["name"]}.\n',
        use,
        '\n'.join(_formats(facts)),
        '\n'.join(_data(facts)),
        '\n'.join(_classes(legend)),
        '\n'.join(_scores(scores)),
        _LIMITS,
        _LICENCE,
    ]
    return '\n'.join(parts)


def _formats(facts: Mapping[str, Any]) -> Iterator[str]:
    yield '## Formats\n'
    yield '| format | file | images | largest difference from PyTorch | same class |'
    yield '|:--|:--|:--|--:|--:|'
    for name, each in facts['formats'].items():
        sizes = ' x '.join('any' if n < 0 else str(n) for n in each['shape'])
        parity = each['parity']
        yield f'| {name} | {each["file"]} | {sizes} | {parity["max_difference"]:.1e} | {parity["agreement"]:.2%} |'
    for name, reason in facts['left_out'].items():
        yield f'\n{name} was left out: {reason}.'
    yield '\n`weights.safetensors` are the weights alone; `model.ckpt` is what `landcover` reads.\n'


def _data(facts: Mapping[str, Any]) -> Iterator[str]:
    scale, offset = facts['reflectance']['scale'], facts['reflectance']['offset']
    yield '## Data\n'
    yield f'Sentinel-2 mosaics of {", ".join(facts["dates"]) or "unknown dates"}; seasons: {facts["seasons"]}. '
    yield f'Reflectance is (digital number + {offset:g}) / {scale:g}. Patches of {facts["patch_size"]} px.\n'
    yield '| channel | mean | standard deviation |'
    yield '|:--|--:|--:|'
    normalisation = facts['normalisation']
    for channel, mean, std in zip(facts['channels'], normalisation['mean'], normalisation['std'], strict=True):
        yield f'| {channel} | {mean:.5f} | {std:.5f} |'
    yield ''


def _classes(legend: Legend) -> Iterator[str]:
    yield '## Classes\n'
    yield 'The 12 classes of CatLC, an aggregation of the *Mapa de cobertes del sòl de Catalunya* (ICGC, 2018, 1 m, 41'
    yield 'classes). Labels of 41 classes are aggregated by a reading of their names, which is not official.\n'
    yield '| code | class | en català |'
    yield '|--:|:--|:--|'
    yield from (f'| {c.code} | {c.name} | {c.name_ca} |' for c in legend if c.code != NODATA)
    yield ''


def _scores(scores: Mapping[str, Any] | None) -> Iterator[str]:
    yield '## Scores\n'
    if scores is None:
        yield 'No report of `landcover test` was given to the export (`--report`).\n'
        return
    yield 'On test ground that the training never saw, by `landcover test`, percent:\n'
    yield '| score | % |'
    yield '|:--|--:|'
    for name, value in scores['overall'].items():
        if isinstance(value, float):
            yield f'| {name.replace("_", " ")} | {100 * value:.1f} |'
    yield '\n| class | IoU | pixels |'
    yield '|:--|--:|--:|'
    for row in scores['classes']:
        iou = 'n/a' if row.get('iou') is None else f'{100 * row["iou"]:.1f}'
        yield f'| {row["name"]} | {iou} | {row.get("support", 0):,} |'
    yield ''
