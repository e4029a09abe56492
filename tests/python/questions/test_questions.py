"""Sources of questions: schemas, bad rows, duplicates, responses; exact texts of errors."""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hallutrace.demo
from hallutrace.errors import InputError, MissingExtraError
from hallutrace.questions import (
    BadRow,
    Columns,
    Question,
    QuestionSource,
    open_questions,
    open_responses,
)
from hallutrace.questions.hub_datasets import parse_spec
from hallutrace.questions.row_parsing import default_id
from hallutrace.questions.rows import BY_SCHEMA

GOOD = {"id": "good", "question": "who?", "answers": ["me"]}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_jsonl(rows: list[Any], name: str = "q.jsonl") -> str:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return name


def write_csv(rows: list[list[str]], name: str = "q.csv") -> str:
    with Path(name).open("w", encoding="utf-8", newline="") as text:
        csv.writer(text).writerows(rows)
    return name


def write_parquet(rows: list[dict[str, Any]], name: str = "q.parquet") -> str:
    import pyarrow
    import pyarrow.parquet

    Path(name).parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), name)
    return name


def questions(source: QuestionSource) -> list[Question]:
    found = list(source)
    assert all(isinstance(item, Question) for item in found), found
    return found  # type: ignore[return-value]


def one(row: dict[str, Any], columns: Columns = BY_SCHEMA) -> Question:
    (question,) = questions(open_questions(write_jsonl([row]), columns))
    return question


def bad(row: Any, line: int = 2) -> str:
    """The error of a row that stands behind a good one."""
    rows = list(open_questions(write_jsonl([GOOD, row])))
    assert isinstance(rows[0], Question)
    (found,) = rows[1:]
    assert isinstance(found, BadRow)
    assert (found.index, found.line) == (1, line)
    return found.error


# Schemas


def test_own_schema() -> None:
    row = {"id": "a", "question": "who?", "answers": ["x", "y"], "context": "x is", "group": "g"}
    assert one(row) == Question("a", "who?", ("x", "y"), "x is", 0, "g")


def test_triviaqa() -> None:
    answer = {
        "value": "Sinclair Lewis",
        "aliases": ["Harry Sinclair Lewis", "Sinclair Lewis", "Lewis"],
        "normalized_aliases": ["lewis"],
        "type": "WikipediaEntity",
    }
    row = {"question": "Which American?", "question_id": "tc_1", "answer": answer}
    references = ("Sinclair Lewis", "Harry Sinclair Lewis", "Lewis")
    assert one(row) == Question("tc_1", "Which American?", references, None, 0, "tc_1")


def test_secret_answers_of_triviaqa_are_no_references() -> None:
    row = {"question": "q", "question_id": "t", "answer": {"value": "<unk>", "aliases": []}}
    assert one(row).references == ()


def test_nq_open() -> None:
    row = {"question": "when did they win", "answer": ["1988", "in 1988"]}
    made = default_id("when did they win", None)
    assert one(row) == Question(made, "when did they win", ("1988", "in 1988"), None, 0, made)


def test_squad() -> None:
    row = {
        "id": "5733",
        "title": "t",
        "context": "c",
        "question": "q",
        "answers": {"text": ["a", "a", "b"], "answer_start": [1, 1, 2]},
    }
    assert one(row) == Question("5733", "q", ("a", "b"), "c", 0, "5733")


def test_halueval() -> None:
    row = {
        "knowledge": "k",
        "question": "q",
        "right_answer": "r",
        "hallucinated_answer": "h",
    }
    made = default_id("q", "k")
    assert one(row) == Question(made, "q", ("r",), "k", 0, made, incorrect_answers=("h",))


@pytest.mark.parametrize("name", ["question", "query", "prompt"])
def test_question_columns(name: str) -> None:
    assert one({name: "q"}).question == "q"


@pytest.mark.parametrize("name", ["id", "question_id", "qid"])
def test_id_columns_and_whole_numbers_as_ids(name: str) -> None:
    assert one({name: 17, "question": "q"}).id == "17"


@pytest.mark.parametrize("name", ["answers", "answer", "references", "right_answer"])
@pytest.mark.parametrize(
    ("value", "references"),
    [
        ("x", ("x",)),
        (["x", "x", " ", "y"], ("x", "y")),
        (1988, ("1988",)),
        ([1988, 2.5], ("1988", "2.5")),
        ({"text": "x"}, ("x",)),
        ([], ()),
        ("", ()),
        (None, ()),
    ],
)
def test_answers(name: str, value: Any, references: tuple[str, ...]) -> None:
    assert one({"question": "q", name: value}).references == references


def test_missing_answers_are_allowed() -> None:
    assert one({"question": "q"}).references == ()


