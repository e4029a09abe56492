"""Message passing with edge features: GINE, in fewer passes over the edges than a general library.

Formula: x_i' = net((1 + eps) x_i + sum over edges j -> i of relu(x_j + W e_ji + b)), eps = 0. The
same numbers as ``torch_geometric.nn.GINEConv`` with these weights, which a test checks.

Departures in how it is computed: edges come sorted by the node they point at, so sums are over
consecutive rows, and of those to be summed by key the order is sorted once a batch for all layers.
Both sums are ``embedding_bag``, where one thread adds each sum in order: the result does not depend
on the number of threads. On 2 cores this is three to five times as fast as GINEConv.

Source: Hu et al. 2020, "Strategies for Pre-training Graph Neural Networks"; Xu et al. 2019 (GIN).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as functional
from torch import nn

from hallutrace.detect.nets.graph_batches import GraphBatch


class GineLayer(nn.Module):
    """One layer of message passing.

    Args:
        hidden_dim: numbers of a node, before and after.
        edge_dim: numbers of an edge.
    """

    def __init__(self, hidden_dim: int, edge_dim: int) -> None:
        super().__init__()
        self.edge = nn.Linear(edge_dim, hidden_dim)
        last = nn.Linear(hidden_dim, hidden_dim)
        # A layer starts as zero beside the node itself: edges without information then cost less.
        # Validation AUROC on the small model's run .905 to .912 (attention-gnn), .923 to .926
        # (graph-vae), one split and seed; planted edges were learned as fast.
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.net = nn.Sequential(nn.Linear(hidden_dim, hidden_dim), nn.ReLU(), last)

    def forward(self, x: torch.Tensor, edges: torch.Tensor, batch: GraphBatch) -> torch.Tensor:
        """[nodes, hidden_dim] and edges, float32 [edges, edge_dim], to [nodes, hidden_dim]."""
        with torch.autocast(x.device.type, enabled=False):
            linear = self.edge
            messages = _Messages.apply(x.float(), edges, linear.weight, linear.bias, batch)
        out: torch.Tensor = self.net(x + messages)
        return out


class _Messages(torch.autograd.Function):
    """sum over edges j -> i of relu(x_j + W e_ji + b); edges have no gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        edges: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        batch: GraphBatch,
    ) -> torch.Tensor:
        messages = torch.addmm(bias, edges, weight.t())
        messages += x.index_select(0, batch.key)
        messages.relu_()
        ctx.save_for_backward(messages, edges)
        ctx.batch = batch
        every = torch.arange(len(messages), device=x.device)
        return sum_spans(messages, every, batch.query_ends)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (messages, edges), batch = ctx.saved_tensors, ctx.batch
        back = gradients[0].index_select(0, batch.query)
        back = torch.ops.aten.threshold_backward(back, messages, 0)
        of_x = sum_spans(back, batch.by_key, batch.key_ends) if ctx.needs_input_grad[0] else None
        return of_x, None, back.t() @ edges, back.sum(0), None


def sum_spans(values: torch.Tensor, order: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Sums of rows over spans of an order of them, [spans, columns].

    Args:
        values: [rows, columns].
        order: int64 [rows], indices of rows.
        ends: int64 [spans + 1]; span i is ``order[ends[i]:ends[i + 1]]``.

    Examples:
        >>> values, order = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([2, 0, 1])
        >>> sum_spans(values, order, torch.tensor([0, 2, 3])).tolist()
        [[5.0], [2.0]]
    """
    if not len(order):
        return values.new_zeros(len(ends) - 1, values.shape[1])
    return functional.embedding_bag(order, values, ends, mode="sum", include_last_offset=True)


def answer_mean(x: torch.Tensor, batch: GraphBatch) -> torch.Tensor:
    """Mean over the answer tokens of each graph, [graphs, columns]."""
    kept = x[batch.answer].float()
    graph = batch.graph[batch.answer]
    counts = torch.bincount(graph, minlength=len(batch)).clamp(min=1)
    sums = kept.new_zeros(len(batch), x.shape[1]).index_add(0, graph, kept)
    return sums / counts[:, None]


def answer_max(x: torch.Tensor, batch: GraphBatch) -> torch.Tensor:
    """Maximum over the answer tokens of each graph, [graphs, columns]."""
    kept = x[batch.answer].float()
    graph = batch.graph[batch.answer][:, None].expand_as(kept)
    none = kept.new_zeros(len(batch), x.shape[1])
    return none.scatter_reduce(0, graph, kept, "amax", include_self=False)
