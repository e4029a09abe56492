"""`attention-gnn`: message passing over the attention graph of a trace."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from hallutrace.detect.base import Source
from hallutrace.detect.nets.detector import FitData
from hallutrace.detect.nets.encoders import AttentionNet
from hallutrace.detect.nets.graph_batches import GraphBatch
from hallutrace.detect.nets.graph_detector import GraphDetector
from hallutrace.detect.nets.task import Rows, classification, cross_entropy
from hallutrace.detect.options import Count
from hallutrace.model.seeding import seeded
from hallutrace.store.trace import Trace


class AttentionGnn(GraphDetector):
    """Message passing over one graph a trace, whose edges carry the weights of all layers.

    Formula: tokens are nodes; where a query attends to a key in any layer there is one edge, with
    w in R^(layers x heads kept apart), 0 where a layer did not keep it. x = relu(W features); then
    ``num_layers`` times x_i += net(norm(x)_i + sum_j relu(norm(x)_j + W' w_ij + b')); the logit is
    an MLP of mean and maximum of x over the answer tokens. Binary cross entropy; early stopping on
    validation AUROC.

    Source: after CHARM: Frasca, Bar-Shalom, Ziser, Maron 2025, "Neural Message-Passing on Attention
    Graphs for Hallucination Detection", arXiv 2509.24770. Its text and code could not be read here;
    what it does is taken from its abstract and public summaries: nodes are tokens with their
    self-attention in all layers and heads and, optionally, a hidden state; an edge is there where
    attention passes a threshold in any layer and head, with the weights of all of them. Departures:
    edges are those that the run kept (its top-k), by default with heads combined to their mean;
    nodes also have the other marginals, position, role and logprob; messages are GINE's; labels
    are of whole answers. CHARM's own message function and readout are not known to be these.

    Examples:
        >>> from hallutrace.detect import load_examples
        >>> train = load_examples(hallutrace.open(run), "contains")
        >>> detector = AttentionGnn(AttentionGnn.Options(epochs=1, device="cpu"))
        >>> detector.fit(train, train)  # in earnest with traces of its own to validate on
        >>> detector.scores(train).shape
        (8,)
    """

    name = "attention-gnn"
    source = Source(
        "after CHARM: Frasca et al. 2025, Neural Message-Passing on Attention Graphs for "
        "Hallucination Detection (arXiv 2509.24770), its abstract and public summaries",
        "text",
    )

    class Options(GraphDetector.Options):
        """Of the network, the graphs and the training."""

        hidden_dim: Count = Field(32, description="numbers of a node within the network")
        num_layers: Count = Field(2, description="rounds of message passing")

    options: Options

    def make_net(self, shape: dict[str, int]) -> AttentionNet:
        """A new network."""
        options = self.options
        sizes = (options.hidden_dim, options.num_layers, options.dropout)
        return AttentionNet(shape["node_dim"], shape["edge_dim"], *sizes)

    def fit_net(self, data: FitData) -> None:
        """Trains the network; epochs are chosen on the validation part."""
        train, validation = data.train, data.validation
        with seeded(self.seed, self.options.torch_device()):
            net = self.prepare(train)
            train_graphs, validation_graphs = self.table(train), self.table(validation)
            nodes, edges = train_graphs.moments()
            net.standardize_nodes.set_moments(*nodes)
            net.standardize_edges.set_moments(*edges)

            def loss(rows: Rows, labels: torch.Tensor, device: torch.device) -> torch.Tensor:
                return cross_entropy(net(train_graphs.batch(rows).to(device)), labels)

            task = classification(
                net,
                train.labels,
                validation.labels,
                loss,
                lambda batch_size, device: validation_graphs.map(net, batch_size, device),
                train_graphs.order,
            )
            self.train(task, data, "all")
        net.eval()
        self._net = net

    def risk(self, batch: GraphBatch) -> NDArray[np.float64]:
        """Log odds that traces are hallucinated."""
        logits: NDArray[np.float64] = self.net(batch).double().numpy()
        return logits

    def token_scores(self, trace: Trace) -> NDArray[np.float64] | None:
        """The head on each answer token alone, as if it were the whole answer, float64 [A]."""
        with torch.no_grad():
            found = self.net.tokens(self.batch([trace])).double().numpy()
        return self.padded(found, trace)
