"""Layers and heads: any exact marginal by layer and head, for the run and by label."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace.errors import NotInRunError
from hallutrace.splits import numbered
from hallutrace.viewer.data.head_quantities import QUANTITIES
from hallutrace.viewer.data.head_statistics import (
    COLUMNS,
    LEAST_GROUPS,
    LEVEL,
    head_aurocs,
    head_differences,
)
from hallutrace.viewer.data.head_tables import NO_TRACES, HeadTable, grid
from hallutrace.viewer.data.trace_list import trace_columns
from hallutrace.viewer.viewed_run import ViewedRun

DEFAULT = "entropy"


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
        "marginals": [described(viewed, name) for name in tables.names],
    }


def described(viewed: ViewedRun, name: str) -> dict[str, Any]:
    """One marginal in words, as :func:`layer_choices` has it.

    Args:
        viewed: the run.
        name: of :data:`QUANTITIES`.
    """
    quantity = QUANTITIES[name]
    return {
        "name": name,
        "title": quantity.title,
        "unit": quantity.unit,
        "over": quantity.over,
        "by_value_head": quantity.by_value_head,
        "heads": viewed.head_tables.heads(quantity),
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
    flat, is_head = table.flat(table.known)
    found: dict[str, Any] = {
        "marginal": described(viewed, name),
        "layers": list(viewed.store.manifest.facts["captured_layers"]),
        "traces": int(table.known.sum()),
        "damaged": table.damaged,
        "mean": grid(flat.mean(axis=0, dtype=np.float64), is_head),
        "deviation": grid(_deviation(flat), is_head),
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
    flat, is_head = table.flat(chosen)
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
        "corrected": grid(differences.corrected, is_head, np.float64),
        **{name: grid(one, is_head) for name, one in arrays.items()},
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


def _deviation(flat: NDArray[np.float32]) -> NDArray[np.float64]:
    """Standard deviation over traces [heads], a part of the heads at a time."""
    parts = [
        flat[:, begin : begin + COLUMNS].std(axis=0, dtype=np.float64)
        for begin in range(0, flat.shape[1], COLUMNS)
    ]
    return np.concatenate(parts)
