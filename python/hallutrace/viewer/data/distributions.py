"""How lengths, log-probabilities and entropies are distributed, for each label."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace.viewer.data.trace_list import UNREADABLE, trace_columns
from hallutrace.viewer.slices.intervals import share_by_group
from hallutrace.viewer.viewed_run import ViewedRun

MOST_BINS = 40
CLASSES = (1, 0, -1)
"""Rows of counts: hallucinated, right, no label."""

# name, title, unit
QUANTITIES = (
    ("answer_tokens", "Length of answers", "tokens"),
    ("prompt_tokens", "Length of prompts", "tokens"),
    ("mean_logprob", "Mean log-probability of an answer's tokens", "nats"),
    ("min_logprob", "Smallest log-probability of an answer's tokens", "nats"),
    ("mean_entropy", "Mean entropy where an answer's tokens were chosen", "nats"),
)


def distributions_data(viewed: ViewedRun) -> dict[str, Any]:
    """The payload ``distributions``; it reads all traces.

    Returns:
        ``traces`` and ``groups``: how many; ``shares`` by protocol: ``share`` hallucinated of the
        labelled traces, ``low`` and ``high`` of its 95% bootstrap interval over groups,
        ``labelled`` and ``groups`` (of the labelled ones); ``quantities``: for each ``name``,
        ``title``, ``unit``, ``edges`` float64 [bins + 1], ``all`` uint32 [bins], ``counts`` by
        protocol uint32 [3, bins] (hallucinated, right, no label), ``medians`` by protocol float64
        [3] (NaN where there is none), ``beyond``: how many lie below or above the edges and are in
        the first or last bin, ``missing``: how many have no finite value; ``finish_reasons``:
        ``names``, ``all`` uint32 [reasons], ``counts`` by protocol uint32 [3, reasons];
        ``damaged``: how many traces cannot be read, and the first ``message``.

    Raises:
        DamagedError: a label file is damaged.

    Examples:
        >>> found = distributions_data(ViewedRun(hallutrace.open(run)))
        >>> int(found["quantities"][0]["all"].sum()), found["shares"]["contains"]["labelled"]
        (8, 8)
    """
    columns = trace_columns(viewed)
    is_read = np.array([reason != UNREADABLE for reason in columns.finish_reasons], bool)
    labels = {name: viewed.label_values(name) for name in viewed.labels}
    return {
        "traces": len(is_read),
        "groups": len(set(columns.groups)),
        "shares": {name: _share(values, columns.groups) for name, values in labels.items()},
        "quantities": [
            {"name": name, "title": title, "unit": unit}
            | histogram(getattr(columns, name), labels, is_read)
            for name, title, unit in QUANTITIES
        ],
        "finish_reasons": _reasons(columns.finish_reasons, labels),
        "damaged": {
            "count": len(columns.damaged),
            "message": columns.damaged[0][1] if columns.damaged else None,
        },
    }


def _share(labels: NDArray[np.int8], groups: list[str]) -> dict[str, Any]:
    chosen = np.flatnonzero(labels >= 0)
    names = [groups[at] for at in chosen.tolist()]
    share, low, high = share_by_group(labels[chosen], names)
    return {
        "share": share,
        "low": low,
        "high": high,
        "labelled": len(chosen),
        "groups": len(set(names)),
    }


def histogram(
    values: NDArray[Any], labels: dict[str, NDArray[np.int8]], is_read: NDArray[np.bool_]
) -> dict[str, Any]:
    """Counts of values in bins, of all traces and of each label.

    Args:
        values: [traces]; integers get bins of whole numbers.
        labels: by protocol, int8 [traces], -1 none.
        is_read: bool [traces], which traces have values.

    Returns:
        ``edges``, ``all``, ``counts``, ``medians``, ``beyond`` and ``missing`` of
        :func:`distributions_data`.
    """
    good = is_read & np.isfinite(values)
    edges = bin_edges(values[good])
    inside = np.clip(values.astype(np.float64), edges[0], edges[-1])
    beyond = (values[good] < edges[0]) | (values[good] > edges[-1])

    def counted(chosen: NDArray[np.bool_]) -> NDArray[np.uint32]:
        return np.histogram(inside[chosen], edges)[0].astype(np.uint32)

    masks = {name: [good & (found == kind) for kind in CLASSES] for name, found in labels.items()}
    return {
        "edges": edges,
        "all": counted(good),
        "counts": {name: np.stack([*map(counted, three)]) for name, three in masks.items()},
        "medians": {
            name: np.array([np.median(values[one]) if one.any() else np.nan for one in three])
            for name, three in masks.items()
        },
        "beyond": int(beyond.sum()),
        "missing": int(len(values) - good.sum()),
    }


def bin_edges(values: NDArray[Any]) -> NDArray[np.float64]:
    """Edges of bins of equal width, float64 [bins + 1]: twice the cube root of the values, 8 to 40.

    They hold the values but for those that lie further outside of the middle 98% than it is wide.
    Integers lie in the middle of their bins, which have a whole width.

    Args:
        values: [values], finite.

    Examples:
        >>> bin_edges(np.array([1, 2, 2, 4]))
        array([0.5, 1.5, 2.5, 3.5, 4.5])
    """
    if not len(values):
        return np.array([0.0, 1.0])
    most = int(np.clip(np.ceil(2 * len(values) ** (1 / 3)), 8, MOST_BINS))
    inner = np.quantile(values.astype(np.float64), [0.01, 0.99])
    width = inner[1] - inner[0]
    low = max(float(values.min()), inner[0] - width)
    high = min(float(values.max()), inner[1] + width)
    if np.issubdtype(values.dtype, np.integer):
        step = max(1, int(np.ceil((np.floor(high) - np.floor(low) + 1) / most)))
        count = int((np.floor(high) - np.floor(low)) // step) + 1
        edges: NDArray[np.float64] = np.floor(low) - 0.5 + step * np.arange(count + 1)
        return edges
    if high == low:
        return np.array([low - 0.5, high + 0.5])
    return np.linspace(low, high, most + 1)


def _reasons(texts: list[str], labels: dict[str, NDArray[np.int8]]) -> dict[str, Any]:
    names = sorted(set(texts))
    number = {name: at for at, name in enumerate(names)}
    found = np.array([number[text] for text in texts], np.int64)

    def counted(chosen: NDArray[np.bool_]) -> NDArray[np.uint32]:
        return np.bincount(found[chosen], minlength=len(names)).astype(np.uint32)

    return {
        "names": names,
        "all": counted(np.ones(len(texts), bool)),
        "counts": {
            name: np.stack([counted(values == kind) for kind in CLASSES])
            for name, values in labels.items()
        },
    }
