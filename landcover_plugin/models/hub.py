"""Pretrained weights from the hub, and what to say when they cannot be had."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import huggingface_hub.constants

from ..errors import LandcoverError

#: Seconds to wait for a connection to the hub.
CONNECT_TIMEOUT = 5


@contextmanager
def fetching(backbone: str, *, wanted: bool) -> Iterator[None]:
    """Build an encoder inside this: what goes wrong with its weights is told in one sentence.

    Args:
        backbone: Name for the sentence.
        wanted: Whether weights are fetched at all.

    Raises:
        LandcoverError: If the weights do not exist or cannot be fetched.
    """
    try:
        with _offline_without_network(wanted=wanted):
            yield
    except (OSError, KeyError) as e:
        told = 'do not exist' if isinstance(e, KeyError) else f'could not be fetched ({type(e).__name__})'
        raise LandcoverError(
            f'the ImageNet weights of {backbone} {told}; connect to the network once, choose another backbone, start '
            'from random weights with --model.weights false, or from a checkpoint with --model.weights PATH'
        ) from e


@contextmanager
def _offline_without_network(*, wanted: bool) -> Iterator[None]:
    """Keep the hub from trying for 23 seconds (huggingface_hub 1.x: six times) where it cannot be reached.

    Weights that were fetched earlier are still found.
    """
    constants = huggingface_hub.constants
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or (wanted and not hub_answers())
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def hub_answers() -> bool:
    """Whether a connection to the hub opens; behind a proxy only the hub's own attempt can tell."""
    if any(os.environ.get(name) for name in ('HTTPS_PROXY', 'https_proxy', 'ALL_PROXY', 'all_proxy')):
        return True
    hub = urlsplit(huggingface_hub.constants.ENDPOINT)
    port = hub.port or (80 if hub.scheme == 'http' else 443)
    try:
        socket.create_connection((hub.hostname, port), timeout=CONNECT_TIMEOUT).close()
    except OSError:
        return False
    return True
