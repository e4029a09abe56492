"""The stored edges of many graphs at once, as rows after each other.

A row is one query of one head of one layer of one slice of a trace. Everything that is done to
edges (heads combined, pruning, window, controls) is done on the rows of a whole batch, so that the
cost of a Python call is paid for each slice and not for each graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hallutrace.graphs import controls
from hallutrace.graphs.layout import GraphLayout
from hallutrace.store.trace import Trace

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class TraceSlice:
    """A trace, and the layers and tokens of it that graphs are made of.

    Attributes:
        trace: the trace.
        layers: indices into ``GraphLayout.layers``.
        tokens: tokens of the trace, N.
        prompt: tokens of the prompt, P.
        first: index of the first token that becomes a node.
        cut: tokens inside the window that ``max_nodes`` cut.
    """

    trace: Trace
    layers: Sequence[int]
    tokens: int
    prompt: int
    first: int
    cut: int

    @classmethod
    def of(cls, trace: Trace, layers: Sequence[int], layout: GraphLayout) -> TraceSlice:
        """Reads the lengths of a trace and applies ``window`` and ``max_nodes``."""
        window, max_nodes = layout.options.window, layout.options.max_nodes
        tokens, prompt = len(trace.tokens), trace.prompt_length
        first = 0
        if window is not None:
            first = max(0, prompt - (0 if isinstance(window, str) else int(window)))
        cut = 0 if max_nodes is None else max(0, tokens - first - max_nodes)
        return cls(trace, layers, tokens, prompt, first + cut, cut)


@dataclass(frozen=True)
class EdgeRows:
    """Edges in CSR.

    Attributes:
        counts: int64 [rows], edges of each row.
        slice: int64 [rows], index of the slice.
        layer: int64 [rows], index into ``GraphLayout.layers``.
        head: int64 [rows], 0 where heads are combined.
        query: int64 [rows], token that attends.
        keys: int64 [edges], token attended to, increasing within a row.
        weights: float32 [edges].
    """

    counts: Ints
    slice: Ints
    layer: Ints
    head: Ints
    query: Ints
    keys: Ints
    weights: NDArray[np.float32]

    @property
    def row(self) -> Ints:
        """Row of each edge."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def keep(self, edges: NDArray[np.bool_], row: Ints) -> EdgeRows:
        """The edges of a mask; ``row`` is :attr:`row`."""
        counts = np.bincount(row[edges], minlength=len(self.counts))
        return replace(self, counts=counts, keys=self.keys[edges], weights=self.weights[edges])


def read_edges(slices: Sequence[TraceSlice], layout: GraphLayout) -> EdgeRows:
    """The edges of slices, with the options of the layout applied.

    With ``edges="none"`` all rows are there and empty.
    """
    rows = _stored(slices, layout)
    if layout.options.edges == "none":
        nothing = np.zeros_like(rows.counts)
        return replace(rows, counts=nothing, keys=rows.keys[:0], weights=rows.weights[:0])
    if layout.combine is not None:
        rows = _combined(rows, slices, layout)
    rows = _pruned(rows, layout)
    first = np.array([one.first for one in slices], np.int64)
    if first.any():
        row = rows.row
        begin = first[rows.slice][row]
        rows = rows.keep((rows.keys >= begin) & (rows.query[row] >= begin), row)
    return _shuffled(rows, slices, layout) if layout.options.edges == "shuffled" else rows


