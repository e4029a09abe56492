"""Labelled traces of a run, read lazily, and the features that were computed of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hallutrace import labels as protocols
from hallutrace.errors import InputError
from hallutrace.store.finite_numbers import require_finite
from hallutrace.store.reader import TraceStore
from hallutrace.store.trace import Trace

FeatureFunction = Callable[[Trace], NDArray[np.float32]]


class FeatureCache:
    """Features by name and by index of the trace in its store, each computed once.

    It holds features that need no fitting, and so may be shared by selections that learn from
    different traces. Memory: 4 bytes a number.
    """

    def __init__(self) -> None:
        self._rows: dict[str, dict[int, NDArray[np.float32]]] = {}
        self.groups: dict[int, str] = {}

    def features(
        self, name: str, store: TraceStore, indices: NDArray[np.int64], function: FeatureFunction
    ) -> NDArray[np.float32]:
        """Features of some traces, float32 [traces, features]; those not known are computed.

        Raises:
            InputError: traces that give different numbers of features.
            NonFiniteError: features that are not finite; detector and trace are named.
        """
        known = self._rows.setdefault(name, {})
        for index in indices.tolist():
            if index not in known:
                trace = store[index]
                found = require_finite(function(trace), f"features `{name}`", trace)
                # A copy, for a view would keep the shard's file mapped.
                known[index] = np.array(found, np.float32)
        counts = {len(known[index]) for index in indices.tolist()}
        if len(counts) > 1:
            raise InputError(
                f"Expected as many features `{name}` of every trace, got {sorted(counts)} in "
                f"{store.folder} - take traces of one model and one choice of layers"
            )
        if not counts:
            return np.zeros((0, 0), np.float32)
        return np.stack([known[index] for index in indices.tolist()])


@dataclass(frozen=True)
class Examples(Sequence[Trace]):
    """A selection of labelled traces of one run.

    Attributes:
        store: the run.
        indices: int64 [examples], of the traces in the store.
        labels: int8 [examples], 1 hallucinated, 0 right.
        cache: of features, shared by all selections of the run.
        protocol: name of the labelling protocol; empty where the labels are of none.
    """

    store: TraceStore
    indices: NDArray[np.int64]
    labels: NDArray[np.int8]
    cache: FeatureCache = field(default_factory=FeatureCache, repr=False)
    protocol: str = ""

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Trace]:
        for index in self.indices.tolist():
            yield self.store[index]

    @overload
    def __getitem__(self, which: int) -> Trace: ...
    @overload
    def __getitem__(self, which: slice) -> Examples: ...
    def __getitem__(self, which: int | slice) -> Trace | Examples:
        if isinstance(which, slice):
            return self.take(np.arange(len(self))[which])
        return self.store[int(self.indices[which])]

    @property
    def keys(self) -> list[tuple[str, int]]:
        """Question id and sample of each."""
        keys = self.store.keys()
        return [keys[index] for index in self.indices.tolist()]

    @property
    def groups(self) -> list[str]:
        """What splits into train and test go by, of each; read once."""
        known = self.cache.groups
        for index in self.indices.tolist():
            if index not in known:
                known[index] = self.store[index].group
        return [known[index] for index in self.indices.tolist()]

    def take(self, chosen: ArrayLike) -> Examples:
        """Some of them, in the order chosen; the cache is shared.

        Args:
            chosen: indices into this selection, or a mask of bools.
        """
        selected = np.asarray(chosen)
        if selected.size == 0:
            selected = selected.astype(np.int64)
        return replace(self, indices=self.indices[selected], labels=self.labels[selected])

    def features(self, name: str, function: FeatureFunction) -> NDArray[np.float32]:
        """Features of each, float32 [examples, features], computed once for each trace of the run.

        Args:
            name: of the features, and of all choices that change them.
            function: gives those of one trace, float32 [features]; nothing in it may be fitted.

        Raises:
            InputError: traces that give different numbers of features.
        """
        return self.cache.features(name, self.store, self.indices, function)


def load_examples(store: TraceStore, label: str, *, limit: int | None = None) -> Examples:
    """The traces of a run that a labelling protocol has decided on, in the run's order.

    Args:
        store: the run.
        label: name of the protocol; traces without a label, or with null, are left out.
        limit: take the first so many of them.

    Raises:
        InputError: no such protocol, a limit below 1, no labels, or labels of one class only.
    """
    if limit is not None and limit < 1:
        raise InputError(f"Expected `limit` >= 1 or None, got {limit}")
    known = protocols.read(store.folder, label)
    found = [
        (index, decision)
        for index, key in enumerate(store.keys())
        if (decision := known.get(key)) is not None
    ][:limit]
    indices = np.array([index for index, _ in found], np.int64)
    labels = np.array([decision for _, decision in found], np.int8)
    hallucinated = int(labels.sum())
    if hallucinated in (0, len(labels)):
        raise InputError(
            f"Expected hallucinated and right answers under the labels `{label}` of "
            f"{store.folder}, got {hallucinated} hallucinated and {len(labels) - hallucinated} "
            "right - take another protocol or more traces"
        )
    return Examples(store, indices, labels, protocol=label)
