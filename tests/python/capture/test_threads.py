"""Several extractions in threads of one process: each is what it is alone."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import RUN_OPTIONS, load_tiny, question_rows, write_lines
from hallutrace import ExtractConfig, extract
from hallutrace.capture.replay import Reduction, Text, replay
from hallutrace.model.generate import Decoding, generate
from tiny_models import save_tiny, tiny_tokens

ROUNDS = 5


def side_by_side(tasks: Sequence[Callable[[], Any]]) -> list[Any]:
    """What each gives, all started at the same time; the first error is raised."""
    results: list[Any] = [None] * len(tasks)
    errors: list[BaseException] = []
    together = threading.Barrier(len(tasks))

    def work(at: int) -> None:
        together.wait()
        try:
            results[at] = tasks[at]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(at,)) for at in range(len(tasks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def digests(folder: Path) -> list[str]:
    shards = sorted((folder / "shards").glob("*.safetensors"))
    return [hashlib.sha256(shard.read_bytes()).hexdigest() for shard in shards]


@pytest.mark.parametrize("options", [{}, {"temperature": 0.8, "samples": 2}], ids=str)
def test_two_extractions_in_threads_give_what_each_gives_alone(
    options: dict[str, Any], tmp_path: Path
) -> None:
    questions = write_lines(tmp_path / "questions.jsonl", question_rows(4))
    models = [save_tiny(tmp_path / name, name) for name in ("qwen3", "gemma2")]

    def extraction(at: int, out: str) -> Callable[[], list[str]]:
        def run() -> list[str]:
            chosen = {"model": str(models[at]), "questions": str(questions), "out": tmp_path / out}
            extract(ExtractConfig.from_options(chosen | RUN_OPTIONS | options))
            return digests(tmp_path / out)

        return run

    alone = [extraction(at, f"alone{at}")() for at in range(2)]
    assert all(len(shards) == 2 for shards in alone)
    for turn in range(ROUNDS):
        assert side_by_side([extraction(at, f"{turn}-{at}") for at in range(2)]) == alone


def test_threads_that_share_a_model_wait_for_each_other() -> None:
    loaded = load_tiny("qwen3")
    prompts = [tiny_tokens(1, length, seed=length)[0].tolist() for length in (9, 4)]
    text = Text(tiny_tokens(1, 30)[0].tolist(), 20, [1, 20])
    decoding = Decoding(max_new_tokens=8)

    def answers() -> Any:
        return generate(loaded, prompts, decoding, seed=0)

    def edges() -> Any:
        return np.concatenate(
            [layer.weights for layer in replay(loaded, [text], Reduction())[0].layers]
        )

    due = answers(), edges()
    for _ in range(ROUNDS):
        found = side_by_side([answers, edges, answers, edges])
        assert found[0] == found[2] == due[0]
        assert np.array_equal(found[1], due[1])
        assert np.array_equal(found[3], due[1])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_generation_leaves_the_callers_random_numbers_and_configuration(temperature: float) -> None:
    loaded = load_tiny("qwen3")
    torch.manual_seed(41)
    before, configuration = torch.get_rng_state(), loaded.model.generation_config
    decoding = Decoding(max_new_tokens=4, temperature=temperature)
    first = generate(loaded, [[4, 5, 6]], decoding, seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    assert loaded.model.generation_config is configuration
    assert generate(loaded, [[4, 5, 6]], decoding, seed=7) == first
