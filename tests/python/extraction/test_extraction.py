"""Runs: the same bytes each time, going on after anything, failures that do not spread."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors import safe_open
from transformers import AutoModelForCausalLM

import hallutrace
from conftest import RUN_OPTIONS, Extract, Notes, load_tiny, posix_only, question_rows, write_lines
from hallutrace import extract
from hallutrace.capture import replay
from hallutrace.commands.app import main
from hallutrace.commands.progress_display import ExtractionDisplay
from hallutrace.errors import IdentityError, InputError
from hallutrace.extraction import batch_planning, resolved_settings, shard, shard_walk, trace_arrays
from hallutrace.extraction.environment import environment
from hallutrace.extraction.summary import Summary
from hallutrace.model import generate
from hallutrace.model.answer_ends import Answer, AnswerEnds, given
from hallutrace.questions import open_questions
from hallutrace.store.failures import Failure, FailureLog
from hallutrace.store.folder import CommitRecord, Run
from tiny_models import EOS, tiny_config, tiny_tokenizer

PIPELINE = sys.modules[extract.__module__]
IDS = [f"q{at}" for at in range(7)]


def files_of(folder: Path) -> dict[str, bytes]:
    """Manifest, shards and commit records."""
    paths = [folder / "manifest.json", *(folder / "shards").iterdir()]
    return {path.name: path.read_bytes() for path in paths}


def keys_of(folder: Path) -> list[tuple[str, int]]:
    return [(trace.id, trace.sample) for trace in hallutrace.open(folder)]


def failures_of(folder: Path) -> list[tuple[str | None, int | None, str]]:
    return [(one.id, one.sample, one.stage) for one in Run(folder).failures.read()]


def record_of(folder: Path, name: str) -> CommitRecord:
    return CommitRecord.read(folder / "shards" / f"{name}.json")


def on_call(
    function: Callable[..., Any], number: int, act: Callable[[], None]
) -> Callable[..., Any]:
    """The function, which acts before its call of this number, from 1."""
    calls = 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            act()
        return function(*args, **kwargs)

    return counted


def interrupt() -> None:
    raise KeyboardInterrupt


def never(*_: object, **__: object) -> None:
    raise AssertionError("called although nothing is to be done")


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """Files of runs that were never interrupted, filled by the first test that needs them."""
    return {}


@pytest.fixture
def uninterrupted(
    whole: dict[str, dict[str, bytes]], run_extract: Extract, tmp_path: Path
) -> dict[str, bytes]:
    if "seven" not in whole:
        run_extract(out=tmp_path / "uninterrupted")
        whole["seven"] = files_of(tmp_path / "uninterrupted")
    return whole["seven"]


# A run ------------------------------------------------------------------------------------------


def test_a_run_has_its_traces_and_says_so(
    run_extract: Extract, questions: Path, tmp_path: Path
) -> None:
    notes = Notes()
    summary = run_extract(notes)
    assert (summary.folder, summary.traces, summary.new_traces) == (tmp_path / "run", 7, 7)
    assert (summary.failures, summary.merged) == (0, 0)
    assert (
        summary.right == sum("an" in trace.answer for trace in hallutrace.open(summary.folder)) / 7
    )
    shards = list((summary.folder / "shards").glob("*.safetensors"))
    assert summary.bytes == sum(path.stat().st_size for path in shards)
    assert sorted(path.stem for path in shards) == ["00000", "00001", "00002"]
    assert keys_of(summary.folder) == [(name, 0) for name in IDS]
    tokens = sum(len(trace.answer_tokens) for trace in hallutrace.open(summary.folder))
    assert (notes.begun, notes.advanced) == ((7, 0), [7, tokens, 0])
    assert notes.notes == open_questions(str(questions)).describe()
    assert not list((summary.folder / "partial").iterdir())


def test_any_reader_of_safetensors_opens_every_shard(run_extract: Extract) -> None:
    folder = run_extract().folder
    for path in (folder / "shards").glob("*.safetensors"):
        with safe_open(path, framework="pt") as shard:
            names = list(shard.keys())
            (metadata,) = shard.metadata().values()
            for name in names:
                assert shard.get_tensor(name).numel() >= 0
        numbers = {name.split(".")[0] for name in names}
        assert len(numbers) == record_of(folder, path.stem).counts["traces"]
        assert json.loads(metadata)["schema"] == 2


def test_the_same_again_is_the_same_bytes(
    run_extract: Extract, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    torch.manual_seed(99)
    run_extract(out=tmp_path / "another" / "place")
    assert files_of(tmp_path / "another" / "place") == uninterrupted


def test_seeded_samples_are_the_same_bytes(run_extract: Extract, tmp_path: Path) -> None:
    options = {"temperature": 1.0, "samples": 2, "limit": 4}
    run_extract(out=tmp_path / "one", **options)
    torch.manual_seed(99)
    run_extract(out=tmp_path / "two", **options)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    run_extract(out=tmp_path / "three", **options, seed=1)
    tokens = [
        [trace.tokens.tolist() for trace in hallutrace.open(tmp_path / name)]
        for name in ("one", "three")
    ]
    assert tokens[0] != tokens[1]
    assert keys_of(tmp_path / "one") == [(name, k) for name in IDS[:4] for k in (0, 1)]


def test_a_run_in_batches_is_a_run_one_by_one(run_extract: Extract, tmp_path: Path) -> None:
    run_extract(
        out=tmp_path / "batches", batch_size=7, shard_size=7, top_k=None, edge_dtype="float32"
    )
    run_extract(
        out=tmp_path / "single", batch_size=1, shard_size=7, top_k=None, edge_dtype="float32"
    )
    pairs = zip(
        hallutrace.open(tmp_path / "batches"), hallutrace.open(tmp_path / "single"), strict=True
    )
    for together, alone in pairs:
        assert together.tokens.tolist() == alone.tokens.tolist()
        for layer in together.layers:
            left, right = together.layer(layer).to_dense(), alone.layer(layer).to_dense()
            assert abs(left - right).max() <= 1e-5


def test_an_answer_that_is_the_end_alone_is_a_trace(
    run_extract: Extract, checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "terse"
    shutil.copytree(checkpoint, folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": list(range(128))}))
    run_extract(model=str(folder), hidden_states="pooled", limit=2)
    for trace in hallutrace.open(tmp_path / "run"):
        assert (len(trace.answer_tokens), trace.finish_reason) == (1, "eos")
        assert trace.logprob.shape == trace.token_entropy.shape == (1,)
        assert trace.marginals.entropy.shape[2] == 2
        last_prompt, last_answer, last, mean = trace.hidden(0)
        assert (last_prompt == last_answer).all()
        assert (last_prompt == mean).all()
        assert (last_prompt != last).any()


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_quantised_models_are_traced_and_their_deviation_told(
    run_extract: Extract, tmp_path: Path, quantization: str
) -> None:
    pytest.importorskip("bitsandbytes")
    # bitsandbytes works on blocks of 64 columns.
    config = tiny_config("qwen3")
    config.hidden_size = 64
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    summary = run_extract(
        model=str(tmp_path / "model"), quantization=quantization, limit=4, device="cpu"
    )
    assert (summary.traces, summary.failures) == (4, 0)
    manifest = Run(tmp_path / "run").manifest()
    assert manifest.identity["model"]["quantization"] == quantization
    assert 0 <= manifest.facts["replay_deviation"] <= 0.5
    for trace in hallutrace.open(tmp_path / "run"):
        assert trace.hidden(2).shape == (len(trace.answer_tokens) + 1, 64)
        assert abs(trace.marginals.mass.sum(-1) - 1).max() < 2e-2
        assert (trace.logprob < 0).all()


def test_batches_are_of_near_lengths_and_follow_from_the_shard_alone() -> None:
    assert batch_planning.plan_batches([5, 1, 3, 1, 9], 2) == [[1, 3], [2, 0], [4]]
    assert batch_planning.plan_batches([], 2) == []


# Going on ---------------------------------------------------------------------------------------


def test_an_interrupted_run_goes_on_where_it_stopped(
    run_extract: Extract,
    uninterrupted: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(replay, "replay", on_call(replay.replay, 4, interrupt))
        with pytest.raises(KeyboardInterrupt):
            run_extract()
    shards = tmp_path / "run" / "shards"
    assert sorted(path.name for path in shards.iterdir()) == ["00000.json", "00000.safetensors"]
    before = (shards / "00000.safetensors").stat()
    notes = Notes()
    summary = run_extract(notes)
    assert (summary.traces, summary.new_traces) == (7, 4)
    assert notes.begun == (7, 3)
    assert (shards / "00000.safetensors").stat().st_mtime_ns == before.st_mtime_ns
    assert files_of(tmp_path / "run") == uninterrupted


KILLED = """
import os, signal, sys, warnings
from hallutrace.capture import replay
from hallutrace import ExtractConfig, extract
whole, calls = replay.replay, []
def killed(*args, **kwargs):
    calls.append(1)
    if len(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(*args, **kwargs)
replay.replay = killed
extract(ExtractConfig.from_options(eval(sys.argv[1])))
"""


@posix_only
def test_a_killed_run_goes_on_where_it_stopped(
    run_extract: Extract,
    uninterrupted: dict[str, bytes],
    checkpoint: Path,
    questions: Path,
    tmp_path: Path,
) -> None:
    options = {"model": str(checkpoint), "questions": str(questions), "out": str(tmp_path / "run")}
    # As many threads here as there, for the same bytes.
    environ = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, repr(options | RUN_OPTIONS)], env=environ, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "run" / "partial" / "00001.safetensors").exists()
    assert run_extract().new_traces == 4
    assert files_of(tmp_path / "run") == uninterrupted


def test_a_run_that_is_done_does_nothing(
    run_extract: Extract,
    uninterrupted: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_extract()
    monkeypatch.setattr(replay, "replay", never)
    monkeypatch.setattr(generate, "generate", never)
    notes = Notes()
    summary = run_extract(notes)
    assert (summary.traces, summary.new_traces, notes.advanced) == (7, 0, [0, 0, 0])
    assert files_of(tmp_path / "run") == uninterrupted


@pytest.mark.parametrize("leftover", [b"", b"half a shard"])
def test_a_shard_without_its_record_is_made_again(
    run_extract: Extract, uninterrupted: dict[str, bytes], tmp_path: Path, leftover: bytes
) -> None:
    run_extract()
    shards = tmp_path / "run" / "shards"
    (shards / "00001.json").unlink()
    (shards / "00001.safetensors").write_bytes(leftover)
    assert run_extract().new_traces == 3
    assert files_of(tmp_path / "run") == uninterrupted


def test_what_lies_half_written_is_written_over(
    run_extract: Extract, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    run_extract(limit=3)
    partial = tmp_path / "run" / "partial"
    for name in ("00001.safetensors", "00001.json"):
        (partial / name).write_bytes(b"\0" * 5_000_000)
    run_extract()
    assert files_of(tmp_path / "run") == uninterrupted
    assert not list(partial.iterdir())


def test_a_larger_limit_adds_shards(run_extract: Extract, tmp_path: Path) -> None:
    run_extract(limit=4)
    before = files_of(tmp_path / "run")
    assert keys_of(tmp_path / "run") == [(name, 0) for name in IDS[:4]]
    summary = run_extract(limit=6)
    assert (summary.traces, summary.new_traces) == (6, 2)
    assert run_extract().new_traces == 1
    after = files_of(tmp_path / "run")
    assert before.items() <= after.items()
    assert keys_of(tmp_path / "run") == [(name, 0) for name in IDS]
    numbers = [record_of(tmp_path / "run", f"{at:05}") for at in range(4)]
    assert [(record.first, record.questions) for record in numbers] == [
        (0, 3),
        (3, 1),
        (4, 2),
        (6, 1),
    ]


def test_a_smaller_limit_is_refused(run_extract: Extract, tmp_path: Path) -> None:
    run_extract(limit=5)
    with pytest.raises(InputError) as raised:
        run_extract(limit=4)
    assert str(raised.value) == (
        f"Expected the questions that shard 00001 of {tmp_path / 'run'} was made of, got others "
        "(the source changed, or `limit` shrank) - choose another `out`, or start over with "
        "`overwrite=True`"
    )


def test_a_changed_source_is_refused(run_extract: Extract, questions: Path, tmp_path: Path) -> None:
    run_extract()
    before = files_of(tmp_path / "run")
    rows = question_rows(7)
    rows[4]["question"] += "!"
    write_lines(questions, rows)
    with pytest.raises(InputError, match=r"shard 00001 of .* was made of, got others"):
        run_extract()
    assert files_of(tmp_path / "run") == before


def test_a_source_that_grew_is_gone_on_with(
    run_extract: Extract, questions: Path, tmp_path: Path
) -> None:
    run_extract()
    write_lines(questions, question_rows(9))
    assert run_extract().new_traces == 2
    assert keys_of(tmp_path / "run") == [(f"q{at}", 0) for at in range(9)]


def test_another_identity_is_refused(run_extract: Extract, tmp_path: Path) -> None:
    run_extract(limit=2)
    before = files_of(tmp_path / "run")
    with pytest.raises(IdentityError) as raised:
        run_extract(limit=2, top_k=8, num_beams=3, hidden_states="none", prompt="Q {question}")
    assert str(raised.value) == (
        f"Expected the settings of the run in {tmp_path / 'run'}, got others "
        '(decoding.num_beams is 1, asked 3; hidden.states is "answer", asked "none"; '
        'prompt.template is "Question: {question}\\nAnswer:", asked "Q {question}"; '
        'prompt.template_with_context is "{context}\\n\\nQuestion: {question}\\nAnswer:", '
        'asked "Q {question}"; '
        "sparsification.top_k is 16, asked 8) - choose another `out`, or start over "
        "with `overwrite=True`"
    )
    assert files_of(tmp_path / "run") == before


def test_other_weights_are_another_identity(
    run_extract: Extract, checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(checkpoint, folder)
    run_extract(model=str(folder), limit=2)
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(
        IdentityError, match=r"\(model.commit is \"folder-\w{16}\", asked \"folder-"
    ):
        run_extract(model=str(folder), limit=2)


def test_another_environment_is_told(
    run_extract: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_extract(limit=3)
    there = {**environment(torch.device("cpu")), "torch": "1.0", "threads": 64}
    monkeypatch.setattr(shard_walk, "environment", lambda device: there)
    notes = Notes()
    run_extract(notes, limit=4)
    was = record_of(tmp_path / "run", "00000").environment
    assert notes.notes[2:] == [
        "Warning: shards of this run were made in another environment, so the last bits may differ "
        f"(threads: {was['threads']} -> 64; torch: {was['torch']} -> 1.0)"
    ]
    assert record_of(tmp_path / "run", "00001").environment == there


def test_an_automatic_batch_size_is_resolved_once(
    run_extract: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_extract(batch_size="auto", limit=3)
    size = Run(tmp_path / "run").manifest().identity["batch_size"]
    assert size == 64
    monkeypatch.setattr(resolved_settings, "free_memory", lambda device: 0)
    assert run_extract(batch_size="auto").new_traces == 4
    assert Run(tmp_path / "run").manifest().identity["batch_size"] == 64


# Folders ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_other_files_is_refused(
    run_extract: Extract, tmp_path: Path, overwrite: bool
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError) as raised:
        run_extract(overwrite=overwrite)
    assert str(raised.value) == (
        f"Expected an empty folder or a run, got {tmp_path / 'run'} with other files - change `out`"
    )
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_a_file_is_no_folder(run_extract: Extract, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(InputError) as raised:
        run_extract()
    assert str(raised.value) == (
        f"Expected a folder for the run, got the file {tmp_path / 'run'} - change `out`"
    )


def test_a_folder_that_was_begun_is_taken(run_extract: Extract, tmp_path: Path) -> None:
    for name in ("shards", "partial", "labels"):
        (tmp_path / "run" / name).mkdir(parents=True)
    (tmp_path / "run" / "partial" / "manifest.json").write_text("{")
    assert run_extract(limit=1).traces == 1


# Failures ---------------------------------------------------------------------------------------


def failing(
    function: Callable[..., Any], when: Callable[[Any], bool], error: Exception
) -> Callable[..., Any]:
    """The function of (model, batch, ...), which fails for some batches."""

    def fail(loaded: Any, batch: Any, *args: Any, **kwargs: Any) -> Any:
        if when(batch):
            raise error
        return function(loaded, batch, *args, **kwargs)

    return fail


def larger_than(size: int) -> Callable[[Any], bool]:
    return lambda batch: len(batch) > size


def longest_prompt(batch: Any) -> bool:
    """Whether a batch holds a long text, as of q2; of prompts or of finished texts."""
    return max(len(getattr(one, "tokens", one)) for one in batch) >= 60


OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory.")


@pytest.mark.parametrize(
    ("module", "name"), [(replay, "replay"), (generate, "generate")], ids=["replay", "generate"]
)
@pytest.mark.parametrize(
    "error",
    [OUT_OF_MEMORY, RuntimeError("DefaultCPUAllocator: not enough memory: 7"), MemoryError()],
    ids=["gpu", "cpu", "python"],
)
def test_a_batch_without_memory_is_halved(
    run_extract: Extract,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    name: str,
    error: Exception,
) -> None:
    monkeypatch.setattr(module, name, failing(getattr(module, name), larger_than(2), error))
    summary = run_extract(shard_size=7, batch_size=5)
    assert (summary.traces, summary.failures) == (7, 0)
    # Batches of 5 and 2: the first becomes 3 and 2, the 3 become 2 and 1.
    assert record_of(tmp_path / "run", "00000").halvings == [[0, 3], [0, 2]]
    assert keys_of(tmp_path / "run") == [(name, 0) for name in IDS]


def test_what_failed_holds_no_memory_while_its_halves_run(
    run_extract: Extract, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[int] = []

    class Held:
        def __init__(self) -> None:
            alive.append(1)

        def __del__(self) -> None:
            alive.pop()

    def generate_some(loaded: Any, batch: Any, *args: Any) -> Any:
        assert not alive
        held = Held()
        if len(batch) > 1:
            raise OUT_OF_MEMORY
        del held
        return whole(loaded, batch, *args)

    whole = generate.generate
    monkeypatch.setattr(generate, "generate", generate_some)
    assert run_extract(limit=2).traces == 2


def test_one_question_without_memory_is_recorded(
    run_extract: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "replay", failing(replay.replay, longest_prompt, OUT_OF_MEMORY))
    summary = run_extract(batch_size=3)
    lost = failures_of(tmp_path / "run")
    assert [(sample, stage) for _, sample, stage in lost] == [(None, "memory")] * len(lost)
    assert 1 <= len(lost) <= 2
    assert (summary.traces, summary.failures) == (7 - len(lost), len(lost))
    (failure, *_) = Run(tmp_path / "run").failures.read()
    assert (failure.error, failure.attempts) == ("CUDA out of memory.", 1)
    assert {name for name, _ in keys_of(tmp_path / "run")} == {*IDS} - {name for name, *_ in lost}


def broken_embedding(run: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs with a model in which `~` has no embedding that is a number."""

    def load(config: Any, retry: Any) -> Any:
        loaded = whole(config, retry)
        token = loaded.tokenizer("~", add_special_tokens=False)["input_ids"][0]
        loaded.model.get_input_embeddings().weight.data[token] = torch.nan
        return loaded

    whole = PIPELINE.load
    with monkeypatch.context() as patch:
        patch.setattr(PIPELINE, "load", load)
        return run()


def test_weights_that_are_no_numbers_fail_their_question_alone(
    run_extract: Extract, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = question_rows(4)
    rows[1]["question"] = "~?"
    write_lines(questions, rows)
    summary = broken_embedding(lambda: run_extract(shard_size=4, batch_size=4), monkeypatch)
    assert (summary.traces, summary.failures) == (3, 1)
    assert failures_of(tmp_path / "run") == [("q1", None, "replay")]
    (failure,) = Run(tmp_path / "run").failures.read()
    assert failure.error.startswith("Expected finite weights >= 0, got NaN"), failure.error
    assert keys_of(tmp_path / "run") == [("q0", 0), ("q2", 0), ("q3", 0)]


def test_states_that_float16_cannot_hold_fail_their_question_alone(
    run_extract: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trace_arrays.arrays_of

    def overflowing(replayed: Any, tokens: list[int], *args: Any) -> Any:
        arrays = whole(replayed, tokens, *args)
        if len(tokens) >= 60:
            arrays["hidden"][0, 0, 0] = 1e6
        return arrays

    monkeypatch.setattr(trace_arrays, "arrays_of", overflowing)
    summary = run_extract(hidden_dtype="float16")
    lost = failures_of(tmp_path / "run")
    assert {(sample, stage) for _, sample, stage in lost} == {(0, "write")}
    assert summary.traces == 7 - len(lost) < 7
    assert "float16" in Run(tmp_path / "run").failures.read()[0].error
    for committed in hallutrace.open(tmp_path / "run").shards():
        committed.verify()


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("logprob", "that are not (nan) in `logprob`, the first of answer token 0"),
        ("impossible", "(-inf) in `logprob`, the first of answer token 0"),
        ("token_entropy", "(inf) in `token_entropy`"),
        ("logsumexp", "(inf) in `logsumexp`"),
        ("value_norm", "(nan) in `value_norm` of layer 1 of those with attention"),
        ("received_mean", "(nan) in `received_mean` of layer 1 of those with attention"),
        ("hidden", "(inf) in the hidden states of layer 2"),
    ],
)
def test_numbers_that_are_none_fail_their_question_alone(
    run_extract: Extract,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    broken: str,
    said: str,
) -> None:
    """As a model in float16 gives them where it overflows after its attention."""
    whole = replay.replay

    def overflowing(loaded: Any, texts: Any, *args: Any, **kwargs: Any) -> Any:
        return [
            spoiled(one, broken) if len(text.tokens) >= 60 else one
            for text, one in zip(texts, whole(loaded, texts, *args, **kwargs), strict=True)
        ]

    monkeypatch.setattr(replay, "replay", overflowing)
    run_extract(limit=3, shard_size=3, batch_size=3)
    assert failures_of(tmp_path / "run") == [("q2", 0, "replay")]
    (failure,) = Run(tmp_path / "run").failures.read()
    assert failure.error.startswith("Expected finite numbers from the model, got ")
    assert said in failure.error
    assert failure.error.endswith(
        " - the model overflowed, most likely in float16: use `dtype='bfloat16'` or float32"
    )
    assert keys_of(tmp_path / "run") == [("q0", 0), ("q1", 0)]


def spoiled(replayed: replay.Replayed, broken: str) -> replay.Replayed:
    """What a replay gave, with a number that is none."""
    if broken == "hidden":
        assert replayed.hidden is not None
        states = replayed.hidden.clone()
        states[2, 1, 3] = float("inf")
        return dataclasses.replace(replayed, hidden=states)
    if broken in ("logprob", "impossible", "token_entropy", "logsumexp"):
        name, value = {
            "logprob": ("logprob", np.nan),
            "impossible": ("logprob", -np.inf),
            "token_entropy": ("entropy", np.inf),
            "logsumexp": ("logsumexp", np.inf),
        }[broken]
        values = getattr(replayed.scores, name).copy()
        values[0] = value
        scores = dataclasses.replace(replayed.scores, **{name: values})
        return dataclasses.replace(replayed, scores=scores)
    if broken == "value_norm":
        norms = [norm.copy() for norm in replayed.value_norms]
        norms[1][0, 2] = np.nan
        return dataclasses.replace(replayed, value_norms=norms)
    names = ("indptr", "keys", "weights", *trace_arrays.MARGINALS)
    layers = [
        SimpleNamespace(**{name: np.array(getattr(layer, name)) for name in names})
        for layer in replayed.layers
    ]
    getattr(layers[1], broken)[0, 2] = np.nan
    return dataclasses.replace(replayed, layers=layers)


def test_progress_counts_answers(
    run_extract: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"id": f"q{at}", "question": "who?", "response": f"the {said}"}
        for at, count in enumerate([5, 1, 3, 2])
        for said in range(count)
    ]
    given = write_lines(tmp_path / "given.jsonl", rows)
    responses = {"responses": str(given), "questions": "demo", "shard_size": 2}
    notes = Notes()
    run_extract(notes, **responses)
    assert (notes.begun, notes.answers) == ((11, 0), 11)
    again = Notes()
    run_extract(again, **responses)
    assert (again.begun, again.answers) == ((11, 0), 11)
    # A limit counts questions, of which nobody knows how many answers they have.
    limited = Notes()
    run_extract(limited, out=tmp_path / "limited", limit=3, **responses)
    assert (limited.begun, limited.answers) == ((None, 0), 9)
    for worker, answers in [("0/2", 0), ("1/2", 0)]:
        part = Notes()
        run_extract(part, out=tmp_path / "shared", worker=worker, samples=3, temperature=1.0)
        assert part.begun == (21, 9 + 3 if worker == "1/2" else answers)
        assert part.answers == 21


