"""The base of detectors that read one hidden vector of one layer, which they choose."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hallutrace.detect.base import Detector
from hallutrace.detect.examples import Examples
from hallutrace.detect.features import answer_states, hidden_vector, hidden_vectors
from hallutrace.detect.options import HiddenVector, Layers
from hallutrace.detect.trace_needs import Needs
from hallutrace.errors import InputError
from hallutrace.store.trace import Trace


class LayerProbe(Detector):
    """A function of one hidden vector of one layer.

    Attributes:
        layer: that was chosen by the fit; None before.
    """

    class Options(Detector.Options):
        """Of the vector and the layer."""

        token: HiddenVector = Field(
            "last_answer",
            description="which vector: of the last answer token that is not end-of-sequence, of "
            "the last prompt token (before anything is said), of the last token, or the mean over "
            "the answer",
        )
        layers: Layers | None = Field(
            None, description="layers to choose among; all that the run kept unless given"
        )

    options: Options
    layer: int | None = None

    @abstractmethod
    def log_odds(self, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        """Log odds of hidden vectors of the chosen layer, float64 [vectors]."""

    @property
    def needs(self) -> Needs:
        """One hidden vector of each layer."""
        return Needs(hidden=(self.options.token,), hidden_layers=self.options.layers)

    @property
    def chosen_layer(self) -> int:
        """The layer that the fit chose.

        Raises:
            InputError: nothing was fitted.
        """
        if self.layer is None:
            raise InputError(f"Expected a fitted `{self.name}`, got a new one - call fit first")
        return self.layer

    def candidates(self, trace: Trace) -> list[int]:
        """The layers to choose among, in order."""
        return sorted(self.options.layers or trace.hidden_layers)

    def vectors(self, examples: Examples, layer: int) -> NDArray[np.float32]:
        """The hidden vectors of several traces in a layer, float32 [traces, hidden size]."""
        return hidden_vectors(examples, layer, self.options.token)

    def feature(self, trace: Trace) -> NDArray[np.float32]:
        """The vector in the layer that was chosen, float32 [hidden size]."""
        return hidden_vector(trace, self.chosen_layer, self.options.token)

    def score(self, trace: Trace) -> float:
        """Log odds that a trace is hallucinated."""
        return float(self.log_odds(self.feature(trace)[None])[0])

    def scores(self, examples: Examples) -> NDArray[np.float64]:
        """Log odds of each, float64 [examples]; hidden states are too large to be cached."""
        return self.log_odds(self.vectors(examples, self.chosen_layer))

    def token_scores(self, trace: Trace) -> NDArray[np.float64] | None:
        """The probe on each answer token, float64 [A]; None where states were pooled."""
        states = answer_states(trace, self.chosen_layer)
        return None if states is None else self.log_odds(states)
