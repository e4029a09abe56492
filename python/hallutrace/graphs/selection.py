"""The traces of a dataset of graphs: chosen by index, by label and by split."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hallutrace import labels as protocols
from hallutrace.errors import InputError
from hallutrace.splits import PARTS, fold
from hallutrace.store.reader import TraceStore
from hallutrace.store.trace import Trace

Key = tuple[str, int]


class Traces(Sequence[Trace]):
    """Some traces of a run, each read when it is asked for.

    Args:
        store: the run.
        indices: int64 [traces], of the traces in the run.
    """

    def __init__(self, store: TraceStore, indices: NDArray[np.int64]) -> None:
        self._store = store
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, which: int) -> Trace: ...
    @overload
    def __getitem__(self, which: slice) -> Traces: ...
    def __getitem__(self, which: int | slice) -> Trace | Traces:
        if isinstance(which, slice):
            return Traces(self._store, self._indices[which])
        return self._store[int(self._indices[which])]


def checked_indices(indices: ArrayLike | None, traces: int) -> NDArray[np.int64]:
    """Indices of traces as an array, int64; of all traces unless they are given.

    Raises:
        InputError: indices that are out of range, or no whole numbers.
    """
    chosen = np.arange(traces) if indices is None else np.asarray(indices)
    if chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu"):
        raise InputError(
            f"Expected `indices` whole numbers [traces], got {chosen.dtype} {list(chosen.shape)}"
        )
    outside = chosen[(chosen < 0) | (chosen >= traces)]
    if len(outside):
        raise InputError(f"Expected `indices` in 0..{traces}, got {int(outside[0])}")
    return chosen.astype(np.int64)


def labelled(
    store: TraceStore, indices: NDArray[np.int64], labels: str | Mapping[Key, int | None]
) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """The indices of traces that have a label, and those labels.

    Args:
        store: the run.
        indices: of traces in the run.
        labels: name of a labelling protocol of the run, or labels by (question id, sample).

    Raises:
        InputError: no such protocol, a label that is neither 1, 0 nor None, or none at all.
    """
    known = protocols.read(store.folder, labels) if isinstance(labels, str) else labels
    keys = store.keys()
    pairs = [(index, known.get(keys[index])) for index in indices.tolist()]
    kept = [(index, label) for index, label in pairs if label is not None]
    unknown = [label for _, label in kept if label not in (0, 1)]
    if unknown:
        raise InputError(f"Expected labels 1, 0 or None, got {unknown[0]!r}")
    if not kept:
        raise InputError(
            f"Expected labels of traces of {store.folder}, got none of its {len(indices):,} - "
            "take another protocol, or labels=None for graphs without"
        )
    return (
        np.array([index for index, _ in kept], np.int64),
        np.array([label for _, label in kept], np.int8),
    )


def in_split(
    store: TraceStore,
    indices: NDArray[np.int64],
    labels: NDArray[np.int8] | None,
    split: str,
    number: int,
    folds: int,
    seed: int,
) -> NDArray[np.int64]:
    """Positions in ``indices`` of the traces of one part of a fold; see :mod:`hallutrace.splits`.

    Raises:
        InputError: no such part or fold, or too few traces.
    """
    if split not in PARTS:
        raise InputError(f"Expected `split` to be {', '.join(PARTS)} or None, got {split!r}")
    if labels is None and (known := store.labels()):
        warnings.warn(
            f"Expected `labels` with `split`, got none, and {store.folder} has labels "
            f"{', '.join(known)}: parts of an evaluation depend on them, so these are others - "
            "give the labels that you will evaluate with",
            stacklevel=4,
        )
    groups = [trace.group for trace in Traces(store, indices)]
    part: NDArray[np.int64] = getattr(fold(labels, groups, number, folds, seed), split)
    return part
