"""Graphs of many traces, held compact in memory or read again for each batch, and batches of them.

What is in them is what :func:`hallutrace.graphs.graph_of` gives. PyTorch Geometric's ``Data`` and
``Batch`` are left out for speed: a training reads every graph dozens of times, and here a batch is
a few slices of flat arrays.

In memory a graph takes 4 bytes for each feature of each node, and for each edge two small integers
(8 or 16 bits, for tokens within the trace) and its weights, in float16 where that is exact. Graphs
of traces that would take more than a cap are read from the run again whenever a batch asks for
them, traces near each other in the run together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hallutrace.detect.examples import Examples
from hallutrace.graphs.build import Graphs, build
from hallutrace.graphs.edges import Part
from hallutrace.graphs.recipe import Plan
from hallutrace.store.trace import Trace

Ints = NDArray[np.int64]
Moments = tuple[NDArray[np.float32], NDArray[np.float32]]

PIECE = 128
"""Traces that are read at a time."""


@dataclass(frozen=True)
class GraphBatch:
    """Graphs after each other, as tensors.

    Attributes:
        x: float32 [nodes, width].
        answer: bool [nodes], whether a node is an answer token.
        graph: int64 [nodes], number of its graph.
        begins: int64 [graphs], first node of each graph.
        key: int64 [edges], node that is looked at.
        query: int64 [edges], node that looks; never decreasing.
        weights: float32 [edges, channels], attention; a channel is a head of a layer.
        query_ends: int64 [nodes + 1], where the edges of each query begin.
        by_key: int64 [edges], the edges in the order of their keys.
        key_ends: int64 [nodes + 1], where the edges to each key begin in that order.
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


@dataclass(frozen=True)
class Piece:
    """Graphs of some traces, compact.

    Attributes:
        x: float32 [nodes, width].
        answer: bool [nodes].
        key: small unsigned integers [edges], numbers of nodes within the graph.
        query: the same.
        weights: float16 or float32 [edges, channels].
        node_ends: int64 [graphs + 1], where nodes of each graph begin.
        edge_ends: int64 [graphs + 1], where edges of each graph begin.
    """

    x: NDArray[np.float32]
    answer: NDArray[np.bool_]
    key: NDArray[Any]
    query: NDArray[Any]
    weights: NDArray[Any]
    node_ends: Ints
    edge_ends: Ints

    @property
    def bytes(self) -> int:
        """Memory that it takes."""
        return sum(getattr(self, part.name).nbytes for part in fields(self))

    @classmethod
    def of(cls, graphs: Graphs, plan: Plan) -> Piece:
        """Makes graphs compact; edges of several layers or heads become channels of one."""
        index, weights = graphs.of_edges["edge_index"], graphs.of_edges["edge_attr"]
        edge_ends = graphs.edge_ends
        count = channels(plan)
        if count > 1:
            index, weights, edge_ends = _merged(graphs, plan, count)
        shift = np.repeat(graphs.node_ends[:-1], np.diff(edge_ends))
        largest = int(np.diff(graphs.node_ends).max(initial=1))
        small = np.min_scalar_type(largest)
        narrow = weights.astype(np.float16)
        exact = np.array_equal(narrow.astype(np.float32), weights)
        return cls(
            x=graphs.of_nodes["x"],
            answer=graphs.of_nodes["answer_mask"],
            key=(index[0] - shift).astype(small),
            query=(index[1] - shift).astype(small),
            weights=narrow if exact else weights,
            node_ends=graphs.node_ends,
            edge_ends=edge_ends,
        )

    @classmethod
    def join(cls, pieces: Sequence[Piece]) -> Piece:
        """Several after each other; NumPy widens what some of them hold wider."""
        joined: dict[str, Any] = {
            name: np.concatenate([getattr(piece, name) for piece in pieces])
            for name in ("x", "answer", "key", "query", "weights")
        }
        ends: dict[str, Any] = {
            name: _ends(np.concatenate([np.diff(getattr(piece, name)) for piece in pieces]))
            for name in ("node_ends", "edge_ends")
        }
        return cls(**joined, **ends)

    def batch(self, graphs: Ints) -> GraphBatch:
        """Some of the graphs, in the order asked for."""
        counts, nodes = _spans(self.node_ends, graphs)
        edge_counts, edges = _spans(self.edge_ends, graphs)
        ends = _ends(counts)
        total = int(ends[-1])
        shift = np.repeat(ends[:-1], edge_counts)
        key = torch.from_numpy(self.key[edges] + shift)
        query = torch.from_numpy(self.query[edges] + shift)
        return GraphBatch(
            x=torch.from_numpy(self.x[nodes]),
            answer=torch.from_numpy(self.answer[nodes]),
            graph=torch.from_numpy(np.repeat(np.arange(len(graphs)), counts)),
            begins=torch.from_numpy(ends[:-1].copy()),
            key=key,
            query=query,
            weights=torch.from_numpy(self.weights[edges].astype(np.float32)),
            query_ends=_counted(query, total),
            by_key=torch.argsort(key, stable=True),
            key_ends=_counted(key, total),
        )


