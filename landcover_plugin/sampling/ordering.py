"""The order of random patches: near ones soon after each other, but never in one batch."""

import numpy as np
from numpy.typing import NDArray


def local_order(
    places: NDArray[np.int64], *, neighbourhood: int, streams: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """An order of patches in which near ones follow each other at a distance of ``streams`` places.

    The ground is cut into neighbourhoods, which are shuffled, and the patches of each are shuffled. The sequence of all
    patches is cut into streams of equal length, and the streams are dealt out in turn. A decoded block is so used by
    several patches before it is forgotten, while any ``streams`` patches in a row come from as many places.

    Args:
        places: Look, row and column of each patch of an epoch, shape ``(n, 3)``; looks lie in different files.
        neighbourhood: Edge of a neighbourhood in pixels.
        streams: Number of streams, a multiple of the batch size.
        rng: Source of randomness.

    Returns:
        Positions in ``places``, each once.

    Examples:
        >>> places = np.array([(0, 0, col) for col in (0, 100, 4, 104)])
        >>> order = local_order(places, neighbourhood=64, streams=2, rng=np.random.default_rng(0))
        >>> (places[order, 2] >= 64).tolist()  # one from each side in turn
        [False, True, False, True]
    """
    count = len(places)
    ground = places // np.array([1, neighbourhood, neighbourhood])
    _, group = np.unique(ground, axis=0, return_inverse=True)
    rank = rng.permutation(int(group.max(initial=-1)) + 1)
    sequence = np.lexsort((rng.random(count), rank[group.ravel()]))
    cuts = np.linspace(0, count, streams + 1).astype(np.int64)
    turn, stream = np.divmod(np.arange(-(-count // streams) * streams), streams)
    at = cuts[stream] + turn
    return sequence[at[at < cuts[stream + 1]]]
