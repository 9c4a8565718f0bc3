"""Reference pages of what can be chosen by name, from the tables in the code."""

import dataclasses
import importlib
from collections.abc import Iterator

from reference_markdown import summary, table


def choice_pages() -> Iterator[tuple[str, str]]:
    """Networks, losses, ways to mix, engines, classes."""
    yield (
        'choices',
        '\n\n'.join(['# Names to choose from', *(part() for part in (_networks, _losses, _mixes, _engines))]),
    )
    yield 'legend', '\n\n'.join(['# Legend', *_legend()])


def _networks() -> str:
    from landcover_plugin.models import NETWORKS

    rows = []
    for name, network in NETWORKS.items():
        builder = getattr(importlib.import_module(f'landcover_plugin.models.{network.module}'), network.builder)
        what = f'{network.args[0]} of segmentation_models_pytorch' if network.args else summary(builder)
        rows.append((f'`{name}`', what, f'`{network.backbone}`'))
    return '## Networks\n\n{confval}`model.model`, with {confval}`model.backbone` as encoder.\n\n' + table(
        ('name', 'what it is', 'default encoder'), rows
    )


def _losses() -> str:
    from landcover_plugin.training.losses import LOSSES, RANGES

    rows = []
    for name, loss in LOSSES.items():
        settings = [
            f'`{f.name}` {f.default:g} [{RANGES[f.name][0]:g} to {RANGES[f.name][1]:g}]'
            for f in dataclasses.fields(loss)
        ]
        rows.append((f'`{name}`', summary(loss), ', '.join(settings)))
    return (
        '## Losses\n\n{confval}`model.loss`, or a sum of them; {confval}`model.loss_args` holds their settings.\n\n'
        + (table(('name', 'what it is', 'settings, defaults [and limits]'), rows))
    )


def _mixes() -> str:
    import numpy as np

    from landcover_plugin.legend import LEGEND
    from landcover_plugin.training import mixing

    made = {name: mixing.mixing(name, 0.5, lambda: np.ones(LEGEND.num_classes)) for name in mixing.MIXES}
    rows = [(f'`{name}`', ', '.join(summary(type(m)) for m in mixes) or 'Nothing.') for name, mixes in made.items()]
    return (
        '## Mixing of patches\n\n{confval}`data.mix`, each patch with probability {confval}`data.mix_p`.\n\n'
        + table(('name', 'what it does'), rows)
    )


def _engines() -> str:
    from landcover_plugin.mapping.engines import ENGINES

    names = ', '.join(f'`{name}`' for name in ENGINES)
    return f'## Engines\n\n{{confval}}`output.engine`: {names}, or `auto`; `{ENGINES[0]}` is the reference.\n'


def _legend() -> Iterator[str]:
    from landcover_plugin.legend import LEGEND, PARENTS, UNCERTAIN_PARENTS

    yield 'Code on disk, channel of the network and value in the map are one number.'
    yield table(
        ('code', 'class', 'classe', 'colour'),
        ((str(c.code), c.name, c.name_ca, '`#{:02X}{:02X}{:02X}`'.format(*c.colour)) for c in LEGEND),
    )
    yield '## The 41 classes of the MCSC'
    yield (
        'Rasters with the 41 values are turned into the 12 codes by this table. It is a reading of the class names and '
        f'**not official**; the least certain are {", ".join(map(str, UNCERTAIN_PARENTS))}.'
    )
    yield table(
        ('value', 'MCSC', 'classe', 'code', 'class'),
        ((str(p.value), str(p.mcsc), p.name_ca, str(p.code), LEGEND[p.code].name) for p in PARENTS),
    )
