"""Sources of questions that someone else registers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from conftest import Extract
from hallutrace.errors import HallutraceError, InputError
from hallutrace.questions import BadRow, Columns, Question, open_questions, register
from hallutrace.questions.registry import SOURCES


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    yield
    for name in SOURCES.added():
        SOURCES.remove(name)


def sums(argument: str) -> Iterator[dict[str, Any]]:
    for a in range(int(argument or 3)):
        yield {"question": f"What is {a} plus {a}?", "answers": [str(2 * a)], "topic": "sums"}


def test_its_rows_are_questions() -> None:
    register("sums")(sums)
    source = open_questions("sums:2")
    assert (source.name, source.identity()) == ("sums-2", {"kind": "registered", "spec": "sums:2"})
    for _ in range(2):  # each pass is one
        found = [one for one in source if isinstance(one, Question)]
        assert [one.question for one in found] == ["What is 0 plus 0?", "What is 1 plus 1?"]
        assert [one.references for one in found] == [("0",), ("2",)]
    assert len(list(open_questions("sums"))) == 3
    grouped = open_questions("sums:1", Columns(group="topic"))
    assert [one.group for one in grouped if isinstance(one, Question)] == ["sums"]


def test_questions_themselves_are_taken_and_other_things_are_bad_rows() -> None:
    @register("mixed")
    def mixed(_: str) -> list[Any]:
        return [Question("a", "who?", ("x",), "it is x", 0, "g"), "who?", {"question": " "}]

    one, *bad = list(open_questions("mixed"))
    assert isinstance(one, Question)
    assert (one.id, one.references, one.context, one.group) == ("a", ("x",), "it is x", "g")
    assert all(isinstance(row, BadRow) for row in bad) and len(bad) == 2
    assert "Expected a Question or a mapping, got str, in the source mixed, row 1" in bad[0].error


def test_what_it_raises_is_told() -> None:
    @register("fails")
    def fails(argument: str) -> Iterator[dict[str, Any]]:
        yield {"question": "who?"}
        raise KeyError("next")

    with pytest.raises(InputError, match="Expected question 1 of `fails`, got KeyError: 'next' - "):
        open_questions("fails")
    with pytest.raises(InputError, match="another name than demo and hf, got `demo`"):
        register("demo")(sums)
    with pytest.raises(InputError, match="as the source `mine`, got int - give a function"):
        register("mine")(3)  # type: ignore[arg-type]


def test_an_extraction_goes_on_and_is_refused_where_questions_have_changed(
    run_extract: Extract,
) -> None:
    rows = [{"id": f"q{at}", "question": f"who is {at}?"} for at in range(5)]

    @register("rows")
    def given(_: str) -> list[dict[str, Any]]:
        return rows

    assert run_extract(questions="rows", limit=3).traces == 3
    assert run_extract(questions="rows", limit=5).traces == 5
    rows[1] = {"id": "q1", "question": "who else?"}
    with pytest.raises(HallutraceError):
        run_extract(questions="rows", limit=5)
