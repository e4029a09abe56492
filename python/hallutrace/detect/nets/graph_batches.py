"""Graphs of many traces, compact in memory or read again for each batch, and batches of tensors.

A training reads every graph dozens of times, so a batch is cut out of the flat arrays of
:mod:`hallutrace.graphs.arrays`. In memory a graph takes 4 bytes for each feature of each node, and
for each edge two small integers (8 or 16 bits) and its weights, in float16 where that is exact.
Graphs of traces that would take more than a cap are read from the run again for each batch,
neighbouring traces of the run together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray

from hallutrace.detect.examples import Examples
from hallutrace.graphs.arrays import GraphArrays, make_graphs
from hallutrace.graphs.edges import TraceSlice
from hallutrace.graphs.layout import GraphLayout
from hallutrace.store.trace import Trace

Ints = NDArray[np.int64]
Moments = tuple[NDArray[np.float32], NDArray[np.float32]]

READ_AT_ONCE = 128
"""Traces that are read at a time."""


@dataclass(frozen=True)
class GraphBatch:
    """Graphs after each other, as tensors.

    Attributes:
        x: float32 [nodes, features].
        answer: bool [nodes], whether a node is an answer token.
        graph: int64 [nodes], index of its graph.
        begins: int64 [graphs], first node of each graph.
        key: int64 [edges], node attended to.
        query: int64 [edges], node that attends; never decreasing.
        weights: float32 [edges, edge_dim], attention; a column for each head of each layer.
        query_ends: int64 [nodes + 1]; edges of query i are ``query_ends[i]:query_ends[i + 1]``.
        by_key: int64 [edges], the edges in the order of their keys.
        key_ends: int64 [nodes + 1], as ``query_ends``, in that order.
    """

    x: torch.Tensor
    answer: torch.Tensor
    graph: torch.Tensor
    begins: torch.Tensor
    key: torch.Tensor
    query: torch.Tensor
    weights: torch.Tensor
    query_ends: torch.Tensor
    by_key: torch.Tensor
    key_ends: torch.Tensor

    def __len__(self) -> int:
        return len(self.begins)

    def to(self, device: torch.device) -> GraphBatch:
        """The same on a device."""
        if device.type == "cpu":
            return self
        tensors = {part.name: getattr(self, part.name) for part in fields(self)}
        return GraphBatch(**{name: t.to(device, non_blocking=True) for name, t in tensors.items()})

    @classmethod
    def of(cls, graphs: GraphArrays) -> GraphBatch:
        """Graphs of :func:`read_compact`, as tensors."""
        nodes = len(graphs.of_nodes["x"])
        key, query = torch.from_numpy(graphs.edge_index)
        counts = np.diff(graphs.node_ends)
        return cls(
            x=torch.from_numpy(graphs.of_nodes["x"]),
            answer=torch.from_numpy(graphs.of_nodes["answer_mask"]),
            graph=torch.from_numpy(np.repeat(np.arange(len(graphs)), counts)),
            begins=torch.from_numpy(graphs.node_ends[:-1].copy()),
            key=key,
            query=query,
            weights=torch.from_numpy(graphs.of_edges["edge_attr"].astype(np.float32)),
            query_ends=_ends_of_nodes(query, nodes),
            by_key=torch.argsort(key, stable=True),
            key_ends=_ends_of_nodes(key, nodes),
        )


class GraphTable:
    """Graphs of a selection of traces; see the module.

    Args:
        examples: the traces.
        layout: of the graphs.
        cap: bytes of memory that graphs may take; beyond that, traces are read for each batch.

    Attributes:
        is_streamed: whether the graphs did not fit.
    """

    def __init__(self, examples: Examples, layout: GraphLayout, cap: int) -> None:
        self._examples, self._layout = examples, layout
        self.is_streamed = False
        parts: list[GraphArrays] = []
        for begin in range(0, len(examples), READ_AT_ONCE):
            parts.append(self._read(range(begin, min(begin + READ_AT_ONCE, len(examples)))))
            size = sum(part.bytes for part in parts)
            # Twice: while they are joined, the parts and the whole are in memory together.
            if 2 * size * len(examples) > cap * READ_AT_ONCE * len(parts):
                self.is_streamed, parts = True, []
                break
        self._graphs = GraphArrays.join(parts) if parts else None

    def __len__(self) -> int:
        return len(self._examples)

    def batch(self, rows: Ints) -> GraphBatch:
        """Graphs of some traces: those of the first layer, in the order of the rows, then others.

        Args:
            rows: int64, indices of traces in the selection.
        """
        count = self._layout.graphs_of_trace
        if self._graphs is None:
            return layer_by_layer(self._read(rows.tolist()), count)
        return GraphBatch.of(
            self._graphs.take((rows * count + np.arange(count)[:, None]).reshape(-1))
        )

    def batches(self, size: int) -> Iterator[GraphBatch]:
        """Graphs of all traces in order, of some traces at a time."""
        for begin in range(0, len(self), size):
            yield self.batch(np.arange(begin, min(begin + size, len(self))))

    def map(
        self, function: Callable[[GraphBatch], torch.Tensor], size: int, device: torch.device
    ) -> NDArray[np.float64]:
        """A number of each trace, float64 [traces], computed on a device in batches."""
        parts = [function(batch.to(device)).double().cpu().numpy() for batch in self.batches(size)]
        return np.concatenate(parts)

    def order(self, rng: np.random.Generator, rows: Ints | None = None) -> Ints:
        """Rows (all unless given) in random order; streamed neighbours stay near each other."""
        rows = np.arange(len(self)) if rows is None else rows
        if not self.is_streamed:
            return rng.permutation(rows)
        size = 8 * READ_AT_ONCE
        blocks = [rows[begin : begin + size] for begin in range(0, len(rows), size)]
        shuffled = [rng.permutation(blocks[index]) for index in rng.permutation(len(blocks))]
        return np.concatenate(shuffled) if shuffled else rows

    def moments(self, rows: Ints | None = None) -> tuple[Moments, Moments]:
        """Mean and standard deviation of features and of weights; 1 where nothing varies.

        Args:
            rows: of the traces to take; all unless given.

        Returns:
            Over nodes, float32 [graphs of a trace, features] each; over edges, float32 [edge_dim].
        """
        rows = np.arange(len(self)) if rows is None else rows
        count, features = self._layout.graphs_of_trace, self._layout.node_dim
        nodes, edges = _Sums((count, features)), _Sums((self._layout.edge_dim,))
        for begin in range(0, len(rows), READ_AT_ONCE):
            batch = self.batch(rows[begin : begin + READ_AT_ONCE])
            nodes.add(batch.x.numpy().reshape(count, -1, features))
            edges.add(batch.weights.numpy())
        return nodes.moments(), edges.moments()

    def _read(self, rows: Sequence[int]) -> GraphArrays:
        return read_compact([self._examples[int(row)] for row in rows], self._layout)


class _Sums:
    """Sums of rows and of their squares, in float64: [..., rows, columns] to ``shape``."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._count, self._total, self._squares = 0, np.zeros(shape), np.zeros(shape)

    def add(self, rows: NDArray[np.float32]) -> None:
        self._count += rows.shape[-2]
        self._total += rows.sum(axis=-2, dtype=np.float64)
        self._squares += np.square(rows, dtype=np.float64).sum(axis=-2)

    def moments(self) -> Moments:
        mean = self._total / max(self._count, 1)
        std = np.sqrt(np.maximum(self._squares / max(self._count, 1) - mean**2, 0))
        std[std < 1e-6] = 1.0
        return mean.astype(np.float32), std.astype(np.float32)