@pytest.mark.parametrize("name", ["context", "knowledge", "passage"])
def test_context_columns(name: str) -> None:
    assert one({"question": "q", name: "c"}).context == "c"


def test_columns_can_be_mapped() -> None:
    row = {"uid": 3, "text": "q", "gold": "x", "story": "s", "topic": "t", "id": "no"}
    columns = Columns(id="uid", question="text", answers="gold", context="story", group="topic")
    assert one(row, columns) == Question("3", "q", ("x",), "s", 0, "t")


def test_the_column_that_holds_values_wins() -> None:
    write_jsonl([{"question": "q", "answers": None, "answer": "x"}, {"question": "r"}])
    assert [q.references for q in questions(open_questions("q.jsonl"))] == [("x",), ()]


def test_columns_may_come_late() -> None:
    rows = [{"question": f"q{i}"} for i in range(150)]
    write_jsonl([*rows, {"question": "late", "context": "c", "answer": "x", "id": "z"}])
    last = questions(open_questions("q.jsonl"))[-1]
    assert last == Question("z", "late", ("x",), "c", 150, "z")


# Files


def test_jsonl_skips_blank_lines_and_a_byte_order_mark() -> None:
    Path("q.jsonl").write_bytes(
        b'\xef\xbb\xbf{"question": "a"}\r\n\r\n  \n{"question": "b\xc3\xa9"}'
    )
    source = open_questions("q.jsonl")
    assert [(q.id, q.question, q.index) for q in questions(source)] == [
        (default_id("a", None), "a", 0),
        (default_id("bé", None), "bé", 1),
    ]
    assert source.total == 2


def test_csv() -> None:
    write_csv(
        [
            ["id", "question", "answers", "context"],
            ["1", "two\nlines?", '["x", "y"]', ""],
            ["", "plain?", "z, not a list", "c"],
            ["3", "squad?", '{"text": ["w"]}', ""],
        ]
    )
    source = open_questions("q.csv")
    made = default_id("plain?", "c")
    assert questions(source) == [
        Question("1", "two\nlines?", ("x", "y"), None, 0, "1"),
        Question(made, "plain?", ("z, not a list",), "c", 1, made),
        Question("3", "squad?", ("w",), None, 2, "3"),
    ]
    assert source.total is None


def test_csv_bad_rows_name_the_line_they_begin_on() -> None:
    Path("q.csv").write_bytes(
        b'question,answers\n\n"a\nb",x\nc,x,y\nd\xff,x\ne,"[\'x"\n,x\nf,\xff\n'
        + b'"'
        + b"g" * 140_000
        + b'",x\nlast,x,,\n'
    )
    found = list(open_questions("q.csv"))
    asked = [q.question for q in found if isinstance(q, Question)]
    assert asked == ["a\nb", "g" * 140_000, "last"]
    assert [row.error for row in found if isinstance(row, BadRow)] == [
        "Expected 2 cells, as in the header, got 3, in q.csv, line 5 - "
        "put text with delimiters or line breaks into quotes",
        "Expected text in UTF-8 in column `question`, got a character or byte that is not UTF-8 at "
        "position 1, in q.csv, line 6 - save the file as UTF-8, as with iconv -f LATIN1 -t UTF-8, "
        "or fix the row",
        "Expected a list or an object in column `answers`, as the text begins with `[`, got the "
        'text "[\'x", in q.csv, line 7 - write a list as ["one", "two"]; a text between '
        "brackets is a list of one text",
        "Expected a question in column `question`, got nothing, in q.csv, line 8 - "
        "write one or remove the row",
        "Expected text in UTF-8 in column `answers`, got a character or byte that is not UTF-8 at "
        "position 0, in q.csv, line 9 - save the file as UTF-8, as with iconv -f LATIN1 -t UTF-8, "
        "or fix the row",
    ]


def test_csv_header_names_a_column_once() -> None:
    write_csv([["question", "id", "id"], ["q", "1", "2"]])
    with pytest.raises(InputError) as caught:
        open_questions("q.csv")
    assert str(caught.value) == (
        "Expected a header that names each column once, got `id` more than once, "
        "in q.csv, line 1 - rename the columns"
    )


def test_parquet_is_streamed_in_batches() -> None:
    rows = [
        {
            "question_id": f"t{i}",
            "question": f"q{i}",
            "answer": {"value": "v", "aliases": ["a"], "normalized_aliases": ["n"]},
            "search_results": [{"search_context": "long"}],
        }
        for i in range(600)
    ]
    source = open_questions(write_parquet(rows))
    assert source.total == 600
    found = questions(source)
    assert found[599] == Question("t599", "q599", ("v", "a"), None, 599, "t599")
    assert len(found) == 600


