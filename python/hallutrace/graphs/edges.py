"""The edges of many stored graphs at once, as rows after each other.

A *part* is one trace with some of its layers; a row is one query of one head of one layer of one
part. All that is done to edges (heads combined, rules, window, controls) is done on the rows of a
whole batch, so that Python's cost is paid by the part and not by the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hallutrace.graphs import controls
from hallutrace.graphs.recipe import Plan
from hallutrace.store.trace import Trace

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """A trace, and which of a plan's layers to make graphs of.

    Attributes:
        trace: the trace.
        at: places in ``plan.layers``.
        tokens: N.
        prompt: P.
        first: the first token that becomes a node.
        cut: tokens before it that ``max_nodes`` cut, the window having left them.
    """

    trace: Trace
    at: Sequence[int]
    tokens: int
    prompt: int
    first: int
    cut: int

    @classmethod
    def of(cls, trace: Trace, at: Sequence[int], plan: Plan) -> Part:
        """Reads the lengths and places the window."""
        window, cap = plan.recipe.window, plan.recipe.max_nodes
        tokens, prompt = len(trace.tokens), trace.prompt_length
        first = 0
        if window is not None:
            first = max(0, prompt - (0 if isinstance(window, str) else int(window)))
        cut = 0 if cap is None else max(0, tokens - first - cap)
        return cls(trace, at, tokens, prompt, first + cut, cut)


@dataclass(frozen=True)
class Rows:
    """Edges in CSR.

    Attributes:
        counts: int64 [rows], edges of each.
        part: int64 [rows], number of the part.
        at: int64 [rows], place of the layer in ``plan.layers``.
        head: int64 [rows], 0 where heads are combined.
        query: int64 [rows], position of the token that looks.
        keys: int64 [edges], position of the token looked at, increasing within a row.
        weights: float32 [edges].
    """

    counts: Ints
    part: Ints
    at: Ints
    head: Ints
    query: Ints
    keys: Ints
    weights: NDArray[np.float32]

    @property
    def row(self) -> Ints:
        """Row of each edge."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def keep(self, edges: NDArray[np.bool_], row: Ints) -> Rows:
        """The edges of a mask; ``row`` as above."""
        counts = np.bincount(row[edges], minlength=len(self.counts))
        return replace(self, counts=counts, keys=self.keys[edges], weights=self.weights[edges])


def rows_of(parts: Sequence[Part], plan: Plan) -> Rows:
    """Edges of parts as the plan's recipe wants them; of no part but with all their rows."""
    rows = _stored(parts, plan)
    if plan.recipe.edges == "none":
        return replace(
            rows,
            counts=np.zeros_like(rows.counts),
            keys=rows.keys[:0],
            weights=rows.weights[:0],
        )
    if plan.combine is not None:
        rows = _combined(rows, parts, plan)
    rows = _pruned(rows, plan)
    first = np.array([part.first for part in parts], np.int64)
    if first.any():
        row = rows.row
        begin = first[rows.part][row]
        rows = rows.keep((rows.keys >= begin) & (rows.query[row] >= begin), row)
    return _shuffled(rows, parts, plan) if plan.recipe.edges == "shuffled" else rows


def _stored(parts: Sequence[Part], plan: Plan) -> Rows:
    """Edges as the run keeps them: graphs of each part in the order of layers, then heads."""
    indptrs, keys, weights = [], [], []
    graphs = np.zeros(len(parts), np.int64)
    for number, part in enumerate(parts):
        indptr = part.trace.stored("edges.indptr")
        offsets = part.trace.stored("edges.offset")
        stored_keys = part.trace.stored("edges.key")
        stored_weights = part.trace.stored("edges.weight")
        per_layer = len(indptr) // plan.captured
        graphs[number] = len(part.at) * per_layer
        for begin, end in _spans(plan.places[list(part.at)].tolist()):
            of_span = slice(begin * per_layer, end * per_layer)
            edges = slice(int(offsets[of_span.start]), int(offsets[of_span.stop]))
            indptrs.append(indptr[of_span].reshape(-1))
            keys.append(stored_keys[edges])
            weights.append(stored_weights[edges])
    tokens = np.repeat(np.array([part.tokens for part in parts], np.int64), graphs)
    at = np.concatenate([part.at for part in parts]).astype(np.int64)
    # Graphs of one layer: all parts come from one run.
    per_layer = int(graphs.sum()) // len(at)
    begins = np.cumsum(tokens) - tokens
    graph = np.repeat(np.arange(len(tokens)), tokens)
    # Between two graphs the differences hold one number more, which counts nothing.
    counts = np.delete(np.diff(np.concatenate(indptrs)), np.cumsum(tokens + 1)[:-1] - 1)
    return Rows(
        counts=counts.astype(np.int64),
        part=np.repeat(np.arange(len(parts)), graphs)[graph],
        at=np.repeat(at, per_layer)[graph],
        head=np.tile(np.arange(per_layer), len(at))[graph],
        query=np.arange(len(graph)) - begins[graph],
        keys=np.concatenate(keys).astype(np.int64),
        weights=np.concatenate(weights).astype(np.float32),
    )