class GraphTable:
    """Graphs of a selection of traces; see the module.

    Args:
        examples: the traces.
        plan: what graphs are made of; of ``per="layer"`` a trace has one a layer.
        cap: bytes of memory that graphs may take; traces are read for each batch beyond that.

    Attributes:
        per_trace: graphs of a trace.
        streamed: whether they did not fit.
    """

    def __init__(self, examples: Examples, plan: Plan, cap: int) -> None:
        self._examples, self._plan = examples, plan
        self.per_trace = graphs_of_trace(plan)
        self.streamed = False
        pieces: list[Piece] = []
        for begin in range(0, len(examples), PIECE):
            pieces.append(self._read(range(begin, min(begin + PIECE, len(examples)))))
            held = sum(piece.bytes for piece in pieces)
            # Twice: pieces and what they are joined to are in memory together for a while.
            if 2 * held * len(examples) > cap * PIECE * len(pieces):
                self.streamed, pieces = True, []
                break
        self._held = Piece.join(pieces) if pieces else None

    def __len__(self) -> int:
        return len(self._examples)

    def batch(self, rows: Ints) -> GraphBatch:
        """Graphs of some traces: those of the first layer, in the order of the rows, then others.

        Args:
            rows: int64, numbers of traces in the selection.
        """
        if self._held is None:
            return whole(self._read(rows.tolist()), self.per_trace)
        layers = np.arange(self.per_trace)[:, None]
        return self._held.batch((rows * self.per_trace + layers).reshape(-1))

    def batches(self, size: int) -> Iterator[tuple[Ints, GraphBatch]]:
        """All traces in order, some at a time."""
        for begin in range(0, len(self), size):
            rows = np.arange(begin, min(begin + size, len(self)))
            yield rows, self.batch(rows)

    def order(self, dice: np.random.Generator, rows: Ints) -> Ints:
        """Rows in random order; of streamed graphs those near each other stay near."""
        if not self.streamed:
            return dice.permutation(rows)
        blocks = [rows[begin : begin + 8 * PIECE] for begin in range(0, len(rows), 8 * PIECE)]
        mixed = [dice.permutation(blocks[at]) for at in dice.permutation(len(blocks))]
        return np.concatenate(mixed) if mixed else rows

    def moments(self, rows: Ints) -> tuple[Moments, Moments]:
        """Mean and deviation of features over nodes, and of weights over edges; 1 for 0.

        Returns:
            float32 [per_trace, width] each, and float32 [channels] each.
        """
        nodes = _Sums((self.per_trace, self._plan.width))
        edges = _Sums((channels(self._plan),))
        for begin in range(0, len(rows), PIECE):
            batch = self.batch(rows[begin : begin + PIECE])
            nodes.add(batch.x.numpy().reshape(self.per_trace, -1, self._plan.width))
            edges.add(batch.weights.numpy())
        return nodes.moments(), edges.moments()

    def _read(self, rows: Sequence[int]) -> Piece:
        return piece_of([self._examples[int(row)] for row in rows], self._plan)