def test_parquet_maps_a_column_with_a_dot() -> None:
    write_parquet([{"meta.text": "q", "other": 1}])
    (found,) = questions(open_questions("q.parquet", Columns(question="meta.text")))
    assert found.question == "q"


def test_parquet_bad_rows() -> None:
    write_parquet([{"id": i, "question": text} for i, text in enumerate(["a", None, "c"])])
    found = list(open_questions("q.parquet"))
    assert found[1] == BadRow(
        "1",
        1,
        None,
        "Expected a question in column `question`, got nothing, in q.parquet, row 1 - "
        "write one or remove the row",
    )
    assert isinstance(found[2], Question)


def test_parquet_text_that_is_no_utf8_costs_its_row_alone() -> None:
    import pyarrow
    import pyarrow.parquet

    texts = pyarrow.array([b"a", b"\xff", b"c"], pyarrow.binary()).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"question": texts}), "q.parquet")
    found = list(open_questions("q.parquet"))
    assert [type(row) for row in found] == [Question, BadRow, Question]


def test_parquet_that_is_none() -> None:
    Path("q.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(
        InputError,
        match=r"^Expected an Apache Parquet file, got what cannot be read as one \(.+ "
        r"in q\.parquet - check that the file is whole$",
    ):
        open_questions("q.parquet")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "q.txt",
            "Expected `demo`, `demo:all`, `demo:N`, hf:REPO/CONFIG/SPLIT or a .jsonl, .json, "
            ".csv, .tsv or .parquet file, got `q.txt`, in `questions` - write one JSON object a "
            'line, such as {"question": "who?"}, and name it .jsonl',
        ),
        (
            "demos",
            "Expected `demo`, `demo:all`, `demo:N`, hf:REPO/CONFIG/SPLIT or a .jsonl, .json, "
            ".csv, .tsv or .parquet file, got `demos`, in `questions` - rename or convert the "
            "file",
        ),
        (
            "no.jsonl",
            "Expected the file `no.jsonl`, got no such file, in `questions` - check the path",
        ),
        (
            "folder.csv",
            "Expected the file `folder.csv`, got a folder, in `questions` - check the path",
        ),
        (
            "empty.jsonl",
            "Expected rows with questions, got none, in empty.jsonl - "
            "check that it is the right one",
        ),
        (
            "empty.csv",
            "Expected rows with questions, got none, in empty.csv - check that it is the right one",
        ),
    ],
)
def test_files_that_will_not_do(spec: str, message: str) -> None:
    Path("folder.csv").mkdir()
    Path("empty.jsonl").write_text("\n \n")
    Path("empty.csv").write_text("id,question\n")
    with pytest.raises(InputError) as caught:
        open_questions(spec)
    assert str(caught.value) == message


def test_extension_in_capitals() -> None:
    assert open_questions(write_jsonl([GOOD], "Q.JSONL")).name == "Q"


def test_no_question_column_is_one_error() -> None:
    write_jsonl([{"text": "q", "gold": "x"}] * 1800)
    with pytest.raises(InputError) as caught:
        open_questions("q.jsonl")
    assert str(caught.value) == (
        "Expected a column `question` or `query` or `prompt` or `question_stem`, got the columns "
        "`text`, `gold`, in q.jsonl - name one of those with `question_column`"
    )


def test_a_mapped_column_must_exist() -> None:
    write_jsonl([GOOD])
    with pytest.raises(InputError) as caught:
        open_questions("q.jsonl", Columns(context="story"))
    assert str(caught.value) == (
        "Expected the column `story`, as `context_column` says, got the columns `id`, "
        "`question`, `answers`, in q.jsonl - name one of those with `context_column`"
    )


def test_a_file_of_bad_rows_alone_is_one_error() -> None:
    Path("q.jsonl").write_text('[\n{"question": "a"},\n'.replace("{", "[").replace("}", "]"))
    with pytest.raises(InputError) as caught:
        open_questions("q.jsonl")
    assert str(caught.value) == (
        "Expected questions, got 2 bad rows and no good one at the beginning, in q.jsonl - "
        "fix the file; the first says: Expected one JSON object on the line, got invalid JSON "
        "(Expecting value at column 2), in q.jsonl, line 1 - fix or remove the line"
    )


# Bad rows


