"""What sources know beside questions: choices, wrong answers, who answered, labelled spans."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import hallutrace
from conftest import Extract, write_lines
from hallutrace.model.answer_spans import AnswerSpan
from hallutrace.questions import (
    BadRow,
    Columns,
    Generator,
    Question,
    Span,
    open_questions,
    open_responses,
)
from hallutrace.store.folder import Run

DEFAULT = Columns()


def rows_of(path: Path, rows: list[dict[str, Any]], columns: Columns = DEFAULT) -> list[Any]:
    """The questions and bad rows of a file with responses."""
    return list(open_responses(str(write_lines(path / "said.jsonl", rows)), columns))


def asked(path: Path, row: dict[str, Any]) -> Question:
    (question,) = open_questions(str(write_lines(path / "asked.jsonl", [row])))
    assert isinstance(question, Question)
    return question


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        ({"incorrect_answers": ["a", "b", "a", " "]}, ("a", "b")),
        ({"Incorrect Answers": "['a', 'b']"}, ("a", "b")),
        ({"wrong_answer": 7}, ("7",)),
        ({"right_answer": "r", "hallucinated_answer": "h; i"}, ("h; i",)),
        ({"Best Answer": "r", "Correct Answers": "r; s", "Incorrect Answers": "a; b"}, ("a", "b")),
        ({"mc1_targets": {"choices": ["r", "a", "b"], "labels": [1, 0, 0]}}, ("a", "b")),
        ({"answers": ["r"]}, ()),
    ],
)
def test_wrong_answers(tmp_path: Path, row: dict[str, Any], wrong: tuple[str, ...]) -> None:
    assert asked(tmp_path, {"question": "who?"} | row).incorrect_answers == wrong


@pytest.mark.parametrize(
    ("row", "choices"),
    [
        (
            {"choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"},
            (("1", "x"), ("2", "y")),
        ),
        ({"choices": ["x", "y"], "answer": 1}, (("A", "x"), ("B", "y"))),
        ({"options": {"A": "x", "B": "y"}, "answer_idx": "B"}, (("A", "x"), ("B", "y"))),
        ({"choices": 3, "answer": "free text"}, ()),
        ({"answer": "y"}, ()),
    ],
)
def test_choices(tmp_path: Path, row: dict[str, Any], choices: tuple[Any, ...]) -> None:
    assert asked(tmp_path, {"question": "which?"} | row).choices == choices


@pytest.mark.parametrize(
    ("row", "generators"),
    [
        ({"model": "m", "temperature": 0.7}, (Generator("m", 0.7),)),
        ({"model_name": "m"}, (Generator("m", None),)),
        ({"generator": {"model": "m", "temperature": 1}}, (Generator("m", 1.0),)),
        ({"temperature": "0.5", "model": " "}, (Generator(None, 0.5),)),
        (
            {"response": ["a", "b"], "model": ["m", None], "temperature": 0},
            (Generator("m", 0.0), Generator(None, 0.0)),
        ),
        ({}, ()),
    ],
)
def test_generators(tmp_path: Path, row: dict[str, Any], generators: tuple[Any, ...]) -> None:
    (question,) = rows_of(tmp_path, [{"question": "who?", "response": "a"} | row])
    assert question.generators == generators


def test_spans_as_ragtruth_has_them(tmp_path: Path) -> None:
    labels = [{"start": 0, "end": 2, "text": "so", "label_type": "Evident Conflict", "meta": "…"}]
    row = {"question": "who?", "response": "so it is", "labels": labels}
    columns = Columns(spans="labels")
    (question,) = rows_of(tmp_path, [row], columns)
    assert question.spans == ((Span(0, 2, "Evident Conflict"),),)
    (question,) = rows_of(tmp_path, [row | {"labels": json.dumps(labels)}], columns)
    assert question.spans == ((Span(0, 2, "Evident Conflict"),),)
    (question,) = rows_of(tmp_path, [row | {"labels": []}], columns)
    assert question.spans == ()
    # The name says nothing of what labels are.
    (question,) = rows_of(tmp_path, [row])
    assert question.spans == ()
    # Of several responses each has a list, in one row and in several.
    several = [{"start": 1, "end": 2, "label": "x"}]
    both = {"question": "who?", "response": ["ab", "cd"], "spans": [several, []]}
    (question,) = rows_of(tmp_path, [both])
    assert question.spans == ((Span(1, 2, "x"),), ())
    apart = [{"id": "q", "question": "who?", "response": said} for said in ("ab", "cd")]
    apart[1] |= {"spans": several}  # type: ignore[dict-item]
    (question,) = rows_of(tmp_path, apart)
    assert question.spans == ((), (Span(1, 2, "x"),))


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"spans": 3}, "Expected a list of spans in column `spans`, got the number 3"),
        ({"spans": [{"start": 0}]}, "as objects with whole numbers `start` and `end`"),
        ({"spans": [{"start": 0, "end": True}]}, "as objects with whole numbers"),
        ({"spans": [{"start": 0, "end": 9}]}, "within the 8 characters of the response"),
        ({"spans": [{"start": 3, "end": 2}]}, "got 3 to 2, in"),
        ({"spans": [{"start": -1, "end": 2}]}, "got -1 to 2, in"),
        ({"spans": [{"start": 0, "end": 2, "label": 3}]}, "text as label of a span"),
        ({"response": ["a", "b"], "spans": [[]]}, "a list of spans for each of 2 responses"),
        ({"response": ["a", "b"], "model": ["m"]}, "one value for each of 2 responses"),
        ({"model": 3}, "text as model of the response in column `model`"),
        ({"temperature": -1}, "a temperature of at least 0 in column `temperature`"),
        ({"temperature": "warm"}, "got the text 'warm'"),
        ({"temperature": True}, "a temperature of at least 0"),
    ],
)
def test_what_cannot_be_read_is_a_bad_row(tmp_path: Path, row: dict[str, Any], told: str) -> None:
    good = {"question": "why?", "response": "so it is"}
    bad = {"question": "who?", "response": "so it is"} | row
    first, second = rows_of(tmp_path, [good, bad])
    assert isinstance(first, Question) and isinstance(second, BadRow)
    assert told in second.error and "line 2" in second.error


def test_traces_have_what_their_source_knows(run_extract: Extract, tmp_path: Path) -> None:
    span = {"start": 1, "end": 3, "label": "baseless"}
    rows = [
        {
            "id": "all", "question": "who was it?", "response": " an it is", "answers": ["an"],
            "incorrect_answers": ["it"], "choices": ["an", "it"], "model": "m",
            "temperature": 0.7, "spans": [span],
        },
        {"id": "none", "question": "who was it?", "response": "it is"},
    ]  # fmt: skip
    said = write_lines(tmp_path / "said.jsonl", rows)
    run_extract(responses=said, questions="demo")
    known, unknown = hallutrace.open(tmp_path / "run")
    assert known.choices == {"A": "an", "B": "it"}
    assert known.incorrect_answers == ["it"]
    assert known.generator == Generator("m", 0.7)
    (found,) = known.spans
    assert isinstance(found, AnswerSpan)
    # Without the space that the answer does not keep.
    assert known.answer[found.start : found.end] == "an"
    assert (found.start, found.end, found.label) == (0, 2, "baseless")
    begin, end = found.tokens
    assert 0 <= begin < end < len(known.answer_tokens)
    assert known.meta["generator"] == {"model": "m", "temperature": 0.7}
    assert (unknown.choices, unknown.incorrect_answers) == ({}, [])
    assert (unknown.generator, unknown.spans) == (None, [])
    assert not {"choices", "incorrect_answers", "generator", "spans"} & unknown.meta.keys()


def test_spans_of_token_ids_are_checked_once_their_text_is_known(
    run_extract: Extract, tmp_path: Path
) -> None:
    rows = [
        {"id": "good", "question": "who?", "response": [50, 51], "spans": [{"start": 0, "end": 1}]},
        {"id": "bad", "question": "who?", "response": [50, 51], "spans": [{"start": 0, "end": 99}]},
    ]
    said = write_lines(tmp_path / "said.jsonl", rows)
    run_extract(responses=said, questions="demo")
    (failure,) = Run(tmp_path / "run").failures.read()
    assert (failure.id, failure.sample, failure.stage) == ("bad", 0, "response")
    assert "Expected spans within the" in failure.error
    (trace,) = hallutrace.open(tmp_path / "run")
    assert [span.tokens[0] for span in trace.spans] == [0]


def test_ids_of_questions_without_one_depend_on_their_content_alone(tmp_path: Path) -> None:
    rows = [{"question": "who?", "answers": ["a"]}, {"question": "why?", "answers": ["b"]}]
    first = [one.id for one in open_questions(str(write_lines(tmp_path / "a.jsonl", rows)))]
    turned = [*rows[::-1], rows[0]]
    second = [one.id for one in open_questions(str(write_lines(tmp_path / "b.jsonl", turned)))]
    assert second == first[::-1]
    with_context = [{**rows[0], "context": "so"}]
    (third,) = open_questions(str(write_lines(tmp_path / "c.jsonl", with_context)))
    assert third.id not in first