def _stored(slices: Sequence[TraceSlice], layout: GraphLayout) -> EdgeRows:
    """Edges as the run keeps them: of each slice in the order of layers, then heads."""
    indptrs, keys, weights = [], [], []
    graphs = np.zeros(len(slices), np.int64)
    for number, one in enumerate(slices):
        indptr = one.trace.stored("edges.indptr")
        offsets = one.trace.stored("edges.offset")
        stored_keys = one.trace.stored("edges.key")
        stored_weights = one.trace.stored("edges.weight")
        per_layer = len(indptr) // layout.captured
        graphs[number] = len(one.layers) * per_layer
        for begin, end in _spans(layout.stored_index[list(one.layers)].tolist()):
            of_span = slice(begin * per_layer, end * per_layer)
            edges = slice(int(offsets[of_span.start]), int(offsets[of_span.stop]))
            indptrs.append(indptr[of_span].reshape(-1))
            keys.append(stored_keys[edges])
            weights.append(stored_weights[edges])
    tokens = np.repeat(np.array([one.tokens for one in slices], np.int64), graphs)
    layer = np.concatenate([one.layers for one in slices]).astype(np.int64)
    # All slices come from one run, so a layer has as many graphs in each.
    per_layer = int(graphs.sum()) // len(layer)
    begins = np.cumsum(tokens) - tokens
    graph = np.repeat(np.arange(len(tokens)), tokens)
    # Between two graphs the differences hold one number more, which counts nothing.
    counts = np.delete(np.diff(np.concatenate(indptrs)), np.cumsum(tokens + 1)[:-1] - 1)
    return EdgeRows(
        counts=counts.astype(np.int64),
        slice=np.repeat(np.arange(len(slices)), graphs)[graph],
        layer=np.repeat(layer, per_layer)[graph],
        head=np.tile(np.arange(per_layer), len(layer))[graph],
        query=np.arange(len(graph)) - begins[graph],
        keys=np.concatenate(keys).astype(np.int64),
        weights=np.concatenate(weights).astype(np.float32),
    )


def _spans(indices: list[int]) -> list[tuple[int, int]]:
    """Runs of consecutive indices, each from its first to after its last."""
    spans: list[tuple[int, int]] = []
    for index in indices:
        if spans and spans[-1][1] == index:
            spans[-1] = (spans[-1][0], index + 1)
        else:
            spans.append((index, index + 1))
    return spans


def _combined(rows: EdgeRows, slices: Sequence[TraceSlice], layout: GraphLayout) -> EdgeRows:
    """The heads of a layer as one: mean over all heads, or maximum, of the kept weights."""
    is_first = rows.head == 0
    # Combined rows are those of the first heads, in the same order; a layer begins with query 0.
    begins = (np.cumsum(is_first) - 1)[is_first & (rows.query == 0)]
    layer = np.cumsum(is_first & (rows.query == 0)) - 1
    target = (begins[layer] + rows.query)[rows.row]
    stride = max(one.tokens for one in slices)
    code = target * stride + rows.keys
    order = np.argsort(code, kind="stable")  # within an edge, in the order of heads
    code = code[order]
    starts = np.flatnonzero(np.diff(code, prepend=-1))
    weights = rows.weights[order]
    row, keys = np.divmod(code[starts], stride)
    layer_of_row = rows.layer[is_first]
    if not len(starts):
        combined = weights
    elif layout.combine == "max":
        combined = np.maximum.reduceat(weights, starts)
    else:
        heads = layout.heads_of_layer[layer_of_row[row]].astype(np.float32)
        combined = np.add.reduceat(weights, starts) / heads
    return EdgeRows(
        counts=np.bincount(row, minlength=int(is_first.sum())),
        slice=rows.slice[is_first],
        layer=layer_of_row,
        head=rows.head[is_first],
        query=rows.query[is_first],
        keys=keys,
        weights=combined,
    )


def _pruned(rows: EdgeRows, layout: GraphLayout) -> EdgeRows:
    """``min_weight`` and ``top_k`` of each row; ties to the lower key."""
    least, top_k = np.float32(layout.options.min_weight), layout.options.top_k
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


def _shuffled(rows: EdgeRows, slices: Sequence[TraceSlice], layout: GraphLayout) -> EdgeRows:
    """Other keys for the same queries, and their weights in another order."""
    seed = layout.options.seed
    seeds = [controls.seed_of(seed, one.trace.id, one.trace.sample) for one in slices]
    first = np.array([one.first for one in slices], np.int64)[rows.slice]
    tokens = np.array([one.tokens for one in slices], np.int64)[rows.slice]
    row_seeds = controls.row_seeds(
        np.array(seeds, np.uint64)[rows.slice],
        np.array(layout.layers, np.int64)[rows.layer],
        rows.head * tokens + rows.query,
    )
    # Rows before the window have no edges and nothing to draw from.
    choices = np.maximum(rows.query - first + 1, 0)
    keys = controls.shuffled_keys(rows.counts, choices, row_seeds)
    order = controls.shuffled_order(rows.counts, row_seeds)
    return replace(rows, keys=keys + first[rows.row], weights=rows.weights[order])
