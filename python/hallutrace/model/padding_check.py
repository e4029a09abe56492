"""A check, before the first question, of whether left padding changes a model's logits.

Prompts of a batch are padded on the left. A model that does not mask the padding, or counts
positions from it, gives other answers in a batch than alone, without any error.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hallutrace.errors import ModelError
from hallutrace.model.answer_ends import vocabulary_of
from hallutrace.model.generate import Decoding, generation_config, left_padded
from hallutrace.model.loading import Loaded
from hallutrace.option_names import parameter
from hallutrace.third_party import refusing

LENGTHS = (3, 6, 11)  # tokens of the short prompts
LONG = 23  # tokens of the long prompt in the same batch
# Tolerances in standard deviations of the logits. Rounding errors are smaller, errors of a model
# that sees its padding far larger.
EXACT, ROUNDED = 1e-3, 0.25


def sees_padding(loaded: Loaded) -> bool:
    """Whether padding changes the next-token logits by more than rounding errors.

    The median over prompts of several lengths decides, so that a single token that rounding routes
    to another expert has no effect.

    Raises:
        ModelError: the model fails to generate.
    """
    size = vocabulary_of(loaded)
    short = [[(11 * i + 5) % size for i in range(length)] for length in LENGTHS]
    long = [(7 * i + 4) % size for i in range(LONG)]
    with refusing(
        f"a model that generates, as {loaded.name}",
        f"try another {parameter('dtype')} or model",
        ModelError,
    ):
        batched = _next_logits(loaded, [*short, long])
        alone = [_next_logits(loaded, [prompt])[0] for prompt in short]
    errors = [
        float((expected - got).abs().max() / expected.std().clamp_min(1e-30))
        for expected, got in zip(alone, batched, strict=False)
    ]
    return sorted(errors)[len(errors) // 2] > _tolerance(loaded)


def _tolerance(loaded: Loaded) -> float:
    is_quantised = getattr(loaded.model.config, "quantization_config", None) is not None
    is_exact = loaded.dtype == "float32" and loaded.device.type == "cpu" and not is_quantised
    return EXACT if is_exact else ROUNDED


def _next_logits(loaded: Loaded, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
    """Logits of the token after each prompt in generation, float32 [prompts, vocabulary]."""
    ids, mask = left_padded(prompts, loaded.pad_id)
    config = Decoding(max_new_tokens=1).resolve(loaded)
    config.return_dict_in_generate = config.output_logits = True
    with torch.inference_mode(), generation_config(loaded.model, config):
        out = loaded.model.generate(
            input_ids=ids.to(loaded.device),
            attention_mask=mask.to(loaded.device),
            generation_config=config,
        )
    logits: torch.Tensor = out.logits[0].float().cpu()
    return logits
