"""Many graphs as a few flat arrays: what a batch is made of, and what workers send.

1. Edges of all parts are read and worked on as rows after each other (``edges``).
2. Nodes of all graphs share one array, which each part fills (``features``).
3. An edge's ends become numbers of nodes in the whole batch by adding what its graph begins at.

One graph is the batch of it alone, so there is no second way to make one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace.graphs.edges import Part, Rows, rows_of
from hallutrace.graphs.features import fill
from hallutrace.graphs.recipe import Plan
from hallutrace.store.finite import require_finite

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Graphs:
    """Graphs after each other.

    Attributes:
        of_nodes: arrays [nodes, ...].
        of_edges: arrays [edges, ...]; ``edge_index`` is [2, edges], in the numbering of all nodes.
        of_graphs: arrays [graphs].
        texts: lists of one text a graph.
        node_ends: int64 [graphs + 1], where nodes of each graph begin.
        edge_ends: int64 [graphs + 1], where edges of each graph begin.
    """

    of_nodes: Arrays
    of_edges: Arrays
    of_graphs: Arrays
    texts: dict[str, list[str]]
    node_ends: NDArray[np.int64]
    edge_ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.node_ends) - 1


def build(parts: Sequence[Part], plan: Plan, labels: Sequence[int] | None) -> Graphs:
    """Makes the graphs of some parts, in their order.

    Args:
        parts: traces and layers; one graph each, or one for each of its layers.
        plan: what graphs are made of.
        labels: 1 hallucinated, 0 right, of each part; None leaves ``y`` out.
    """
    each = np.array([len(part.at) if plan.recipe.per == "layer" else 1 for part in parts], np.int64)
    part_of_graph = np.repeat(np.arange(len(parts)), each)
    counts = np.array([part.tokens - part.first for part in parts], np.int64)[part_of_graph]
    node_ends = _ends(counts)
    rows = rows_of(parts, plan)
    graph_of_row = _graph_of_row(rows, each, plan)
    edges, edge_ends = _edges(rows, graph_of_row, parts, plan, node_ends)
    return Graphs(
        of_nodes=_nodes(parts, plan, each, node_ends),
        of_edges=edges,
        of_graphs=_facts(parts, plan, part_of_graph, labels),
        texts={
            "trace_id": _repeated([part.trace.id for part in parts], each),
            "group": _repeated([part.trace.group for part in parts], each),
        },
        node_ends=node_ends,
        edge_ends=edge_ends,
    )


def _graph_of_row(rows: Rows, each: NDArray[np.int64], plan: Plan) -> NDArray[np.int64]:
    """Number of the graph that each row is in."""
    if plan.recipe.per == "trace":
        return rows.part
    # Rows of a part come layer by layer, so a graph begins where the part or its layer changes.
    change = (np.diff(rows.part, prepend=-1) != 0) | (np.diff(rows.at, prepend=-1) != 0)
    return np.cumsum(change) - 1


def _edges(
    rows: Rows,
    graph_of_row: NDArray[np.int64],
    parts: Sequence[Part],
    plan: Plan,
    node_ends: NDArray[np.int64],
) -> tuple[Arrays, NDArray[np.int64]]:
    """Arrays of edges, and where those of each graph begin."""
    first = np.array([part.first for part in parts], np.int64)
    shift = node_ends[graph_of_row] - first[rows.part]
    edge_index = np.empty((2, len(rows.keys)), np.int64)
    np.add(rows.keys, np.repeat(shift, rows.counts), out=edge_index[0])
    edge_index[1] = np.repeat(rows.query + shift, rows.counts)
    edges: Arrays = {"edge_index": edge_index, "edge_attr": rows.weights[:, None]}
    if plan.recipe.per == "trace":
        layers = np.array(plan.layers, np.int64)
        edges["edge_layer"] = np.repeat(layers[rows.at], rows.counts)
    if plan.several:
        edges["edge_head"] = np.repeat(rows.head, rows.counts)
    row_begins = np.searchsorted(graph_of_row, np.arange(len(node_ends)))
    return edges, _ends(rows.counts)[row_begins]


def _nodes(
    parts: Sequence[Part], plan: Plan, each: NDArray[np.int64], node_ends: NDArray[np.int64]
) -> Arrays:
    """Arrays of nodes."""
    total = int(node_ends[-1])
    nodes = np.zeros((total, plan.width), np.float32)
    answer = np.zeros(total, bool)
    graph = 0
    for part, graphs in zip(parts, each.tolist(), strict=True):
        begin, end = int(node_ends[graph]), int(node_ends[graph + graphs])
        fill(part, plan, nodes[begin:end])
        require_finite(nodes[begin:end], "features of graphs", part.trace)
        tokens = part.tokens - part.first
        answer[begin:end].reshape(graphs, tokens)[:, max(part.prompt - part.first, 0) :] = True
        graph += graphs
    return {"x": nodes, "answer_mask": answer}


def _facts(
    parts: Sequence[Part],
    plan: Plan,
    part_of_graph: NDArray[np.int64],
    labels: Sequence[int] | None,
) -> Arrays:
    """Numbers of graphs."""
    facts: dict[str, Sequence[int]] = {
        "sample": [part.trace.sample for part in parts],
        "prompt_length": [part.prompt for part in parts],
        "first_token": [part.first for part in parts],
        "cut_nodes": [part.cut for part in parts],
    }
    if labels is not None:
        facts["y"] = labels
    arrays: Arrays = {
        name: np.array(numbers, np.int64)[part_of_graph] for name, numbers in facts.items()
    }
    if plan.recipe.per == "layer":
        at = np.concatenate([part.at for part in parts]).astype(np.int64)
        arrays["layer"] = np.array(plan.layers, np.int64)[at]
    return arrays


def _repeated(texts: list[str], each: NDArray[np.int64]) -> list[str]:
    return [text for text, times in zip(texts, each.tolist(), strict=True) for _ in range(times)]


def _ends(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, then the sums of the first one, two, three ..."""
    ends = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=ends[1:])
    return ends
