"""Networks that start from pretrained weights, with the filters of the first layer matched to the bands in use."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from ..errors import LandcoverError
from . import BUILDERS
from .bands import RGB_BANDS, adapt_first_layer, match_bands, match_table
from .first_layer import RGB, spread_filters
from .hybrids import PairedEncoder
from .rescaling import FirstLayer, norm_behind
from .weight_files import Pretrained, read_weights

#: What wraps a network or an encoder, in the names of its weights.
_WRAPPERS = {'module', '_orig_mod', 'model', 'network', 'net', 'base_model', 'backbone', 'encoder', 'segformer'}

#: What our own networks call two encoders that stand side by side.
_PAIR = ('transformer', 'convolutional')


class Built(NamedTuple):
    """A network and what its weights are.

    Attributes:
        network: From images to logits.
        account: What was loaded, for the log: a sentence, or a table with one line for each channel.
        first: First layers whose filters were shown pixels of another scale, to be folded when that of the images in
            use is known.
    """

    network: nn.Module
    account: str
    first: tuple[FirstLayer, ...] = ()


def build_network(
    model: str,
    backbone: str | None = None,
    *,
    weights: bool | str | os.PathLike[str] | None,
    in_channels: int,
    num_classes: int,
    channels: Sequence[str] | None = None,
) -> Built:
    """Build a network by name and load what it starts from.

    Args:
        model: Network by name.
        backbone: Encoder by name (default: that of the network).
        weights: True for ImageNet weights of the encoder, false or None for random ones, or what
            :func:`~landcover_plugin.models.weight_files.read_weights` takes.
        in_channels: Channels of the image.
        num_classes: Channels of the logits.
        channels: Their names, which pretrained filters are matched to; without, colours are spread by position.

    Raises:
        LandcoverError: If the network is unknown, its weights cannot be had or do not fit, or names and number of the
            channels differ.
    """
    if channels is not None and len(channels) != in_channels:
        raise LandcoverError(f'channels names {len(channels)} ({", ".join(channels)}), in_channels is {in_channels}')
    by_name = weights is True and channels is not None
    network = BUILDERS[model](
        backbone,
        in_channels=RGB if by_name else in_channels,
        num_classes=num_classes,
        pretrained=weights is True,
    )
    if by_name:
        matches = match_bands(RGB_BANDS, channels or ())
        for convolution in image_convolutions(network.encoder):  # type: ignore[arg-type]
            _set_filters(convolution, adapt_first_layer(convolution.weight.detach(), matches))
        return Built(network, f'ImageNet weights, by band:\n{match_table(RGB_BANDS, matches)}')
    if isinstance(weights, bool) or weights is None:
        return Built(network, 'ImageNet weights, by position' if weights else 'random weights')
    return load_pretrained(network, weights, channels)


def load_pretrained(
    network: nn.Module, weights: str | os.PathLike[str], channels: Sequence[str] | None = None
) -> Built:
    """Load weights into a network: all of it if they are all of it, else its encoder.

    Args:
        network: Network of this package, built for the channels in use.
        weights: See :func:`~landcover_plugin.models.weight_files.read_weights`.
        channels: Names of the channels.

    Returns:
        The network itself and what was loaded.

    Raises:
        LandcoverError: If the weights cannot be had or do not fit.
    """
    given = read_weights(weights)
    own = network.state_dict()
    firsts = {id(c.weight): c for c in image_convolutions(network.encoder)}  # type: ignore[arg-type]
    entries = {n: firsts[id(p)] for n, p in network.named_parameters() if id(p) in firsts}
    found = max(_by_name(own, given.state), _by_order(own, given.state, entries), key=len)
    fits = {n: v for n, v in found.items() if _shape(v, n in entries) == _shape(own[n], n in entries)}
    needed = _needed(network)
    parts = {'network': needed} | {n: [k for k in needed if k.startswith(n)] for n in _encoder_names(network)}
    whole = [part for part, names in parts.items() if set(names) <= set(fits)]
    whole = ['network'] if 'network' in whole else whole
    if not whole:
        nearest = max(_encoder_names(network), key=lambda part: len(set(parts[part]) & set(fits)))
        raise LandcoverError(_misfit(given, own, found, fits, parts[nearest]))
    names = tuple('' if part == 'network' else part for part in whole)
    chosen = {n: v for n, v in fits.items() if n.startswith(names)}
    tables, layers = [], []
    for name in chosen.keys() & entries.keys():
        layers += _unfolded(given, chosen[name], network, entries[name], channels)
        chosen[name], table = _fit_first(given, chosen[name], own[name].shape[1], channels)
        tables.append(table)
    network.load_state_dict(chosen, strict=False)
    loaded = ' and '.join(part.strip('.') for part in whole)
    account = '\n'.join([f'{given.name}: {len(chosen)} tensors of {loaded}', *sorted(set(tables))])
    return Built(network, account, tuple(layers))


def image_convolutions(encoder: nn.Module) -> list[nn.Conv2d]:
    """The first convolution of each encoder: those that see the image."""
    pair = isinstance(encoder, PairedEncoder)
    encoders = [encoder.get_submodule(part) for part in _PAIR] if pair else [encoder]
    return [next(m for m in e.modules() if isinstance(m, nn.Conv2d)) for e in encoders]


def _set_filters(convolution: nn.Conv2d, weight: Tensor) -> None:
    convolution.weight = nn.Parameter(weight, requires_grad=convolution.weight.requires_grad)
    convolution.in_channels = weight.shape[1]


def _fit_first(given: Pretrained, weight: Tensor, wanted: int, channels: Sequence[str] | None) -> tuple[Tensor, str]:
    """Filters for the channels in use, and the sentence or table that says how."""
    count = weight.shape[1]
    bands = given.bands or (RGB_BANDS if count == RGB != wanted else None)
    if bands is not None and len(bands) != count:
        raise LandcoverError(f'{given.name} names {len(bands)} bands, its first layer takes {count}; choose others')
    if bands is not None and channels is not None:
        matches = match_bands(bands, channels)
        lines = [match_table(bands, matches), *_normalisation(given)]
        return adapt_first_layer(weight, matches), '\n'.join(lines)
    if count == wanted:
        return weight, f'filters of its {count} channels taken by position'
    if given.bands is None and count == RGB:
        return spread_filters(weight, wanted), f'filters of {RGB} colours spread over {wanted} channels by position'
    raise LandcoverError(
        f'{given.name} takes {count} channels ({", ".join(bands) if bands else "unnamed"}) and the image has {wanted}: '
        f'name the bands with channels, or choose weights of {wanted} or {RGB} channels'
    )


def _unfolded(
    given: Pretrained, weight: Tensor, network: nn.Module, convolution: nn.Conv2d, channels: Sequence[str] | None
) -> list[FirstLayer]:
    """The first layer, if it is known what its filters were shown."""
    if given.scaling is None or given.bands is None or channels is None or len(given.bands) != weight.shape[1]:
        return []
    norm = norm_behind(network.encoder, convolution)  # type: ignore[arg-type]
    return [FirstLayer(convolution, norm, weight, match_bands(given.bands, channels), given.scaling)]


def _normalisation(given: Pretrained) -> Iterator[str]:
    """What it means that the weights were trained on pixels of another scale."""
    if given.scaling:
        yield f'pretrained on {given.normalisation}, which the first layer takes over from the training ground'
    elif given.normalisation:
        yield (
            f'pretrained on {given.normalisation}; here every band is standardised by mean and deviation of the '
            'training ground, so contrast and brightness differ: batch norm adapts to that while it trains, a frozen '
            'encoder does not'
        )


def _encoder_names(network: nn.Module) -> list[str]:
    """Beginnings of the names of the encoder's weights: one, or two that stand side by side."""
    name = next(n for n, m in network.named_modules() if m is network.encoder) + '.'
    pair = isinstance(network.encoder, PairedEncoder)
    return [f'{name}{part}.' for part in _PAIR] if pair else [name]


