"""Networks over hidden states and over attention graphs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hallutrace.detect.nets.graph_batches import GraphBatch
from hallutrace.detect.nets.message import GineLayer, answer_max, answer_mean

# Standardised features beyond this are cut: marginals have heavy tails.
_LARGEST = 10.0


class Standardize(nn.Module):
    """Brings features to mean 0 and standard deviation 1; the moments are kept with the weights.

    Args:
        shape: of mean and std: [features], or [layers, 1, features].
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(tuple(shape)))
        self.register_buffer("std", torch.ones(tuple(shape)))

    def set_moments(self, mean: NDArray[np.float32], std: NDArray[np.float32]) -> None:
        """Takes the moments of the training part."""
        self.mean.copy_(torch.from_numpy(mean).view_as(self.mean))
        self.std.copy_(torch.from_numpy(std).view_as(self.std))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., features] to the same."""
        return ((x - self.mean) / self.std).clamp(-_LARGEST, _LARGEST)


def mlp(sizes: Sequence[int], dropout: float = 0.0) -> nn.Sequential:
    """Linear layers with ReLU and dropout between them.

    Args:
        sizes: of the input, the hidden layers and the output.
        dropout: share of units that a training step leaves out.

    Examples:
        >>> mlp([6, 16, 1])(torch.zeros(3, 6)).shape
        torch.Size([3, 1])
    """
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers[:-2])


class VectorNet(nn.Module):
    """An MLP over one vector: float32 [rows, inputs] to logits [rows].

    Args:
        inputs: numbers of the vector.
        hidden_dims: units of each hidden layer.
        dropout: share of units that a training step leaves out.
    """

    def __init__(self, inputs: int, hidden_dims: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.standardize = Standardize([inputs])
        self.net = mlp([inputs, *hidden_dims, 1], dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        logits: torch.Tensor = self.net(self.standardize(x))[:, 0]
        return logits


class AttentionNet(nn.Module):
    """Message passing over the attention graph of a trace, pooled over its answer tokens.

    Args:
        node_dim: features of a node.
        edge_dim: weights of an edge.
        hidden_dim: numbers of a node between the layers.
        num_layers: layers of message passing.
        dropout: share of units that a training step leaves out.
    """

    def __init__(
        self, node_dim: int, edge_dim: int, hidden_dim: int, num_layers: int, dropout: float
    ) -> None:
        super().__init__()
        self.standardize_nodes = Standardize([node_dim])
        self.standardize_edges = Standardize([edge_dim])
        self.embed = nn.Linear(node_dim, hidden_dim)
        self.layers = nn.ModuleList(GineLayer(hidden_dim, edge_dim) for _ in range(num_layers))
        self.norms = nn.ModuleList(nn.LayerNorm(hidden_dim) for _ in range(num_layers))
        self.dropout = nn.Dropout(dropout)
        self.head = mlp([2 * hidden_dim, hidden_dim, 1], dropout)

    def nodes(self, batch: GraphBatch) -> torch.Tensor:
        """Nodes after message passing, [nodes, hidden_dim]."""
        x = torch.relu(self.embed(self.standardize_nodes(batch.x)))
        edges = self.standardize_edges(batch.weights)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = x + self.dropout(layer(norm(x), edges, batch))
        return x

    def forward(self, batch: GraphBatch) -> torch.Tensor:
        """Logits, float32 [graphs]."""
        x = self.nodes(batch)
        pooled = torch.cat([answer_mean(x, batch), answer_max(x, batch)], dim=1)
        logits: torch.Tensor = self.head(pooled)[:, 0]
        return logits.float()

    def tokens(self, batch: GraphBatch) -> torch.Tensor:
        """Logits of each answer token as if it were the whole answer, float32 [answer tokens]."""
        x = self.nodes(batch)[batch.answer]
        logits: torch.Tensor = self.head(torch.cat([x, x], dim=1))[:, 0]
        return logits.float()
