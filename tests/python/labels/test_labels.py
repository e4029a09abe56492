"""Labels of a run: how they come about, how they are kept, and where protocols disagree."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hallutrace
from conftest import RUN_OPTIONS, Command, write_lines
from hallutrace import ExtractConfig, extract
from hallutrace.commands.app import main
from hallutrace.errors import DamagedError, InputError, StorageError
from hallutrace.label_protocols import JUDGES
from hallutrace.labels import agreement, label, label_from, read, read_rows
from hallutrace.labels.agreement import cohen_kappa
from hallutrace.store.trace import Trace

# id, references, answer; labels by exact, contains, f1, rouge-l
ANSWERS: list[tuple[str, list[str], str, tuple[int | None, ...]]] = [
    ("same", ["The Paris", "City of Light"], "Paris!", (0, 0, 0, 0)),
    ("within", ["Paris"], "it was in Paris long ago", (1, 0, 1, 1)),
    ("half", ["New York City"], "York", (1, 1, 0, 0)),
    ("third", ["Paris"], "I say Paris, so it is", (1, 0, 1, 1)),
    ("wrong", ["Paris"], "Rome [or so]", (1, 1, 1, 1)),
    ("bare", [], "東京", (None, None, None, None)),
    ("empty", ["The"], "who", (None, None, None, None)),
]
IDS = [row[0] for row in ANSWERS]


def extract_answers(checkpoint: Path, folder: Path, limit: int | None = None) -> Path:
    """A run of the answers above, in shards of three."""
    rows = [
        {"id": id_, "question": f"what is {id_}?", "answers": references, "response": answer}
        for id_, references, answer, _ in ANSWERS
    ]
    path = write_lines(folder / "answers.jsonl", rows)
    options = {"model": str(checkpoint), "responses": str(path), "out": folder / "run"}
    extract(ExtractConfig.from_options(RUN_OPTIONS | options | {"limit": limit}))
    return folder / "run"


@pytest.fixture(scope="module")
def original(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extract_answers(checkpoint, tmp_path_factory.mktemp("answers"))


@pytest.fixture
def run(original: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return shutil.copytree(original, tmp_path / "run")


@pytest.fixture
def command(command: Command) -> Command:
    """Runs `hallutrace label`: exit code, standard output, standard error."""
    return partial(command, "label")


def labels_of(folder: Path, name: str) -> list[int | None]:
    return list(read(folder, name).values())


def message(call: Callable[[], Any], error: type[Exception] = InputError) -> str:
    with pytest.raises(error) as raised:
        call()
    return str(raised.value)


# By a judge ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("at", "by"), list(enumerate(JUDGES)))
def test_labels_are_those_of_the_judge(run: Path, at: int, by: str) -> None:
    summary = label(run, by)
    assert list(read(run, by)) == [(id_, 0) for id_ in IDS]
    expected = [row[3][at] for row in ANSWERS]
    assert labels_of(run, by) == expected
    assert hallutrace.open(run).labels() == [by]
    assert (summary.hallucinated, summary.right) == (expected.count(1), expected.count(0))
    assert (summary.unjudged, summary.without_references, summary.dropped) == (2, 1, 0)
    assert (summary.new, summary.is_changed) == (7, True)


def test_what_lies_in_the_folder(run: Path) -> None:
    label(run, "f1", drop=(0.25, 0.5))
    lines = (run / "labels" / "f1.jsonl").read_text().splitlines()
    assert lines[2] == '{"id": "half", "sample": 0, "label": null, "score": 0.5}'
    assert lines[4] == '{"id": "wrong", "sample": 0, "label": 1, "score": 0.0}'
    assert lines[5] == '{"id": "bare", "sample": 0, "label": null, "score": null}'
    assert json.loads((run / "labels" / "f1.json").read_text()) == {
        "schema": 1,
        "parameters": {
            "by": "f1",
            "threshold": 0.5,
            "drop": [0.25, 0.5],
            "normalization": "unicode-1",
        },
        "counts": {"traces": 7, "hallucinated": 1, "right": 1, "dropped": 3, "unjudged": 2},
    }
    assert sorted(path.name for path in (run / "labels").iterdir()) == ["f1.json", "f1.jsonl"]


def test_both_normalisations_lie_beside_each_other(run: Path) -> None:
    ours, theirs = label(run, "contains"), label(run, "contains", normalize="triviaqa")
    assert (ours.name, theirs.name) == ("contains", "contains-triviaqa")
    assert theirs.parameters["normalization"] == "triviaqa-1"
    told = json.loads((run / "labels" / "contains-triviaqa.json").read_text())
    assert told["parameters"] == theirs.parameters
    found = agreement(run)
    assert [pair.names for pair in found.pairs] == [("contains", "contains-triviaqa")]
    assert (found.pairs[0].disagreements, found.pairs[0].kappa) == (0, 1.0)


def test_labels_of_the_earlier_rule_can_be_kept(run: Path) -> None:
    label(run, "contains", normalize="triviaqa", name="contains")
    assert message(lambda: label(run, "contains")) == (
        f"Expected labels `contains` with these settings, got others in {run} (normalization "
        "triviaqa-1, asked unicode-1) - choose another `name` (or keep them with "
        "`normalize='triviaqa'` `name='contains'`), or replace them with `overwrite=True`"
    )


def test_labels_that_are_not_there_say_how_they_are_made(run: Path) -> None:
    assert "`hallutrace label " + f"{run} --by f1 --normalize triviaqa`" in message(
        lambda: read(run, "f1-triviaqa")
    )
    assert f"{run} --by f1`" in message(lambda: read(run, "f1"))
    assert f"{run} --from FILE --name anna`" in message(lambda: read(run, "anna"))


@pytest.mark.parametrize(("references", "got"), [
    ([], "7 of 7 traces without any"),
    (["The"], "0 of 7 traces without any, and none of the others that `f1` can judge"),
])  # fmt: skip
def test_a_run_without_right_answers_says_how_to_mend_it(
    run: Path, monkeypatch: pytest.MonkeyPatch, references: list[str], got: str
) -> None:
    meta = Trace.meta.func  # type: ignore[attr-defined]
    bare = property(lambda self: meta(self) | {"references": references})
    monkeypatch.setattr(Trace, "meta", bare)
    assert message(lambda: label(run, "f1")) == (
        f"Expected right answers to judge by, got {got} in {run} - extract again with "
        "`answers_column='NAME'`, the column of right answers, or take the labels of a person or "
        "a judge with `file='FILE'`"
    )
    assert list((run / "labels").iterdir()) == []


def test_a_label_file_with_a_score_that_is_not_finite_is_damage(run: Path) -> None:
    path = run / "labels" / "ben.jsonl"
    for score in ("NaN", "Infinity", "-Infinity", "1e999"):
        path.write_text(f'{{"id": "same", "sample": 0, "label": 1, "score": {score}}}\n')
        assert "`score` that is not finite" in message(lambda: read(run, "ben"), DamagedError)
    path.write_text('{"id": "same", "sample": 0, "label": NaN}\n')
    assert "`label` that is not 1, 0 or null" in message(lambda: read(run, "ben"), DamagedError)


def test_a_score_at_the_threshold_is_right(run: Path) -> None:
    scores = {key[0]: row.score for key, row in read_rows(run, label(run, "f1").name).items()}
    assert (scores["half"], scores["third"]) == (0.5, 2 / 7)
    for threshold, right in [(0.5, 2), (0.51, 1), (2 / 7, 4), (1.0, 1)]:
        summary = label(run, "f1", threshold=threshold, name="at", overwrite=True)
        assert summary.right == right


def test_a_judge_of_ones_own(run: Path) -> None:
    class Shortness:
        name, threshold, is_graded = "short", 0.1, True
        facts = {"version": 3}  # noqa: RUF012

        def score(self, question: str, answer: str, references: Any) -> float | None:
            return None if question == "what is half?" else 1 / len(answer)

    summary = label(run, Shortness())
    assert labels_of(run, "short") == [0, 1, None, 1, 1, 0, 0]
    assert summary.parameters == {"by": "short", "version": 3, "threshold": 0.1, "drop": None}
    Shortness.score = lambda *_: float("nan")  # type: ignore[method-assign]
    assert message(lambda: label(run, Shortness(), name="other")) == (
        "Expected a finite score from the judge, got nan - fix the judge"
    )
    assert hallutrace.open(run).labels() == ["short"]
    assert message(lambda: label(run, Shortness(), normalize="triviaqa")) == (
        "Expected `normalize` with a protocol of hallutrace, got 'triviaqa' with the judge `short` "
        "- let the judge normalise"
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"by": "bleu"},
            "Expected one of exact, contains, f1, rouge-l, got 'bleu' - change `by`, or run the "
            "file that registers it with `hallutrace.plugins.load_plugin`",
        ),
        (
            {"by": "exact", "threshold": 0.5},
            "Expected `threshold` and `drop` with graded scores (f1, rouge-l), got `exact`, "
            "whose scores are 1 and 0 - leave them out",
        ),
        (
            {"by": "f1", "threshold": 0.0},
            "Expected 0 < threshold <= 1, the least score of a right answer, got 0 - change "
            "`threshold`",
        ),
        (
            {"by": "f1", "threshold": float("nan")},
            "Expected 0 < threshold <= 1, the least score of a right answer, got nan - change "
            "`threshold`",
        ),
        (
            {"by": "rouge-l", "drop": (0.4, 0.6)},
            "Expected 0 <= LOW <= threshold <= HIGH <= 1 of scores to drop, got 0.4:0.6 with the "
            "threshold 0.3 - change `drop` or `threshold`",
        ),
        (
            {"by": "f1", "threshold": 1.5},
            "Expected 0 < threshold <= 1, the least score of a right answer, got 1.5 - change "
            "`threshold`",
        ),
        (
            {"by": "f1", "normalize": "bert"},
            "Expected one of unicode, triviaqa, got 'bert' - change `normalize`",
        ),
        (
            {"name": "../mine"},
            "Expected a name of up to 100 letters, digits and . _ + -, got '../mine' as the name "
            "of labels - choose another",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(run: Path, options: dict[str, Any], said: str) -> None:
    assert message(lambda: label(run, **options)) == said
    assert list((run / "labels").iterdir()) == []


@pytest.mark.parametrize("name", ["", ".", "..", "/tmp/x", "a/b", "a\\b", ".hidden", "x" * 101])
def test_no_name_leaves_the_folder(run: Path, name: str) -> None:
    assert "as the name of labels" in message(lambda: label(run, name=name))
    assert "as the name of labels" in message(lambda: read(run, name))


def test_no_link_leaves_the_run(run: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    link = run / "labels" / "mine.jsonl"
    link.symlink_to(tmp_path / "secret")
    said = (
        f"Expected labels within the run, got {link}, a link to somewhere else - put the file "
        "itself there"
    )
    assert message(lambda: read(run, "mine")) == said
    assert message(lambda: label(run, name="mine", overwrite=True)) == said
    assert (tmp_path / "secret").read_text() == "secret"
    link.unlink()
    (run / "labels").rmdir()
    (run / "labels").symlink_to(tmp_path)
    assert "a link to somewhere else" in message(lambda: label(run))
    assert not (tmp_path / "contains.jsonl").exists()


def test_texts_that_are_none_are_damage(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meta = {"id": "q", "sample": 0, "question": "who?", "answer": "it", "references": ["a", 7]}
    monkeypatch.setattr(Trace, "meta", property(lambda self: meta))
    assert message(lambda: label(run), DamagedError) == (
        "Expected a list of texts as `references`, got something else in the trace 'q', sample 0 - "
        "restore its shard from a copy"
    )
    meta |= {"references": ["a"], "answer": None}
    assert "Expected a text as `answer`" in message(lambda: label(run), DamagedError)


# Labels that are there already --------------------------------------------------------------------


def test_the_same_command_changes_nothing(run: Path) -> None:
    label(run, "f1")
    path = run / "labels" / "f1.jsonl"
    before = (path.stat().st_mtime_ns, path.stat().st_ino)
    summary = label(run, "f1")
    assert (summary.new, summary.is_changed) == (0, False)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before


def test_other_parameters_are_refused(run: Path) -> None:
    label(run, "f1")
    path = run / "labels" / "f1.jsonl"
    before = path.read_bytes()
    assert message(lambda: label(run, "f1", threshold=0.7)) == (
        f"Expected labels `f1` with these settings, got others in {run} (threshold 0.5, asked "
        "0.7) - choose another `name`, or replace them with `overwrite=True`"
    )
    assert "(by f1, asked exact" in message(lambda: label(run, "exact", name="f1"))
    assert path.read_bytes() == before
    label(run, "f1", threshold=0.7, overwrite=True)
    assert path.read_bytes() != before
    assert json.loads(path.with_suffix(".json").read_text())["parameters"]["threshold"] == 0.7


def test_a_label_changed_by_hand_is_not_lost(run: Path) -> None:
    path = label(run, "contains").path
    path.write_text(path.read_text().replace('"wrong", "sample": 0, "label": 1', WRONG_IS_RIGHT))
    changed = path.read_bytes()
    assert message(lambda: label(run, "contains")) == (
        f"Expected the labels in {path} to be those of before, got 1 of 7 that would change, "
        "first 'wrong', sample 0 - choose another `name`, or replace them with `overwrite=True`"
    )
    assert path.read_bytes() == changed
    label(run, "contains", overwrite=True)
    assert labels_of(run, "contains")[4] == 1


WRONG_IS_RIGHT = '"wrong", "sample": 0, "label": 0'


def test_a_run_that_grew(checkpoint: Path, tmp_path: Path) -> None:
    run = extract_answers(checkpoint, tmp_path, limit=3)
    label(run, "contains")
    assert len(labels_of(run, "contains")) == 3
    extract_answers(checkpoint, tmp_path)
    summary = label(run, "contains")
    assert (summary.new, summary.traces, summary.is_changed) == (4, 7, True)
    assert list(read(run, "contains")) == [(id_, 0) for id_ in IDS]


def test_a_run_without_traces(run: Path) -> None:
    for path in (run / "shards").iterdir():
        path.unlink()
    assert message(lambda: label(run)) == (
        f"Expected traces to label, got none in {run} - let `hallutrace extract` finish a shard"
    )


@pytest.mark.parametrize("at", range(4))
def test_a_kill_never_leaves_labels_with_a_wrong_origin(
    run: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Stops at each sync of a file or a folder; what is there then says the truth or nothing."""
    label(run, "f1")
    before = (run / "labels" / "f1.jsonl").read_bytes()
    real, calls = os.fsync, []

    def fsync(handle: int) -> None:
        calls.append(handle)
        if len(calls) == at + 1:
            raise KeyboardInterrupt
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(KeyboardInterrupt):
        label(run, "f1", threshold=0.9, overwrite=True)
    monkeypatch.undo()
    told = run / "labels" / "f1.json"
    is_old = (run / "labels" / "f1.jsonl").read_bytes() == before
    if told.exists():
        assert json.loads(told.read_text())["parameters"]["threshold"] == (0.5 if is_old else 0.9)
    assert len(labels_of(run, "f1")) == 7
    label(run, "f1", threshold=0.9, overwrite=True)
    assert labels_of(run, "f1") == [0, 1, 1, 1, 1, None, None]
    assert sorted(path.name for path in (run / "labels").iterdir()) == ["f1.json", "f1.jsonl"]


