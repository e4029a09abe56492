"""Files as people make them: every row is read right or named, and a file is what it says."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from hallutrace.errors import InputError
from hallutrace.questions import BadRow, Question, open_questions, open_responses
from hallutrace.questions.file_formats import open_file

QUOTES_FIX = 'close the quote, and write quotes within a cell twice ("")'


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(content: str | bytes, name: str = "q.csv") -> str:
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return name


def read(content: str | bytes, name: str = "q.csv") -> tuple[list[str], list[tuple[int, str]]]:
    """Questions, and bad rows by line."""
    asked, bad = [], []
    for row in open_questions(written(content, name)):
        if isinstance(row, Question):
            asked.append(row.question)
        else:
            assert row.line is not None
            bad.append((row.line, row.error))
    return asked, bad


def refusal(content: str | bytes, name: str = "q.csv") -> str:
    with pytest.raises(InputError) as caught:
        open_questions(written(content, name))
    return str(caught.value)


# Quotes -------------------------------------------------------------------------------------------


def test_an_unclosed_quote_is_a_failure_that_names_its_line() -> None:
    rows = [f"q{number},a{number}" for number in range(300)]
    rows[149] = 'q149,"a149'
    asked, bad = read("question,answer\n" + "\n".join(rows) + "\n")
    assert asked == [f"q{number}" for number in range(149)]
    assert bad == [
        (
            151,
            "Expected a row whose quotes are closed, got a quote that opens in it and is never "
            f"closed; lines 151 to 301 are not read, in q.csv, line 151 - {QUOTES_FIX}",
        )
    ]


def test_an_unclosed_quote_that_another_quote_closes() -> None:
    lines = ["question,answer", "a,x", 'b,"y', "c,z", '"d, e",w', '"f\ng",v', "h,u", ""]
    asked, bad = read("\n".join(lines))
    assert asked == ["a"]
    assert bad == [
        (
            3,
            "Expected a row whose quotes are closed, got a quote that opens in it and closes in "
            "line 5, within a cell; lines 3 to 8 are not read, in q.csv, line 3 - " + QUOTES_FIX,
        )
    ]


def test_the_line_is_where_the_quote_opens_not_where_the_row_begins() -> None:
    _, bad = read('question,answer\na,x\n"two\nlines","open\nb,y\n')
    assert [line for line, _ in bad] == [4]
    assert "lines 3 to 5 are not read" in bad[0][1]


def test_a_quote_that_is_wrong_within_one_line_costs_that_line_alone() -> None:
    asked, bad = read('question,answer\na,x\n"b"c,y\nd,z\n')
    assert (asked, [line for line, _ in bad]) == (["a", "d"], [3])
    assert bad[0][1].startswith(
        "Expected a row whose quotes are closed, got a quote that opens in it and closes within a "
        "cell, in q.csv, line 3"
    )


def test_a_cell_without_end_is_an_open_quote(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = csv.field_size_limit()
    monkeypatch.setattr("hallutrace.questions.csv_files.LONGEST_CELL", limit)
    asked, bad = read('question,answer\na,x\nb,"' + "y\n" * limit + 'z"\nc,w\n')
    assert asked == ["a"]
    assert [line for line, _ in bad] == [3]
    assert f"a cell of more than {limit:,} characters" in bad[0][1]
    assert f"lines 3 to {limit + 4} are not read" in bad[0][1]


def test_quotes_within_cells() -> None:
    content = 'question,answer\n"who said ""no""?",x\nwho said "no"?,x\n5" wide,x\n6,"y ""\n""",\n'
    asked, bad = read(content)
    assert asked == ['who said "no"?', "6"]
    assert bad == [
        (
            4,
            "Expected quotes in pairs, got an odd number of them, in q.csv, line 4 - "
            'put the cell into quotes and write its quotes twice, as in "5"" wide"',
        )
    ]


def test_a_space_before_a_quote_is_named() -> None:
    _, bad = read('question, answer\na,x\nb, "y"\n')
    assert bad == [
        (
            3,
            "Expected quotes right after the delimiter, got a space before a quote, in q.csv, "
            "line 3 - remove the space",
        )
    ]


# Delimiters, line ends, encodings -----------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize(("name", "delimiter"), [("q.csv", ","), ("q.tsv", "\t")])
def test_line_ends_marks_and_trailing_delimiters(
    end: str, mark: str, name: str, delimiter: str
) -> None:
    rows = [["question", "answer", ""], ["a", "x", ""], ['"b\nc"', "y"], [], ["d", "z", "", ""]]
    content = mark + end.join(delimiter.join(row) for row in rows)
    # The second row has one cell less than the header, whose last column has no name.
    asked, bad = read(content, name)
    assert asked == ["a", "d"]
    assert [error for _, error in bad] == [
        f"Expected 3 cells, as in the header, got 2; lines 3 to 4 are not read, in {name}, line 3 "
        "- put text with delimiters or line breaks into quotes"
    ]


