"""Compares captured attention with the model's own, in two short forward passes before a run.

```text
pass 1: eager attention, on a batch of a text and its padded first half; compare
    in each layer: blocks of rows with all rows at once, on the same queries and keys
                   weights on later tokens with 0
                   the padded half with the same rows of the text
    the attentions that the model returns with the captured ones
pass 2: the text alone, with the attention implementation that the model was loaded with; compare
    the logits of the answer rows with those of pass 1
```

The text is longer than the windows, chunks and indices of the model, but at most 512 tokens, and
shorter for large models (`exactness_check_text`), so that the check is cheap. For longer inputs the
model computes its masks in the same way, and blocks of rows slice them in the same way.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from hallutrace.capture.attention_hook import Capture, capturing
from hallutrace.capture.eager_functions import Eager
from hallutrace.capture.exactness_check_text import text_of
from hallutrace.capture.replay import Text, forward
from hallutrace.capture.tolerance import Tolerance, logits_apart
from hallutrace.errors import ModelError
from hallutrace.model.loading import Loaded
from hallutrace.option_names import parameter

# Query rows of a block; gives several blocks, of which the last may be shorter.
ROWS = 7

OTHERS = "choose another architecture (llama, qwen, mistral, gemma, phi, gpt2 ...)"


@dataclass(frozen=True, slots=True)
class Native:
    """The model's own attention and logits on the text of the check.

    Attributes:
        tokens: ids of the text.
        weights: float32 [heads, tokens, tokens] of each captured layer, by layer index.
        value_heads: number of value heads of each captured layer, by layer index.
        logits: float32 [answer, vocabulary], of the rows that predict the second half of the text,
            computed with the attention implementation that the model was loaded with.
    """

    tokens: list[int]
    weights: dict[int, torch.Tensor] = field(default_factory=dict)
    value_heads: dict[int, int] = field(default_factory=dict)
    logits: torch.Tensor = field(default_factory=lambda: torch.empty(0))


def check_native(loaded: Loaded, hidden: bool = True) -> Native:
    """Compares a capture with the model's own attention and logits.

    Args:
        loaded: the model.
        hidden: whether to check the shape of the hidden states as well.

    Returns:
        The model's own attention and logits.

    Raises:
        ModelError: they differ from the capture, or the model cannot be captured; the message says
            in which layer and how.

    Examples:
        >>> from hallutrace import ExtractConfig
        >>> from hallutrace.model.loading import load
        >>> native = check_native(load(ExtractConfig(model="demo", device="cpu")))
        >>> heads, queries, keys = native.weights[0].shape
        >>> queries == keys == len(native.tokens)
        True
    """
    whole = text_of(loaded)
    half = whole[: (len(whole) + 1) // 2]
    texts = [Text(whole, len(whole) // 2, []), Text(half, len(half) // 2, [])]
    comparison = _Comparison(loaded, Native(whole), len(half))
    try:
        with (
            torch.inference_mode(),
            capturing(loaded.model, comparison.keep, ROWS, comparison.capture_class()) as capture,
        ):
            output, logits = forward(
                loaded, texts, output_attentions=True, output_hidden_states=hidden
            )
        comparison.check_layers(getattr(output, "attentions", None) or (), capture.unnumbered)
        if hidden:
            check_hidden(loaded, output, len(whole))
        del output
        own = _own_logits(loaded, texts[0])
    except ModelError:
        raise
    except Exception as error:  # model code may raise any exception
        reason = " ".join(str(error).split())[:300]
        raise refused(
            loaded, f"its forward pass failed with {type(error).__name__} ({reason})"
        ) from error
    _check_logits(loaded, logits[: len(own)], own)
    return replace(comparison.native, logits=own.float().cpu())


def refused(loaded: Loaded, why: str) -> ModelError:
    """The error for a model that cannot be captured exactly.

    Args:
        loaded: the model.
        why: the reason, a clause.
    """
    return ModelError(
        f"Expected a model whose attention can be captured, got {loaded.name} "
        f"({loaded.model.config.model_type}): {why} - {OTHERS}"
    )


class _Comparison:
    """Compares each captured attention call with the model's function on all rows at once.

    Args:
        loaded: the model.
        native: receives the model's own attention.
        half: number of tokens of the second text of the batch, the first half of the first text.
    """

    def __init__(self, loaded: Loaded, native: Native, half: int) -> None:
        self.native = native
        self._loaded = loaded
        self._half = half
        self._tolerance = Tolerance.of(loaded.model)
        self._blocks: list[torch.Tensor] = []

    def keep(self, layer: int, weights: torch.Tensor, value: torch.Tensor, _: int) -> None:
        """Keeps a block of rows; the consumer of the capture."""
        missing = value.shape[2] - weights.shape[-1]
        self._blocks.append(torch.nn.functional.pad(weights[0].float(), (0, missing)))
        self.native.value_heads[layer] = value.shape[1]

    def capture_class(self) -> type[Capture]:
        """A capture that compares each call and returns the model's own output."""
        comparison = self

        class ComparingCapture(Capture):
            def attend(
                self, eager: Eager, module: torch.nn.Module, *given: Any
            ) -> tuple[torch.Tensor, torch.Tensor | None]:
                layer, (query, key) = self.number(module), given[:2]
                if key.shape[2] != query.shape[2]:
                    raise refused(
                        comparison._loaded,
                        f"layer {layer} attends to {key.shape[2]} keys where there are "
                        f"{query.shape[2]} tokens",
                    )
                comparison._blocks.clear()
                output, _ = super().attend(eager, module, *given)
                *states, kwargs = given
                own, weights = eager(module, *states, **kwargs)
                comparison.compare(layer, weights, output, own)
                return own, weights

        return ComparingCapture

    def compare(
        self, layer: int, weights: torch.Tensor, output: torch.Tensor, own: torch.Tensor
    ) -> None:
        """Compares the blocks of rows of a layer with all rows; keeps the weights of the text."""
        half, text = self._half, weights[0].float()
        later = float(text.triu(1).max())
        if later > 0:
            raise refused(
                self._loaded, f"layer {layer} attends to later tokens, with weights up to {later:g}"
            )
        self._check(layer, torch.cat(self._blocks, 1), text, "in blocks of rows, in whole rows")
        self._check(
            layer,
            output[0].transpose(0, 1).float(),
            own[0].transpose(0, 1).float(),
            "outputs of blocks of rows, of whole rows",
        )
        self._check(
            layer,
            weights[1, :, :half, :half].float(),
            text[:, :half, :half],
            "with padding, without",
            times=10.0,  # differences of earlier layers accumulate
        )
        self.native.weights[layer] = text.cpu()

    def _check(
        self, layer: int, found: torch.Tensor, expected: torch.Tensor, what: str, times: float = 1.0
    ) -> None:
        """Raises a :class:`ModelError` if tensors [heads, rows, any] differ by too much."""
        difference = (found - expected).abs()
        if not self._tolerance.apart(difference, expected) <= self._tolerance.weight * times:
            head = int(difference.flatten(1).amax(1).argmax())
            raise refused(
                self._loaded,
                f"attention of layer {layer}, head {head} differs by up to "
                f"{float(difference.max()):.3g} ({what})",
            )

    def check_layers(self, attentions: Sequence[torch.Tensor | None], unnumbered: int = 0) -> None:
        """Compares the captured layers with the attentions that the model returns.

        Args:
            attentions: the attentions of the model's output; empty if it returns none.
            unnumbered: number of attention calls without a layer index.

        Raises:
            ModelError: layers are missing, or weights differ.
        """
        tokens = len(self.native.tokens)
        own = [
            weights[0].float().cpu()
            for weights in attentions
            # Layers of linear attention return tensors of other shapes.
            if weights is not None and weights.shape[-2:] == (tokens, tokens)
        ]
        found = list(self.native.weights.values())
        if not found:
            why = "which gives no attention"
            if unnumbered:
                why = "whose attention has no layer number, as where layers share a module"
            elif own:
                why = "which does not use transformers' attention interface"
            raise ModelError(
                f"Expected a model whose attention can be captured, got {self._loaded.name} "
                f"({self._loaded.model.config.model_type}), {why} - {OTHERS}"
            )
        if own and len(own) != len(found):
            raise refused(
                self._loaded, f"it has {len(own)} layers of attention, {len(found)} are captured"
            )
        for layer, weights, expected in zip(self.native.weights, found, own, strict=False):
            if weights.shape != expected.shape or not torch.equal(weights, expected):
                raise refused(
                    self._loaded,
                    f"layer {layer} gives weights {tuple(expected.shape)} that are not those of "
                    f"its attention function {tuple(weights.shape)}",
                )