def test_a_kill_before_the_origin_is_written_heals(run: Path) -> None:
    told = label(run, "f1").path.with_suffix(".json")
    before = told.read_bytes()
    told.unlink()
    assert label(run, "f1").is_changed
    assert told.read_bytes() == before
    told.unlink()
    assert "of 7 that would change" in message(lambda: label(run, "exact", name="f1"))
    assert not told.exists()


def test_a_folder_that_cannot_be_written(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "fsync", refuse)
    path = run / "labels" / "contains.jsonl"
    assert message(lambda: label(run), StorageError) == (
        f"Expected to write the labels {path}, got: Read-only file system - what was there before "
        "is whole; make the folder writable, or copy the run to where it is"
    )
    assert list((run / "labels").iterdir()) == []
    monkeypatch.undo()
    (run / "labels").rmdir()
    (run / "labels").write_text("a file")
    assert "Expected to write the labels" in message(lambda: label(run), StorageError)


# Reading ------------------------------------------------------------------------------------------


def test_labels_that_are_not_there(run: Path) -> None:
    assert message(lambda: read(run, "f1")) == (
        f"Expected the labels `f1` in {run}, got none - make them with `hallutrace label {run} "
        "--by f1`"
    )
    label(run, "exact")
    assert message(lambda: read(run, "anna")) == (
        f"Expected the labels `anna` in {run}, got exact - make them with `hallutrace label {run} "
        "--from FILE --name anna`"
    )


