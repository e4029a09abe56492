"""Clusters of hidden states: traces whose answers look alike from within the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace.errors import InputError, MissingExtraError, NotInRunError
from hallutrace.option_names import parameter
from hallutrace.splits import fold
from hallutrace.viewer.viewed_run import ViewedRun

CLUSTERS = 8
FITTED = 4000  # traces of the training part that the centres are fitted on, at most
SEED = 0
_TRACES_EACH = 25  # traces for each cluster, at least
_BATCH = 512
_TOKENS = ("last_answer", "mean_answer", "last_prompt", "last")
_TEXT = 60


@dataclass(frozen=True)
class HiddenClusters:
    """What k-means found.

    Attributes:
        layer: number in the model, from 0.
        token: whose hidden state it is, see :func:`hallutrace.detect.features.hidden_vector`.
        of: int64 [traces], the cluster of each trace, the largest is 0; -1 where none is known.
        typical: question of the trace nearest to each centre, shortened.
    """

    layer: int
    token: str
    of: NDArray[np.int64]
    typical: list[str]

    @property
    def count(self) -> int:
        """How many clusters there are."""
        return len(self.typical)


def hidden_clusters(viewed: ViewedRun, groups: Sequence[str]) -> HiddenClusters:
    """K-means with a fixed seed on one hidden vector of each trace.

    The vector is the state of the last answer token in the middle one of the stored layers.
    Features are standardised, and centres fitted, on the training part of the first split, which
    does not look at labels; of more than 4,000 traces there a random 4,000 are taken.

    Args:
        viewed: the run.
        groups: of each trace.

    Raises:
        NotInRunError: the run has no hidden states, or too few traces.
        MissingExtraError: scikit-learn is not installed.
        InputError: traces have hidden states of different tokens or sizes.
    """
    if len(groups) < 2 * _TRACES_EACH:
        raise NotInRunError(f"they take {2 * _TRACES_EACH} traces, and this run has {len(groups)}")
    layer, token = _place(viewed)
    k_means = _k_means(min(CLUSTERS, len(groups) // _TRACES_EACH))
    train = _train_part(groups)
    fitted = _vectors(viewed, train.tolist(), layer, token)
    mean, scale = fitted.mean(axis=0), fitted.std(axis=0)
    scale[scale == 0] = 1.0
    k_means.fit((fitted - mean) / scale)
    distances = np.concatenate(
        [
            k_means.transform((_vectors(viewed, batch, layer, token) - mean) / scale)
            for batch in _batches(len(groups))
        ]
    )
    found = distances.argmin(axis=1)
    order = np.argsort(-np.bincount(found, minlength=distances.shape[1]), kind="stable")
    nearest = distances.argmin(axis=0)[order].tolist()
    typical = [viewed.store[at].question[:_TEXT].strip() for at in nearest]
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return HiddenClusters(layer, token, place[found], typical)


def _place(viewed: ViewedRun) -> tuple[int, str]:
    """The layer, and the token whose state the run kept."""
    from hallutrace.detect.features import hidden_vector

    first = viewed.store[0]
    layers = first.hidden_layers
    if not layers:
        raise NotInRunError("this run has none: `hallutrace extract --hidden-states answer` does")
    layer = layers[len(layers) // 2]
    for token in _TOKENS:
        try:
            hidden_vector(first, layer, token)  # type: ignore[arg-type]
        except InputError:
            continue
        return layer, token
    raise NotInRunError(
        f"this run kept those of no token: extract with {parameter('hidden_states', 'answer')}"
    )


def _train_part(groups: Sequence[str]) -> NDArray[np.int64]:
    try:
        train = fold(None, groups, seed=SEED).train
    except InputError:  # too few groups to part them
        train = np.arange(len(groups))
    if len(train) > FITTED:
        train = np.sort(np.random.default_rng(SEED).choice(train, FITTED, replace=False))
    return train


def _k_means(count: int) -> Any:
    try:
        from sklearn.cluster import KMeans
    except ImportError:
        raise MissingExtraError.of("scikit-learn", "detect", "clusters of hidden states") from None
    return KMeans(count, n_init=3, random_state=SEED)


def _batches(count: int) -> list[list[int]]:
    return [[*range(at, min(at + _BATCH, count))] for at in range(0, count, _BATCH)]


def _vectors(viewed: ViewedRun, positions: list[int], layer: int, token: Any) -> NDArray[Any]:
    """Float32 [positions, hidden size]."""
    from hallutrace.detect.features import hidden_vectors

    return hidden_vectors((viewed.store[at] for at in positions), layer, token)
