"""`graph-vae`: variational autoencoders of attention graphs, and the sequence of layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from hallutrace.detect.base import Source
from hallutrace.detect.examples import Examples
from hallutrace.detect.nets.anomaly import AnomalyScore, Array
from hallutrace.detect.nets.detector import FitData
from hallutrace.detect.nets.graph_batches import GraphBatch
from hallutrace.detect.nets.graph_detector import GraphDetector
from hallutrace.detect.nets.task import Task
from hallutrace.detect.nets.vae import LayerVae, Objective, SequenceScorer, VaeNet
from hallutrace.detect.nets.vae_tasks import VaeData, VaeLoss, joint_task, scorer_task, vae_task
from hallutrace.detect.options import Count
from hallutrace.errors import InputError
from hallutrace.model.seeding import seeded
from hallutrace.store.trace import Trace


class GraphVae(GraphDetector):
    """A graph VAE of each layer, and a scorer over z_1 .. z_L and their changes.

    Formula: for each layer a GINE encoder gives mu and log variance of each node, z is drawn, an
    inner-product decoder rebuilds the adjacency; loss = reconstruction + ``beta`` KL. z_l is the
    mean over the answer tokens. Scores are made from mu. See :mod:`hallutrace.detect.nets.vae`.

    - ``supervised=True``: a scorer reads z_1 .. z_L and z_l - z_(l-1), as an MLP
      (``scorer="mlp"``) or recurrent net (``"gru"``). ``training="joint"``: one loss, cross entropy
      + ``alpha`` (reconstruction + ``beta`` KL). ``"two-stage"``: the autoencoder first, stopped on
      its own validation loss, then the scorer on its frozen mu.
    - ``supervised=False``: the autoencoder is fitted on right answers alone, stopped on its loss
      on right answers of the validation part. Score: reconstruction error + Mahalanobis distance
      of z_1 .. z_L from right answers, each standardised on right answers of the training part.

    Source: Kipf and Welling 2016 (variational graph autoencoder), Hu et al. 2020 (GINE); the
    sequence over layers and its scorers are ours.

    Examples:
        >>> from hallutrace.detect import load_examples
        >>> train = load_examples(hallutrace.open(run), "contains")
        >>> detector = GraphVae(GraphVae.Options(epochs=1, device="cpu"))
        >>> detector.fit(train, train)  # in earnest with traces of its own to validate on
        >>> detector.scores(train).shape
        (8,)
    """

    name = "graph-vae"
    source = Source(
        "Kipf and Welling 2016 (variational graph autoencoder), Hu et al. 2020 (GINE); the "
        "sequence over layers and its scorers are our own"
    )
    per: ClassVar[str] = "layer"

    class Options(GraphDetector.Options):
        """Of the network, its loss, the graphs and the training."""

        scorer: Literal["mlp", "gru"] = Field("mlp", description="what reads z_1 .. z_L")
        training: Literal["joint", "two-stage"] = Field(
            "joint", description="one loss, or the autoencoder first and then the scorer"
        )
        supervised: bool = Field(
            True, description="whether labels are learnt; else right answers alone are looked at"
        )
        objective: Objective = Field(
            "weighted", description="whether edges are rebuilt as their weight or as 1"
        )
        latent_dim: Count = Field(16, description="numbers of a node's z")
        hidden_dim: Count = Field(32, description="numbers of a node within the encoder")
        num_layers: Count = Field(2, description="rounds of message passing")
        alpha: float = Field(
            0.1, ge=0, description="weight of the autoencoder's loss beside the cross entropy"
        )
        beta: float = Field(0.01, ge=0, description="weight of the KL divergence")

    options: Options
    _anomaly: AnomalyScore | None = None

    def make_net(self, shape: dict[str, int]) -> VaeNet:
        """A new network."""
        options = self.options
        layers, dropout, latent = shape["layers"], options.dropout, options.latent_dim
        vae = LayerVae(
            shape["node_dim"],
            shape["edge_dim"],
            layers,
            hidden_dim=options.hidden_dim,
            latent=latent,
            num_layers=options.num_layers,
            dropout=dropout,
        )
        hidden = 2 * options.hidden_dim
        return VaeNet(vae, SequenceScorer(layers, latent, options.scorer, hidden, dropout))

    def fit_net(self, data: FitData) -> None:
        """Trains autoencoder and scorer; epochs are chosen on the validation part."""
        train, validation = data.train, data.validation
        is_supervised = self.options.supervised
        loss = VaeLoss(self.options.objective, self.options.alpha, self.options.beta)
        # Unsupervised, hallucinated answers are not read at all, not even for the moments.
        right = np.flatnonzero(train.labels == 0)
        rows = np.arange(len(train)) if is_supervised else right
        with seeded(self.seed, self.options.torch_device()):
            net = self.prepare(train)
            labels = (train.labels, validation.labels)
            graphs = VaeData(self.table(train), self.table(validation), *labels)
            nodes, edges = graphs.train.moments(rows)
            net.vae.standardize_nodes.set_moments(*nodes)
            net.vae.standardize_edges.set_moments(*edges)
            stages: dict[str, Callable[[], Task]] = {}
            if is_supervised and self.options.training == "joint":
                stages["joint"] = lambda: joint_task(net, graphs, loss)
            else:
                stages["vae"] = lambda: vae_task(net, graphs, loss, rows)
                if is_supervised:
                    stages["scorer"] = lambda: scorer_task(net, graphs)
            for stage, make_task in stages.items():
                one = data if len(stages) == 1 else data.in_folder(stage)
                self.train(make_task(), one, stage)
        net.eval()
        self._net = net
        if not is_supervised:
            self._anomaly = AnomalyScore.fit(*self._errors_and_codes(train.take(right)))

    def risk(self, batch: GraphBatch) -> NDArray[np.float64]:
        """Log odds that traces are hallucinated, or how far they are from right answers."""
        if self.options.supervised:
            logits: NDArray[np.float64] = self.net(batch).double().numpy()
            return logits
        if self._anomaly is None:
            raise InputError(f"Expected a fitted `{self.name}`, got a new one - call fit first")
        return self._anomaly(*self._error_and_code(batch))

    def token_scores(self, trace: Trace) -> NDArray[np.float64] | None:
        """The scorer on each answer token's own z, float64 [A]; None where it is unsupervised."""
        if not self.options.supervised:
            return None
        with torch.no_grad():
            batch = self.batch([trace])
            mu = self.net.vae.encode(batch, draw=False).mu
            found = self.net.scorer(self.net.vae.token_sequence(mu, batch)).double().numpy()
        return self.padded(found, trace)

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Weights, what graphs are made of, and what right answers look like."""
        arrays, facts = super().state()
        return arrays | (self._anomaly.arrays() if self._anomaly is not None else {}), facts

    def restore(self, arrays: dict[str, NDArray[Any]], facts: dict[str, Any]) -> None:
        """Takes them back."""
        super().restore(arrays, facts)
        if not self.options.supervised:
            self._anomaly = AnomalyScore.from_arrays(arrays)

    def _error_and_code(self, batch: GraphBatch) -> tuple[Array, Array]:
        """Reconstruction error of each trace [traces], and z_1 .. z_L [traces, layers * latent]."""
        vae = self.net.vae
        mu = vae.encode(batch, draw=False).mu
        error = vae.reconstruction(mu, batch, self.options.objective, draw=False)
        sequence = vae.sequence(mu, batch).flatten(1)
        return vae.layer_mean(error).double().numpy(), sequence.double().numpy()

    def _errors_and_codes(self, examples: Examples) -> tuple[Array, Array]:
        """The same of many traces."""
        with torch.no_grad():
            parts = [self._error_and_code(self.batch(some)) for some in self.chunks(examples)]
        errors, codes = zip(*parts, strict=True)
        return np.concatenate(errors), np.concatenate(codes)
