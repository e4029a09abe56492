"""Following a generation token by token, and stopping it.

A watcher is set for a block of code with :func:`watching`. ``generate`` calls it for each token
that the model goes on from. So an extraction within the block is followed without knowing of it,
and its traces stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Hidden = dict[int, NDArray[np.float32]]


@dataclass(frozen=True)
class Step:
    """One token of an answer.

    Attributes:
        token: its id.
        logprob: its log-probability at temperature 1, nats.
        entropy: of the distribution that it was taken from, nats.
        hidden: state of the token in each layer that the watcher wants, float32 [hidden size].
    """

    token: int
    logprob: float
    entropy: float
    hidden: Hidden = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Watcher:
    """Who follows a generation.

    Attributes:
        step: called with each token; what it raises ends the generation.
        layers: whose hidden states it wants, numbers of the model from 0.
    """

    step: Callable[[Step], None]
    layers: Sequence[int] = ()


_WATCHER: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Within it, generations of this thread are followed.

    The last token of an answer is not told, because the model is not asked what follows it.
    Answers of beam search, and of several prompts or samples at once, are not followed.

    Args:
        watcher: who follows them.
    """
    before = _WATCHER.set(watcher)
    try:
        yield
    finally:
        _WATCHER.reset(before)


@contextmanager
def watched(model: Any, rows: int) -> Iterator[None]:
    """A context in which ``generate`` of a model tells the watcher of this thread, if there is one.

    Args:
        model: of transformers.
        rows: sequences that are generated together, beams included.
    """
    watcher = _WATCHER.get()
    if watcher is None or rows != 1:
        yield
        return
    follower = _Follower(watcher)
    handles = [
        model.register_forward_pre_hook(follower.before, with_kwargs=True),
        model.register_forward_hook(follower.after, with_kwargs=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Follower:
    """Hooks of a model: the token that comes in was chosen by the logits of the call before."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._logits: torch.Tensor | None = None

    def before(self, _: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Asks for hidden states where they are wanted."""
        return args, {**kwargs, "output_hidden_states": True} if self._watcher.layers else kwargs

    def after(self, _: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        """Tells of the token that came in."""
        ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        chosen_by, self._logits = self._logits, output.logits[0, -1].float()
        if chosen_by is None:
            return  # the prompt
        token = int(ids[0, -1])
        logprobs = torch.log_softmax(chosen_by, dim=-1)
        known = logprobs[torch.isfinite(logprobs)]
        entropy = float(-(known.exp() * known).sum())
        hidden = {
            layer: output.hidden_states[layer + 1][0, -1].float().cpu().numpy()
            for layer in self._watcher.layers
        }
        self._watcher.step(Step(token, float(logprobs[token]), entropy, hidden))
