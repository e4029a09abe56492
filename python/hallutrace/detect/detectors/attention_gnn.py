"""`attention-gnn`: message passing over the attention graph of a trace."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from hallutrace.detect.base import Progress
from hallutrace.detect.examples import Examples
from hallutrace.detect.nets.batching import GraphBatch, GraphTable
from hallutrace.detect.nets.detector import Supervised, check_both_classes, cross_entropy
from hallutrace.detect.nets.encoders import AttentionNet
from hallutrace.detect.nets.graph_detector import GraphDetector
from hallutrace.detect.nets.task import seeded
from hallutrace.store.trace import Trace


class AttentionGnn(GraphDetector):
    """Message passing over one graph a trace, whose edges carry the weights of all layers.

    Formula: tokens are nodes; where a query looks at a key in any layer there is one edge, with
    w in R^(layers x heads kept apart), 0 where a layer did not keep it. x = relu(W features); then
    ``steps`` times x_i += net(norm(x)_i + sum_j relu(norm(x)_j + W' w_ij + b')); the logit is a
    perceptron of mean and maximum of x over the answer tokens. Binary cross entropy; early stopping
    on validation AUROC.

    Options: ``width`` of nodes within, ``steps``, and those of
    :class:`~hallutrace.detect.nets.graph_detector.GraphDetector`.

    Source: after CHARM: Frasca, Bar-Shalom, Ziser, Maron 2025, "Neural Message-Passing on Attention
    Graphs for Hallucination Detection", arXiv 2509.24770. Its text and code could not be read here;
    what it does is taken from its abstract and public summaries: nodes are tokens with their
    self-attention in all layers and heads and, optionally, a hidden state; an edge is there where
    attention passes a threshold in any layer and head, with the weights of all of them. Departures:
    edges are those that the run kept (its top-k), by default with heads combined to their mean;
    nodes also have the other marginals, position, role and logprob; messages are GINE's; labels
    are of whole answers. CHARM's own message function and readout are not known to be these.
    """

    name: ClassVar[str] = "attention-gnn"
    defaults: ClassVar[Mapping[str, Any]] = {**GraphDetector.defaults, "width": 32, "steps": 2}

    def check_options(self) -> None:
        """Refuses a network without nodes or steps."""
        super().check_options()
        self.require_whole("width", "steps")

    def make_net(self, shape: dict[str, int]) -> AttentionNet:
        """A new network."""
        options = self.options
        sizes = (shape["width"], shape["channels"], options["width"], options["steps"])
        return AttentionNet(*sizes, options["dropout"])

    def fit(
        self,
        train: Examples,
        validation: Examples,
        *,
        progress: Progress | None = None,
        workspace: Path | None = None,
    ) -> None:
        """Trains the network; epochs are chosen on the validation part."""
        check_both_classes(train, "training")
        check_both_classes(validation, "validation")
        self.prepare(train)
        learnt, held = self.table(train), self.table(validation)
        with seeded(self.seed):
            assert self._shape is not None
            net = self.make_net(self._shape)
            nodes, edges = learnt.moments(np.arange(len(learnt)))
            net.standard.learn(*nodes)
            net.edges.learn(*edges)

            def loss(rows: NDArray[np.int64], truth: torch.Tensor, device: torch.device) -> Any:
                return cross_entropy(net(learnt.batch(rows).to(device)), truth)

            task = Supervised(
                model=net,
                labels=train.labels,
                held=validation.labels,
                loss_of=loss,
                scores_of=lambda size, device: _scores(net, held, size, device),
                shuffle=lambda dice: learnt.order(dice, np.arange(len(learnt))),
            )
            self.history["all"] = self.train(task, train, validation, "all", progress, workspace)
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


def _scores(
    net: AttentionNet, table: GraphTable, size: int, device: torch.device
) -> NDArray[np.float64]:
    return np.concatenate(
        [net(batch.to(device)).double().cpu().numpy() for _, batch in table.batches(size)]
    )
