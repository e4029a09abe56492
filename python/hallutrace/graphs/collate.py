"""Graphs as PyTorch Geometric has them.

A ``Batch`` is made of whole arrays here. PyTorch Geometric makes one by joining the attributes of
every graph, one by one, which costs more than reading them from a run.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

import torch

from hallutrace.errors import MissingExtraError
from hallutrace.graphs.arrays import GraphArrays

if TYPE_CHECKING:
    from torch_geometric.data import Batch, Data


def import_geometric() -> Any:
    """``torch_geometric.data``.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            # It still compiles its own code by means that torch has deprecated.
            warnings.filterwarnings("ignore", message=".*torch.jit.script.*")
            return importlib.import_module("torch_geometric.data")
    except ImportError as error:
        raise MissingExtraError.of("torch_geometric", "detect", "hallutrace.graphs") from error


def to_list(graphs: GraphArrays) -> list[Data]:
    """One ``Data`` a graph; their tensors are views of the arrays."""
    data = import_geometric().Data
    nodes, edges = graphs.node_ends.tolist(), graphs.edge_ends.tolist()
    of_nodes = {name: torch.from_numpy(array) for name, array in graphs.of_nodes.items()}
    of_edges = {name: torch.from_numpy(array) for name, array in graphs.of_edges.items()}
    of_graphs = {name: array.tolist() for name, array in graphs.of_graphs.items()}
    found = []
    for number in range(len(graphs)):
        node = slice(nodes[number], nodes[number + 1])
        edge = slice(edges[number], edges[number + 1])
        values: dict[str, Any] = {name: tensor[node] for name, tensor in of_nodes.items()}
        for name, tensor in of_edges.items():
            values[name] = tensor[:, edge] if name == "edge_index" else tensor[edge]
        values |= {name: numbers[number] for name, numbers in of_graphs.items()}
        values |= {name: texts[number] for name, texts in graphs.texts.items()}
        if "y" in values:
            values["y"] = torch.tensor([values["y"]])
        found.append(data(**values))
    return found


def to_batch(graphs: GraphArrays) -> Batch:
    """What ``Batch.from_data_list`` makes of :func:`to_list`, without the list."""
    geometric = import_geometric()
    batch = geometric.Batch(_base_cls=geometric.Data)
    count = len(graphs)
    node_ends, edge_ends = torch.from_numpy(graphs.node_ends), torch.from_numpy(graphs.edge_ends)
    one_each = torch.arange(count + 1)
    nothing = torch.zeros(count, dtype=torch.int64)
    slices: dict[str, Any] = {}
    increments: dict[str, Any] = {}
    for arrays, ends in (
        (graphs.of_nodes, node_ends),
        (graphs.of_edges | {"edge_index": graphs.edge_index}, edge_ends),
        (graphs.of_graphs, one_each),
    ):
        for name, array in arrays.items():
            batch[name] = torch.from_numpy(array)
            slices[name], increments[name] = ends, nothing
    increments["edge_index"] = node_ends[:-1]
    for name, texts in graphs.texts.items():
        batch[name], slices[name], increments[name] = texts, one_each, None
    batch.batch = torch.repeat_interleave(torch.arange(count), node_ends.diff())
    batch.ptr = node_ends
    # As Batch.from_data_list leaves it, so that `to_data_list` and `batch[i]` work.
    batch._num_graphs, batch._slice_dict, batch._inc_dict = count, slices, increments
    return batch
