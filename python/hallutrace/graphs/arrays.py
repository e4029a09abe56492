"""Many graphs as a few flat arrays, from which batches and datasets are made.

1. The edges of all slices of traces are read as rows after each other (``edges``).
2. The nodes of all graphs share one array, which each slice fills (``features``).
3. The ends of an edge are numbered within its graph, so that graphs can be taken out and joined
   without looking at others.

One graph is a batch of one, so there is no second way to make one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace.graphs.edges import EdgeRows, TraceSlice, read_edges
from hallutrace.graphs.features import fill
from hallutrace.graphs.layout import GraphLayout
from hallutrace.store.finite_numbers import require_finite

Arrays = dict[str, NDArray[Any]]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class GraphArrays:
    """Graphs after each other.

    Attributes:
        of_nodes: arrays [nodes, ...].
        of_edges: arrays [edges, ...]; ``edge_index`` is [2, edges], numbered within its graph.
        of_graphs: arrays [graphs].
        texts: lists of one text a graph.
        node_ends: int64 [graphs + 1]; the nodes of graph i are ``node_ends[i]:node_ends[i + 1]``.
        edge_ends: int64 [graphs + 1], the same of edges.
    """

    of_nodes: Arrays
    of_edges: Arrays
    of_graphs: Arrays
    texts: dict[str, list[str]]
    node_ends: Ints
    edge_ends: Ints

    def __len__(self) -> int:
        return len(self.node_ends) - 1

    @property
    def bytes(self) -> int:
        """Memory of the nodes and edges."""
        return sum(array.nbytes for array in [*self.of_nodes.values(), *self.of_edges.values()])

    @property
    def edge_index(self) -> Ints:
        """``edge_index`` numbered over all nodes, int64 [2, edges]."""
        shift = np.repeat(self.node_ends[:-1], np.diff(self.edge_ends))
        shifted: Ints = self.of_edges["edge_index"] + shift
        return shifted

    def take(self, which: Ints) -> GraphArrays:
        """Some of the graphs, in the order of the indices."""
        nodes, edges = _positions(self.node_ends, which), _positions(self.edge_ends, which)
        return GraphArrays(
            of_nodes={name: array[nodes] for name, array in self.of_nodes.items()},
            of_edges={
                name: array[:, edges] if name == "edge_index" else array[edges]
                for name, array in self.of_edges.items()
            },
            of_graphs={name: array[which] for name, array in self.of_graphs.items()},
            texts={name: [texts[at] for at in which] for name, texts in self.texts.items()},
            node_ends=ends_of(np.diff(self.node_ends)[which]),
            edge_ends=ends_of(np.diff(self.edge_ends)[which]),
        )

    @classmethod
    def join(cls, several: Sequence[GraphArrays]) -> GraphArrays:
        """Several after each other; NumPy widens arrays that some hold in a wider dtype."""

        def joined(group: str) -> Arrays:
            return {
                name: np.concatenate(
                    [getattr(one, group)[name] for one in several], int(name == "edge_index")
                )
                for name in getattr(several[0], group)
            }

        counts = {
            name: np.concatenate([np.diff(getattr(one, name)) for one in several])
            for name in ("node_ends", "edge_ends")
        }
        return cls(
            of_nodes=joined("of_nodes"),
            of_edges=joined("of_edges"),
            of_graphs=joined("of_graphs"),
            texts={
                name: [text for one in several for text in one.texts[name]]
                for name in several[0].texts
            },
            node_ends=ends_of(counts["node_ends"]),
            edge_ends=ends_of(counts["edge_ends"]),
        )


def make_graphs(
    slices: Sequence[TraceSlice], layout: GraphLayout, labels: Sequence[int] | None = None
) -> GraphArrays:
    """Makes the graphs of some slices, in their order.

    Args:
        slices: traces and layers; one graph each, or one for each of its layers.
        layout: of the graphs.
        labels: 1 hallucinated, 0 right, of each slice; None leaves ``y`` out.

    Raises:
        NonFiniteError: a feature is NaN or infinite.
    """
    per_layer = layout.options.per == "layer"
    repeats = np.array([len(one.layers) if per_layer else 1 for one in slices], np.int64)
    slice_of_graph = np.repeat(np.arange(len(slices)), repeats)
    counts = np.array([one.tokens - one.first for one in slices], np.int64)[slice_of_graph]
    rows = read_edges(slices, layout)
    node_ends = ends_of(counts)
    edges, edge_ends = _edges(rows, slices, layout, len(counts))
    return GraphArrays(
        of_nodes=_nodes(slices, layout, repeats, node_ends),
        of_edges=edges,
        of_graphs=_graph_facts(slices, layout, slice_of_graph, labels),
        texts={
            "trace_id": [slices[at].trace.id for at in slice_of_graph.tolist()],
            "group": [slices[at].trace.group for at in slice_of_graph.tolist()],
        },
        node_ends=node_ends,
        edge_ends=edge_ends,
    )


def ends_of(counts: Ints) -> Ints:
    """Where spans of these lengths begin and end.

    >>> ends_of(np.array([2, 0, 3]))
    array([0, 2, 2, 5])
    """
    ends = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=ends[1:])
    return ends


def _positions(ends: Ints, which: Ints) -> Ints:
    """The positions in some spans, one span after the other."""
    counts = ends[which + 1] - ends[which]
    shift = ends[which] - (np.cumsum(counts) - counts)
    return np.repeat(shift, counts) + np.arange(int(counts.sum()))


def _edges(
    rows: EdgeRows, slices: Sequence[TraceSlice], layout: GraphLayout, graphs: int
) -> tuple[Arrays, Ints]:
    """Arrays of edges, and where those of each graph begin."""
    if layout.options.per == "trace":
        graph_of_row = rows.slice
    else:  # rows of a slice come layer by layer, so a new layer or slice begins a graph
        change = (np.diff(rows.slice, prepend=-1) != 0) | (np.diff(rows.layer, prepend=-1) != 0)
        graph_of_row = np.cumsum(change) - 1
    first = np.array([one.first for one in slices], np.int64)[rows.slice]
    edge_index = np.empty((2, len(rows.keys)), np.int64)
    np.subtract(rows.keys, np.repeat(first, rows.counts), out=edge_index[0])
    edge_index[1] = np.repeat(rows.query - first, rows.counts)
    edges: Arrays = {"edge_index": edge_index, "edge_attr": rows.weights[:, None]}
    if layout.options.per == "trace":
        layers = np.array(layout.layers, np.int64)
        edges["edge_layer"] = np.repeat(layers[rows.layer], rows.counts)
    if layout.keeps_heads:
        edges["edge_head"] = np.repeat(rows.head, rows.counts)
    first_rows = np.searchsorted(graph_of_row, np.arange(graphs + 1))
    return edges, ends_of(rows.counts)[first_rows]


def _nodes(
    slices: Sequence[TraceSlice], layout: GraphLayout, repeats: Ints, node_ends: Ints
) -> Arrays:
    x = np.zeros((int(node_ends[-1]), layout.node_dim), np.float32)
    answer = np.zeros(len(x), bool)
    begins = node_ends[np.cumsum(repeats) - repeats].tolist()
    for one, graphs, begin in zip(slices, repeats.tolist(), begins, strict=True):
        tokens = one.tokens - one.first
        nodes = slice(begin, begin + graphs * tokens)
        fill(one, layout, x[nodes])
        require_finite(x[nodes], "features of graphs", one.trace)
        answer[nodes].reshape(graphs, tokens)[:, max(one.prompt - one.first, 0) :] = True
    return {"x": x, "answer_mask": answer}


def _graph_facts(
    slices: Sequence[TraceSlice],
    layout: GraphLayout,
    slice_of_graph: Ints,
    labels: Sequence[int] | None,
) -> Arrays:
    """Numbers of each graph."""
    facts: dict[str, Sequence[int]] = {
        "sample": [one.trace.sample for one in slices],
        "prompt_length": [one.prompt for one in slices],
        "first_token": [one.first for one in slices],
        "cut_nodes": [one.cut for one in slices],
    }
    if labels is not None:
        facts["y"] = labels
    arrays: Arrays = {
        name: np.array(numbers, np.int64)[slice_of_graph] for name, numbers in facts.items()
    }
    if layout.options.per == "layer":
        layers = np.concatenate([one.layers for one in slices]).astype(np.int64)
        arrays["layer"] = np.array(layout.layers, np.int64)[layers]
    return arrays
