"""Architectures of many kinds, exact or refused; `benches/architectures.py` tries every one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from every_architecture import examine
from small_architectures import EVERY_ROW

RECORD = Path(__file__).parents[3] / "benches" / "record" / "architectures.md"

# One of each way in which attention, masks, positions and states are made.
EXACT = {
    "deepseek_v32": "an index of keys, applied for some names of implementations alone",
    "minimax_m3_vl_text": "an index of blocks of keys",
    "inkling2_text": "a bias of positions, sinks for each query, attention over depth",
    "mimo_v2_flash": "other heads in layers with a window",
    "granite_swa": "outputs scaled after the softmax",
    "gemma4_text": "other sizes of heads in some layers",
    "falcon_h1": "attention beside a state-space part",
    "minimax": "layers of linear attention that list weights of another kind",
    "llama4_text": "chunks, and layers without positions",
    "opt": "absolute positions",
    "bert is_decoder": "an encoder that is told to be causal",
    "bart": "positions counted from padding, so prompts are asked one by one",
}
REFUSED = {
    "bert": "layer 0 attends to later tokens, with weights up to 0.0",
    "doge": "generating step by step gives other logits than one forward pass",
    "deepseek_v4": "layer 1 attends to 70 keys where there are 56 tokens",
    "diffllama": "layer 0 attends more than once",
    "hrm_text": "layer 0 attends more than once",
    "zamba2": "whose attention has no layer number, as where layers share a module",
    "mamba": "which gives no attention",
    "mpt": "which does not use transformers' attention interface",
    "moshi": "generating step by step gives other logits than one forward pass",
    "prophetnet": "logits [1, ",
    "blt": "without `num_hidden_layers` in its configuration",
}


@pytest.mark.parametrize("kind", EXACT)
def test_captured_exactly_beyond_every_window(kind: str) -> None:
    verdict = examine(kind)
    assert (verdict.verdict, verdict.reason) == ("exact", "")


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_with_the_reason(kind: str) -> None:
    verdict = examine(kind)
    assert verdict.verdict == "refused"
    assert REFUSED[kind] in verdict.reason


def test_states_that_are_several_vectors_a_token_can_be_left_out() -> None:
    verdict = examine("hy_v4")
    assert verdict.verdict == "exact"
    assert "with --hidden-states none: " in verdict.reason


def test_the_record_knows_no_third() -> None:
    rows = [line.split(" | ") for line in RECORD.read_text().splitlines() if line.startswith("| ")]
    verdicts = {row[0].removeprefix("| "): row[1] for row in rows[1:]}
    assert set(verdicts.values()) <= {"exact", "refused", "not built"}
    assert sum(verdict == "not built" for verdict in verdicts.values()) <= 5
    transformers = sys.modules["transformers"]
    if f"transformers {transformers.__version__}," in RECORD.read_text():
        assert set(verdicts) == set(EVERY_ROW)