@pytest.mark.parametrize(
    ("line", "got"),
    [
        (b"", "something that is not JSON"),
        (b"{", "something that is not JSON"),
        (b'"\xff"', "something that is not JSON"),
        (b"[" * 100_000, "something that is not JSON"),
        (b"[]", "no JSON object"),
        (b'{"id": 7, "sample": 0, "label": 1}', "`id` that is not text"),
        (b'{"id": "x", "label": 1}', "`sample` that is not a whole number from 0"),
        (b'{"id": "x", "sample": -1, "label": 1}', "`sample` that is not a whole number from 0"),
        (b'{"id": "x", "sample": true, "label": 1}', "`sample` that is not a whole number from 0"),
        (b'{"id": "x", "sample": 0}', "`label` that is not 1, 0 or null"),
        (b'{"id": "x", "sample": 0, "label": 2}', "`label` that is not 1, 0 or null"),
        (b'{"id": "x", "sample": 0, "label": true}', "`label` that is not 1, 0 or null"),
        (b'{"id": "x", "sample": 0, "label": 1.0}', "`label` that is not 1, 0 or null"),
        (b'{"id": "x", "sample": 0, "label": 1, "score": "high"}', "`score` that is not a number"),
        (b'{"id": "x", "sample": 0, "label": 1, "score": NaN}', "`score` that is not finite"),
        (b'{"id": "x", "sample": 0, "label": 1, "score": 1e999}', "`score` that is not finite"),
        (
            b'{"id": "x", "sample": 0, "label": 1, "score": 1' + b"0" * 400 + b"}",
            "`score` that is not finite",
        ),
        (b'{"id": "same", "sample": 0, "label": 1}', "'same', sample 0, again"),
    ],
)
def test_a_row_that_is_none_is_named(run: Path, line: bytes, got: str) -> None:
    path = label(run, "exact").path
    path.write_bytes(path.read_bytes() + line + b"\n")
    assert message(lambda: read(run, "exact"), DamagedError) == (
        'Expected {"id": text, "sample": number, "label": 1, 0 or null, "score": number or null} '
        f"once a trace, got {got} in {path}, line 8 - fix the line, or make the labels again with "
        "`overwrite=True`"
    )
    assert label(run, "exact", overwrite=True).hallucinated == 4


