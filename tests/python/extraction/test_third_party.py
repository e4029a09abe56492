"""What libraries raise costs a question; what this package raises by mistake is not hidden."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import hallutrace
from conftest import Extract, question_rows, write_lines
from hallutrace import third_party
from hallutrace.capture import replay, token_scores
from hallutrace.errors import InputError, ModelError, StorageError
from hallutrace.extraction import shard_walk
from hallutrace.model import generate
from hallutrace.model.generate import Decoding
from hallutrace.store.failures import Failure, FailureLog
from tiny_models import tiny_tokenizer


class PanicException(BaseException):
    """As Rust libraries raise it."""


PanicException.__module__ = "pyo3_runtime"

MARK = tiny_tokenizer().convert_tokens_to_ids("~")

FOREIGN = [
    IndexError("index out of range in self"),
    ValueError("too many values"),
    AssertionError(),
    KeyError("past"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    PanicException("called `Option::unwrap()` on a `None` value"),
    ModelError("Expected logits, got none"),
]


def raising(
    function: Callable[..., Any], error: BaseException, when: Callable[[Any], bool]
) -> Callable[..., Any]:
    """The function of (model, batch, ...), which raises for some batches."""

    def act(loaded: Any, batch: Any, *args: Any, **kwargs: Any) -> Any:
        if when(batch):
            raise error
        return function(loaded, batch, *args, **kwargs)

    return act


def holds_mark(batch: Any) -> bool:
    """Whether a batch holds the question with `~`; of prompts or of finished texts."""
    return any(MARK in getattr(one, "tokens", one) for one in batch)


@pytest.fixture
def marked(questions: Path) -> None:
    """The second of four questions has a `~`."""
    rows = question_rows(4)
    rows[1]["question"] = "~?"
    write_lines(questions, rows)


def failures(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "failures.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("marked")
@pytest.mark.parametrize("error", FOREIGN, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    ("module", "name"), [(generate, "generate"), (replay, "replay")], ids=["generate", "replay"]
)
def test_what_others_raise_costs_its_question(
    run_extract: Extract,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    name: str,
    error: BaseException,
) -> None:
    monkeypatch.setattr(module, name, raising(getattr(module, name), error, holds_mark))
    summary = run_extract(shard_size=4, batch_size=4)
    assert (summary.traces, summary.failures) == (3, 1)
    (line,) = failures(tmp_path / "run")
    assert (line["id"], line["sample"], line["stage"]) == ("q1", None, name)
    is_ours = isinstance(error, ModelError)
    assert line["error"] == (
        str(error) if is_ours else f"{type(error).__name__}: {error}".removesuffix(": ")
    )
    assert ("Traceback" in line.get("traceback", "")) is not is_ours
    # Where the batch was parted is recorded, as where memory does not suffice.
    record = json.loads((tmp_path / "run" / "shards" / "00000.json").read_text())
    assert record["halvings"] == [[0, 2], [0, 1]]


@pytest.mark.usefixtures("marked")
def test_the_others_are_the_same_however_often_it_is_run(
    run_extract: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        replay, "replay", raising(replay.replay, IndexError("index out of range"), holds_mark)
    )
    shards = []
    for name in ("first", "second"):
        run_extract(out=tmp_path / name, shard_size=4, batch_size=4)
        shards.append((tmp_path / name / "shards" / "00000.safetensors").read_bytes())
    assert shards[0] == shards[1]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), StorageError("full")])
def test_what_ends_a_run_still_does(
    run_extract: Extract, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr(replay, "replay", raising(replay.replay, error, lambda _: True))
    with pytest.raises(type(error)):
        run_extract(limit=2)


def test_a_fault_of_ours_keeps_its_traceback(
    run_extract: Extract, monkeypatch: pytest.MonkeyPatch
) -> None:
    # `score` is ours, and fails by itself where logits are not what it expects.
    monkeypatch.setattr(token_scores, "SCORED", "many")
    with pytest.raises(TypeError) as raised:
        run_extract(limit=1)
    assert third_party.is_ours(raised.value)


def test_whose_fault_it_is_is_told_by_the_frame_that_raised() -> None:
    def caught(act: Callable[[], Any]) -> BaseException:
        try:
            act()
        except BaseException as error:
            return error
        raise AssertionError("nothing was raised")

    ours = caught(lambda: generate.batch_seed(*[1, 2]))  # type: ignore[call-arg]
    inside = caught(lambda: Decoding.of(None))  # type: ignore[arg-type]
    theirs = caught(lambda: torch.nn.functional.embedding(torch.tensor([9]), torch.zeros(3, 2)))
    meant = caught(lambda: hallutrace.ExtractConfig.from_options({"stop": [""]}))
    # What is called with the wrong arguments was called by a stranger.
    assert [third_party.is_ours(one) for one in (ours, inside, theirs, meant)] == [
        False,
        True,
        False,
        False,
    ]
    assert third_party.is_fatal(inside)
    assert not third_party.is_fatal(theirs)
    assert third_party.reason_of(theirs) == "IndexError: index out of range in self"


def test_errors_lose_the_frames_that_hold_tensors() -> None:
    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise ValueError("outer") from inner
    except ValueError as error:
        bare = third_party.without_frames(error)
    assert bare.__traceback__ is None
    assert bare.__cause__ is not None
    assert bare.__cause__.__traceback__ is None


def test_a_traceback_is_kept_for_the_first_failure_of_its_kind(tmp_path: Path) -> None:
    log = FailureLog(tmp_path / "failures.jsonl")
    for at, error in enumerate(["IndexError: 5", "IndexError: 7", "KeyError: 5"]):
        log.add(Failure(f"q{at}", None, at, "replay", error, traceback=f"Traceback {at}"))
    kept = [one.traceback for one in FailureLog(tmp_path / "failures.jsonl").read()]
    assert kept == ["Traceback 0", "", "Traceback 2"]


# Before the first question ------------------------------------------------------------------------


def test_a_model_that_takes_nothing_is_refused_before_the_first_question(
    run_extract: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        torch.nn.functional.embedding(torch.tensor([9]), torch.zeros(3, 2))

    monkeypatch.setattr(shard_walk, "probe", refuse)
    with pytest.raises(ModelError, match="got IndexError: index out of range in self - "):
        run_extract()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"num_beams": 129},
            "Expected `num_beams` of at most 128 (the vocabulary of ",
        ),
        (
            {"max_new_tokens": 256},
            "Expected `max_new_tokens` below 256 (the most tokens that ",
        ),
    ],
)
def test_a_decoding_that_no_question_could_have_is_refused(
    run_extract: Extract, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as raised:
        run_extract(**options)
    assert str(raised.value).startswith(message)


# Numbers ------------------------------------------------------------------------------------------


def test_sampling_from_what_is_no_number_says_so(
    run_extract: Extract, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    rows = question_rows(3)
    rows[1]["question"] = "~?"
    write_lines(questions, rows)
    pipeline = sys.modules[hallutrace.extract.__module__]
    whole = pipeline.load

    def load(*args: Any) -> Any:
        loaded = whole(*args)
        loaded.model.get_input_embeddings().weight.data[MARK] = torch.nan
        return loaded

    monkeypatch.setattr(pipeline, "load", load)
    summary = run_extract(temperature=1.0, batch_size=3, shard_size=3)
    assert (summary.traces, summary.failures) == (2, 1)
    (line,) = failures(tmp_path / "run")
    assert (line["id"], line["stage"]) == ("q1", "generate")
    assert line["error"] == (
        "Expected logits that are finite numbers, got NaN or infinity while sampling - use "
        "another `dtype` (float16 overflows where bfloat16 and float32 do not), or a higher "
        "`temperature`"
    )


def test_parts_of_a_batch_draw_other_numbers() -> None:
    seeds = {generate.batch_seed(0, 1, 2, first) for first in range(8)}
    assert len(seeds) == 8
    assert generate.batch_seed(0, 1, 2) == generate.batch_seed(0, 1, 2, 0)
