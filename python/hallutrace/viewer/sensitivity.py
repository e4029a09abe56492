"""What the score of a trace reads: the score again, with a part of what was read replaced.

This is about the detector alone. Nothing here says what the model does: for that the forward pass
runs again without a head or a layer, see :mod:`hallutrace.viewer.explorer.ablating`.

A replaced value becomes its mean over the training traces. Zero would be no neutral value: no trace
has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace.attention.edges import EdgeList
from hallutrace.detect import Detector
from hallutrace.detect.linear import LinearDetector
from hallutrace.detect.provenance import TrainingTraces
from hallutrace.errors import NotInRunError
from hallutrace.store.reader import TraceStore
from hallutrace.store.trace import Trace

MOST_TRACES = 400  # of which a mean is taken
TOP = 20  # features that are named


@dataclass(frozen=True)
class TrainingMean:
    """The mean of each feature of a linear detector.

    Attributes:
        values: float64 [features].
        traces: of how many traces.
        is_training: whether these were traces that the detector was trained on; else they are of
            the run that is looked at.
    """

    values: NDArray[np.float64]
    traces: int
    is_training: bool


def training_mean(
    detector: LinearDetector, store: TraceStore, training: TrainingTraces | None
) -> TrainingMean:
    """The mean of a detector's features over its training traces.

    Args:
        detector: a fitted one.
        store: the run.
        training: what it was trained on; traces of other runs do not count.

    Returns:
        Over at most ``MOST_TRACES`` traces, evenly spaced.

    Raises:
        NotInRunError: the run has no traces.
    """
    keys = store.keys()
    trained = [at for at, key in enumerate(keys) if training is not None and key in training.train]
    every = trained or list(range(len(keys)))
    if not every:
        raise NotInRunError("Expected a run with traces, got none - its means are not known")
    chosen = np.unique(np.linspace(0, len(every) - 1, min(len(every), MOST_TRACES)).round())
    total: Any = 0.0
    for at in chosen.astype(int).tolist():
        total = total + detector.feature(store[every[at]]).astype(np.float64)
    return TrainingMean(total / len(chosen), len(chosen), bool(trained))


def linear_sensitivity(
    detector: LinearDetector, trace: Trace, mean: TrainingMean
) -> dict[str, Any]:
    """How the score changes when features become their training mean.

    Args:
        detector: a fitted one.
        trace: the trace.
        mean: of :func:`training_mean`.

    Returns:
        ``score``; ``changes`` f8 [features], new score minus old, one feature replaced; ``heads``
        f8 [layers, heads] and ``layers`` f8 [layers], all features of a head or a layer replaced
        (None where features are not of heads); ``names`` of the layers; ``features``: the ``TOP``
        with the largest change, each with ``feature`` (index), ``value``, ``mean`` and ``change``;
        ``all``: change with every feature replaced; ``traces`` and ``is_training`` of the mean.
    """
    values = detector.feature(trace).astype(np.float64)
    changes = detector.linear.weight * (mean.values - values)
    heads = layers = None
    names: list[int] = []
    if detector.by_head:
        names = list(trace.layers)
        heads = changes.reshape(len(names), max(trace.manifest.facts["heads"]), -1).sum(axis=2)
        layers = heads.sum(axis=1)
    order = np.argsort(-np.abs(changes), kind="stable")[:TOP].tolist()
    features = [
        {
            "feature": at,
            "value": values[at],
            "mean": mean.values[at],
            "change": changes[at],
        }
        for at in order
    ]
    return {
        "score": detector.score(trace),
        "changes": changes,
        "heads": heads,
        "layers": layers,
        "names": names,
        "features": features,
        "all": float(changes.sum()),
        "traces": mean.traces,
        "is_training": mean.is_training,
    }


class EditedTrace(Trace):
    """A trace with fewer edges; all else is as it was.

    Args:
        trace: the trace.
        top_k: the largest weights of each row that are kept; of equal ones the first.
        without: layers that have no edges.
    """

    def __init__(self, trace: Trace, top_k: int | None = None, without: Sequence[int] = ()) -> None:
        super().__init__(trace.shard, trace.position, trace.manifest)
        self._edges = _edited(trace, top_k, without)

    def stored(self, name: str) -> NDArray[Any]:
        """As of a trace, with the edges that are left."""
        found = self._edges.get(name)
        return super().stored(name) if found is None else found

    def layer(self, layer: int) -> EdgeList:
        """As of a trace, with the edges that are left; what they retain is not known."""
        whole = super().layer(layer)
        at, graphs = self.layers.index(layer), whole.shape[0]
        per_layer = len(self._edges["edges.indptr"]) // len(self.layers)
        offset = self._edges["edges.offset"]
        indptr, begin = [np.zeros(1, np.int64)], int(offset[at * per_layer])
        for graph in range(graphs):
            own = self._edges["edges.indptr"][at * per_layer + graph].astype(np.int64)
            indptr.append(own[1:] + int(offset[at * per_layer + graph]) - begin)
        edges = slice(begin, begin + int(indptr[-1][-1]))
        return EdgeList(
            np.concatenate(indptr),
            self._edges["edges.key"][edges].astype(np.int32),
            self._edges["edges.weight"][edges].astype(np.float32),
            whole.shape,
            whole.first_query,
            np.full_like(whole.retained, np.nan),
        )


def _edited(trace: Trace, top_k: int | None, without: Sequence[int]) -> dict[str, NDArray[Any]]:
    """The arrays of the edges that are left, as a shard has them."""
    indptr, weights = trace.stored("edges.indptr"), trace.stored("edges.weight")
    graphs, tokens = indptr.shape[0], indptr.shape[1] - 1
    counts = np.diff(indptr, axis=1).reshape(-1)
    row = np.repeat(np.arange(graphs * tokens), counts)
    kept = np.ones(len(weights), bool)
    if top_k is not None:
        order = np.lexsort((np.arange(len(row)), -weights.astype(np.float32), row))
        rank = np.empty(len(row), np.int64)
        rank[order] = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        kept &= rank < top_k
    layer = row // tokens // (graphs // len(trace.layers))
    dropped = [trace.layers.index(one) for one in without]
    kept &= ~np.isin(layer, dropped)
    left = np.bincount(row[kept], minlength=graphs * tokens).reshape(graphs, tokens)
    new = np.zeros_like(indptr)
    new[:, 1:] = np.cumsum(left, axis=1)
    offset = np.concatenate([[0], np.cumsum(left.sum(axis=1))]).astype(np.int64)
    return {
        "edges.indptr": new,
        "edges.offset": offset,
        "edges.key": trace.stored("edges.key")[kept],
        "edges.weight": weights[kept],
    }


def edge_sensitivity(detector: Detector, trace: Trace) -> dict[str, Any]:
    """How the score changes with fewer edges.

    Args:
        detector: one that reads edges.
        trace: the trace.

    Returns:
        ``score``; ``top_k``: ``[[k, change]...]`` with the k largest weights of each row, k halved
        from what is kept down to 1; ``layers``: ``[[layer, change]...]`` without the edges of one
        layer. Changes are new score minus old.
    """
    score = detector.score(trace)
    largest = int(np.diff(trace.stored("edges.indptr"), axis=1).max(initial=0))
    fewer = []
    while largest > 1:
        largest = (largest + 1) // 2
        fewer.append(largest)
    return {
        "score": score,
        "top_k": [[k, detector.score(EditedTrace(trace, top_k=k)) - score] for k in fewer],
        "layers": [
            [layer, detector.score(EditedTrace(trace, without=[layer])) - score]
            for layer in trace.layers
        ],
    }


def score_sensitivity(
    detector: Detector, trace: Trace, store: TraceStore, training: TrainingTraces | None
) -> dict[str, Any]:
    """What the score of a trace reads, as far as the detector lets it be told.

    Args:
        detector: a fitted one.
        trace: the trace.
        store: the run that means are taken of.
        training: what the detector was trained on.

    Returns:
        ``detector`` (name), ``linear`` (:func:`linear_sensitivity` or None) and ``edges``
        (:func:`edge_sensitivity` or None).

    Raises:
        NotInRunError: the detector is no linear one and reads no edges.
    """
    linear = edges = None
    if isinstance(detector, LinearDetector):
        mean = training_mean(detector, store, training)
        linear = linear_sensitivity(detector, trace, mean)
    if detector.needs.edges is not None:
        edges = edge_sensitivity(detector, trace)
    if linear is None and edges is None:
        raise NotInRunError(
            f"Expected a linear detector, or one that reads edges, got `{detector.name}` - "
            "`hallutrace train` makes such: lookback-lens, lapeigvals, linear-probe, attention-gnn"
        )
    return {"detector": detector.name, "linear": linear, "edges": edges}
