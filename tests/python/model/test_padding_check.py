"""Models whose answers depend on what fills up their batch are told apart before a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import hallutrace
from conftest import Extract, load_tiny
from hallutrace.errors import InputError, ModelError
from hallutrace.extraction import shard_walk
from hallutrace.model.loading import describe
from hallutrace.model.padding_check import sees_padding
from tiny_models import tiny_model, tiny_tokenizer

PIPELINE = sys.modules[hallutrace.extract.__module__]
WHOLE_PROBE = shard_walk.probe


def blind(model: Any) -> Any:
    """The model, which sees its padding: it takes no mask, and counts positions from the left."""
    whole = model.forward

    def forward(
        *args: Any, attention_mask: Any = None, position_ids: Any = None, **rest: Any
    ) -> Any:
        return whole(*args, **rest)

    model.forward = forward
    return model


@pytest.mark.parametrize("architecture", ["qwen3", "gpt2", "qwen3_next", "opt"])
@pytest.mark.parametrize("temper", ["sharp", "calm"])
def test_models_that_mask_their_padding_pass(architecture: str, temper: str) -> None:
    assert not sees_padding(load_tiny(architecture, temper))


def test_a_model_that_sees_its_padding_is_found() -> None:
    model = blind(tiny_model("qwen3"))
    assert sees_padding(describe(model, tiny_tokenizer(), "blind", "random"))


def test_it_is_asked_one_by_one(
    run_extract: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = PIPELINE.load

    def load(*args: Any) -> Any:
        loaded = whole(*args)
        blind(loaded.model)
        return loaded

    monkeypatch.setattr(PIPELINE, "load", load)
    monkeypatch.setattr(shard_walk, "probe", lambda *_, **__: WHOLE_PROBE(load_tiny()))
    with pytest.raises(InputError, match=r"Expected a batch size of 1 for .*, got 2 - use"):
        run_extract()
    run_extract(batch_size="auto")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["identity"]["batch_size"] == 1
    assert run_extract(batch_size="auto").new_traces == 0  # the same again goes on


def test_a_model_that_cannot_generate_is_refused_before_the_first_question() -> None:
    model = tiny_model("qwen3")

    def broken(*_: Any, **__: Any) -> None:
        torch.nn.functional.embedding(torch.tensor([9]), torch.zeros(3, 2))

    model.forward = broken
    with pytest.raises(ModelError) as raised:
        sees_padding(describe(model, tiny_tokenizer(), "broken", "random"))
    assert str(raised.value) == (
        "Expected a model that generates, as broken, got IndexError: index out of range in self "
        "- try another `dtype` or model"
    )
