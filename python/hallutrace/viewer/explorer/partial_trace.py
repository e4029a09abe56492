"""What is known of a trace while its answer is generated, and which detectors need no more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hallutrace.detect import Detector
from hallutrace.model.generation_watch import Step
from hallutrace.viewer.explorer.neighbors import layer_read_by


@dataclass
class PartialTrace:
    """What is known of a trace while the answer is generated, for detectors that read no more.

    Attributes:
        prompt_length: tokens of the prompt; only differences to it count, so it is 1.
        finish_reason: nothing has ended yet.
    """

    prompt_length: int = 1
    finish_reason: str = "length"
    _steps: list[Step] = field(default_factory=list)

    def add(self, step: Step) -> None:
        """Takes the next token."""
        self._steps.append(step)

    @property
    def answer_tokens(self) -> NDArray[np.int32]:
        """Ids so far, int32 [A]."""
        return np.array([step.token for step in self._steps], np.int32)

    @property
    def logprob(self) -> NDArray[np.float32]:
        """As of a trace, float32 [A]."""
        return np.array([step.logprob for step in self._steps], np.float32)

    @property
    def token_entropy(self) -> NDArray[np.float32]:
        """As of a trace, float32 [A]."""
        return np.array([step.entropy for step in self._steps], np.float32)

    @property
    def hidden_tokens(self) -> range:
        """Positions of the tokens whose states are known: those of the answer."""
        return range(self.prompt_length, self.prompt_length + len(self._steps))

    def hidden(self, layer: int) -> NDArray[np.float32]:
        """States of the answer tokens, float32 [A, hidden size]."""
        return np.stack([step.hidden[layer] for step in self._steps])


def live_layers(detector: Detector | None) -> Sequence[int] | None:
    """Layers whose hidden states a detector reads while an answer is generated.

    Returns:
        None where it has no risk by token, or reads what only the whole trace has.
    """
    if detector is None or type(detector).token_scores is Detector.token_scores:
        return None
    needs = detector.needs
    if needs.marginals or needs.edges is not None or needs.samples > 1:
        return None
    layer = layer_read_by(detector)
    if needs.hidden and layer is None:
        return None
    return () if layer is None or not needs.hidden else (layer,)