@pytest.mark.parametrize(
    ("content", "name", "error"),
    [
        (
            "id;question;answer\n1;a;x\n",
            "q.csv",
            "Expected columns separated by commas, got columns separated by semicolons, in q.csv, "
            "line 1 - save the file with commas",
        ),
        (
            "id\tquestion\tanswer\n1\ta\tx\n",
            "q.csv",
            "Expected columns separated by commas, got columns separated by tabs, in q.csv, "
            "line 1 - save the file with commas, or rename it to .tsv",
        ),
        (
            "id,question,answer\n1,a,x\n",
            "q.tsv",
            "Expected columns separated by tabs, got columns separated by commas, in q.tsv, "
            "line 1 - save the file with tabs, or rename it to .csv",
        ),
        (
            "sep=;\nid;question\n",
            "q.csv",
            "Expected columns separated by commas, got columns separated by semicolons, in q.csv, "
            "line 1 - save the file with commas",
        ),
    ],
)
def test_other_delimiters_are_named(content: str, name: str, error: str) -> None:
    assert refusal(content, name) == error


def test_a_header_in_latin_1_is_named() -> None:
    assert refusal(b"question,r\xe9ponse\na,x\n").startswith(
        "Expected text in UTF-8 in column `number 2`, got a character or byte that is not UTF-8"
    )


@pytest.mark.parametrize("name", ["q.csv", "q.tsv", "q.jsonl", "q.json"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_named(name: str, encoding: str) -> None:
    content = '{"question": "a", "answer": "x"}\n'.encode(encoding)
    assert refusal(content, name) == (
        f"Expected text in UTF-8, got text in UTF-16, in {name} (`questions`) - save it as UTF-8, "
        "as with iconv -f UTF-16 -t UTF-8"
    )


def test_zero_bytes_cost_their_row() -> None:
    asked, bad = read("question,answer\na,x\nb\0,y\nc,z\n")
    assert (asked, [line for line, _ in bad]) == (["a", "c"], [3])


# Other formats ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("q.jsonl.gz", gzip.compress(b"{}"), "got `q.jsonl.gz`, in `questions` - unpack it, as"),
        ("q.xlsx", b"PK\x03\x04", "got `q.xlsx`, in `questions` - save the sheet as CSV in UTF-8"),
        ("q.pkl", b"", "write it as Parquet, as with pandas.DataFrame.to_parquet"),
        ("q.jsonl", gzip.compress(b"{}"), "got a file that is compressed with gzip, in q.jsonl"),
        ("q.csv", b"PK\x03\x04....", "got a zip or an Excel file, in q.csv (`questions`) - save"),
        ("q.jsonl", b"PAR1....", "got a Parquet file, in q.jsonl (`questions`) - rename it to"),
    ],
)
def test_files_of_other_kinds_are_named(name: str, content: bytes, said: str) -> None:
    assert said in refusal(content, name)


ROWS = [{"question": "a", "answer": "x"}, {"question": "b", "answer": "y"}]


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(ROWS),
        "\ufeff\n " + json.dumps(ROWS, indent=1),
        "".join(json.dumps(row) + "\n" for row in ROWS),
    ],
)
def test_json(content: str) -> None:
    source = open_questions(written(content, "q.json"))
    assert [row.question for row in source if isinstance(row, Question)] == ["a", "b"]
    assert source.total == 2


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (
            '[{"question": "a"},\n {"question" "b"}]',
            "Expected a list of JSON objects, got invalid JSON (Expecting ':' delimiter at line 2, "
            "column 14), in q.json - fix the file",
        ),
        (
            '{\n"data": [{"question": "a"}]\n}',
            "Expected a list of objects, or one object a line, got an object with `data`, in "
            "q.json - write the list in it into a file of its own",
        ),
        (
            '[{"question": "a", "question": "b"}]',
            "Expected a list of JSON objects, got `question` twice in one object, in q.json - "
            "remove one of the two",
        ),
        (
            '["a"]',
            "Expected questions, got 1 bad rows and no good one at the beginning, in q.json - "
            "fix the file; the first says: Expected an object, got the text 'a', in q.json, "
            "row 0 - fix or remove it",
        ),
        (
            "[]",
            "Expected rows with questions, got none, in q.json - check that it is the right one",
        ),
    ],
)
def test_json_that_will_not_do(content: str, error: str) -> None:
    assert refusal(content, "q.json") == error


def test_a_key_twice_on_a_line_is_named() -> None:
    _, bad = read('{"question": "a"}\n{"question": "b", "answer": 1, "answer": 2}\n', "q.jsonl")
    assert bad == [
        (
            2,
            "Expected one JSON object on the line, got `answer` twice in one object, in q.jsonl, "
            "line 2 - fix or remove the line",
        )
    ]


def test_parquet_columns_of_one_name() -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_arrays([["a"], ["b"]], names=["question", "question"])
    pyarrow.parquet.write_table(table, "q.parquet")
    with pytest.raises(InputError, match=r"got `question` more than once, in q\.parquet"):
        open_questions("q.parquet")


def test_the_same_reader_takes_labels_and_responses() -> None:
    content = 'id,question,response,label\na,who?,me,1\nb,who?,"me,0\nc,who?,me,0\n'
    asked, broken = open_responses(written(content, "said.csv"))
    assert isinstance(asked, Question) and isinstance(broken, BadRow)
    assert "is never closed; lines 3 to 4 are not read, in said.csv, line 3" in broken.error
    rows: list[Any] = [row.values for row in open_file("said.csv", "--from").rows()]
    assert isinstance(rows[1], Exception) and len(rows) == 2