def check_hidden(loaded: Loaded, output: Any, tokens: int) -> None:
    """Checks that the model returns one hidden state per token for each block.

    Args:
        loaded: the model.
        output: output of a forward pass with ``output_hidden_states``.
        tokens: tokens per sequence of the batch, with padding.

    Raises:
        ModelError: the number or the shape of the hidden states differs.
    """
    states = getattr(output, "hidden_states", None) or ()
    shapes = {tuple(state.shape[1:]) for state in states}
    if len(states) != loaded.layers + 1 or shapes != {(tokens, loaded.hidden_size)}:
        raise ModelError(
            f"Expected {loaded.layers + 1} hidden states [tokens, {loaded.hidden_size}] of "
            f"{loaded.name} ({loaded.model.config.model_type}), got {len(states)} of shapes "
            f"{sorted(shapes)} for {tokens} tokens - choose {parameter('hidden_states', 'none')}"
        )


def _own_logits(loaded: Loaded, text: Text) -> torch.Tensor:
    """Logits [answer, vocabulary] of one text, without a capture."""
    ids = torch.tensor([text.tokens], device=loaded.device)
    num_rows = len(text.tokens) - text.prompt_tokens + 1
    accepted = inspect.signature(loaded.model.forward).parameters
    with torch.inference_mode():
        output = loaded.model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            use_cache=False,
            **({"logits_to_keep": num_rows} if "logits_to_keep" in accepted else {}),
        )
    logits: torch.Tensor = output.logits[0, -num_rows:-1]
    return logits


def _check_logits(loaded: Loaded, logits: torch.Tensor, own: torch.Tensor) -> None:
    """Compares logits [answer, vocabulary] of the captured pass with the model's own."""
    if logits.shape != own.shape:
        raise refused(loaded, f"it gives logits {tuple(logits.shape)}, not {tuple(own.shape)}")
    apart = logits_apart(logits, own)
    if not apart <= Tolerance.of(loaded.model).logits:
        most = float((logits.float() - own.float()).abs().max())
        raise refused(
            loaded,
            f"logits of its eager attention and of {loaded.attention}, in which it generates, "
            f"differ by up to {most:.3g} (in three rows of four by {apart:.2g} of their spread)",
        )