@pytest.mark.parametrize(
    ("row", "error"),
    [
        (
            "{oops",
            "Expected one JSON object on the line, got invalid JSON (Expecting property name "
            "enclosed in double quotes at column 2), in q.jsonl, line 2 - fix or remove the line",
        ),
        (
            "[1, 2]",
            "Expected one JSON object on the line, got a list of 2, in q.jsonl, line 2 - "
            "fix or remove the line",
        ),
        (
            {"id": "b"},
            "Expected a question in column `question`, got nothing, in q.jsonl, line 2 - "
            "write one or remove the row",
        ),
        (
            {"question": " \n"},
            "Expected a question in column `question`, got empty text, in q.jsonl, line 2 - "
            "write one or remove the row",
        ),
        (
            {"question": 5},
            "Expected text as question in column `question`, got the number 5, in q.jsonl, line "
            "2 - fix the row, or map another column with `question_column`",
        ),
        (
            {"question": "q", "id": True},
            "Expected text or a whole number as id in column `id`, got true, in q.jsonl, line 2 "
            "- fix the row, map another column with `id_column`, or leave it out with "
            "`id_column='none'`",
        ),
        (
            {"question": "q", "context": {"title": "t", "lines": ["s"]}},
            "Expected text, or paragraphs of text, as context in column `context`, got an object "
            "with `title`, `lines`, in q.jsonl, line 2 - fix the row, map another column with "
            "`context_column`, or leave the context out with `context_column='none'`",
        ),
        (
            {"question": "q", "answers": [["x"]]},
            "Expected answers in column `answers` as text, a number, true, false, or a list of "
            "those, got a list of 1, in q.jsonl, line 2 - fix the row, map another column with "
            "`answers_column`, or leave the answers out with `answers_column='none'`",
        ),
        (
            {"question": "q", "answers": {"gold": "x"}},
            "Expected answers in column `answers` as an object with `value` and `aliases`, or "
            "`text`, got an object with `gold`, in q.jsonl, line 2 - write a list of texts, map "
            "another column with `answers_column`, or leave the answers out with "
            "`answers_column='none'`",
        ),
        (
            '{"question": "half \\ud800"}',
            "Expected text in UTF-8 in column `question`, got a character or byte that is not "
            "UTF-8 at position 5, in q.jsonl, line 2 - save the file as UTF-8, as with iconv -f "
            "LATIN1 -t UTF-8, or fix the row",
        ),
        (
            '{"question": "q", "answers": NaN}',
            "Expected answers in column `answers` as text, a number, true, false, or a list of "
            "those, got the number nan, in q.jsonl, line 2 - fix the row, map another column "
            "with `answers_column`, or leave the answers out with `answers_column='none'`",
        ),
        (
            '{"question": ' + "1" * 5000 + "}",
            "Expected one JSON object on the line, got JSON beyond what can be read, "
            "in q.jsonl, line 2 - fix or remove the line",
        ),
    ],
)
def test_bad_rows(row: Any, error: str) -> None:
    assert bad(row) == error


def test_json_nested_too_deep() -> None:
    assert "got JSON beyond what can be read" in bad("[" * 200_000)


def test_a_line_that_is_no_utf8() -> None:
    Path("q.jsonl").write_bytes(b'{"question": "a"}\n{"question": "\xff"}\n{"question": "c"}\n')
    found = list(open_questions("q.jsonl"))
    assert found[1] == BadRow(
        None,
        1,
        2,
        "Expected one JSON object on the line, got bytes that are not UTF-8 at position 14, "
        "in q.jsonl, line 2 - save the file as UTF-8, as with iconv -f LATIN1 -t UTF-8, or fix "
        "the line",
    )
    assert found[2] == Question(default_id("c", None), "c", (), None, 2, default_id("c", None))


def test_a_bad_row_keeps_its_id() -> None:
    write_jsonl([GOOD, {"id": "b", "question": None}, {"question": None}])
    assert [row.id for row in open_questions("q.jsonl")] == ["good", "b", None]


# Duplicates


def test_identical_duplicates_are_merged_and_counted_anew_on_each_pass() -> None:
    write_jsonl([GOOD, {"id": "o", "question": "other"}, GOOD, GOOD])
    source = open_questions("q.jsonl")
    for _ in range(2):
        assert [(q.id, q.index) for q in questions(source)] == [("good", 0), ("o", 1)]
        assert source.merged == 2


def test_duplicates_without_ids_are_found_by_content() -> None:
    write_jsonl([{"question": "a"}, {"question": "b"}, {"question": "a"}])
    source = open_questions("q.jsonl")
    assert [q.id for q in questions(source)] == [default_id("a", None), default_id("b", None)]
    assert source.merged == 1


def test_one_id_with_two_contents() -> None:
    write_jsonl([GOOD, GOOD | {"answers": ["you"]}, GOOD])
    source = open_questions("q.jsonl")
    first, second = source
    assert isinstance(first, Question)
    assert second == BadRow(
        "good",
        1,
        2,
        "Expected one content for the id `good`, got another than in an earlier row, which "
        "stays, in q.jsonl, line 2 - give the row an id of its own or remove it",
    )
    assert source.merged == 1


