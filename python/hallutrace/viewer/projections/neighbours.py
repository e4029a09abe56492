"""How well a plane keeps what is near in the hidden states: a figure to be shown beside it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NEIGHBOURS = 10
SAMPLED = 2000  # traces at most: all distances among them are computed


@dataclass(frozen=True)
class Preservation:
    """Which share of the nearest neighbours is kept.

    Attributes:
        share: of the ``k`` nearest neighbours in the hidden states that are among the ``k`` nearest
            in the plane, mean over the traces; None for a single trace.
        chance: the share that positions drawn at random keep, ``k / (traces - 1)``.
        k: neighbours of each trace.
        traces: compared with each other.
    """

    share: float | None
    chance: float | None
    k: int
    traces: int

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)


def sampled(count: int, seed: int, most: int = SAMPLED) -> NDArray[np.int64]:
    """Ascending positions of at most ``most`` of ``count`` traces, drawn without replacement.

    Examples:
        >>> sampled(4, seed=0).tolist(), len(sampled(10, seed=0, most=3))
        ([0, 1, 2, 3], 3)
    """
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def neighbour_preservation(
    vectors: NDArray[np.floating[Any]],
    positions: NDArray[np.floating[Any]],
    k: int = NEIGHBOURS,
) -> Preservation:
    """Share of the nearest neighbours that a projection keeps.

    Formula: Q(k) = 1/(k n) sum_i |N_k(i) in the vectors, and N_k(i) in the plane|, where N_k(i) are
    the k points nearest to i by Euclidean distance, without i, the earlier one of equally near.

    Args:
        vectors: floating [traces, dimension].
        positions: floating [traces, 2] of the same traces.
        k: neighbours; fewer where there are fewer other traces.

    Source: Q_NX(K) of Lee and Verleysen 2009, Quality assessment of dimensionality reduction:
    Rank-based criteria; as the k-nearest-neighbour preservation with k = 10 in Kobak and Berens
    2019, The art of using t-SNE for single-cell transcriptomics. Not checked against their texts.

    Examples:
        >>> import numpy as np
        >>> line = np.arange(5.0)[:, None]
        >>> neighbour_preservation(line, np.hstack([line, line]), k=2).share
        1.0
    """
    count = len(vectors)
    k = min(k, count - 1)
    if k < 1:
        return Preservation(None, None, 0, count)
    there, here = _nearest(vectors, k), _nearest(positions, k)
    kept = np.zeros(count, np.int64)
    for of_vectors in there.T:
        kept += (here == of_vectors[:, None]).any(axis=1)
    return Preservation(float(kept.sum() / (k * count)), k / (count - 1), k, count)


def _nearest(points: NDArray[np.floating[Any]], k: int) -> NDArray[np.int64]:
    """Indices of the k nearest other points, int64 [points, k]."""
    moved = points.astype(np.float64) - points.mean(axis=0, dtype=np.float64)
    squares = (moved**2).sum(axis=1)
    found = np.empty((len(points), k), np.int64)
    for begin in range(0, len(points), 256):
        part = slice(begin, begin + 256)
        distances = squares[part, None] + squares - 2 * moved[part] @ moved.T
        rows = np.arange(len(distances))
        distances[rows, rows + begin] = np.inf
        found[part] = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return found
