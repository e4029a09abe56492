"""`mlp-probe`: a small network on a hidden state."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from hallutrace.detect.base import Source
from hallutrace.detect.layer_probe import LayerProbe
from hallutrace.detect.nets.detector import (
    FitData,
    NetDetector,
    arrays_of,
    load_arrays,
)
from hallutrace.detect.nets.encoders import VectorNet
from hallutrace.detect.nets.task import Rows, classification, cross_entropy
from hallutrace.detect.options import Counts
from hallutrace.errors import InputError
from hallutrace.model.seeding import seeded


class MlpProbe(LayerProbe, NetDetector):
    """An MLP on the hidden state of the last answer token, in one layer.

    Formula: three hidden layers of 256, 128 and 64 units with ReLU, a logit, binary cross entropy.
    One is trained in every layer; that with the largest validation AUROC is kept, the first of
    equal ones.

    Source: SAPLMA: Azaria and Mitchell 2023, "The Internal State of an LLM Knows When It's Lying".
    Not checked against its text; from public summaries: widths of 256, 128, 64, the last token's
    state, layers compared. Departures: features are standardised on the training part, epochs and
    layer are chosen on the validation part, the optimiser is AdamW with dropout, and the last
    answer token that is not end-of-sequence is read.

    Examples:
        >>> from hallutrace.detect import load_examples
        >>> train = load_examples(hallutrace.open(run), "contains")
        >>> detector = MlpProbe(MlpProbe.Options(layers=(3,), epochs=1, device="cpu"))
        >>> detector.fit(train, train)  # in earnest with traces of its own to validate on
        >>> detector.scores(train).shape
        (8,)
    """

    name = "mlp-probe"
    source = Source(
        "SAPLMA: Azaria and Mitchell 2023, The Internal State of an LLM Knows When It's Lying, "
        "after public summaries",
        "text",
    )

    class Options(LayerProbe.Options, NetDetector.Options):
        """Of the vector, the layers and the network."""

        hidden_dims: Counts = Field((256, 128, 64), description="units of each hidden layer")

    options: Options
    _inputs: int = 0

    def fit_net(self, data: FitData) -> None:
        """Trains a network in every layer and keeps the best on the validation part."""
        best = -1.0
        for layer in self.candidates(data.train[0]):
            net, reached = self._fit_layer(data.in_folder(f"layer-{layer:03d}"), layer)
            if data.progress is not None:
                data.progress.note(f"layer {layer}: validation AUROC {reached:.4f}")
            if reached > best:
                best, self.layer, self._net = reached, layer, net

    def _fit_layer(self, data: FitData, layer: int) -> tuple[VectorNet, float]:
        """A network trained in one layer, and the AUROC on the validation part."""
        parts = (data.train, data.validation)
        train, validation = (torch.from_numpy(self.vectors(part, layer)) for part in parts)
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
            self.train(task, data, name)
        net.eval()
        return net, max(epoch.validation_auroc for epoch in self.history[name])

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Weights, and the layer."""
        return arrays_of(self.net, "net"), {"layer": self.chosen_layer, "inputs": self._inputs}

    def restore(self, arrays: dict[str, NDArray[Any]], facts: dict[str, Any]) -> None:
        """Takes them back."""
        net = self._make(int(facts["inputs"]))
        load_arrays(net, arrays, "net")
        self._net, self.layer = net, int(facts["layer"])

    def _make(self, inputs: int) -> VectorNet:
        self._inputs = inputs
        return VectorNet(inputs, self.options.hidden_dims, self.options.dropout)

    def log_odds(self, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        """The network on vectors of the chosen layer, float64 [vectors]."""
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
