"""Models, checkpoints and runs that several test files share."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from transformers import AutoModelForCausalLM, PreTrainedModel

from hallutrace import ExtractConfig, extract
from hallutrace.commands.app import main
from hallutrace.model.loading import Loaded, describe
from hallutrace.plugins import forget_plugins
from hallutrace.progress import Silent
from tiny_models import save_tiny, tiny_config, tiny_model, tiny_tokenizer

pytest_plugins = ["viewer_fixtures"]
posix_only = pytest.mark.skipif(os.name == "nt", reason="sends signals that Windows does not have")

# No test is timed: machines are shared.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# Tiny models gain nothing from several threads, and lose much where cores are shared.
torch.set_num_threads(1)

RUN_OPTIONS: dict[str, Any] = {
    "chat": "off",
    "max_new_tokens": 6,
    "shard_size": 3,
    "batch_size": 2,
    "hidden_states": "answer",
}


def calm_model(architecture: str, seed: int = 0) -> PreTrainedModel:
    """A random model with small weights, in which rounding errors stay rounding errors."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(tiny_config(architecture), dtype=torch.float32)
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(0.5)
    return model.eval()


@cache
def load_tiny(architecture: str = "qwen3", temper: str = "sharp") -> Loaded:
    """A tiny model as the pipeline has it, one of each kept; nobody may change it."""
    model = tiny_model(architecture) if temper == "sharp" else calm_model(architecture)
    return describe(model, tiny_tokenizer(), architecture, "random")


def eager_forward(loaded: Loaded, tokens: list[int]) -> Any:
    """What transformers itself gives for one sequence alone, without padding."""
    before = loaded.model.config.get_text_config()._attn_implementation
    loaded.model.set_attn_implementation("eager")
    with torch.inference_mode():
        output = loaded.model(
            input_ids=torch.tensor([tokens]),
            use_cache=False,
            output_attentions=True,
            output_hidden_states=True,
        )
    loaded.model.set_attn_implementation(before)
    return output


def eager_attention(loaded: Loaded, tokens: list[int]) -> list[Any]:
    """Arrays [heads, queries, keys] of the layers that have attention, from the same."""
    maps = eager_forward(loaded, tokens).attentions
    return [attention[0].numpy() for attention in maps if attention is not None]


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Writes a `.jsonl` file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def question_rows(count: int) -> list[dict[str, Any]]:
    """Questions of different lengths: q0, q1 ..."""
    words = [
        "who",
        "wrote",
        "it",
        "and",
        "when",
        "was",
        "that",
        "said",
        "in",
        "the",
        "north",
        "or",
        "at",
        "sea",
    ]
    return [
        {"id": f"q{at}", "question": " ".join(words[: 2 + 5 * at % 11]) + "?", "answers": ["an"]}
        for at in range(count)
    ]


class Notes(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.advanced = [0, 0, 0]
        self.answers = 0  # of all that were done or passed over
        self.begun: tuple[int | None, int] | None = None

    def note(self, text: str) -> None:
        self.notes.append(text)

    def begin(self, total: int | None, done: int) -> None:
        self.begun = (total, done)
        self.answers += done

    def skip(self, answers: int) -> None:
        self.answers += answers

    def advance(self, traces: int, tokens: int, failures: int, answers: int) -> None:
        self.answers += answers
        news = (traces, tokens, failures)
        self.advanced = [before + new for before, new in zip(self.advanced, news, strict=True)]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random Qwen3."""
    return save_tiny(tmp_path_factory.mktemp("qwen3") / "tiny")


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Seven questions, in a file."""
    return write_lines(tmp_path / "seven.jsonl", question_rows(7))


Extract = Callable[..., Any]


@pytest.fixture
def run_extract(checkpoint: Path, questions: Path, tmp_path: Path) -> Extract:
    """Extracts the seven questions into the folder `run`, in shards of 3, 3 and 1."""

    def run(reporter: Any = None, **options: Any) -> Any:
        chosen = {"model": str(checkpoint), "questions": str(questions), "out": tmp_path / "run"}
        return extract(ExtractConfig.from_options(chosen | RUN_OPTIONS | options), reporter)

    return run


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command line in this process: exit code, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hallutrace", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        code: object = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return int(str(code or 0)), captured.out, captured.err

    return run


@pytest.fixture(autouse=True)
def no_plugin_stays() -> Iterator[None]:
    """What files registered in a test is gone after it."""
    yield
    forget_plugins()