def read_compact(traces: Sequence[Trace], layout: GraphLayout) -> GraphArrays:
    """Graphs of some traces in little memory: two nodes have one edge, ``edge_attr`` its weights.

    Returns:
        ``x`` float32, ``answer_mask``; ``edge_index`` in the smallest unsigned dtype; ``edge_attr``
        [edges, edge_dim], float16 where that is exact, else float32.
    """
    slices = [TraceSlice.of(trace, range(len(layout.layers)), layout) for trace in traces]
    graphs = make_graphs(slices, layout)
    index, weights, edge_ends = graphs.of_edges["edge_index"], graphs.of_edges["edge_attr"], None
    if layout.edge_dim > 1:
        index, weights, edge_ends = _merged(graphs, layout)
    smallest = np.min_scalar_type(int(np.diff(graphs.node_ends).max(initial=1)))
    narrow = weights.astype(np.float16)
    is_exact = np.array_equal(narrow.astype(np.float32), weights)
    return replace(
        graphs,
        of_edges={
            "edge_index": index.astype(smallest),
            "edge_attr": narrow if is_exact else weights,
        },
        of_graphs={},
        texts={},
        edge_ends=graphs.edge_ends if edge_ends is None else edge_ends,
    )


def layer_by_layer(graphs: GraphArrays, graphs_of_trace: int) -> GraphBatch:
    """All graphs: those of the first layer of all traces, then of the second."""
    order = np.arange(len(graphs)).reshape(-1, graphs_of_trace)
    return GraphBatch.of(graphs.take(order.T.reshape(-1)))


def _merged(graphs: GraphArrays, layout: GraphLayout) -> tuple[Ints, NDArray[np.float32], Ints]:
    """Edges between the same two nodes as one, with a weight for each layer and head.

    Returns:
        ``edge_index`` numbered within the graphs, ``edge_attr``, and where edges of graphs begin.
    """
    weights = graphs.of_edges["edge_attr"]
    column = np.zeros(len(weights), np.int64)
    if layout.options.per == "trace":
        index_of_layer = np.zeros(max(layout.layers) + 1, np.int64)
        index_of_layer[list(layout.layers)] = np.arange(len(layout.layers))
        column = index_of_layer[graphs.of_edges["edge_layer"]]
    if layout.keeps_heads:
        column = column * layout.heads + graphs.of_edges["edge_head"]
    nodes = max(int(graphs.node_ends[-1]), 1)
    key, query = graphs.edge_index
    codes, number = np.unique(query * nodes + key, return_inverse=True)
    merged = np.zeros((len(codes), layout.edge_dim), np.float32)
    merged[number, column] = weights[:, 0]
    query, key = np.divmod(codes, nodes)
    edge_ends = np.searchsorted(query, graphs.node_ends)
    shift = np.repeat(graphs.node_ends[:-1], np.diff(edge_ends))
    return np.stack([key, query]) - shift, merged, edge_ends


def _ends_of_nodes(nodes: torch.Tensor, count: int) -> torch.Tensor:
    """Where the edges of each node begin, if edges are in the order of these nodes."""
    ends = torch.zeros(count + 1, dtype=torch.int64)
    torch.cumsum(torch.bincount(nodes, minlength=count), 0, out=ends[1:])
    return ends
