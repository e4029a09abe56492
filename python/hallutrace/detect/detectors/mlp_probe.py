"""`mlp-probe`: a small network on a hidden state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from hallutrace.detect.base import Progress, Source
from hallutrace.detect.examples import Examples
from hallutrace.detect.features import answer_states, hidden_vector, hidden_vectors
from hallutrace.detect.nets.detector import (
    NetDetector,
    arrays_of,
    check_both_classes,
    load_arrays,
)
from hallutrace.detect.nets.encoders import VectorNet
from hallutrace.detect.nets.task import Rows, classification, cross_entropy
from hallutrace.detect.options import Counts, HiddenVector, Layers
from hallutrace.detect.trace_needs import Needs
from hallutrace.errors import InputError
from hallutrace.model.seeding import seeded
from hallutrace.store.trace import Trace


class MlpProbe(NetDetector):
    """An MLP on the hidden state of the last answer token, in one layer.

    Formula: three hidden layers of 256, 128 and 64 units with ReLU, a logit, binary cross entropy.
    One is trained in every layer; that with the largest validation AUROC is kept, the first of
    equal ones.

    Source: SAPLMA: Azaria and Mitchell 2023, "The Internal State of an LLM Knows When It's Lying".
    Not checked against its text; from public summaries: widths of 256, 128, 64, the last token's
    state, layers compared. Departures: features are standardised on the training part, epochs and
    layer are chosen on the validation part, the optimiser is AdamW with dropout, and the last
    answer token that is not end-of-sequence is read.
    """

    name = "mlp-probe"
    source = Source(
        "SAPLMA: Azaria and Mitchell 2023, The Internal State of an LLM Knows When It's Lying, "
        "after public summaries",
        "text",
    )

    class Options(NetDetector.Options):
        """Of the vector, the layers and the network."""

        token: HiddenVector = Field(
            "last_answer", description="which hidden vector, as of linear-probe"
        )
        layers: Layers | None = Field(
            None, description="layers to choose among; all that the run kept unless given"
        )
        hidden_dims: Counts = Field((256, 128, 64), description="units of each hidden layer")

    options: Options
    layer: int | None = None
    _inputs: int = 0

    @property
    def needs(self) -> Needs:
        """One hidden vector of each layer."""
        return Needs(hidden=(self.options.token,), hidden_layers=self.options.layers)

    def fit(
        self,
        train: Examples,
        validation: Examples,
        *,
        progress: Progress | None = None,
        workspace: Path | None = None,
    ) -> None:
        """Trains a network in every layer and keeps the best on the validation part."""
        check_both_classes(train, validation)
        best = -1.0
        for layer in self._candidates(train[0]):
            part = f"layer-{layer:03d}"
            net, reached = self._fit_layer(
                (train, validation),
                layer,
                progress,
                None if workspace is None else workspace / part,
            )
            if progress is not None:
                progress.note(f"layer {layer}: validation AUROC {reached:.4f}")
            if reached > best:
                best, self.layer, self._net = reached, layer, net

    def _fit_layer(
        self,
        parts: tuple[Examples, Examples],
        layer: int,
        progress: Progress | None,
        workspace: Path | None,
    ) -> tuple[VectorNet, float]:
        """A network trained in one layer, and the AUROC on the validation part."""
        train, validation = (torch.from_numpy(self._vectors(part, layer)) for part in parts)
        name = f"layer {layer}"
        with seeded(self.seed, self.options.torch_device()):
            net = self._make(train.shape[1])
            std = train.std(dim=0, correction=0)
            std[std < 1e-6] = 1.0
            net.standardize.set_moments(train.mean(dim=0).numpy(), std.numpy())

            def loss(rows: Rows, labels: torch.Tensor, device: torch.device) -> torch.Tensor:
                return cross_entropy(net(train[torch.from_numpy(rows)].to(device)), labels)

            def scores(_: int, device: torch.device) -> NDArray[np.float64]:
                logits: NDArray[np.float64] = net(validation.to(device)).double().cpu().numpy()
                return logits

            task = classification(net, parts[0].labels, parts[1].labels, loss, scores)
            self.train(task, *parts, name, progress, workspace)
        net.eval()
        return net, max(epoch.validation_auroc for epoch in self.history[name])

    def score(self, trace: Trace) -> float:
        """Log odds that a trace is hallucinated."""
        return float(
            self._logits(hidden_vector(trace, self._chosen(), self.options.token)[None])[0]
        )

    def scores(self, examples: Examples) -> NDArray[np.float64]:
        """Log odds of each, float64 [examples]."""
        return self._logits(self._vectors(examples, self._chosen()))

    def token_scores(self, trace: Trace) -> NDArray[np.float64] | None:
        """The network on each answer token, float64 [A]; None where states were pooled."""
        states = answer_states(trace, self._chosen())
        return None if states is None else self._logits(states)

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Weights, and the layer."""
        return arrays_of(self.net, "net"), {"layer": self._chosen(), "inputs": self._inputs}

    def restore(self, arrays: dict[str, NDArray[Any]], facts: dict[str, Any]) -> None:
        """Takes them back."""
        net = self._make(int(facts["inputs"]))
        load_arrays(net, arrays, "net")
        self._net, self.layer = net, int(facts["layer"])

    def _make(self, inputs: int) -> VectorNet:
        self._inputs = inputs
        return VectorNet(inputs, self.options.hidden_dims, self.options.dropout)

    def _logits(self, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        if not len(vectors):
            return np.zeros(0)
        if vectors.shape[1] != self._inputs:
            raise InputError(
                f"Expected hidden states {self._inputs} wide, as `{self.name}` was fitted on, got "
                f"{vectors.shape[1]} - take traces of the same model"
            )
        copied = torch.from_numpy(np.array(vectors))  # torch warns of arrays that are read-only
        with torch.no_grad():
            logits: NDArray[np.float64] = self.net(copied).double().numpy()
        return logits

    def _chosen(self) -> int:
        if self.layer is None:
            raise InputError(f"Expected a fitted `{self.name}`, got a new one - call fit first")
        return self.layer

    def _candidates(self, trace: Trace) -> list[int]:
        """The layers to choose among, in order."""
        return sorted(self.options.layers or trace.hidden_layers)

    def _vectors(self, examples: Examples, layer: int) -> NDArray[np.float32]:
        return hidden_vectors(examples, layer, self.options.token)
