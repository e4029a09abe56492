"""Nasty files, made by the hundred: every row is read right or named, and none is lost unsaid.

A file is drawn as rows that are known, one way of writing them, and at most one thing that goes
wrong. `HALLUTRACE_EXAMPLES` sets how many files.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from hallutrace.errors import InputError
from hallutrace.questions import BadRow, Question, open_questions

EXAMPLES = int(os.environ.get("HALLUTRACE_EXAMPLES", "60"))


@dataclass(frozen=True)
class Asked:
    """A row as it is meant.

    Attributes:
        id: as text; None where the row has none.
        question: the text.
        references: right answers.
        context: text, or None.
        values: the columns of the row, of any type that JSON has.
    """

    id: str | None
    question: str
    references: tuple[str, ...]
    context: str | None
    values: dict[str, Any]


# Rows: texts that are hard on readers, numbers, lists, and the schemas of data sets.

HARD = [
    "a, b",
    'say "no"',
    '"quoted"',
    "two\nlines",
    "two\r\nlines",
    "a;b",
    "a\tb",
    "é ü 日本",
    "\u2028sep",
    "it's",
    "C:\\new\\table",
    "[1] says",
    "{x} of y",
    "NaN",
    "None",
    "=1+1",
    "5' 3\"",
    "#### 1",
    " padded ",
]
texts = st.sampled_from(HARD) | st.text(
    st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12
)
spoken = texts.filter(lambda text: bool(text.strip()))
# Texts that open like a list are told to be one, which is another test.
plain = spoken.filter(lambda text: text.strip()[0] not in "[{")
Answers = tuple[dict[str, Any], tuple[str, ...]]


def unique(items: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(items))


@st.composite
def choices(draw: st.DrawFn, shape: Callable[[list[str], str, int], dict[str, Any]]) -> Answers:
    words = draw(st.lists(plain.map(str.strip), min_size=2, max_size=4, unique=True))
    # No choice reads like the letter or the number of another.
    words = [f"w{word}" for word in words]
    right = draw(st.integers(0, len(words) - 1))
    return shape(words, "ABCD"[: len(words)], right), (words[right],)


def numbers(of: st.SearchStrategy[Any]) -> st.SearchStrategy[Answers]:
    return of.map(lambda number: ({"answer": number}, (str(number).removesuffix(".0"),)))


KINDS: dict[str, st.SearchStrategy[Answers]] = {
    "text": plain.map(lambda text: ({"answer": text}, (text,))),
    "whole": numbers(st.integers(-(10**30), 10**30)),
    "with gaps": numbers(st.integers(-9999, 9999).map(float)) | st.just(({"answer": None}, ())),
    "fractions": numbers(st.integers(-9999, 9999).map(lambda number: number + 0.5)),
    "true or false": st.booleans().map(
        lambda truth: ({"answer": truth}, ("yes" if truth else "no",))
    ),
    "list": st.lists(spoken, max_size=3).map(lambda items: ({"answers": items}, unique(items))),
    "printed": st.lists(spoken, min_size=1, max_size=3).map(
        lambda items: ({"possible_answers": items}, unique(items))
    ),
    "triviaqa": st.lists(spoken, min_size=1, max_size=3).map(
        lambda items: ({"answer": {"value": items[0], "aliases": items}}, unique(items))
    ),
    "squad": st.lists(spoken, max_size=3).map(
        lambda items: ({"answers": {"text": items, "answer_start": [0]}}, unique(items))
    ),
    "index": choices(lambda words, letters, at: {"choices": words, "answer": at}),
    "letter": choices(lambda words, letters, at: {"options": words, "answer": letters[at]}),
    "key": choices(
        lambda words, letters, at: {
            "choices": {"text": words, "label": list(letters)},
            "answerKey": letters[at],
        }
    ),
    "judged": plain.map(lambda text: ({"answer": text, "hallucination": "yes"}, ())),
    "none": st.just(({}, ())),
}


@st.composite
def files(draw: st.DrawFn) -> tuple[str, list[Asked]]:
    """The kind of right answers, and rows that differ in their questions."""
    kind = draw(st.sampled_from(sorted(KINDS)))
    asked = draw(st.lists(spoken, min_size=2, max_size=7, unique=True))
    has_ids, has_context = draw(st.booleans()), draw(st.booleans())
    id_of = draw(st.sampled_from([str, int, float, lambda at: f"id {at}"]))
    names = {"question": draw(st.sampled_from(["question", "Question", "query"]))}
    rows = []
    for at, question in enumerate(asked):
        values, references = draw(KINDS[kind])
        context = draw(st.none() | spoken) if has_context else None
        row: dict[str, Any] = {names["question"]: question, **values}
        if has_ids:
            row["id"] = id_of(at)
        if has_context:
            row["context"] = context
        name = f"id {at}" if isinstance(row.get("id"), str) and " " in row["id"] else str(at)
        rows.append(Asked(name if has_ids else None, question, references, context, row))
    return kind, rows


# Ways of writing them.

Write = Callable[[list[dict[str, Any]]], bytes]


def lines_of(rows: list[dict[str, Any]], **how: Any) -> bytes:
    return "".join(json.dumps(row, **how) + "\n" for row in rows).encode()


def cell_of(value: Any, how: Callable[[Any], str]) -> str:
    """A value as a tool writes it into a cell."""
    if value is None:
        return ""
    if isinstance(value, bool):
        # In a cell nothing tells true from the word; it is read as it is written.
        return "yes" if value else "no"
    return how(value) if isinstance(value, list | dict) else str(value)


def as_numpy(value: Any) -> str:
    """A list as pandas prints an array of numpy."""
    return str(np.array(value, dtype=object)) if isinstance(value, list) and value else repr(value)


def cells_of(rows: list[dict[str, Any]], how: Callable[[Any], str]) -> list[list[str]]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [names, *([cell_of(row.get(name), how) for name in names] for row in rows)]


def table_of(cells: list[list[str]], **dialect: Any) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, **dialect).writerows(cells)
    return text.getvalue()


@st.composite
def ways(draw: st.DrawFn) -> tuple[str, Write]:
    """A name for the file, and what writes its rows."""
    form = draw(st.sampled_from(["jsonl", "json", "csv", "csv", "csv", "tsv", "parquet"]))
    mark = draw(st.sampled_from(["", "\ufeff"])).encode()
    is_ascii = draw(st.booleans())
    if form == "jsonl":
        return "q.jsonl", lambda rows: mark + lines_of(rows, ensure_ascii=is_ascii)
    if form == "json":
        return "q.json", lambda rows: mark + json.dumps(rows, ensure_ascii=is_ascii).encode()
    if form == "parquet":
        return "q.parquet", parquet_of
    how = draw(st.sampled_from([json.dumps, repr, as_numpy]))
    dialect = {
        "lineterminator": draw(st.sampled_from(["\n", "\r\n"])),
        "quoting": draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
        "delimiter": "," if form == "csv" else "\t",
    }
    return f"q.{form}", lambda rows: mark + table_of(cells_of(rows, how), **dialect).encode()


def parquet_of(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


# The oracle.

RANGE = re.compile(r"lines (\d+) to (\d+) are not read")


def read(name: str, content: bytes) -> tuple[list[Question], list[BadRow], str | None]:
    """What the file gives: questions and bad rows, or why it is refused."""
    Path(name).write_bytes(content)
    try:
        found = list(open_questions(name))
    except InputError as error:
        return [], [], str(error)
    good = [row for row in found if isinstance(row, Question)]
    return good, [row for row in found if isinstance(row, BadRow)], None


def is_right(question: Question, row: Asked) -> bool:
    """Whether a question is what its row was meant to be."""
    references = tuple(text for text in row.references if text.strip())
    return (
        (question.question, question.context) == (row.question, row.context)
        and question.references == references
        and (row.id is None or question.id == row.id)
    )


nasty = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@nasty
@given(files(), ways())
def test_a_file_that_is_well_formed_is_read_right(
    file: tuple[str, list[Asked]], way: tuple[str, Write]
) -> None:
    (kind, rows), (name, write) = file, way
    values = [row.values for row in rows]
    if kind == "printed" and not name.endswith(("csv", "tsv")):
        values = [{**one, "possible_answers": repr(one["possible_answers"])} for one in values]
    try:
        content = write(values)
    except (TypeError, ValueError, OverflowError) as error:
        # Columns of several types, and integers beyond 64 bits, are not in Parquet.
        assert name.endswith("parquet"), error
        event("not in Parquet")
        return
    event(f"{name}, {kind}")
    good, bad, refused = read(name, content)
    assert (bad, refused) == ([], None)
    assert len(good) == len(rows)
    for question, row in zip(good, rows, strict=True):
        assert is_right(question, row), (question, row)


def unclosed(lines: list[str], at: int) -> list[str]:
    """A quote before a line."""
    return [*lines[:at], '"' + lines[at], *lines[at + 1 :]]


def half_open(lines: list[str], at: int) -> list[str]:
    """A quote before the second cell of a line."""
    before, comma, after = lines[at].partition(",")
    return [*lines[:at], f'{before}{comma}"{after}', *lines[at + 1 :]]


def stray(lines: list[str], at: int) -> list[str]:
    """A quote somewhere within a line."""
    middle = len(lines[at]) // 2
    return [*lines[:at], lines[at][:middle] + '"' + lines[at][middle:], *lines[at + 1 :]]


def ragged(lines: list[str], at: int) -> list[str]:
    """A cell too many."""
    return [*lines[:at], lines[at].rstrip("\n") + ",more\n", *lines[at + 1 :]]


def cut(lines: list[str], at: int) -> list[str]:
    """A line that stops in its middle."""
    return [*lines[:at], lines[at][: len(lines[at]) // 2] + "\n", *lines[at + 1 :]]


def zeroed(lines: list[str], at: int) -> list[str]:
    """A zero byte at the beginning of a line."""
    return [*lines[:at], "\0" + lines[at], *lines[at + 1 :]]


DAMAGES = [unclosed, half_open, stray, ragged, cut, zeroed]


@nasty
@given(
    st.lists(st.tuples(plain, plain), min_size=3, max_size=12, unique_by=lambda pair: pair[0]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(DAMAGES),
    st.data(),
)
def test_damage_to_one_line_of_csv_is_named(
    pairs: list[tuple[str, str]],
    quoting: Any,
    damage: Callable[..., list[str]],
    data: st.DataObject,
) -> None:
    rows = [Asked(None, question, (answer,), None, {}) for question, answer in pairs]
    texts_of = [table_of([list(pair)], quoting=quoting, lineterminator="\n") for pair in pairs]
    # Other characters that end a line for `str.splitlines` end none in a file.
    written = [re.findall(r"[^\n]*\n", text) for text in texts_of]
    first = [2 + sum(map(len, written[:at])) for at in range(len(pairs))]
    whole = ["question,answer\n", *(line for record in written for line in record)]
    at = data.draw(st.integers(1, len(whole) - 1))
    hit = max(number for number, line in enumerate(first) if line <= at + 1)
    good, bad, refused = read("q.csv", "".join(damage(whole, at)).encode())
    if refused is not None:
        return
    event(f"{damage.__name__}: {len(bad)} bad")
    lost: set[int] = set()
    for row in bad:
        assert row.line is not None
        lost.add(row.line)
        if found := RANGE.search(row.error):
            lost.update(range(int(found[1]), int(found[2]) + 1))
    by_text = {question.question: question for question in good}
    for number, (line, meant) in enumerate(zip(first, rows, strict=True)):
        question = by_text.get(meant.question)
        # The row that was damaged may have become another one that is well-formed.
        if number != hit:
            assert line in lost or (question is not None and is_right(question, meant)), meant
    known = {row.question for row in rows}
    assert sum(question.question not in known for question in good) <= 1
    assert len(good) + len(lost) >= len(rows)


@nasty
@given(
    st.lists(
        st.tuples(*[st.text('aeéñü,"\n', min_size=1, max_size=6).map("x".__add__)] * 2),
        min_size=1,
        max_size=6,
        unique_by=lambda pair: pair[0],
    ),
    st.sampled_from(["utf-16", "utf-16-le", "utf-16-be", "latin-1", "cp1252"]),
    st.booleans(),
)
def test_other_encodings_are_named_or_do_not_matter(
    pairs: list[tuple[str, str]], encoding: str, is_csv: bool
) -> None:
    names = ["question", "answer"]
    values = [dict(zip(names, pair, strict=True)) for pair in pairs]
    text = (
        table_of([names, *map(list, pairs)])
        if is_csv
        else lines_of(values, ensure_ascii=False).decode()
    )
    content = text.encode(encoding)
    good, bad, refused = read("q.csv" if is_csv else "q.jsonl", content)
    event(f"{encoding}: {'refused' if refused else f'{len(bad)} bad'}")
    if encoding.startswith("utf-16"):
        assert refused is not None and "got text in UTF-16" in refused
    if refused is not None:
        assert "UTF-" in refused
        return
    by_text = {question.question: question for question in good}
    named = {row.index for row in bad}
    for index, (question, answer) in enumerate(pairs):
        is_ascii = (question + answer).isascii()
        assert (index in named) != is_ascii
        if is_ascii:
            assert by_text[question].references == (answer,)


@nasty
@given(st.binary(max_size=200), st.sampled_from(["csv", "tsv", "json", "jsonl", "parquet"]))
def test_any_bytes_are_read_or_refused(content: bytes, form: str) -> None:
    read(f"q.{form}", b"question,answer\n" * (form == "csv") + content)
