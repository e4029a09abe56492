"""Labelled traces of a run, read lazily, and the features that were computed of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hallutrace import labels as protocols
from hallutrace.errors import InputError
from hallutrace.store.finite import require_finite
from hallutrace.store.reader import TraceStore
from hallutrace.store.trace import Trace

FeatureFunction = Callable[[Trace], NDArray[np.float32]]


class FeatureCache:
    """Features by name and by place of the trace in its store, each computed once.

    It holds features that need no fitting, and so may be shared by selections that learn from
    different traces. Memory: 4 bytes a number.
    """

    def __init__(self) -> None:
        self._rows: dict[str, dict[int, NDArray[np.float32]]] = {}
        self.groups: dict[int, str] = {}

    def features(
        self, name: str, store: TraceStore, places: NDArray[np.int64], function: FeatureFunction
    ) -> NDArray[np.float32]:
        """Features of some traces, float32 [places, width]; those not known are computed.

        Raises:
            InputError: traces that give features of different widths.
            NonFiniteError: features that are not finite; detector and trace are named.
        """
        known = self._rows.setdefault(name, {})
        for place in places.tolist():
            if place not in known:
                trace = store[place]
                found = require_finite(function(trace), f"features `{name}`", trace)
                # A copy, for a view would keep the shard's file mapped.
                known[place] = np.array(found, np.float32)
        widths = {len(known[place]) for place in places.tolist()}
        if len(widths) > 1:
            raise InputError(
                f"Expected as many features `{name}` of every trace, got {sorted(widths)} in "
                f"{store.folder} - take traces of one model and one choice of layers"
            )
        if not widths:
            return np.zeros((0, 0), np.float32)
        return np.stack([known[place] for place in places.tolist()])


@dataclass(frozen=True)
class Examples(Sequence[Trace]):
    """A selection of labelled traces of one run.

    Attributes:
        store: the run.
        places: int64 [examples], into the store.
        labels: int8 [examples], 1 hallucinated, 0 right.
        cache: of features, shared by all selections of the run.
    """

    store: TraceStore
    places: NDArray[np.int64]
    labels: NDArray[np.int8]
    cache: FeatureCache = field(default_factory=FeatureCache, repr=False)

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[Trace]:
        for place in self.places.tolist():
            yield self.store[place]

    @overload
    def __getitem__(self, which: int) -> Trace: ...
    @overload
    def __getitem__(self, which: slice) -> Examples: ...
    def __getitem__(self, which: int | slice) -> Trace | Examples:
        if isinstance(which, slice):
            return self.take(np.arange(len(self))[which])
        return self.store[int(self.places[which])]

    @property
    def keys(self) -> list[tuple[str, int]]:
        """Question id and sample of each."""
        keys = self.store.keys()
        return [keys[place] for place in self.places.tolist()]

    @property
    def groups(self) -> list[str]:
        """What splits into train and test go by, of each; read once."""
        known = self.cache.groups
        for place in self.places.tolist():
            if place not in known:
                known[place] = self.store[place].group
        return [known[place] for place in self.places.tolist()]

    def take(self, indices: ArrayLike) -> Examples:
        """Some of them, in the order of the indices; the cache is shared.

        Args:
            indices: into this selection, or a mask of bools.
        """
        chosen = np.asarray(indices)
        if chosen.size == 0:
            chosen = chosen.astype(np.int64)
        return Examples(self.store, self.places[chosen], self.labels[chosen], self.cache)

    def features(self, name: str, function: FeatureFunction) -> NDArray[np.float32]:
        """Features of each, float32 [examples, width], computed once for each trace of the run.

        Args:
            name: of the features, and of all choices that change them.
            function: gives those of one trace, float32 [width]; nothing in it may be fitted.

        Raises:
            InputError: traces that give features of different widths.
        """
        return self.cache.features(name, self.store, self.places, function)


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
        (place, decision)
        for place, key in enumerate(store.keys())
        if (decision := known.get(key)) is not None
    ][:limit]
    places = np.array([place for place, _ in found], np.int64)
    labels = np.array([decision for _, decision in found], np.int8)
    hallucinated = int(labels.sum())
    if hallucinated in (0, len(labels)):
        raise InputError(
            f"Expected hallucinated and right answers under the labels `{label}` of "
            f"{store.folder}, got {hallucinated} hallucinated and {len(labels) - hallucinated} "
            "right - take another protocol or more traces"
        )
    return Examples(store, places, labels)