def test_an_origin_that_is_none_is_damage(run: Path) -> None:
    told = label(run, "exact").path.with_suffix(".json")
    for content in ("{", "[]", '{"schema": 2, "parameters": {}}', '{"schema": 1}'):
        told.write_text(content)
        assert "Expected the parameters of labels, of schema 1, got something else" in message(
            lambda: label(run, "exact"), DamagedError
        )


# From a file --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "anna.jsonl",
            '{"id": "same", "label": 0, "score": 1}\n{"id": "within", "sample": 0, "label": true}\n'
            '{"id": "half", "label": "Right", "note": "?"}\n{"id": "third", "label": null}\n'
            '{"id": "same", "label": false, "score": 1.0}\n',
        ),
        (
            "anna.csv",
            "id,label,score,sample\nsame,0,1,\nwithin,hallucinated,,0\nhalf,RIGHT,,\nthird,,,\n",
        ),
        ("anna.csv", "label,id,score\n0.0,same,1e0\n1.0,within,\nfalse,half,\nnull,third,\n"),
    ],
)
def test_labels_of_a_person(run: Path, tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    summary = label_from(run, tmp_path / name)
    assert labels_of(run, "anna") == [0, 1, 0, None, None, None, None]
    assert read_rows(run, "anna")["same", 0].score == 1
    assert (summary.right, summary.hallucinated, summary.unjudged) == (2, 1, 4)
    told = json.loads((run / "labels" / "anna.json").read_text())
    assert told["parameters"] == {"by": "file"}
    assert (told["origin"]["file"], len(told["origin"]["sha256"])) == (name, 64)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "Expected rows with `id` and `label`, got none, in {path} - add some"),
        (
            '{"id": "nobody", "label": 1}\n{"id": "same", "sample": 2, "label": 1}\n',
            "Expected ids and samples of the run's traces, got 2 others of 2: 'nobody' (sample 0), "
            "'same' (sample 2), in {path} - take them out, or give the run they belong to",
        ),
        (
            '{"id": "same", "label": 1}\n{"id": "same", "label": 0}\n',
            "Expected one label of 'same', sample 0, got others in anna.jsonl, line 1 and "
            "anna.jsonl, line 2 - remove one of the rows",
        ),
        (
            '{"id": "same", "label": "maybe"}\n',
            "Expected 1, 0, null, true, false, hallucinated or right in column `label`, got the "
            "text 'maybe', in anna.jsonl, line 1 - fix the row",
        ),
        (
            '{"id": "same", "answer": 1}\n',
            "Expected a column `label`, got `id`, `answer`, in anna.jsonl, line 1 - fix the row",
        ),
        (
            '{"label": 1}\n',
            "Expected a question's id in column `id`, got nothing, in anna.jsonl, line 1 - fix "
            "the row",
        ),
        (
            '{"id": "same", "label": 1, "sample": "x"}\n',
            "Expected a number from 0 in column `sample`, got the text 'x', in anna.jsonl, line 1 "
            "- fix the row",
        ),
        (
            '{"id": "same", "label": 1, "score": NaN}\n',
            "Expected a finite number in column `score`, got the number nan, in anna.jsonl, line 1 "
            "- fix the row",
        ),
        (
            "[]\n",
            "Expected one JSON object on the line, got an empty list, in anna.jsonl, line 1 - fix "
            "or remove the line",
        ),
    ],
)
def test_a_file_that_is_refused(run: Path, tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "anna.jsonl"
    path.write_text(content)
    assert message(lambda: label_from(run, path)) == said.format(path=path)
    assert list((run / "labels").iterdir()) == []


def test_files_that_are_none(run: Path, tmp_path: Path) -> None:
    assert message(lambda: label_from(run, tmp_path / "anna.csv")) == (
        f"Expected the file `{tmp_path / 'anna.csv'}`, got no such file, in `file` - check the path"
    )
    (tmp_path / "two words.csv").write_text("id,label\nsame,1\n")
    assert "got 'two words' as the name" in message(
        lambda: label_from(run, tmp_path / "two words.csv")
    )
    assert label_from(run, tmp_path / "two words.csv", name="two").hallucinated == 1


def test_a_file_that_has_grown(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "anna.csv"
    path.write_text("id,label\nsame,0\n")
    label_from(run, path)
    path.write_text("id,label\nsame,0\nhalf,1\n")
    assert label_from(run, path).hallucinated == 1
    path.write_text("id,label\nsame,1\nhalf,1\n")
    assert "1 of 7 that would change, first 'same'" in message(lambda: label_from(run, path))
    path.write_text("id,label\nhalf,1\n")
    assert "1 of 7 that would change, first 'same'" in message(lambda: label_from(run, path))
    assert label_from(run, path, overwrite=True).right == 0
    assert "(by file, asked contains; " in message(lambda: label(run, name="anna"))


# Agreement ----------------------------------------------------------------------------------------

LABELS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=40)


@settings(deadline=None)
@given(LABELS)
def test_kappa_is_that_of_sklearn(pairs: list[tuple[int, int]]) -> None:
    from sklearn.metrics import cohen_kappa_score

    one, other = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    found = cohen_kappa(one, other)
    if len({*one, *other}) == 1:
        assert found is None
    else:
        assert found == pytest.approx(float(cohen_kappa_score(one, other)), abs=1e-12)


def test_kappa_of_nothing() -> None:
    assert cohen_kappa([], []) is None


def test_agreement(run: Path) -> None:
    for by in JUDGES:
        label(run, by)
    found = agreement(run)
    assert list(found.counts) == ["contains", "exact", "f1", "rouge-l"]
    assert found.counts["contains"] == {
        "traces": 7,
        "hallucinated": 2,
        "right": 3,
        "dropped": 0,
        "unjudged": 2,
        "unlabelled": 0,
    }
    pairs = {pair.names: pair for pair in found.pairs}
    assert len(pairs) == 6
    assert (pairs["contains", "f1"].traces, pairs["contains", "f1"].disagreements) == (5, 3)
    assert pairs["f1", "rouge-l"].kappa == 1
    assert found.disputed == 3
    assert [one.id for one in found.examples] == ["half", "within", "third"]
    first = found.examples[0]
    assert (first.question, first.answer) == ("what is half?", "York")
    assert first.references == ["New York City"]
    assert first.labels == {"contains": 1, "exact": 1, "f1": 0, "rouge-l": 0}
    assert first.scores == {"contains": 0, "exact": 0, "f1": 0.5, "rouge-l": 0.5}


def test_agreement_counts_what_both_have_decided(run: Path, tmp_path: Path) -> None:
    label(run, "contains")
    write_lines(tmp_path / "anna.jsonl", [{"id": "wrong", "label": 0}, {"id": "bare", "label": 1}])
    label_from(run, tmp_path / "anna.jsonl")
    (run / "labels" / "ben.jsonl").write_text('{"id": "same", "sample": 0, "label": 0}\n')
    found = agreement(run, ["contains", "anna", "ben"])
    assert [(pair.traces, pair.disagreements) for pair in found.pairs] == [(1, 1), (1, 0), (0, 0)]
    assert [pair.kappa for pair in found.pairs] == [0, None, None]
    assert found.counts["ben"]["unlabelled"] == 6
    assert [one.id for one in found.examples] == ["wrong"]
    assert found.examples[0].labels == {"contains": 1, "anna": 0, "ben": None}


def test_agreement_needs_two(run: Path) -> None:
    label(run, "contains")
    said = (
        "Expected at least two labels to compare, each once, got {} of {} - make others with "
        "`hallutrace label {} --by PROTOCOL`"
    )
    assert message(lambda: agreement(run)) == said.format("contains", run, run)
    assert message(lambda: agreement(run, ["contains"] * 2)) == said.format(
        "contains, contains", run, run
    )
    assert "Expected the labels `f1`" in message(lambda: agreement(run, ["contains", "f1"]))


# Parts and merges ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "ids"),
    [
        ("f1=0", ["same", "half"]),
        ("f1=1", ["within", "third", "wrong"]),
        ("contains=0", ["same", "within", "third"]),
        ("right", ["same", "within", "third"]),
        ("wrong", ["half", "wrong", "empty"]),
    ],
)
def test_a_subset_by_label(run: Path, tmp_path: Path, condition: str, ids: list[str]) -> None:
    label(run, "f1")
    label(run, "contains")
    part = hallutrace.subset(run, tmp_path / "part", label=condition)
    assert [trace.id for trace in part] == ids
    # Labels go along, and how they came about.
    assert part.labels() == ["contains", "f1"]
    assert list(read(part.folder, "f1")) == [(id_, 0) for id_ in ids]
    assert read(part.folder, "f1").items() <= read(run, "f1").items()
    again = label(part.folder, "f1")
    assert (again.new, again.is_changed) == (0, False)


