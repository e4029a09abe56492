"""Prompts computed once, keys and values in place: the same answers as transformers' own cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from conftest import load_tiny
from hallutrace.model import kv_cache
from hallutrace.model.generate import Decoding, generate
from hallutrace.model.kv_cache import InPlaceCache, InPlaceLayer
from tiny_models import ARCHITECTURES, tiny_tokens

PROMPTS = [tiny_tokens(1, length, seed=length)[0].tolist() for length in (13, 4, 9)]
DECODINGS = [
    Decoding(max_new_tokens=9, num_beams=3),
    Decoding(max_new_tokens=9, temperature=1.0, samples=2),
    Decoding(max_new_tokens=9),
]
STATES = ["qwen3_next"]  # it keeps more than keys and values


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("decoding", DECODINGS, ids=["beams", "samples", "greedy"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_answers_are_those_of_transformers_own_cache(
    architecture: str, decoding: Decoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = replace(load_tiny(architecture), eos_ids=())
    made: list[Any] = []
    prepare: Callable[..., Any] = kv_cache.prepare

    def watched(*arguments: Any) -> Any:
        made.append(prepare(*arguments))
        return made[-1]

    monkeypatch.setattr(kv_cache, "prepare", watched)
    ours = generate(endless, PROMPTS, decoding, seed=0)
    assert len(made) == 1
    assert (made[0] is None) == (architecture in STATES)
    monkeypatch.setattr(kv_cache, "prepare", lambda *_: None)
    assert ours == generate(endless, PROMPTS, decoding, seed=0)


def test_a_prompt_of_one_token_has_nothing_to_share() -> None:
    loaded = replace(load_tiny(), eos_ids=())
    (answers,) = generate(loaded, [[7]], Decoding(max_new_tokens=4, num_beams=2), seed=0)
    assert len(answers[0].tokens) == 4


@pytest.mark.parametrize("architecture", ["qwen3", "gemma3"])  # the second has sliding windows
@pytest.mark.parametrize("seed", range(5))
def test_a_cache_grows_and_follows_beams_as_transformers_cache_does(
    architecture: str, seed: int
) -> None:
    config = load_tiny(architecture).model.config
    ours, theirs = InPlaceCache(config, reserve=3), DynamicCache(config=config)
    torch.manual_seed(seed)

    def update(sequences: int, tokens: int) -> None:
        for layer in range(len(theirs.layers)):
            keys = torch.randn(sequences, 2, tokens, 4)
            values = torch.randn(sequences, 2, tokens, 6)
            made = ours.update(keys, values, layer)
            for one, wanted in zip(made, theirs.update(keys, values, layer), strict=True):
                assert torch.equal(one, wanted)

    update(2, 5)
    for one in (ours, theirs):
        one.batch_repeat_interleave(3)
    for _ in range(8):  # more than there is room for
        update(6, 1)
        beams = torch.randint(0, 3, (2, 3)) + torch.tensor([[0], [3]])
        for one in (ours, theirs):
            one.reorder_cache(beams.flatten())
        for made, wanted in zip(ours.layers, theirs.layers, strict=True):
            assert torch.equal(made.keys, wanted.keys) and torch.equal(made.values, wanted.values)
    assert ours.get_seq_length() == theirs.get_seq_length() == 13


def test_following_beams_moves_only_what_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = InPlaceCache(load_tiny().model.config, reserve=9)
    moved: list[tuple[int, list[int], list[int]]] = []
    monkeypatch.setattr(
        InPlaceLayer,
        "move",
        lambda _, first, to, source: moved.append((first, to.tolist(), source.tolist())),
    )

    def step(beams: list[int]) -> list[tuple[int, list[int], list[int]]]:
        moved.clear()
        for layer in range(len(kept.layers)):
            kept.update(torch.zeros(6, 2, 1, 4), torch.zeros(6, 2, 1, 4), layer)
        kept.reorder_cache(torch.tensor(beams))
        assert moved == moved[:1] * len(moved) and len(moved) in (0, len(kept.layers))
        return moved[:1]

    for layer in range(len(kept.layers)):
        kept.update(torch.zeros(2, 2, 5, 4), torch.zeros(2, 2, 5, 4), layer)
    kept.batch_repeat_interleave(3)
    assert step([0, 1, 2, 3, 4, 5]) == []
    # All beams of the first question go on from one, so that its first two tokens stay from now on.
    assert step([0, 0, 0, 3, 4, 5]) == [(5, [1, 2], [0, 0])]
    assert step([0, 2, 2, 3, 4, 5]) == [(7, [1], [2])]
    assert step([0, 1, 2, 3, 4, 4]) == [(5, [5], [4])]