def test_a_question_without_id_and_with_other_answers_is_a_conflict() -> None:
    write_jsonl([{"question": "a", "answer": "x"}, {"question": "a", "answer": "y"}])
    first, second = open_questions("q.jsonl")
    assert isinstance(first, Question) and first.references == ("x",)
    assert isinstance(second, BadRow)
    assert second.error == (
        "Expected one content for one question, got another than in an earlier row, which stays, "
        "in q.jsonl, line 2 - give the row an id of its own or remove it"
    )


# Digest and identity


def test_digest_covers_all_but_the_index() -> None:
    question = Question("a", "q", ("x",), "c", 0, "g", ("r", (1, 2)))
    assert len(question.digest()) == 32
    assert replace(question, index=5).digest() == question.digest()
    others = [
        replace(question, id="b"),
        replace(question, question="p"),
        replace(question, references=()),
        replace(question, context=None),
        replace(question, group="h"),
        replace(question, responses=("r",)),
        replace(question, responses=("r", (1,), (2,))),
    ]
    assert len({question.digest(), *(other.digest() for other in others)}) == 8


def test_digest_is_the_same_for_ever() -> None:
    question = Question("a", "wer?", ("é",), None, 3, "a")
    canonical = (
        '{"choices":[],"context":null,"generators":[],"group":"a","id":"a","incorrect_answers":[],'
        '"question":"wer?","references":["é"],"responses":[],"spans":[]}'
    )
    assert question.digest() == hashlib.sha256(canonical.encode()).digest()


def test_identity_and_names() -> None:
    Path("deep").mkdir()
    write_jsonl([GOOD], "deep/nq-open.jsonl")
    source = open_questions("deep/nq-open.jsonl", Columns(question="question"))
    assert source.name == "nq-open"
    assert source.identity() == {
        "kind": "file",
        "spec": "nq-open.jsonl",
        "columns": {"question": "question"},
    }
    assert open_questions("deep/nq-open.jsonl").identity() == {
        "kind": "file",
        "spec": "nq-open.jsonl",
    }


# The small model's questions


@pytest.fixture
def _demo(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"id": f"{i}", "question": f"q{i}", "answers": ["a"], "group": "town", "held_out": True}
        for i in range(500)
    ]
    monkeypatch.setattr(hallutrace.demo, "read_questions", lambda count=None: rows[:count])


@pytest.mark.usefixtures("_demo")
@pytest.mark.parametrize(
    ("spec", "name", "count"),
    [("demo", "demo", 400), ("demo:all", "demo-all", 500), ("demo:50", "demo-50", 50)],
)
def test_demo(spec: str, name: str, count: int) -> None:
    source = open_questions(spec)
    assert (source.name, source.total) == (name, count)
    assert source.identity() == {"kind": "demo", "spec": spec}
    found = questions(source)
    assert len(found) == count
    assert found[3] == Question("3", "q3", ("a",), None, 3, "town")


@pytest.mark.usefixtures("_demo")
@pytest.mark.parametrize("spec", ["demo:0", "demo:-1", "demo:", "demo:x", "demo:²"])
def test_demo_that_will_not_do(spec: str) -> None:
    with pytest.raises(InputError) as caught:
        open_questions(spec)
    assert str(caught.value) == (
        f"Expected `demo`, `demo:all` or `demo:N` with N a positive whole number, got `{spec}`, "
        "in `questions` - write it as in demo:50"
    )


@pytest.mark.usefixtures("_demo")
def test_demo_has_no_more() -> None:
    with pytest.raises(InputError) as caught:
        open_questions("demo:501")
    assert str(caught.value) == (
        "Expected at most 500 demo questions, got 501, in `questions` - ask for demo:all"
    )


@pytest.mark.usefixtures("_demo")
def test_demo_takes_no_columns() -> None:
    with pytest.raises(InputError, match=r"^Expected no columns to map, got `id_column`"):
        open_questions("demo", Columns(id="id"))


# Responses


def responses(rows: list[Any]) -> QuestionSource:
    return open_responses(write_jsonl(rows, "said.jsonl"))


@pytest.mark.parametrize(
    "name", ["response", "responses", "completion", "output", "generated_answer"]
)
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("me", ("me",)),
        ([5, 0, 7], ((5, 0, 7),)),
        (["me", "you", "me"], ("me", "you", "me")),
        ([[1, 2], [3]], ((1, 2), (3,))),
        (["me", [1, 2]], ("me", (1, 2))),
    ],
)
def test_responses(name: str, value: Any, expected: tuple[Any, ...]) -> None:
    (found,) = questions(responses([GOOD | {name: value}]))
    assert found == Question("good", "who?", ("me",), None, 0, "good", expected)


