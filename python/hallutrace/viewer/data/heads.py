"""Single heads: their distributions by label, their most extreme traces, and one trace's place."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace.errors import NotInRunError
from hallutrace.viewer.data.head_statistics import COLUMNS
from hallutrace.viewer.data.head_tables import grid
from hallutrace.viewer.data.layers import DEFAULT, described
from hallutrace.viewer.viewed_run import ViewedRun

BINS = 24
EXTREMES = 6
"""Traces that are named at each end of a head."""


def heads_data(
    viewed: ViewedRun, *, marginal: str | None = None, label: str | None = None
) -> dict[str, Any]:
    """Every head of one marginal: its distribution by label, and its most extreme traces.

    Args:
        viewed: the run.
        marginal: of :data:`QUANTITIES`; None is the entropy.
        label: of a protocol; None counts all traces as without a label.

    Returns:
        ``marginal``; ``edges`` float32 [layers, heads, 2], the least and the largest value, between
        which are bins of equal width; ``counts`` uint32 [layers, heads, 3, bins]: hallucinated,
        right, and no label; ``lowest`` and ``highest`` uint32 [layers, heads, k], of the traces
        below, the most extreme first, with ``lowest_values`` and ``highest_values`` float32; and
        ``traces``: ``keys`` and int8 ``labels`` (-1 none) of all that are named.

    Raises:
        NotInRunError: no such marginal, labels or traces.

    Examples:
        >>> found = heads_data(ViewedRun(hallutrace.open(run)), marginal="entropy")
        >>> found["counts"].shape, int(found["counts"][0, 0].sum())
        ((4, 8, 3, 24), 8)
    """
    name = marginal or DEFAULT
    table = viewed.head_tables.table(name)
    values = viewed.label_values(label) if label else np.full(len(table.known), -1, np.int8)
    flat, is_head = table.flat(table.known)
    labels, positions = values[table.known], np.flatnonzero(table.known)
    low, high = flat.min(axis=0), flat.max(axis=0)
    ends = {"lowest": _smallest(flat, 1), "highest": _smallest(flat, -1)}
    named = np.unique(np.concatenate([one.ravel() for one in ends.values()]))
    found: dict[str, Any] = {
        "marginal": described(viewed, name),
        "edges": grid(np.stack([low, high], axis=1), is_head),
        "counts": grid(_counts(flat, labels, low, high), is_head, np.uint32),
        "traces": {
            "keys": [viewed.key_texts[at] for at in positions[named].tolist()],
            "labels": labels[named],
        },
    }
    for end, rows in ends.items():
        found[end] = grid(np.searchsorted(named, rows), is_head, np.uint32)
        found[f"{end}_values"] = grid(np.take_along_axis(flat.T, rows, axis=1), is_head)
    return found


def trace_heads(viewed: ViewedRun, *, trace: str, marginal: str | None = None) -> dict[str, Any]:
    """One trace: the values of its heads, and where they lie among all traces of the run.

    Args:
        viewed: the run.
        trace: key of it, see :attr:`ViewedRun.key_texts`.
        marginal: of :data:`QUANTITIES`; None is the entropy.

    Returns:
        ``trace``, ``marginal``, ``layers``, ``traces``; float32 [layers, heads]: ``value``, and
        ``below``, the share of traces with a smaller value, those of equal value half.

    Raises:
        NotInRunError: no such trace or marginal, or the trace does not have it.

    Examples:
        >>> viewed = ViewedRun(hallutrace.open(run))
        >>> trace_heads(viewed, trace=viewed.key_texts[0])["value"].shape
        (4, 8)
    """
    name, position = marginal or DEFAULT, viewed.position(trace)
    table = viewed.head_tables.table(name)
    if not table.known[position]:
        raise NotInRunError(f"This trace does not have it: {table.quantity.title.lower()}")
    flat, is_head = table.flat(table.known)
    value = table.values[position][is_head]
    below = ((flat < value).mean(axis=0) + (flat <= value).mean(axis=0)) / 2
    return {
        "trace": trace,
        "marginal": described(viewed, name),
        "layers": list(viewed.store.manifest.facts["captured_layers"]),
        "traces": len(flat),
        "value": grid(value, is_head),
        "below": grid(below, is_head),
    }


def _smallest(flat: NDArray[np.float32], sign: int) -> NDArray[np.int64]:
    """Rows of the smallest values of each head times ``sign``, the smallest first, [heads, k]."""
    kept, found = min(EXTREMES, len(flat)), []
    for begin in range(0, flat.shape[1], COLUMNS):
        block = sign * flat[:, begin : begin + COLUMNS]
        rows = np.argpartition(block, kept - 1, axis=0)[:kept]
        order = np.lexsort((rows, np.take_along_axis(block, rows, axis=0)), axis=0)
        found.append(np.take_along_axis(rows, order, axis=0).T)
    return np.concatenate(found)


def _counts(
    flat: NDArray[np.float32],
    labels: NDArray[np.int8],
    low: NDArray[np.float32],
    high: NDArray[np.float32],
) -> NDArray[np.int64]:
    """Traces by head, class (hallucinated, right, none) and bin, [heads, 3, bins]."""
    class_of = np.select([labels == 1, labels == 0], [0, 1], 2)
    counts = np.zeros((flat.shape[1], 3, BINS), np.int64)
    width = np.where(high > low, high.astype(np.float64) - low, 1.0)
    for head in range(flat.shape[1]):
        share = (flat[:, head].astype(np.float64) - low[head]) / width[head]
        cell = class_of * BINS + np.minimum((share * BINS).astype(np.int64), BINS - 1)
        counts[head] = np.bincount(cell, minlength=3 * BINS).reshape(3, BINS)
    return counts
