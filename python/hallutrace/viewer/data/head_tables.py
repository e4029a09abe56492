"""A figure for each head of each trace of a run, read once and kept while there is room."""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace.errors import DamagedError, NotInRunError
from hallutrace.store.reader import TraceStore
from hallutrace.viewer.data.head_quantities import QUANTITIES, HeadQuantity

NO_TRACES = "This run has no traces yet: `hallutrace extract` makes them"

_KEPT_BYTES = 256_000_000
"""Of tables that are kept; the newest one always is. One of 20,000 traces, 36 layers and 32 heads
takes 92 MB."""

_LOOKED_AT = 64  # traces, evenly spaced, by which it is told what a run has


@dataclass(frozen=True)
class HeadTable:
    """One quantity of all traces.

    Attributes:
        quantity: what it is.
        values: float32 [traces, layers, heads] in the order of the run; NaN for heads that a layer
            does not have, and for traces that do not have the quantity.
        known: bool [traces], whether a trace has it.
        damaged: how many traces could not be read; they count as not having it.
    """

    quantity: HeadQuantity
    values: NDArray[np.float32]
    known: NDArray[np.bool_]
    damaged: int = 0

    def flat(self, chosen: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Values of some traces, all of them known, without the holes of the table.

        Args:
            chosen: bool [traces].

        Returns:
            Float32 [chosen traces, heads of all layers], and which cells [layers, heads] they are.
        """
        is_head = ~np.isnan(self.values[np.flatnonzero(self.known)[0]])
        if chosen.all() and is_head.all():
            return self.values.reshape(len(chosen), -1), is_head
        return self.values[chosen][:, is_head], is_head


def grid(
    values: NDArray[Any], is_head: NDArray[np.bool_], dtype: type[np.generic] = np.float32
) -> NDArray[Any]:
    """Values [heads of all layers, ...] as [layers, heads, ...]; NaN or 0 where is none.

    Args:
        values: of :meth:`HeadTable.flat`, or as many.
        is_head: bool [layers, heads].
        dtype: of what is returned.

    Examples:
        >>> grid(np.array([1, 2, 3]), np.array([[True, True], [True, False]]), np.uint32)
        array([[1, 2],
               [3, 0]], dtype=uint32)
    """
    empty = np.nan if np.issubdtype(dtype, np.floating) else 0
    made = np.full((*is_head.shape, *values.shape[1:]), empty, dtype)
    made[is_head] = values
    return made


class HeadTables:
    """The tables of a run. Several threads may use them.

    Args:
        store: the run.

    Examples:
        >>> table = HeadTables(hallutrace.open(run)).table("entropy")
        >>> table.values.shape
        (8, 4, 8)
    """

    def __init__(self, store: TraceStore) -> None:
        self._store = store
        self._tables: OrderedDict[str, HeadTable] = OrderedDict()
        self._lock = threading.Lock()

    @cached_property
    def names(self) -> list[str]:
        """Names of the quantities that the run has, by a look at some of its traces."""
        step = max(1, len(self._store) // _LOOKED_AT)
        found = set()
        for at in range(0, len(self._store), step):
            with suppress(DamagedError):
                trace = self._store[at]
                found |= {name for name, one in QUANTITIES.items() if one.of(trace) is not None}
        return [name for name in QUANTITIES if name in found]

    def heads(self, quantity: HeadQuantity) -> list[int]:
        """How many heads each layer has, of the kind that the quantity belongs to."""
        facts = self._store.manifest.facts
        if not quantity.by_value_head:
            return list(facts["heads"])
        if "value_heads" in facts:
            return list(facts["value_heads"])
        # Runs of other programs may not say it; then all layers of the first trace have as many.
        return [self._store[0].marginals.value_norm.shape[1]] * len(facts["captured_layers"])

    def table(self, name: str) -> HeadTable:
        """The table of a quantity; the first time all traces are read, a shard at a time.

        Args:
            name: of :data:`QUANTITIES`.

        Raises:
            NotInRunError: no such quantity, or no trace of the run has it.
            DamagedError: no trace can be read.
        """
        if name not in QUANTITIES:
            raise NotInRunError(f"Expected one of {', '.join(QUANTITIES)}, got {name[:80]!r}")
        with self._lock:
            if name not in self._tables:
                table = self._read(name)
                self._make_room(table.values.nbytes)
                self._tables[name] = table
            self._tables.move_to_end(name)
            return self._tables[name]

    def _read(self, name: str) -> HeadTable:
        quantity, store = QUANTITIES[name], self._store
        if not len(store):
            raise NotInRunError(NO_TRACES)
        counts = self.heads(quantity)
        shape = (len(store), len(counts), max(counts))
        values, known = np.full(shape, np.nan, np.float32), np.zeros(len(store), np.bool_)
        damage = []
        for at in range(len(store)):
            try:
                found = quantity.of(store[at])
            except DamagedError as error:
                damage.append(error)
                continue
            if found is not None:
                values[at], known[at] = found, True
        if len(damage) == len(store):
            raise damage[0]
        for layer, count in enumerate(counts):
            values[:, layer, count:] = np.nan
        if not known.any():
            raise NotInRunError(
                f"No trace of this run has this: {quantity.title.lower()} - "
                "`hallutrace extract` of questions with a context keeps it"
            )
        return HeadTable(quantity, values, known, len(damage))

    def _make_room(self, more: int) -> None:
        while self._tables:
            held = sum(one.values.nbytes for one in self._tables.values())
            if held + more <= _KEPT_BYTES:
                return
            self._tables.popitem(last=False)