def _spans(places: list[int]) -> list[tuple[int, int]]:
    """Runs of consecutive places, each from its first to after its last."""
    spans: list[tuple[int, int]] = []
    for place in places:
        if spans and spans[-1][1] == place:
            spans[-1] = (spans[-1][0], place + 1)
        else:
            spans.append((place, place + 1))
    return spans


def _combined(rows: Rows, parts: Sequence[Part], plan: Plan) -> Rows:
    """One head a layer: what heads kept, added and divided by their number, or its maximum."""
    tokens = np.array([part.tokens for part in parts], np.int64)
    first_head = rows.head == 0
    # Combined rows are those of the first heads, in the same order; a layer begins with query 0.
    begins = (np.cumsum(first_head) - 1)[first_head & (rows.query == 0)]
    layer = np.cumsum(first_head & (rows.query == 0)) - 1
    target = (begins[layer] + rows.query)[rows.row]
    stride = int(tokens.max())
    code = target * stride + rows.keys
    order = np.argsort(code, kind="stable")  # within an edge, in the order of heads
    code = code[order]
    starts = np.flatnonzero(np.diff(code, prepend=-1))
    weights = rows.weights[order]
    row, keys = np.divmod(code[starts], stride)
    at = rows.at[first_head]
    if not len(starts):
        merged = weights
    elif plan.combine == "max":
        merged = np.maximum.reduceat(weights, starts)
    else:
        merged = np.add.reduceat(weights, starts) / plan.heads_of[at[row]].astype(np.float32)
    return Rows(
        counts=np.bincount(row, minlength=int(first_head.sum())),
        part=rows.part[first_head],
        at=at,
        head=rows.head[first_head],
        query=rows.query[first_head],
        keys=keys,
        weights=merged,
    )


def _pruned(rows: Rows, plan: Plan) -> Rows:
    """``min_weight`` and ``top_k`` of each row; ties to the lower key."""
    least, top_k = np.float32(plan.recipe.min_weight), plan.recipe.top_k
    if least > 0:
        rows = rows.keep(rows.weights >= least, rows.row)
    if top_k is not None and rows.counts.max(initial=0) > top_k:
        row = rows.row
        order = np.lexsort((-rows.weights, row))  # stable: keys increase within a row
        rank = np.arange(len(row)) - (np.cumsum(rows.counts) - rows.counts)[row]
        kept = np.zeros(len(row), bool)
        kept[order[rank < top_k]] = True
        rows = rows.keep(kept, row)
    return rows


def _shuffled(rows: Rows, parts: Sequence[Part], plan: Plan) -> Rows:
    """Other keys for the same queries, and their weights in another order."""
    seeds = [controls.seed_of(plan.recipe.seed, part.trace.id, part.trace.sample) for part in parts]
    first = np.array([part.first for part in parts], np.int64)[rows.part]
    tokens = np.array([part.tokens for part in parts], np.int64)[rows.part]
    row_seeds = controls.row_seeds(
        np.array(seeds, np.uint64)[rows.part],
        np.array(plan.layers, np.int64)[rows.at],
        rows.head * tokens + rows.query,
    )
    # Rows before the window have no edges and nothing to draw from.
    choices = np.maximum(rows.query - first + 1, 0)
    keys = controls.shuffled_keys(rows.counts, choices, row_seeds)
    order = controls.shuffled_order(rows.counts, row_seeds)
    return replace(rows, keys=keys + first[rows.row], weights=rows.weights[order])