def test_a_subset_by_labels_that_are_not_there(run: Path, tmp_path: Path) -> None:
    assert "Expected the labels `f1` in" in message(
        lambda: hallutrace.subset(run, tmp_path / "part", label="f1=1")
    )
    label(run, "exact")
    assert message(lambda: hallutrace.subset(run, tmp_path / "part", label="exact=2")) == (
        "Expected `label` to be right, wrong, NAME=0 or NAME=1, got 'exact=2' - the names are exact"
    )
    assert not (tmp_path / "part").exists()


def test_a_subset_keeps_labels_that_nothing_says_the_origin_of(run: Path, tmp_path: Path) -> None:
    (run / "labels" / "ben.jsonl").write_text('{"id": "same", "sample": 0, "label": 0}\n')
    part = hallutrace.subset(run, tmp_path / "part", label="ben=0")
    assert labels_of(part.folder, "ben") == [0]
    assert not (part.folder / "labels" / "ben.json").exists()
    (run / "labels" / "ben.jsonl").write_text("damage\n")
    with pytest.raises(DamagedError):
        hallutrace.subset(run, tmp_path / "other", ids=["same"])
    assert not (tmp_path / "other").exists()


def test_labels_made_in_the_same_way_are_merged(run: Path, tmp_path: Path) -> None:
    parts = [
        hallutrace.subset(run, tmp_path / f"part{at}", indices=indices).folder
        for at, indices in enumerate([range(3, 7), range(3)])
    ]
    for part in parts:
        label(part, "f1")
        label(part, "rouge-l", threshold=0.5 if part == parts[0] else 0.4)
    label(parts[0], "exact")
    merged = hallutrace.merge(parts, tmp_path / "merged", force_differing=["subset"])
    assert merged.labels() == ["f1"]
    assert list(read(merged.folder, "f1")) == merged.keys()
    again = label(merged.folder, "f1")
    assert (again.traces, again.is_changed) == (7, False)