def test_a_question_that_fails_counts_as_all_its_answers(
    run_extract: Extract, questions: Path, tmp_path: Path
) -> None:
    rows = question_rows(4)
    rows[1]["question"] = 200 * "why "
    write_lines(questions, rows)
    notes = Notes()
    run_extract(notes, samples=2, temperature=1.0)
    assert (notes.begun, notes.answers) == ((8, 0), 8)


def test_time_left_is_never_negative(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), force_terminal=False, width=200)
    monkeypatch.setattr("hallutrace.commands.progress_display.PLAIN_SECONDS", 0.0)
    live = ExtractionDisplay(console)
    live.begin(500, 0)
    live.advance(600, 900, 40, 640)
    assert console.file.getvalue().startswith("640 of 500 answers, ")  # type: ignore[attr-defined]
    assert console.file.getvalue().endswith(" 0:00:00 left\n")  # type: ignore[attr-defined]


def test_threads_of_one_process_share_a_run(
    run_extract: Extract, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    """Each shard is made by one of them, though they are one process."""
    made: list[str] = []
    run_shard = shard.ShardJob.run

    def counted(job: Any, *arguments: Any) -> None:
        made.append("run")
        run_shard(job, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard.ShardJob, "run", counted)
        with ThreadPoolExecutor(3) as pool:
            waiting = [pool.submit(run_extract) for _ in range(3)]
            summaries = [one.result() for one in waiting]
    assert len(made) == 3
    assert sum(summary.new_traces for summary in summaries) == 7
    assert files_of(tmp_path / "run") == uninterrupted
    assert not list((tmp_path / "run" / "partial").iterdir())


def test_a_retry_takes_a_name_that_is_free(
    run_extract: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(replay, "replay", failing(replay.replay, longest_prompt, OUT_OF_MEMORY))
        run_extract()
    lost = {name for name, *_ in failures_of(tmp_path / "run")}
    run_extract(retry_failed=True)
    shards = tmp_path / "run" / "shards"
    for kind in ("json", "safetensors"):  # a shard of retries that was damaged, and taken out
        (shards / f"retry-00000.{kind}").rename(shards / f"retry-00001.{kind}")
    content = json.loads((shards / "retry-00001.json").read_text())
    keys, indices = content["keys"][:0], content["indices"][:0]
    changed = {**content, "name": "retry-00001", "keys": keys, "indices": indices}
    (shards / "retry-00001.json").write_text(json.dumps(changed))
    assert run_extract(retry_failed=True).new_traces == len(lost)
    assert (shards / "retry-00002.json").exists()


def test_failed_questions_are_tried_again_in_their_place(
    run_extract: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(replay, "replay", failing(replay.replay, longest_prompt, OUT_OF_MEMORY))
        run_extract()
    lost = {str(name) for name, *_ in failures_of(tmp_path / "run")}
    before = files_of(tmp_path / "run")
    assert run_extract().new_traces == 0
    summary = run_extract(retry_failed=True)
    assert (summary.traces, summary.new_traces) == (7, len(lost))
    assert before.items() <= files_of(tmp_path / "run").items()
    record = record_of(tmp_path / "run", "retry-00000")
    assert {key[0] for key in record.keys} == lost
    assert record.indices == sorted(int(name[1:]) for name in lost)
    assert keys_of(tmp_path / "run") == [(name, 0) for name in IDS]
    assert run_extract(retry_failed=True).new_traces == 0
    assert not (tmp_path / "run" / "shards" / "retry-00001.json").exists()


def test_a_second_failure_is_told_and_commits_nothing(
    run_extract: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "replay", failing(replay.replay, longest_prompt, OUT_OF_MEMORY))
    run_extract(limit=6)
    before, lost = files_of(tmp_path / "run"), failures_of(tmp_path / "run")
    assert before
    assert lost
    summary = run_extract(limit=6, retry_failed=True)
    assert [(one.id, one.sample, one.stage) for one in summary.failing] == lost
    assert {one.attempts for one in summary.failing} == {2}
    assert (files_of(tmp_path / "run"), failures_of(tmp_path / "run")) == (before, lost)
    assert not (tmp_path / "run" / "partial" / "retry-00000.safetensors").exists()
    # What has not been tried yet is not held up by it.
    assert run_extract(retry_failed=True).new_traces == 1
    assert {one.attempts for one in Run(tmp_path / "run").failures.read()} == {3}
    assert run_extract().failing == ()


def test_a_retry_that_is_stopped_counts_no_failure_twice(
    run_extract: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = replay.replay
    monkeypatch.setattr(replay, "replay", failing(whole, lambda batch: True, OUT_OF_MEMORY))
    with pytest.raises(InputError, match="got none: all 3 questions failed"):
        run_extract()
    assert len(failures_of(tmp_path / "run")) == 3
    with pytest.raises(InputError, match="got none: all 3 questions failed"):
        run_extract()
    lines = (tmp_path / "run" / "failures.jsonl").read_text().splitlines()
    assert len(lines) == 3
    # Two of three fail in the run, the retry is stopped at the second.
    monkeypatch.setattr(replay, "replay", failing(whole, longest_prompt, OUT_OF_MEMORY))
    run_extract()
    lost = failures_of(tmp_path / "run")
    # Another stage is another attempt at the same question, not another failure.
    monkeypatch.setattr(replay, "replay", failing(whole, longest_prompt, RuntimeError("no kernel")))
    with monkeypatch.context() as patch:
        patch.setattr(FailureLog, "add_again", on_call(FailureLog.add_again, 2, interrupt))
        with pytest.raises(KeyboardInterrupt):
            run_extract(retry_failed=True)
            run_extract(retry_failed=True)
    run_extract(retry_failed=True)
    after = Run(tmp_path / "run").failures.read()
    assert [(one.id, one.sample) for one in after] == [(id_, sample) for id_, sample, _ in lost]
    assert "replay" in {one.stage for one in after}
    assert all(one.time.endswith("Z") and one.error for one in after)


Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(
    checkpoint: Path,
    questions: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    """The same extraction as `run_extract`, as a command: exit code and standard output."""
    options = ["--model", checkpoint, "--questions", questions, "--out", tmp_path / "run"]
    options += ["--chat", "off", "--max-new-tokens", 6, "--shard-size", 3, "--batch-size", 2]

    def call(*more: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["hallutrace", "extract", *map(str, options), *more])
        monkeypatch.setenv("COLUMNS", "120")
        code: object = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        return int(str(code or 0)), capsys.readouterr().out

    return call


def test_a_retry_says_what_still_fails(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(replay, "replay", failing(replay.replay, longest_prompt, OUT_OF_MEMORY))
        command()
        lost = failures_of(tmp_path / "run")
        code, out = command("--retry-failed")
    assert code == 0
    header, *rows = [line for line in out.splitlines() if line.startswith(("┃", "│"))]
    assert [word.strip() for word in header.strip("┃").split("┃")] == [
        "id",
        "sample",
        "stage",
        "attempts",
        "reason",
    ]
    cells = [[cell.strip() for cell in row.strip("│").split("│")] for row in rows]
    assert cells == [[id_, "", "memory", "2", "CUDA out of memory."] for id_, _, _ in lost]
    assert f"{len(lost)} still fail\n" in out
    code, out = command("--retry-failed")
    assert code == 0
    assert "Nothing fails any more." in out
    assert "still fail" not in command()[1]


def test_a_long_table_of_failures_is_cut(
    command: Command, run_extract: Extract, tmp_path: Path
) -> None:
    run_extract()
    log = FailureLog(tmp_path / "run" / "failures.jsonl")
    for at in range(50, 73):
        log.add(Failure(f"bad [{at}]", None, at, "question", "no " * 100))
    _, out = command("--retry-failed")
    assert "bad [50]" in out
    assert "bad [69]" in out
    assert "bad [70]" not in out
    assert "23 still fail, 3 of them not shown\n" in out


def test_a_summary_for_machines(command: Command, tmp_path: Path) -> None:
    code, out = command("--json")
    content = json.loads(out)
    assert code == 0
    assert content["folder"] == str(tmp_path / "run")
    assert (content["traces"], content["failing"]) == (7, [])
    assert 0 <= content["syncing"] <= content["seconds"]


def test_waiting_for_the_disk_is_told_where_it_is_much() -> None:
    from hallutrace.commands.extract import _summary_text

    summary = Summary(Path("run"), 7, 7, 0, 0, None, 700, seconds=10.0, syncing=0.3)
    assert "waiting for the disk" not in _summary_text(summary)
    slow = dataclasses.replace(summary, syncing=0.8)
    assert ", 8% of the time spent waiting for the disk\n" in _summary_text(slow)


def test_trying_again_writes_no_sample_twice(
    run_extract: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._writer = whole(*args, **kwargs)

        def append(self, number: int, id: str, sample: int, arrays: Any) -> None:
            if (id, sample) == ("q4", 1):
                raise InputError("Expected less, got more - fix it")
            self._writer.append(number, id, sample, arrays)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._writer, name)

    whole = shard.ShardWriter
    options = {"samples": 3, "temperature": 0.7}
    with monkeypatch.context() as patch:
        patch.setattr(shard, "ShardWriter", Refusing)
        assert run_extract(**options).traces == 20
    assert failures_of(tmp_path / "run") == [("q4", 1, "write")]
    assert run_extract(**options, retry_failed=True).new_traces == 1
    assert record_of(tmp_path / "run", "retry-00000").keys == [["q4", 1]]
    assert keys_of(tmp_path / "run") == [(name, k) for name in IDS for k in range(3)]


def test_bad_rows_and_long_questions_are_recorded(
    run_extract: Extract, questions: Path, tmp_path: Path
) -> None:
    rows = question_rows(5)
    rows[1]["question"] = None
    rows[3]["question"] = "why " * 100
    write_lines(questions, rows)
    summary = run_extract()
    assert (summary.traces, summary.failures) == (3, 2)
    bad, long = Run(tmp_path / "run").failures.read()
    assert (bad.id, bad.index, bad.stage) == ("q1", 1, "question")
    assert (long.id, long.index, long.stage) == ("q3", 3, "prompt")
    assert long.error == (
        "Expected a prompt of at most 250 tokens, got 415 - shorten it, lower `max_new_tokens`, "
        "or choose a model for longer inputs"
    )
    assert keys_of(tmp_path / "run") == [("q0", 0), ("q2", 0), ("q4", 0)]
    assert [trace.index for trace in hallutrace.open(tmp_path / "run")] == [0, 2, 4]
    assert run_extract(retry_failed=True).new_traces == 0
    assert len(failures_of(tmp_path / "run")) == 2


def test_bad_questions_that_fill_a_shard_do_not_stop_a_run(
    run_extract: Extract, questions: Path, tmp_path: Path
) -> None:
    rows = question_rows(7)
    for row in rows[2:4]:
        row["question"] = "why " * 100
    write_lines(questions, rows)
    assert run_extract(shard_size=2).traces == 5
    assert record_of(tmp_path / "run", "00001").counts["traces"] == 0
    assert keys_of(tmp_path / "run") == [(name, 0) for name in IDS if name not in ("q2", "q3")]


@pytest.mark.parametrize("shard", ["00000", "00001"])
def test_a_shard_in_which_nothing_works_stops_the_run(
    run_extract: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard: str
) -> None:
    calls = {"00000": 1, "00001": 3}[shard]
    done = 0

    def broken(*args: Any, **kwargs: Any) -> Any:
        nonlocal done
        done += 1
        if done >= calls:
            raise RuntimeError("device-side\n  assert triggered")
        return whole(*args, **kwargs)

    whole = replay.replay
    monkeypatch.setattr(replay, "replay", broken)
    with pytest.raises(InputError) as raised:
        run_extract()
    assert str(raised.value) == (
        f"Expected traces in shard {shard}, got none: all 3 questions failed, the first with: "
        f"RuntimeError: device-side assert triggered - see {tmp_path / 'run' / 'failures.jsonl'}"
    )
    assert not (tmp_path / "run" / "shards" / f"{shard}.json").exists()


def test_the_log_of_failures_holds_each_once(tmp_path: Path) -> None:
    path = tmp_path / "failures.jsonl"
    odd = Failure("q\u2028\x85é", None, 0, "replay", "line\u2029end")
    assert FailureLog(path).read() == []
    FailureLog(path).add(odd)
    FailureLog(path).add(odd)
    FailureLog(path).add(Failure(None, None, 1, "question", "bad"))
    content = path.read_bytes()
    assert content.count(b"\n") == 2
    FailureLog(path).add_again(odd)
    assert [failure.attempts for failure in FailureLog(path).read()] == [2, 1]
    # A kill in the middle of a character of the last line.
    path.write_bytes(content[: content.index("é".encode()) + 1])
    log = FailureLog(path)
    assert log.read() == []
    log.add(odd)
    (known,) = FailureLog(path).read()
    assert (known.id, known.error) == (odd.id, odd.error)


# Responses --------------------------------------------------------------------------------------


def respond(
    run_extract: Extract, tmp_path: Path, *rows: dict[str, Any], **options: Any
) -> list[Any]:
    """The traces of answers that exist already."""
    path = write_lines(tmp_path / "said.jsonl", list(rows))
    run_extract(responses=path, out=tmp_path / "run", questions="demo", **options)
    return list(hallutrace.open(tmp_path / "run"))


def test_responses_are_replayed_as_they_are(
    run_extract: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate, "generate", never)
    traces = respond(
        run_extract,
        tmp_path,
        {"id": "a", "question": "who?", "response": " the ox "},
        {"id": "b", "question": "who?", "response": [[20, 21, 22], [23, EOS]]},
        {"id": "c", "question": "who?", "response": ["he", [24], "she"]},
    )
    said = [(trace.id, trace.sample, trace.answer_tokens.tolist()) for trace in traces]
    assert [(name, sample) for name, sample, _ in said] == [
        ("a", 0), ("b", 0), ("b", 1), ("c", 0), ("c", 1), ("c", 2),
    ]  # fmt: skip
    # Text ends with the end of the sequence, ids are taken as they are.
    assert said[0][2][-1] == said[3][2][-1] == EOS
    assert [tokens for *_, tokens in said[1:3]] == [[20, 21, 22], [23, EOS]]
    assert said[4][2] == [24]
    assert [trace.finish_reason for trace in traces] == [
        "eos",
        "given",
        "eos",
        "eos",
        "given",
        "eos",
    ]
    assert (traces[0].answer, traces[3].answer) == ("the ox", "he")


@pytest.mark.parametrize(
    ("eos", "text", "ids", "ended"),
    [("auto", True, False, True), ("on", True, True, True), ("off", False, False, True)],
)
def test_the_end_of_responses_is_chosen(
    run_extract: Extract, tmp_path: Path, eos: str, text: bool, ids: bool, ended: bool
) -> None:
    said = {"id": "a", "question": "who?", "response": ["x", [20], [20, EOS]]}
    traces = respond(run_extract, tmp_path, said, response_eos=eos)
    ends = [trace.answer_tokens.tolist()[-1] == EOS for trace in traces]
    assert ends == [text, ids, ended]
    assert traces[2].answer_tokens.tolist() == [20, EOS]
    assert Run(tmp_path / "run").manifest().identity["decoding"] == {
        "responses": True,
        "end_of_sequence": eos,
        "end_of_sequence_token": None if eos == "off" else EOS,
        "stop": [],
    }


def test_responses_that_cannot_be_replayed_are_recorded(
    run_extract: Extract, tmp_path: Path
) -> None:
    traces = respond(
        run_extract,
        tmp_path,
        {"id": "a", "question": "who?", "response": [[20], [128], [21]]},
        {"id": "b", "question": "who?", "response": [[2**31 - 1]]},
        {"id": "c", "question": "who?", "response": [[22] * 250]},
        {"id": "d", "question": "who?", "response": "fine"},
    )
    assert [(trace.id, trace.sample) for trace in traces] == [("a", 0), ("a", 2), ("d", 0)]
    assert [
        (one.id, one.sample, one.stage, one.error) for one in Run(tmp_path / "run").failures.read()
    ] == [
        (
            "a",
            1,
            "response",
            "Expected token ids below 128, got 128 - give ids of this model's tokenizer, or text",
        ),
        (
            "b",
            0,
            "response",
            "Expected token ids below 128, got 2147483647 - "
            "give ids of this model's tokenizer, or text",
        ),
        (
            "c",
            0,
            "response",
            "Expected a response of at most 237 tokens, got 250 - "
            "shorten it, or choose a model for longer inputs",
        ),
    ]
    assert record_of(tmp_path / "run", "00000").halvings == []


def test_a_response_has_a_token_at_least() -> None:
    loaded = load_tiny()
    ends = AnswerEnds(loaded)
    assert given(ends, loaded, "", "auto", EOS) == Answer([EOS], "", "eos")
    with pytest.raises(InputError) as raised:
        given(ends, loaded, (), "auto", EOS)
    assert str(raised.value) == "Expected a response of at least one token, got ()"