@pytest.mark.parametrize(
    ("value", "got"),
    [
        ("", "empty text"),
        (None, "nothing"),
        (7, "the number 7"),
        ([], "an empty list"),
        (["me", ""], "empty text"),
        ([[1], []], "an empty list"),
        ([1, -2], "a list with the number -2"),
        ([1, True], "a list with true"),
        ([1, 2.0], "a list with the number 2.0"),
        ([1, 2**31], "a list with the number 2147483648"),
        ([1, "me"], "the number 1"),
        ({"text": "me"}, "an object with `text`"),
    ],
)
def test_bad_responses(value: Any, got: str) -> None:
    row = GOOD | {"response": value}
    first, second = responses([GOOD | {"id": "a", "response": "me"}, row])
    assert isinstance(first, Question)
    assert second == BadRow(
        "good",
        1,
        2,
        f"Expected a response in column `response` as text or a list of token ids "
        f"(0 to 2147483647), got {got}, in said.jsonl, line 2 - write the answer or remove "
        "the row",
    )


def test_consecutive_rows_are_samples_even_when_they_say_the_same() -> None:
    source = responses(
        [
            GOOD | {"response": "me"},
            "{oops",
            {"id": "good", "question": "who?", "response": "me"},
            GOOD | {"response": ["you", [1, 2]]},
            {"id": "b", "question": "what?", "response": [3]},
        ]
    )
    first, broken, second = source
    assert first == Question("good", "who?", ("me",), None, 0, "good", ("me", "me", "you", (1, 2)))
    assert isinstance(broken, BadRow) and broken.line == 2
    assert second == Question("b", "what?", (), None, 4, "b", ((3,),))
    assert source.merged == 0


def test_rows_without_ids_are_gathered_by_question_and_context() -> None:
    rows = [("a", "c"), ("a", "c"), ("a", "d"), ("b", "d"), ("b", "d")]
    found = questions(responses([{"question": q, "context": c, "response": "x"} for q, c in rows]))
    assert [(q.id, q.context, len(q.responses)) for q in found] == [
        (default_id("a", "c"), "c", 2),
        (default_id("a", "d"), "d", 1),
        (default_id("b", "d"), "d", 2),
    ]


def test_samples_that_lie_apart() -> None:
    rows = [{"id": i, "question": f"{i}?", "response": r} for i, r in ["ax", "bx", "ay", "az"]]
    source = responses(rows)
    found = list(source)
    assert [row.id for row in found] == ["a", "b", "a", "a"]
    assert [row.error for row in found if isinstance(row, BadRow)] == [
        "Expected all rows of the id `a` one after another, got a row of it after other "
        f"questions, in said.jsonl, line {line} - sort the file by id"
        for line in (3, 4)
    ]


def test_samples_without_ids_that_lie_apart() -> None:
    *_, last = responses([{"question": q, "response": r} for q, r in ["ax", "bx", "ay"]])
    assert isinstance(last, BadRow)
    assert last.error.startswith("Expected all rows of one question one after another, got")


def test_answered_questions_that_come_twice_are_merged() -> None:
    rows = [{"id": i, "question": f"{i}?", "response": r} for i, r in ["ax", "ay", "bx"]]
    source = responses(rows + rows)
    assert [q.responses for q in questions(source)] == [("x", "y"), ("x",)]
    assert source.merged == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [("question", "whom?"), ("context", "c"), ("answers", ["you"]), ("group", "g")],
)
def test_samples_that_contradict(name: str, value: Any) -> None:
    said = GOOD | {"response": "me"}
    first, second = responses([said, said | {name: value}])
    assert isinstance(first, Question) and first.responses == ("me",)
    field = "references" if name == "answers" else name
    assert second == BadRow(
        "good",
        1,
        2,
        f"Expected the same {field} in all rows of the id `good`, got another than in the first "
        "one, which stays, in said.jsonl, line 2 - give the row an id of its own or remove it",
    )


def test_responses_in_csv() -> None:
    write_csv(
        [
            ["id", "question", "response"],
            ["a", "q", "[1] says so"],
            ["a", "q", "[1, 2]"],
            ["a", "q", '["me", "you"]'],
        ]
    )
    (found,) = questions(open_responses("q.csv"))
    assert found.responses == ("[1] says so", (1, 2), "me", "you")