class _Sums:
    """Sums of rows and of their squares, in float64: [..., rows, width] to ``shape``."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._count, self._total, self._squares = 0, np.zeros(shape), np.zeros(shape)

    def add(self, rows: NDArray[np.float32]) -> None:
        self._count += rows.shape[-2]
        self._total += rows.sum(axis=-2, dtype=np.float64)
        self._squares += np.square(rows, dtype=np.float64).sum(axis=-2)

    def moments(self) -> Moments:
        mean = self._total / max(self._count, 1)
        variance = self._squares / max(self._count, 1) - mean**2
        deviation = np.sqrt(np.maximum(variance, 0))
        deviation[deviation < 1e-6] = 1.0
        return mean.astype(np.float32), deviation.astype(np.float32)


def piece_of(traces: Sequence[Trace], plan: Plan) -> Piece:
    """Graphs of some traces, compact."""
    parts = [Part.of(trace, range(len(plan.layers)), plan) for trace in traces]
    return Piece.of(build(parts, plan, None), plan)


def whole(piece: Piece, per_trace: int) -> GraphBatch:
    """All graphs of a piece: those of the first layer of all traces, then of others."""
    graphs = np.arange(len(piece.node_ends) - 1).reshape(-1, per_trace)
    return piece.batch(graphs.T.reshape(-1))


def graphs_of_trace(plan: Plan) -> int:
    """Graphs that a trace has."""
    return len(plan.layers) if plan.recipe.per == "layer" else 1


def channels(plan: Plan) -> int:
    """Weights of an edge: one for each head that is kept apart, of each layer of a graph."""
    heads = plan.heads if plan.several else 1
    return heads * (len(plan.layers) if plan.recipe.per == "trace" else 1)


def _merged(graphs: Graphs, plan: Plan, count: int) -> tuple[Ints, NDArray[np.float32], Ints]:
    """Edges between the same two nodes as one, with a weight for each layer and head."""
    index, weights = graphs.of_edges["edge_index"], graphs.of_edges["edge_attr"]
    channel = np.zeros(len(weights), np.int64)
    heads = plan.heads if plan.several else 1
    if plan.recipe.per == "trace":
        place = np.zeros(max(plan.layers) + 1, np.int64)
        place[list(plan.layers)] = np.arange(len(plan.layers))
        channel = place[graphs.of_edges["edge_layer"]] * heads
    if plan.several:
        channel = channel + graphs.of_edges["edge_head"]
    nodes = max(int(graphs.node_ends[-1]), 1)
    codes, number = np.unique(index[1] * nodes + index[0], return_inverse=True)
    merged = np.zeros((len(codes), count), np.float32)
    merged[number, channel] = weights[:, 0]
    query, key = np.divmod(codes, nodes)
    return np.stack([key, query]), merged, np.searchsorted(query, graphs.node_ends)


def _spans(ends: Ints, which: Ints) -> tuple[Ints, Ints]:
    """Lengths of some spans, and the places in them, one span after the other."""
    counts = ends[which + 1] - ends[which]
    shift = ends[which] - (np.cumsum(counts) - counts)
    return counts, np.repeat(shift, counts) + np.arange(int(counts.sum()))


def _ends(counts: Ints) -> Ints:
    ends = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=ends[1:])
    return ends


def _counted(nodes: torch.Tensor, total: int) -> torch.Tensor:
    ends = torch.zeros(total + 1, dtype=torch.int64)
    torch.cumsum(torch.bincount(nodes, minlength=total), 0, out=ends[1:])
    return ends