def _needed(network: nn.Module) -> list[str]:
    """Names without which weights are not whole: not those of what the logits do not depend on, nor counters."""
    unreached = {n for n, p in network.named_parameters() if not p.requires_grad}
    return [n for n in network.state_dict() if n not in unreached and not n.endswith('num_batches_tracked')]


def _shape(tensor: Tensor, first: bool) -> tuple[int, ...]:
    """Shape, without the channels of the image for a first layer."""
    shape = tuple(tensor.shape)
    return (shape[0], *shape[2:]) if first else shape


def _by_name(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights by our names, with those wrappers taken off that let most of them agree."""
    found: dict[str, Tensor] = {}
    for ours in _wrappers(own):
        names = {n.removeprefix(ours): n for n in own if n.startswith(ours)}
        for theirs in _wrappers(state):
            agreeing = {name: state[theirs + rest] for rest, name in names.items() if theirs + rest in state}
            found = max(found, agreeing, key=len)
    return found


def _wrappers(names: Mapping[str, Tensor]) -> list[str]:
    """Beginnings of names that are wrappers only, shortest first."""
    starts = {''}
    for name in names:
        parts = name.split('.')
        depth = next((i for i, part in enumerate(parts) if part not in _WRAPPERS.union(_PAIR)), len(parts))
        starts |= {'.'.join(parts[:i]) + '.' for i in range(1, depth + 1)}
    return sorted(starts, key=len)


def _by_order(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], entries: Mapping[str, nn.Conv2d]
) -> dict[str, Tensor]:
    """The encoder's weights where no name agrees but kinds and shapes do, one after the other."""
    start = next(iter(entries)).split('encoder.')[0] + 'encoder.'
    names = [n for n in own if n.startswith(start) and not n.endswith('num_batches_tracked')]
    theirs = [(n, v) for n, v in state.items() if not n.endswith('num_batches_tracked')][: len(names)]

    def kind(name: str, tensor: Tensor, first: bool) -> tuple[str, tuple[int, ...]]:
        return name.rpartition('.')[2], _shape(tensor, first)

    if [kind(n, own[n], n in entries) for n in names] != [
        kind(n, v, ours in entries) for (n, v), ours in zip(theirs, names, strict=False)
    ]:
        return {}
    return {ours: v for ours, (_, v) in zip(names, theirs, strict=True)}


def _misfit(
    given: Pretrained,
    own: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    fits: Mapping[str, Tensor],
    needed: Sequence[str],
) -> str:
    """What differs, and the way out."""
    missing, other = [n for n in needed if n not in found], [n for n in needed if n in found and n not in fits]
    told = []
    if missing:
        told.append(f'{len(missing)} of the {len(needed)} tensors of the encoder are missing ({missing[0]} first)')
    if other:
        there, here = tuple(found[other[0]].shape), tuple(own[other[0]].shape)
        told.append(f'{len(other)} have another shape ({other[0]}: {there} there, {here} here)')
    out = given.suits or '--model.model and --model.backbone as they were trained with'
    return f'{given.name} does not fit: {" and ".join(told)}; choose {out}, or --model.weights false'
