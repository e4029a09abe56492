"""Layers and heads: any exact marginal by layer and head, for the run, by label, for one trace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace.errors import NotInRunError
from hallutrace.splits import numbered
from hallutrace.viewer.data.head_quantities import QUANTITIES
from hallutrace.viewer.data.head_statistics import (
    LEAST_GROUPS,
    LEVEL,
    head_aurocs,
    head_differences,
)
from hallutrace.viewer.data.head_tables import NO_TRACES, HeadTable
from hallutrace.viewer.data.trace_list import trace_columns
from hallutrace.viewer.viewed_run import ViewedRun

DEFAULT = "entropy"
BINS = 24
EXTREMES = 6
"""Traces that are named at each end of a head."""

_COLUMNS = 128  # heads at a time, which bounds the memory


def layer_choices(viewed: ViewedRun) -> dict[str, Any]:
    """What can be chosen, without reading all traces.

    Returns:
        ``traces``; ``labels``, names of the protocols; ``label``, the one that is shown first, or
        None; ``layers``, numbers of the captured layers; ``marginals``, a list of ``name``,
        ``title``, ``unit``, ``over`` (what it is the mean of), ``by_value_head`` and ``heads``, how
        many each layer has.

    Raises:
        NotInRunError: the run has no traces.

    Examples:
        >>> found = layer_choices(ViewedRun(hallutrace.open(run)))
        >>> found["marginals"][0]["name"], found["layers"]
        ('entropy', [0, 1, 2, 3])
    """
    tables = viewed.head_tables
    if not len(viewed.store):
        raise NotInRunError(NO_TRACES)
    return {
        "traces": len(viewed.store),
        "labels": viewed.labels,
        "label": viewed.label(None) if viewed.labels else None,
        "layers": list(viewed.store.manifest.facts["captured_layers"]),
        "marginals": [_described(viewed, name) for name in tables.names],
    }


def layers_data(
    viewed: ViewedRun, *, marginal: str | None = None, label: str | None = None
) -> dict[str, Any]:
    """One marginal by layer and head: the run's mean, and hallucinated less right.

    Args:
        viewed: the run.
        marginal: of :data:`QUANTITIES`; None is the entropy.
        label: of a protocol; None shows the run without labels.

    Returns:
        ``marginal`` as in :func:`layer_choices`; ``layers``; ``traces``, how many have it;
        ``damaged``, how many traces could not be read; arrays
        float32 [layers, heads], NaN for heads that a layer does not have: ``mean`` and
        ``deviation`` over traces. With a label also ``label``, the counts ``hallucinated``,
        ``right`` and ``groups``, and either ``untested``, a sentence that says why nothing is
        compared, or ``level`` and more arrays: ``mean_hallucinated``, ``mean_right``,
        ``difference``, ``low``, ``high``, ``corrected`` (p by Holm, float64) and ``auroc``; see
        :mod:`hallutrace.viewer.data.head_statistics`.

    Raises:
        NotInRunError: no such marginal, labels or traces.

    Examples:
        >>> found = layers_data(ViewedRun(hallutrace.open(run)), marginal="entropy")
        >>> found["mean"].shape, found["traces"]
        ((4, 8), 8)
    """
    name = marginal or DEFAULT
    table = viewed.head_tables.table(name)
    # With holes alone in a column there is nothing to average, and numpy would warn.
    flat, is_head = _flat(table, table.known)
    found: dict[str, Any] = {
        "marginal": _described(viewed, name),
        "layers": list(viewed.store.manifest.facts["captured_layers"]),
        "traces": int(table.known.sum()),
        "damaged": table.damaged,
        "mean": _grid(flat.mean(axis=0, dtype=np.float64), is_head),
        "deviation": _grid(_deviation(flat), is_head),
    }
    return found if label is None else found | _by_label(viewed, table, label)


def _by_label(viewed: ViewedRun, table: HeadTable, label: str) -> dict[str, Any]:
    values = viewed.label_values(label)
    chosen = table.known & (values >= 0)
    labels, groups = values[chosen], _groups(viewed)[chosen]
    hallucinated = int((labels == 1).sum())
    found: dict[str, Any] = {
        "label": label,
        "hallucinated": hallucinated,
        "right": len(labels) - hallucinated,
        "groups": np.unique(groups).size,
    }
    least = min(np.unique(groups[labels == one]).size for one in (0, 1))
    if least < LEAST_GROUPS:
        sentence = (
            f"Nothing is compared: it takes {LEAST_GROUPS} groups of hallucinated and of right "
            f"answers each, and by {label} there are {least} of one kind. `hallutrace extract` of "
            "more questions, or another protocol, gives them."
        )
        return found | {"untested": sentence}
    flat, is_head = _flat(table, chosen)
    differences = head_differences(flat, labels, groups)
    arrays = {
        "mean_hallucinated": differences.hallucinated,
        "mean_right": differences.right,
        "difference": differences.difference,
        "low": differences.low,
        "high": differences.high,
        "auroc": head_aurocs(flat, labels),
    }
    return found | {
        "level": LEVEL,
        "corrected": _grid(differences.corrected, is_head, np.float64),
        **{name: _grid(one, is_head) for name, one in arrays.items()},
    }


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
    flat, is_head = _flat(table, table.known)
    labels, positions = values[table.known], np.flatnonzero(table.known)
    low, high = flat.min(axis=0), flat.max(axis=0)
    ends = {"lowest": _smallest(flat, 1), "highest": _smallest(flat, -1)}
    named = np.unique(np.concatenate([one.ravel() for one in ends.values()]))
    found: dict[str, Any] = {
        "marginal": _described(viewed, name),
        "edges": _grid(np.stack([low, high], axis=1), is_head),
        "counts": _grid(_counts(flat, labels, low, high), is_head, np.uint32),
        "traces": {
            "keys": [viewed.key_texts[at] for at in positions[named].tolist()],
            "labels": labels[named],
        },
    }
    for end, rows in ends.items():
        found[end] = _grid(np.searchsorted(named, rows), is_head, np.uint32)
        found[f"{end}_values"] = _grid(np.take_along_axis(flat.T, rows, axis=1), is_head)
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
    flat, is_head = _flat(table, table.known)
    value = table.values[position][is_head]
    below = ((flat < value).mean(axis=0) + (flat <= value).mean(axis=0)) / 2
    return {
        "trace": trace,
        "marginal": _described(viewed, name),
        "layers": list(viewed.store.manifest.facts["captured_layers"]),
        "traces": len(flat),
        "value": _grid(value, is_head),
        "below": _grid(below, is_head),
    }


def report_keys(
    viewed: ViewedRun, traces: Iterable[str] = ()
) -> Iterator[tuple[str, dict[str, str]]]:
    """Names and parameters of the payloads that this view needs in a page that stands alone.

    Args:
        viewed: the run.
        traces: keys of those whose heads the page carries.
    """
    yield "layer_choices", {}
    traces = list(traces)
    label = {"label": viewed.label(None)} if viewed.labels else {}
    for name in viewed.head_tables.names:
        yield "layers", {"marginal": name, **label}
        yield "heads", {"marginal": name, **label}
        for trace in traces:
            yield "trace_heads", {"marginal": name, "trace": trace}


def _groups(viewed: ViewedRun) -> NDArray[np.int64]:
    """The group of each trace, numbered from 0, int64 [traces]."""
    return numbered(trace_columns(viewed).groups)


def _described(viewed: ViewedRun, name: str) -> dict[str, Any]:
    quantity = QUANTITIES[name]
    return {
        "name": name,
        "title": quantity.title,
        "unit": quantity.unit,
        "over": quantity.over,
        "by_value_head": quantity.by_value_head,
        "heads": viewed.head_tables.heads(quantity),
    }


def _flat(
    table: HeadTable, chosen: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Values of some traces [traces, heads of all layers], and which cells of the grid they are."""
    is_head = ~np.isnan(table.values[np.flatnonzero(table.known)[0]])
    if chosen.all() and is_head.all():
        return table.values.reshape(len(chosen), -1), is_head
    return table.values[chosen][:, is_head], is_head


def _grid(
    values: NDArray[Any], is_head: NDArray[np.bool_], dtype: type[np.generic] = np.float32
) -> NDArray[Any]:
    """Values [heads of all layers, ...] as [layers, heads, ...]; NaN or 0 where is none."""
    empty = np.nan if np.issubdtype(dtype, np.floating) else 0
    grid = np.full((*is_head.shape, *values.shape[1:]), empty, dtype)
    grid[is_head] = values
    return grid


def _deviation(flat: NDArray[np.float32]) -> NDArray[np.float64]:
    """Standard deviation over traces [heads], a part of the heads at a time."""
    parts = [
        flat[:, begin : begin + _COLUMNS].std(axis=0, dtype=np.float64)
        for begin in range(0, flat.shape[1], _COLUMNS)
    ]
    return np.concatenate(parts)


def _smallest(flat: NDArray[np.float32], sign: int) -> NDArray[np.int64]:
    """Rows of the smallest values of each head times ``sign``, the smallest first, [heads, k]."""
    kept, found = min(EXTREMES, len(flat)), []
    for begin in range(0, flat.shape[1], _COLUMNS):
        block = sign * flat[:, begin : begin + _COLUMNS]
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
