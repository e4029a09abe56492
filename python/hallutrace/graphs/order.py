"""Which traces a dataset has, and an order to read their graphs in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hallutrace.errors import InputError
from hallutrace.store.reader import TraceStore
from hallutrace.store.trace import Trace

Key = tuple[str, int]


class Traces(Sequence[Trace]):
    """Some traces of a run, read when they are asked for.

    Args:
        store: the run.
        places: int64, of the traces in it.
    """

    def __init__(self, store: TraceStore, places: NDArray[np.int64]) -> None:
        self._store = store
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, which: int) -> Trace: ...
    @overload
    def __getitem__(self, which: slice) -> Traces: ...
    def __getitem__(self, which: int | slice) -> Trace | Traces:
        if isinstance(which, slice):
            return Traces(self._store, self._places[which])
        return self._store[int(self._places[which])]


def placed(places: ArrayLike | None, traces: int) -> NDArray[np.int64]:
    """Places in a store of so many traces as an array; all of them unless given.

    Raises:
        InputError: places that are not there, or not whole numbers.
    """
    chosen = np.arange(traces) if places is None else np.asarray(places)
    if chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu"):
        raise InputError(
            f"Expected `places` whole numbers [traces], got {chosen.dtype} {list(chosen.shape)}"
        )
    outside = chosen[(chosen < 0) | (chosen >= traces)]
    if len(outside):
        raise InputError(f"Expected places in 0..{traces}, got {int(outside[0])}")
    return chosen.astype(np.int64)


def labelled(
    store: TraceStore, places: NDArray[np.int64], known: Mapping[Key, int | None]
) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """The places whose trace has a label, and those labels.

    Raises:
        InputError: a label that is neither 1, 0 nor None, or none at all.
    """
    keys = store.keys()
    found = [(place, known.get(keys[place])) for place in places.tolist()]
    kept = [(place, label) for place, label in found if label is not None]
    strange = [label for _, label in kept if label not in (0, 1)]
    if strange:
        raise InputError(f"Expected labels 1, 0 or None, got {strange[0]!r}")
    if not kept:
        raise InputError(
            f"Expected labels of traces of {store.folder}, got none of its {len(places):,} - "
            "take another protocol, or labels=None for graphs without"
        )
    return (
        np.array([place for place, _ in kept], np.int64),
        np.array([label for _, label in kept], np.int8),
    )
