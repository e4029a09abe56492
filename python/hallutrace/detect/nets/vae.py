"""A variational graph autoencoder of each layer, and scorers over the sequence of layers.

For layer l with features X_l and edges E_l:

1. h = relu(W_l X_l + b_l), then ``num_layers`` times
   h_i += net(g_i + sum_j relu(g_j + W' e_ij + b')), g = norm(h).
2. mu = M h, log variance = V h, z = mu + noise * exp(log variance / 2) for each node.
3. Decoder: the chance of an edge j -> i is sigmoid(z_i . z_j + c_l).
4. z_l is the mean of z over the answer tokens; the scorer reads z_1 .. z_L and z_2 - z_1 ...

Departures from Kipf and Welling's: GINE in place of GCN; W_l, b_l and c_l are each layer's own, the
other weights are shared, so that a deep model does not have an encoder for each layer; the offset
c_l, because sparse graphs have edges less often than sigmoid(0) says; pairs that causality forbids
are never decoded. With ``edges`` that are pruned, keys beyond the kept ones count as no edge.

Source: Kipf and Welling 2016, "Variational Graph Auto-Encoders"; the sequence over layers is ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as functional
from torch import nn

from hallutrace.detect.nets.encoders import Standardize, mlp
from hallutrace.detect.nets.graph_batches import GraphBatch
from hallutrace.detect.nets.message import GineLayer, answer_mean

# Log variances beyond this overflow nothing and mean nothing.
Objective = Literal["weighted", "binary"]
"""Whether edges are rebuilt as their weight or as 1."""

_LARGEST_LOG_VARIANCE = 8.0


@dataclass(frozen=True)
class Code:
    """What an encoder makes of a batch.

    Attributes:
        mu: float32 [nodes, latent].
        log_variance: float32 [nodes, latent].
        z: float32 [nodes, latent]; drawn, or ``mu`` where nothing is drawn.
    """

    mu: torch.Tensor
    log_variance: torch.Tensor
    z: torch.Tensor


class LayerVae(nn.Module):
    """Encoder and decoder of the graphs of all layers.

    Args:
        node_dim: features of a node.
        edge_dim: weights of an edge.
        graphs: of a trace, one for each layer of the language model.
        hidden_dim: numbers of a node between the layers of message passing.
        latent: numbers of z.
        num_layers: layers of message passing.
        dropout: share of units that a training step leaves out.
    """

    def __init__(
        self,
        node_dim: int,
        edge_dim: int,
        graphs: int,
        *,
        hidden_dim: int,
        latent: int,
        num_layers: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.standardize_nodes = Standardize([graphs, 1, node_dim])
        self.standardize_edges = Standardize([edge_dim])
        bound = 1 / math.sqrt(node_dim)
        self.embed = nn.Parameter(torch.empty(graphs, node_dim, hidden_dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(graphs, 1, hidden_dim).uniform_(-bound, bound))
        self.layers = nn.ModuleList(GineLayer(hidden_dim, edge_dim) for _ in range(num_layers))
        self.norms = nn.ModuleList(nn.LayerNorm(hidden_dim) for _ in range(num_layers))
        self.dropout = nn.Dropout(dropout)
        self.mu = nn.Linear(hidden_dim, latent)
        self.log_variance = nn.Linear(hidden_dim, latent)
        self.offset = nn.Parameter(torch.zeros(graphs))

    def encode(self, batch: GraphBatch, draw: bool) -> Code:
        """Codes of all nodes; graphs of the first layer of all traces come first."""
        x = self.standardize_nodes(batch.x.view(len(self.offset), -1, batch.x.shape[1]))
        x = torch.relu(torch.baddbmm(self.bias, x, self.embed)).flatten(0, 1)
        edges = self.standardize_edges(batch.weights)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = x + self.dropout(layer(norm(x), edges, batch))
        mu = self.mu(x).float()
        bound = _LARGEST_LOG_VARIANCE
        log_variance = self.log_variance(x).float().clamp(-bound, bound)
        z = mu
        if draw:
            z = mu + torch.randn_like(mu) * torch.exp(log_variance / 2)
        return Code(mu, log_variance, z)

    def reconstruction(
        self, z: torch.Tensor, batch: GraphBatch, objective: Objective, draw: bool
    ) -> torch.Tensor:
        """How badly each graph is decoded, float32 [graphs]: mean cross entropy over pairs.

        Args:
            z: float32 [nodes, latent].
            batch: the graphs.
            objective: ``binary``, kept edges are 1; ``weighted``, they are their weight (the
                largest, of several heads). Each query has as many further pairs as edges, with
                keys up to itself, which are 0 where they are no edge.
            draw: draw those keys; otherwise they lie evenly.
        """
        graph, layer_of = batch.graph, len(batch) // len(self.offset)
        weights = batch.weights.amax(dim=1).clamp(max=1)
        targets = torch.ones_like(weights) if objective == "binary" else weights
        others, is_free = negative_edges(batch, draw)
        key = torch.cat([batch.key, others[is_free]])
        query = torch.cat([batch.query, batch.query[is_free]])
        truth = torch.cat([targets, targets.new_zeros(int(is_free.sum()))])
        of = graph[query]
        pairs = z.index_select(0, key) * z.index_select(0, query)
        logits = pairs.sum(dim=1) + self.offset[of // layer_of]
        each = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        sums = each.new_zeros(len(batch)).index_add(0, of, each)
        return sums / torch.bincount(of, minlength=len(batch)).clamp(min=1)

    def sequence(self, z: torch.Tensor, batch: GraphBatch) -> torch.Tensor:
        """z_1 .. z_L of each trace, float32 [traces, layers, latent]."""
        return answer_mean(z, batch).view(len(self.offset), -1, z.shape[1]).transpose(0, 1)

    def layer_mean(self, of_graphs: torch.Tensor) -> torch.Tensor:
        """Mean over the graphs of each trace, [graphs] to [traces]."""
        return of_graphs.view(len(self.offset), -1).mean(dim=0)

    def token_sequence(self, z: torch.Tensor, batch: GraphBatch) -> torch.Tensor:
        """The same of each answer token alone, float32 [answer tokens, layers, latent]."""
        return z[batch.answer].view(len(self.offset), -1, z.shape[1]).transpose(0, 1)


def negative_edges(batch: GraphBatch, draw: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """For each edge another key of the same query, and whether that pair is no edge.

    Args:
        batch: the graphs.
        draw: draw the keys with torch's generator; otherwise those of a query are spread evenly
            over the keys up to itself, which does not depend on other graphs.

    Returns:
        int64 [edges], nodes; bool [edges].
    """
    begin = batch.begins[batch.graph[batch.query]]
    reach = batch.query - begin + 1
    if draw:  # on the CPU, so that a seed draws the same wherever the model is
        share = torch.rand(len(reach)).to(reach.device)
    else:
        first, count = batch.query_ends[batch.query], batch.query_ends.diff()[batch.query]
        share = (torch.arange(len(reach), device=reach.device) - first + 0.5) / count
    key = begin + torch.minimum((share * reach).long(), reach - 1)
    nodes = len(batch.x)
    edges = batch.query * nodes + batch.key  # increasing: by query, then key
    pairs = batch.query * nodes + key
    if not len(edges):
        return key, key.bool()
    index = torch.searchsorted(edges, pairs).clamp(max=len(edges) - 1)
    return key, edges[index] != pairs


def divergence(code: Code, batch: GraphBatch) -> torch.Tensor:
    """KL divergence from N(0, 1), mean over the nodes of each graph, float32 [graphs]."""
    terms = code.mu**2 + code.log_variance.exp() - 1 - code.log_variance
    each = terms.sum(dim=1) / 2
    sums = each.new_zeros(len(batch)).index_add(0, batch.graph, each)
    return sums / torch.bincount(batch.graph, minlength=len(batch))


class SequenceScorer(nn.Module):
    """A logit from z_1 .. z_L and their changes from layer to layer.

    Args:
        layers: L.
        latent: numbers of z.
        kind: ``mlp`` reads all at once; ``gru`` layer by layer, z_l beside z_l - z_(l-1).
        hidden_dim: units of the hidden layers.
        dropout: share of units that a training step leaves out.
    """

    def __init__(
        self, layers: int, latent: int, kind: str, hidden_dim: int, dropout: float
    ) -> None:
        super().__init__()
        self.is_recurrent = kind == "gru"
        if self.is_recurrent:
            self.recurrent = nn.GRU(2 * latent, hidden_dim, batch_first=True)
            self.head = mlp([hidden_dim, hidden_dim, 1], dropout)
        else:
            inputs = (2 * layers - 1) * latent
            self.head = mlp([inputs, hidden_dim, hidden_dim, 1], dropout)

    def forward(self, sequence: torch.Tensor) -> torch.Tensor:
        """float32 [traces, layers, latent] to logits [traces]."""
        change = sequence.diff(dim=1)
        if self.is_recurrent:
            change = functional.pad(change, (0, 0, 1, 0))  # the first layer has none
            _, last = self.recurrent(torch.cat([sequence, change], dim=2))
            out = self.head(last[0])
        else:
            out = self.head(torch.cat([sequence, change], dim=1).flatten(1))
        logits: torch.Tensor = out[:, 0]
        return logits.float()


class VaeNet(nn.Module):
    """The autoencoder and its scorer.

    Args:
        vae: the autoencoder.
        scorer: over its sequence.
    """

    def __init__(self, vae: LayerVae, scorer: SequenceScorer) -> None:
        super().__init__()
        self.vae = vae
        self.scorer = scorer

    def forward(self, batch: GraphBatch) -> torch.Tensor:
        """Logits from mu, float32 [traces]."""
        logits: torch.Tensor = self.scorer(self.sequence(batch))
        return logits

    def sequence(self, batch: GraphBatch) -> torch.Tensor:
        """z_1 .. z_L from mu, float32 [traces, layers, latent]."""
        return self.vae.sequence(self.vae.encode(batch, draw=False).mu, batch)
