"""Forward passes without a head or a layer, against weights that are changed for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from conftest import load_tiny
from hallutrace.errors import ModelError
from hallutrace.model.ablation import Ablated, ablating

TOKENS = [5, 9, 2, 17, 3, 8]


def logits_of(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=torch.tensor([TOKENS]), use_cache=False).logits


def projection_of(model: Any, layer: int) -> Any:
    attention = next(one for one in model.modules() if getattr(one, "layer_idx", None) == layer)
    return next(
        child
        for name, child in attention.named_children()
        if name in ("o_proj", "c_proj", "dense", "out_proj")
    )


@pytest.mark.parametrize("architecture", ["qwen3", "gpt2", "gpt_neox", "opt"])
@pytest.mark.parametrize("head", [0, 1])
def test_a_head_is_as_if_its_columns_were_zero(architecture: str, head: int) -> None:
    model = load_tiny(architecture).model
    heads = model.config.get_text_config().num_attention_heads
    whole = logits_of(model)
    with ablating(model, Ablated(1, head), heads):
        found = logits_of(model)
    weight = projection_of(model, 1).weight
    before = weight.detach().clone()
    # GPT-2 has its weights the other way round.
    columns = weight.T if architecture == "gpt2" else weight
    size = columns.shape[1] // heads
    with torch.no_grad():
        columns[:, head * size : (head + 1) * size] = 0
    due = logits_of(model)
    with torch.no_grad():
        weight.copy_(before)
    torch.testing.assert_close(found, due)
    assert not torch.allclose(found, whole)
    torch.testing.assert_close(logits_of(model), whole, rtol=0, atol=0)


@pytest.mark.parametrize("architecture", ["qwen3", "gpt2", "opt"])
def test_a_layer_hands_on_what_it_got(architecture: str) -> None:
    model = load_tiny(architecture).model
    whole = logits_of(model)
    with ablating(model, Ablated(0), 1), torch.inference_mode():
        out = model(input_ids=torch.tensor([TOKENS]), use_cache=False, output_hidden_states=True)
    torch.testing.assert_close(out.hidden_states[1], out.hidden_states[0])
    assert not torch.allclose(out.logits, whole)
    torch.testing.assert_close(logits_of(model), whole, rtol=0, atol=0)


def test_a_layer_that_is_not_there() -> None:
    with (
        pytest.raises(ModelError, match="in layer 99"),
        ablating(load_tiny().model, Ablated(99), 1),
    ):
        pass
