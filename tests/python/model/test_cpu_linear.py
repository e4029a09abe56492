"""Linear layers of few rows: what torch computes, and a model left as it was."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from conftest import load_tiny
from hallutrace.model import cpu_linear
from hallutrace.model.cpu_linear import faster_decoding, linear
from hallutrace.model.generate import Decoding, generate
from tiny_models import tiny_tokens


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1,), (2,), (5, 1), (3, 7), (80,), (81,), (2, 0), (0,)])
def test_it_is_what_torch_computes(
    shape: tuple[int, ...], bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_linear, "FEWEST_ROWS", 2)
    torch.manual_seed(0)
    layer = torch.nn.Linear(48, cpu_linear.FEATURES + 5, bias=bias)
    inputs = torch.randn(*shape, 48)
    # Rows that lie apart from each other as well.
    for given in (inputs, torch.randn(*shape, 96)[..., ::2]):
        with torch.inference_mode():
            torch.testing.assert_close(linear(layer, given), layer(given), rtol=1e-6, atol=1e-6)


def test_large_float32_layers_alone_are_changed_and_only_within() -> None:
    large = torch.nn.Linear(1024, 1024)
    small = torch.nn.Linear(8, 8)
    half = torch.nn.Linear(1024, 1024, dtype=torch.bfloat16)
    hooked = torch.nn.Linear(1024, 1024)
    own = hooked.forward = torch.nn.Identity().forward  # type: ignore[method-assign]
    model = torch.nn.Sequential(large, small, half, hooked)
    with pytest.raises(KeyError), faster_decoding(model):
        assert "forward" in vars(large)
        assert "forward" not in vars(small)
        assert "forward" not in vars(half)
        assert hooked.forward == own
        raise KeyError
    assert "forward" not in vars(large)
    assert hooked.forward == own


@pytest.mark.parametrize("architecture", ["qwen3", "gpt_neox", "gemma2"])
@pytest.mark.parametrize("beams", [1, 3])
def test_answers_are_the_same(
    architecture: str, beams: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = replace(load_tiny(architecture), eos_ids=())
    prompts = [tiny_tokens(1, length, seed=length)[0].tolist() for length in (13, 4, 9)]
    decoding = Decoding(max_new_tokens=9, num_beams=beams)
    usual = generate(loaded, prompts, decoding, seed=0)
    monkeypatch.setattr(cpu_linear, "LEAST_WEIGHT", 0)
    monkeypatch.setattr(cpu_linear, "FEWEST_ROWS", 2)
    used: list[int] = []

    def watched(layer: torch.nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
        used.append(inputs.shape[:-1].numel())
        return linear(layer, inputs)

    monkeypatch.setattr(cpu_linear, "linear", watched)
    assert generate(loaded, prompts, decoding, seed=0) == usual
    assert 3 * beams in used
