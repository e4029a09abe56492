"""`graph-vae`: variational autoencoders of attention graphs, and the sequence of layers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from hallutrace.detect.base import Progress
from hallutrace.detect.examples import Examples
from hallutrace.detect.nets.anomaly import Anomaly
from hallutrace.detect.nets.batching import GraphBatch
from hallutrace.detect.nets.detector import check_both_classes
from hallutrace.detect.nets.graph_detector import GraphDetector
from hallutrace.detect.nets.task import seeded
from hallutrace.detect.nets.vae import LayerVae, SequenceScorer, VaeNet
from hallutrace.detect.nets.vae_tasks import Tables, VaeLoss, joint_task, scorer_task, vae_task
from hallutrace.errors import InputError
from hallutrace.store.trace import Trace


class GraphVae(GraphDetector):
    """A graph VAE of each layer, and a scorer over z_1 .. z_L and their changes.

    Formula: for each layer a GINE encoder gives mu and log variance of each node, z is drawn, an
    inner-product decoder rebuilds the adjacency; loss = reconstruction + ``beta`` KL. z_l is the
    mean over the answer tokens. Scores are made from mu. See :mod:`hallutrace.detect.nets.vae`.

    - ``supervised=True``: a scorer reads z_1 .. z_L and z_l - z_(l-1), as perceptron
      (``scorer="mlp"``) or recurrent net (``"gru"``). ``training="joint"``: one loss, cross entropy
      + ``alpha`` (reconstruction + ``beta`` KL). ``"two-stage"``: the autoencoder first, stopped on
      its own validation loss, then the scorer on its frozen mu.
    - ``supervised=False``: the autoencoder is fitted on right answers alone, stopped on its loss
      on right answers of the validation part. Score: reconstruction error + Mahalanobis distance
      of z_1 .. z_L from right answers, each in deviations of right answers of the training part.

    Options: ``scorer``, ``training``, ``supervised``, ``objective`` (``weighted``: edges are
    rebuilt as their weight; ``binary``: as 1), ``latent``, ``width``, ``steps``, ``alpha``,
    ``beta``, and those of :class:`~hallutrace.detect.nets.graph_detector.GraphDetector`.

    Source: Kipf and Welling 2016 (variational graph autoencoder), Hu et al. 2020 (GINE); the
    sequence over layers and its scorers are ours.
    """

    name: ClassVar[str] = "graph-vae"
    per: ClassVar[str] = "layer"
    defaults: ClassVar[Mapping[str, Any]] = {
        **GraphDetector.defaults,
        "scorer": "mlp",
        "training": "joint",
        "supervised": True,
        "objective": "weighted",
        "latent": 16,
        "width": 32,
        "steps": 2,
        "alpha": 0.1,
        "beta": 0.01,
    }
    _anomaly: Anomaly | None = None

    def check_options(self) -> None:
        """Refuses a network or a training that there is not."""
        super().check_options()
        self.require_whole("width", "steps", "latent")
        for name, known in (
            ("scorer", ("mlp", "gru")),
            ("training", ("joint", "two-stage")),
            ("objective", ("weighted", "binary")),
            ("supervised", (True, False)),
        ):
            shown = ", ".join(map(str, known))
            self.require_option(name, self.options[name] in known, f"one of {shown}")
        for name in ("alpha", "beta"):
            value = self.options[name]
            good = isinstance(value, (int, float)) and 0 <= value < np.inf
            self.require_option(name, good, "a number >= 0")

    def make_net(self, shape: dict[str, int]) -> VaeNet:
        """A new network."""
        options = self.options
        sizes = {name: options[name] for name in ("width", "latent", "steps", "dropout")}
        layers, latent = shape["layers"], options["latent"]
        rest = (options["scorer"], 2 * options["width"], options["dropout"])
        return VaeNet(
            LayerVae(shape["width"], shape["channels"], layers, **sizes),
            SequenceScorer(layers, latent, *rest),
        )

    def fit(
        self,
        train: Examples,
        validation: Examples,
        *,
        progress: Progress | None = None,
        workspace: Path | None = None,
    ) -> None:
        """Trains autoencoder and scorer; epochs are chosen on the validation part."""
        check_both_classes(train, "training")
        check_both_classes(validation, "validation")
        self.prepare(train)
        tables = Tables(self.table(train), self.table(validation), train.labels, validation.labels)
        loss = VaeLoss(*(self.options[name] for name in ("objective", "alpha", "beta")))
        # In the unsupervised case hallucinated answers are not looked at, not even for a mean.
        right = np.flatnonzero(train.labels == 0)
        rows = np.arange(len(train)) if self.options["supervised"] else right
        with seeded(self.seed):
            assert self._shape is not None
            net = self.make_net(self._shape)
            nodes, edges = tables.learnt.moments(rows)
            net.vae.standard.learn(*nodes)
            net.vae.edges.learn(*edges)
            stages: dict[str, Any] = {}
            if self.options["supervised"] and self.options["training"] == "joint":
                stages["joint"] = lambda: joint_task(net, tables, loss)
            else:
                stages["vae"] = lambda: vae_task(net, tables, loss, rows)
                if self.options["supervised"]:
                    stages["scorer"] = lambda: scorer_task(net, tables)
            for stage, make in stages.items():
                at = workspace / stage if workspace is not None and len(stages) > 1 else workspace
                self.history[stage] = self.train(make(), train, validation, stage, progress, at)
        net.eval()
        self._net = net
        if not self.options["supervised"]:
            self._anomaly = Anomaly.of(*self._looked_at(train.take(right)))

    def risk(self, batch: GraphBatch) -> NDArray[np.float64]:
        """Log odds that traces are hallucinated, or how far they are from right answers."""
        if self.options["supervised"]:
            logits: NDArray[np.float64] = self.net(batch).double().numpy()
            return logits
        if self._anomaly is None:
            raise InputError(f"Expected a fitted `{self.name}`, got a new one - call fit first")
        return self._anomaly(*self._seen(batch))

    def token_scores(self, trace: Trace) -> NDArray[np.float64] | None:
        """The scorer on each answer token's own z, float64 [A]; None where it is unsupervised."""
        if not self.options["supervised"]:
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
        if not self.options["supervised"]:
            self._anomaly = Anomaly.from_arrays(arrays)

    def _seen(self, batch: GraphBatch) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Reconstruction error of each trace [traces], and z_1 .. z_L [traces, layers * latent]."""
        vae = self.net.vae
        mu = vae.encode(batch, draw=False).mu
        error = vae.reconstruction(mu, batch, self.options["objective"], draw=False)
        sequence = vae.sequence(mu, batch).flatten(1)
        return per_trace(error, vae).double().numpy(), sequence.double().numpy()

    def _looked_at(self, examples: Examples) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The same of many traces."""
        found = []
        with torch.no_grad():
            for traces in self.pieces(examples):
                found.append(self._seen(self.batch(traces)))
        return np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found])


def per_trace(of_graphs: torch.Tensor, vae: LayerVae) -> torch.Tensor:
    """Mean over the layers of each trace, from graphs of the first layer, then of others."""
    return of_graphs.view(len(vae.offset), -1).mean(dim=0)
