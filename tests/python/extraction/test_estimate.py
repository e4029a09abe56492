"""What `plan` tells from shapes is what a run then takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors import safe_open

from hallutrace.config import ExtractConfig
from hallutrace.extraction.estimate import (
    edge_bytes,
    hidden_bytes,
    marginal_bytes,
    measure,
    memory,
    model_shape,
    plan,
)
from hallutrace.extraction.pipeline import extract
from hallutrace.model.files import ModelName
from tiny_models import save_tiny


def sizes(shard: Path, number: int) -> dict[str, int]:
    """Bytes of each tensor of a trace, as the official reader sees them."""
    with safe_open(shard, framework="np") as file:
        names = [name for name in list(file.keys()) if name.startswith(f"{number:05d}.")]
        return {name.partition(".")[2]: file.get_tensor(name).nbytes for name in names}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"heads": "each", "top_k": 3},
        {"edge_rows": "answer", "edge_dtype": "float32", "marginal_rows": "all"},
        {"hidden_states": "pooled", "hidden_dtype": "int8"},
        {"hidden_states": "all", "hidden_dtype": "float16", "hidden_layers": "every:2"},
    ],
)
def test_bytes_are_those_of_the_shard(tmp_path: Path, options: dict[str, object]) -> None:
    (tmp_path / "questions.jsonl").write_text('{"id": "a", "question": "why is the sky blue"}\n')
    config = ExtractConfig.from_options(
        {
            "model": str(save_tiny(tmp_path / "model")),
            "questions": str(tmp_path / "questions.jsonl"),
            "out": tmp_path / "run",
            "max_new_tokens": 5,
            **options,
        }
    )
    extract(config)
    stored = sizes(tmp_path / "run/shards/00000.safetensors", 0)
    answer = stored["logprob"] // 4
    prompt = stored["tokens"] // 4 - answer
    shape = model_shape(ModelName.of(config))
    edges = sum(size for name, size in stored.items() if name.startswith("edges."))
    marginals = sum(size for name, size in stored.items() if name.startswith("marginals."))
    hidden = stored["hidden"] + stored.get("hidden.scale", 0)
    assert edge_bytes(config, shape, prompt, answer) == edges
    assert marginal_bytes(config, shape, prompt, answer) == marginals
    assert hidden_bytes(config, shape, config.hidden_states, prompt, answer) == hidden


def test_the_preset_needs_no_network_and_no_weights() -> None:
    config = ExtractConfig.from_options({"device": "cpu"}, preset="triviaqa-qwen3-4b")
    shape = model_shape(ModelName.of(config))
    assert (shape.layers, shape.heads, shape.value_heads, shape.hidden_size) == (36, 32, 8, 2560)
    assert round(shape.parameters / 1e9, 2) == 4.02
    by_choice = {one.hidden_states: one for one in plan(config, shape, 40, 12, 500)}
    assert list(by_choice) == ["none", "pooled", "answer", "all"]
    assert by_choice["answer"].hidden == 36 * 13 * 2560 * 2
    assert by_choice["none"].run == by_choice["none"].trace * 500
    needs = memory(config, shape, 40, 12, batch=8)
    assert 4.0e9 < needs["weights"] < 4.6e9


def test_one_batch_is_timed(tmp_path: Path) -> None:
    lines = [f'{{"id": "{n}", "question": "what is {n}"}}\n' for n in range(6)]
    (tmp_path / "questions.jsonl").write_text("".join(lines))
    config = ExtractConfig.from_options(
        {
            "model": str(save_tiny(tmp_path / "model")),
            "questions": str(tmp_path / "questions.jsonl"),
            "max_new_tokens": 4,
        }
    )
    measured = measure(config, 4)
    assert (measured.questions, measured.traces) == (4, 4)
    assert measured.seconds > 0
    assert 1 <= measured.answer <= 4


def test_a_batch_is_timed_by_its_questions(tmp_path: Path) -> None:
    """Of which each has several answers; and whatever else the options ask of a whole run."""
    lines = [f'{{"id": "{n}", "question": "what is {n}"}}\n' for n in range(3)]
    (tmp_path / "questions.jsonl").write_text("".join(lines))
    config = ExtractConfig.from_options(
        {
            "model": str(save_tiny(tmp_path / "model")),
            "questions": str(tmp_path / "questions.jsonl"),
            "max_new_tokens": 2,
            "samples": 4,
            "temperature": 1.0,
            "worker": "1/2",
            "retry_failed": True,
        }
    )
    measured = measure(config, 8)
    assert (measured.questions, measured.traces) == (3, 12)
    assert measured.seconds_of(30) == pytest.approx(10 * measured.seconds)