def test_labels_that_are_not_merged_are_told(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    parts = [
        hallutrace.subset(run, tmp_path / name, indices=indices).folder
        for name, indices in [("a", range(3)), ("b", range(3, 7))]
    ]
    label(parts[0], "exact")
    words = ["merge", *parts, "--out", tmp_path / "ab", "--force-differing", "subset"]
    monkeypatch.setattr(sys, "argv", ["hallutrace", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    said = "labels left out, as not all runs have them, made in the same way: exact"
    assert said in " ".join(capsys.readouterr().out.split())


# The command --------------------------------------------------------------------------------------


def test_the_command_says_what_it_did(run: Path, command: Command) -> None:
    code, out, err = command(run, "--by", "f1", "--drop", ".25:.5")
    assert (code, err) == (0, "")
    assert out == (
        f"{run}/labels/f1.jsonl: 1 hallucinated, 1 right (50.0% hallucinated)\n"
        "  3 dropped, label null: scores of 0.25 to 0.5\n"
        "  2 not judged, label null: 1 without references, 1 whose references are empty after "
        "normalisation\n"
    )
    _, out, _ = command(run, "--by", "f1", "--drop", ".25:.5")
    assert out.endswith("  nothing new: these labels were there already\n")
    code, out, _ = command(run, "--by", "exact", "--json")
    found = json.loads(out)
    assert (code, found["hallucinated"], found["right"], found["unjudged"]) == (0, 4, 1, 2)
    assert found["path"] == f"{run}/labels/exact.jsonl"


def test_the_command_takes_a_file(run: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / "anna.csv").write_text("id,label\nsame,1\n")
    code, out, _ = command(run, "--from", tmp_path / "anna.csv", "--name", "person")
    assert code == 0
    assert out == (
        f"{run}/labels/person.jsonl: 1 hallucinated, 0 right (100.0% hallucinated)\n"
        "  6 without a label in the file: null\n"
    )


def test_the_command_compares(run: Path, command: Command) -> None:
    for by in ("exact", "contains", "f1"):
        label(run, by)
    code, out, _ = command(run, "--agreement", "exact", "f1")
    assert code == 0
    assert "Cohen's kappa" in out and "contains" not in out
    assert "1 of 7 traces on which they disagree; 1 of those on which most pairs do:" in out
    assert "exact hallucinated (0.00), f1 right (0.50)" in out
    code, out, _ = command(run, "--agreement", "--json")
    found = json.loads(out)
    assert (code, found["disputed"], len(found["pairs"])) == (0, 3, 3)
    assert np.isfinite([pair["kappa"] for pair in found["pairs"]]).all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Expected one of --by, --from and --agreement, got none - begin with"),
        (["--by", "f1", "--agreement"], "Expected one of --by, --from and --agreement, got --by"),
        (["f1", "--by", "f1"], "Expected options that go with --by, got NAME - leave it out"),
        (
            ["--from", "x.csv", "--drop", ".1:.2"],
            "Expected options that go with --from, got --drop - leave it out",
        ),
        (["--by", "f1", "--drop", ".1"], "Expected two scores such as .2:.4, got '.1' - change"),
        (
            ["--from", "x.csv", "--normalize", "triviaqa"],
            "Expected options that go with --from, got --normalize - leave it out",
        ),
        (["--by", "bleu"], "Expected one of exact, contains, f1, rouge-l, got 'bleu'"),
    ],
)
def test_the_command_refuses(run: Path, command: Command, arguments: list[str], said: str) -> None:
    code, out, err = command(run, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"Error: {said}")


def test_the_command_needs_a_run(tmp_path: Path, command: Command) -> None:
    code, _, err = command(tmp_path / "nowhere", "--by", "f1")
    assert (code, err.startswith("Error: Expected a run in")) == (2, True)