def test_responses_in_parquet() -> None:
    write_parquet([{"id": "a", "question": "q", "completion": [[1, 2], [3]]}])
    source = open_responses("q.parquet")
    assert [q.responses for q in questions(source)] == [((1, 2), (3,))]
    assert source.identity() == {"kind": "responses", "spec": "q.parquet"}


def test_responses_must_be_there() -> None:
    with pytest.raises(InputError) as caught:
        responses([GOOD])
    assert str(caught.value) == (
        "Expected a column `response` or `responses` or `completion` or `output` or "
        "`generated_answer`, got the columns `id`, `question`, `answers`, in said.jsonl - name "
        "one of those with `response_column`"
    )


def test_responses_come_from_files() -> None:
    with pytest.raises(InputError) as caught:
        open_responses("demo")
    assert str(caught.value) == (
        "Expected a .jsonl, .json, .csv, .tsv or .parquet file, got `demo`, in `responses` - "
        "rename or convert the file"
    )


def test_response_column_of_questions_is_a_mistake() -> None:
    with pytest.raises(InputError) as caught:
        open_questions(write_jsonl([GOOD]), Columns(response="said"))
    assert str(caught.value) == (
        "Expected no column of responses among questions, got `response_column='said'`, in "
        "`questions='q.jsonl'` - give the file with `responses`"
    )


# The hub, by local data sets in its layout


def make_triviaqa(folder: str) -> None:
    rows = [
        {
            "question": f"q{i}",
            "question_id": f"tc_{i // 2}",
            "question_source": "http://www.triviacountry.com/",
            "entity_pages": [{"title": "t", "wiki_context": "long"}],
            "answer": {"aliases": ["b"], "normalized_aliases": ["a"], "value": "a", "type": "x"},
        }
        | {"question": f"q{i // 2}"}
        for i in range(6)
    ]
    write_parquet(rows, f"{folder}/rc.nocontext/train-00000-of-00001.parquet")
    write_parquet(rows[:1], f"{folder}/rc/train-00000-of-00001.parquet")
    Path(folder, "README.md").write_text(
        "---\nconfigs:\n"
        "- config_name: rc.nocontext\n  data_files:\n"
        "  - split: train\n    path: rc.nocontext/train-*\n"
        "- config_name: rc\n  data_files:\n"
        "  - split: train\n    path: rc/train-*\n"
        "---\n"
    )


def test_hub_triviaqa() -> None:
    make_triviaqa("mandarjoshi/trivia_qa")
    spec = "hf:mandarjoshi/trivia_qa/rc.nocontext/train"
    source = open_questions(spec)
    assert source.name == "trivia_qa"
    assert source.identity() == {"kind": "hub", "spec": spec}
    for _ in range(2):
        found = questions(source)
        assert source.merged == 3
        assert found[2] == Question("tc_2", "q2", ("a", "b"), None, 4, "tc_2")
        assert len(found) == 3


def test_hub_nq_open_has_one_configuration() -> None:
    rows = [{"question": "q", "answer": ["a", "b"]}, {"question": " ", "answer": []}]
    write_jsonl(rows, "google/nq_open/validation.jsonl")
    good, wrong = open_questions("hf:google/nq_open/validation")
    made = default_id("q", None)
    assert good == Question(made, "q", ("a", "b"), None, 0, made)
    assert wrong == BadRow(
        None,
        1,
        None,
        "Expected a question in column `question`, got empty text, in "
        "hf:google/nq_open/validation, row 1 - write one or remove the row",
    )


def test_hub_folder_by_its_path(tmp_path: Path) -> None:
    make_triviaqa("one/two/three")
    source = open_questions(f"hf:{tmp_path}/one/two/three/rc.nocontext/train")
    assert (source.name, len(questions(source))) == ("three", 3)
    write_jsonl([GOOD], "plain/test.jsonl")
    assert len(questions(open_questions("hf:./plain/default/test"))) == 1


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("hf:owner/name/config/split", ("owner/name", "config", "split")),
        ("hf:owner/name/split", ("owner/name", None, "split")),
        ("hf:/a/b/config/split", ("/a/b", "config", "split")),
        ("hf:./b/config/split", ("b", "config", "split")),
        ("hf:a/b/c/config/split", ("a/b/c", "config", "split")),
    ],
)
def test_hub_specs(spec: str, parts: tuple[str, str | None, str]) -> None:
    assert parse_spec(spec) == parts


