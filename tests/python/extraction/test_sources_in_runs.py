"""What sources are to those who extract, plan, merge and label: lines, failures, ids, options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import hallutrace
from conftest import Command, Extract, write_lines
from hallutrace import ExtractConfig
from hallutrace.errors import InputError
from hallutrace.labels import label_from, read
from hallutrace.progress import Silent
from hallutrace.questions import open_questions
from hallutrace.questions.row_parsing import default_id


class Notes(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_extract_says_at_the_start_what_it_understood(
    run_extract: Extract, questions: Path
) -> None:
    write_lines(questions, [{"question": "who?", "[red]": 1, "gold": "a"}] * 2)
    notes = Notes()
    summary = run_extract(notes)
    assert notes.notes == open_questions(str(questions)).describe()
    assert notes.notes[0].endswith("not read: `[red]`, `gold`.")
    assert notes.notes[1].startswith("Warning: no right answers in the first 2 rows")
    assert summary.merged == 1


def test_the_command_prints_it_as_it_is(
    command: Command, checkpoint: Path, questions: Path, tmp_path: Path
) -> None:
    write_lines(questions, [{"question": "who?", "[/red]": 1, "context": {"a": 1}, "answer": True}])
    options = ["--model", checkpoint, "--questions", questions, "--max-new-tokens", "2"]
    code, _, err = command("extract", *options, "--out", tmp_path / "run")
    assert code == 2 and "--context-column none" in err
    options += ["--context-column", "none"]
    code, _, err = command("extract", *options, "--out", tmp_path / "run")
    assert code == 0
    assert "right answers from `answer`; not read: `[/red]`, `context`." in err
    assert "Right answers in 1 of the first 1 rows. All are yes or no" in err
    code, out, _ = command("plan", *options)
    assert code == 0 and "not read: `[/red]`, `context`." in out
    code, out, _ = command("plan", *options, "--json")
    assert (
        json.loads(out)["source"]
        == open_questions(str(questions), columns_off("context")).describe()
    )


def columns_off(field: str) -> Any:
    from hallutrace.questions import Columns

    return Columns(**{field: "none"})


def test_a_column_that_is_off_is_part_of_the_identity(
    run_extract: Extract, questions: Path, tmp_path: Path
) -> None:
    run_extract(answers_column="none")
    run = hallutrace.open(tmp_path / "run")
    assert run.manifest.identity["source"]["columns"] == {"answers": "none"}
    assert [trace.references for trace in run] == [[]] * 7
    with pytest.raises(InputError, match=r"source\.columns"):
        run_extract()


@pytest.mark.parametrize("column", ["question_column", "response_column"])
def test_columns_that_are_needed_cannot_be_turned_off(column: str) -> None:
    with pytest.raises(InputError) as caught:
        ExtractConfig.from_options({column: "none"})
    assert str(caught.value) == (
        f"Expected `{column}` to be the name of a column, which cannot be left out, got 'none' - "
        f"change `{column}`"
    )


def test_rows_that_contradict_another_are_counted_as_failures(
    run_extract: Extract, questions: Path, tmp_path: Path
) -> None:
    rows = [{"id": "a", "question": "who?"}, {"id": "a", "question": "what?"}]
    write_lines(questions, [*rows, {"question": "why?"}, {"question": "why?", "answer": "x"}])
    summary = run_extract()
    assert (summary.traces, summary.failures) == (2, 2)
    assert run_extract(retry_failed=True).failures == 2


def test_a_quote_that_is_never_closed_is_a_failure_of_the_run(
    run_extract: Extract, tmp_path: Path
) -> None:
    lines = [f"who is {number}?,a" for number in range(9)]
    lines[4] = 'who is 4?,"a'
    (tmp_path / "q.csv").write_text("question,answer\n" + "\n".join(lines))
    summary = run_extract(questions=str(tmp_path / "q.csv"))
    assert (summary.traces, summary.failures) == (4, 1)
    (line,) = (tmp_path / "run" / "failures.jsonl").read_text().splitlines()
    assert "lines 6 to 10 are not read, in q.csv, line 6" in json.loads(line)["error"]


def test_runs_of_questions_without_ids_are_merged(run_extract: Extract, tmp_path: Path) -> None:
    questions = {"one": ["who?", "why?"], "two": ["when?", "where?"], "again": ["how?", "who?"]}
    for name, asked in questions.items():
        path = write_lines(tmp_path / f"{name}.jsonl", [{"question": text} for text in asked])
        run_extract(questions=str(path), out=tmp_path / name)
    merged = hallutrace.merge([tmp_path / "one", tmp_path / "two"], tmp_path / "both")
    asked = ["who?", "why?", "when?", "where?"]
    assert [trace.id for trace in merged] == [default_id(text, None) for text in asked]
    with pytest.raises(InputError, match="Expected each question once"):
        hallutrace.merge([tmp_path / "one", tmp_path / "again"], tmp_path / "twice")


@pytest.mark.parametrize("content", ["q1\nq5", "q1\nq5\n", "\ufeffq1\r\nq5\r\n\r\n"])
def test_a_file_of_ids_loses_none(
    run_extract: Extract, command: Command, tmp_path: Path, content: str
) -> None:
    run_extract()
    (tmp_path / "ids").write_bytes(content.encode())
    code, _, err = command(
        "subset", tmp_path / "run", "--ids", f"@{tmp_path / 'ids'}", "--out", tmp_path / "part"
    )
    assert (code, err) == (0, "")
    assert [trace.id for trace in hallutrace.open(tmp_path / "part")] == ["q1", "q5"]


def test_a_file_of_ids_that_is_no_text(
    run_extract: Extract, command: Command, tmp_path: Path
) -> None:
    run_extract()
    (tmp_path / "ids").write_bytes(b"q\xe9\n")
    code, _, err = command(
        "subset", tmp_path / "run", "--ids", f"@{tmp_path / 'ids'}", "--out", tmp_path / "part"
    )
    assert code == 2 and "got text that is not UTF-8 at" in err


def test_labels_are_read_as_questions_are(run_extract: Extract, tmp_path: Path) -> None:
    rows = [{"id": number, "question": f"who is {number}?"} for number in range(3)]
    path = write_lines(tmp_path / "numbered.jsonl", rows)
    run_extract(questions=str(path))
    given = tmp_path / "given.json"
    given.write_text(json.dumps([{"id": 0.0, "label": 1}, {"id": 1, "label": 0}]))
    label_from(tmp_path / "run", given)
    assert list(read(tmp_path / "run", "given").values()) == [1, 0, None]
    broken = tmp_path / "broken.tsv"
    broken.write_text('id\tlabel\n0\t1\n1\t"0\n2\t1\n')
    with pytest.raises(InputError, match=r"lines 3 to 4 are not read, in broken\.tsv, line 3"):
        label_from(tmp_path / "run", broken)
