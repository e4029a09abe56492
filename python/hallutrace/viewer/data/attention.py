"""The attention graph of one layer of a trace, and what pruning had dropped of each row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace.errors import InputError
from hallutrace.store.trace import Trace
from hallutrace.viewer.viewed_run import ViewedRun

# Sums of float16 numbers that are this near to 1 are 1: a softmax without a sink.
_NEAR_ONE = 0.01


def attention_data(
    viewed: ViewedRun,
    *,
    trace: str | None = None,
    layer: str | None = None,
    head: str | None = None,
) -> dict[str, Any]:
    """The edges of one layer as rows (CSR): row i has the tokens that token i looked at.

    Args:
        viewed: the run.
        trace: key of a trace, see :attr:`ViewedRun.key_texts`; the first if None.
        layer: number of a layer with captured attention; the first of them if None.
        head: its number, if the run keeps each head's edges; the first if None.

    Returns:
        ``layer``; ``head`` (None if heads were combined); ``heads``, their number; ``combine``
        (``mean``, ``max`` or ``each``); ``rule``, what pruning kept of a row; ``rows_from``, the
        first row that edges were kept of; ``indptr`` uint32 [N + 1]; ``keys`` uint16 or, beyond
        65,536 tokens, uint32 [E]; ``weights`` float16 or float32 [E], as stored; ``dropped``
        float32 [N], see :func:`dropped_mass`.

    Raises:
        NotInRunError: no such trace.
        InputError: no such layer or head.
        DamagedError: the trace is damaged.

    Examples:
        >>> found = attention_data(ViewedRun(hallutrace.open(run)), layer="2")
        >>> len(found["keys"]) == int(found["indptr"][-1])
        True
    """
    found = viewed.trace(viewed.key_texts[0] if trace is None else trace)
    number = found.layers[0] if layer is None else _number("layer", layer)
    edges = found.layer(number)
    heads, tokens, _ = edges.shape
    rule = dict(found.manifest.identity["sparsification"])
    combine = str(rule["heads"])
    at = None
    if combine == "each":
        at = 0 if head is None else _number("head", head)
        if not 0 <= at < heads:
            raise InputError(f"Expected a head in 0..{heads - 1} of layer {number}, got {at}")
        edges = edges.head(at)
    is_half = found.stored("edges.weight").dtype == np.float16
    return {
        "layer": number,
        "head": at,
        "heads": int(found.manifest.facts["heads"][found.layers.index(number)]),
        "combine": combine,
        "rule": {name: rule.get(name) for name in ("top_k", "min_weight", "top_mass")},
        "rows_from": _first_row(found),
        "indptr": edges.indptr.astype(np.uint32),
        "keys": edges.keys.astype(np.uint16 if tokens <= 1 << 16 else np.uint32),
        "weights": edges.weights.astype(np.float16) if is_half else edges.weights,
        "dropped": dropped_mass(found, number, at),
    }


def attention_parameters(trace: Trace, key: str) -> Iterator[dict[str, str]]:
    """The parameters of all attention graphs of a trace, for a page that carries them.

    Args:
        trace: of a run.
        key: of the trace, see :attr:`ViewedRun.key_texts`.

    Examples:
        >>> trace = hallutrace.open(run)[0]
        >>> next(attention_parameters(trace, "q1"))
        {'trace': 'q1', 'layer': '0'}
    """
    facts = trace.manifest.facts
    is_each = trace.manifest.identity["sparsification"]["heads"] == "each"
    for layer, heads in zip(facts["captured_layers"], facts["heads"], strict=True):
        at = {"trace": key, "layer": str(layer)}
        if is_each:
            yield from ({**at, "head": str(head)} for head in range(heads))
        else:
            yield at


def dropped_mass(trace: Trace, layer: int, head: int | None = None) -> NDArray[np.float32]:
    """The attention of each row that pruning dropped: the mass of the row less its edges' weights.

    It is exact up to the rounding of the stored weights, because rows of attention sum to 1. Where
    a model has attention sinks, they do not: then the stored mass of the row counts, which is
    known for the rows that have marginals.

    Args:
        trace: of a run.
        layer: with captured attention.
        head: of a run that keeps each head's edges; None for heads that were combined.

    Returns:
        float32 [N], from 0 to 1; NaN for rows without edges, and where the mass is not known: in
        rows without marginals of a model with sinks, and where heads were combined by maximum.

    Raises:
        InputError: no such layer or head.

    Examples:
        >>> dropped = dropped_mass(hallutrace.open(run)[0], 0)
        >>> bool((dropped >= 0).all() and (dropped < 1).all())
        True
    """
    edges = trace.layer(layer)
    if head is not None:
        edges = edges.head(head)
    starts = edges.indptr
    sums = np.concatenate([[0.0], np.cumsum(edges.weights, dtype=np.float64)])
    kept = sums[starts[1:]] - sums[starts[:-1]]
    dropped: NDArray[np.float64] = np.clip(_row_mass(trace, layer, head) - kept, 0, None)
    dropped[: _first_row(trace)] = np.nan
    narrowed: NDArray[np.float32] = dropped.astype(np.float32)
    return narrowed


def _row_mass(trace: Trace, layer: int, head: int | None) -> NDArray[np.float64]:
    """Sum of the weights of each row before pruning, float64 [N]; NaN where it is not known."""
    tokens = len(trace.tokens)
    if trace.manifest.identity["sparsification"]["heads"] == "max":
        return np.full(tokens, np.nan)
    index = trace.layers.index(layer)
    heads = trace.manifest.facts["heads"][index]
    by_head = trace.marginals.mass[index, :heads].sum(axis=-1, dtype=np.float64)
    if np.all(np.abs(by_head - 1) < _NEAR_ONE):
        return np.ones(tokens)
    known = by_head.mean(axis=0) if head is None else by_head[head]
    return np.concatenate([np.full(tokens - len(known), np.nan), known])


def _first_row(trace: Trace) -> int:
    """The first row that edges were kept of."""
    rows = trace.manifest.identity["sparsification"].get("edge_rows", "all")
    return trace.prompt_length - 1 if rows == "answer" else 0


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InputError(f"Expected a number as {name}, got {text[:80]!r}")
    return int(text)