@pytest.mark.parametrize(
    "spec", ["hf:", "hf:name", "hf:name/split", "hf:a//b", "hf:/a/b", "hf:a/b/"]
)
def test_hub_specs_that_will_not_do(spec: str) -> None:
    with pytest.raises(InputError) as caught:
        open_questions(spec)
    assert str(caught.value) == (
        "Expected hf:OWNER/NAME/CONFIG/SPLIT, hf:OWNER/NAME/SPLIT or hf:/FOLDER/CONFIG/SPLIT, "
        f"got `{spec}`, in `questions` - give all parts, as in "
        "hf:mandarjoshi/trivia_qa/rc.nocontext/train"
    )


@pytest.mark.parametrize("wrong", ["rc.wiki/train", "rc/test"])
def test_hub_unknown_configuration_or_split(wrong: str) -> None:
    make_triviaqa("mandarjoshi/trivia_qa")
    spec = f"hf:mandarjoshi/trivia_qa/{wrong}"
    config, split = wrong.split("/")
    with pytest.raises(InputError) as caught:
        open_questions(spec)
    message = str(caught.value)
    assert message.startswith(
        f"Expected the split `{split}` of the configuration `{config}` of the data set "
        "`mandarjoshi/trivia_qa`, got ValueError: "
    )
    assert f", in `questions={spec!r}` - check configuration and split (the forms are " in message


def test_hub_errors_are_input_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    monkeypatch.setattr("time.sleep", lambda _: None)

    def failing(error: Exception) -> str:
        def load_dataset(*args: object, **kwargs: object) -> None:
            raise error

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        with pytest.raises(InputError) as caught:
            open_questions("hf:owner/name/train")
        return str(caught.value)

    assert failing(ConnectionError("no route\nto host")) == (
        "Expected the split `train` of the data set `owner/name`, got ConnectionError: no route "
        "to host, in `questions='hf:owner/name/train'` - check the network, or put the data set "
        "into a .jsonl or .parquet file"
    )
    assert "log in with `hf auth login`" in failing(DatasetNotFoundError("'x' is a gated dataset"))
    assert "- check the name (the forms are " in failing(DatasetNotFoundError("doesn't exist"))


def test_hub_stream_that_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def rows() -> Any:
        yield from ({"question": f"q{i}"} for i in range(150))
        raise ConnectionError("gone")

    stream = datasets.IterableDataset.from_generator(rows)
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: stream)
    source = open_questions("hf:owner/name/train")
    with pytest.raises(InputError) as caught:
        list(source)
    assert str(caught.value) == (
        "Expected row 150 of the data set, got ConnectionError: gone, in hf:owner/name/train - "
        "check the network and run the same command again"
    )


# Packages


@pytest.mark.parametrize(
    ("package", "spec", "purpose"),
    [
        ("pyarrow", "q.parquet", "questions in Parquet"),
        ("datasets", "hf:owner/name/train", "questions from the hub"),
    ],
)
def test_missing_packages(
    package: str, spec: str, purpose: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("q.parquet").touch()
    for name in list(sys.modules):
        if name.split(".")[0] == package:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError) as caught:
        open_questions(spec)
    assert str(caught.value) == (
        f"Expected the package `{package}` for {purpose}, got no such package - "
        'pip install "hallutrace[data]"'
    )


def test_importing_takes_the_standard_library_alone() -> None:
    code = (
        "import sys, hallutrace.questions\n"
        "heavy = {'torch', 'transformers', 'datasets', 'pyarrow', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    environment = {"PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


# Any question survives being written and read

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
spoken = texts.filter(lambda text: bool(text.strip()))
answers = st.one_of(spoken, st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=4).map(tuple))


@st.composite
def any_questions(draw: st.DrawFn) -> list[Question]:
    ids = draw(st.lists(spoken, min_size=1, max_size=6, unique=True))
    return [
        Question(
            id=name,
            question=draw(spoken),
            references=tuple(draw(st.lists(spoken, max_size=3, unique=True))),
            context=draw(st.none() | spoken),
            index=index,
            group=draw(st.just(name) | spoken),
            responses=tuple(draw(st.lists(answers, min_size=1, max_size=3))),
        )
        for index, name in enumerate(ids)
    ]


@settings(deadline=None)
@given(any_questions(), st.booleans())
def test_jsonl_round_trip(tmp_path_factory: Any, asked: list[Question], ascii_only: bool) -> None:
    path = tmp_path_factory.mktemp("any") / "q.jsonl"
    with path.open("w", encoding="utf-8", newline="\n") as lines:
        for item in asked:
            row = {
                "id": item.id,
                "question": item.question,
                "answers": item.references,
                "context": item.context,
                "group": item.group,
                "responses": item.responses,
            }
            lines.write(json.dumps(row, ensure_ascii=ascii_only) + "\n")
    assert list(open_responses(str(path))) == asked
    plain = [replace(item, responses=()) for item in asked]
    assert list(open_questions(str(path))) == plain
