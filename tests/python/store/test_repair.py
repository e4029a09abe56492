"""What a run can lose without losing a trace, and what is never touched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

import hallutrace
from conftest import Extract, question_rows, write_lines
from hallutrace import merge, subset
from hallutrace.capture import replay
from hallutrace.commands.app import main
from hallutrace.errors import NotARunError, StorageError
from hallutrace.store import expectation
from hallutrace.store.claims import UNKNOWN_COUNT, Holder, claim, last_holder
from hallutrace.store.folder import CommitRecord, Run
from hallutrace.store.repair import Finding, repair
from hallutrace.store.verify import verify_run

SHARDS = ["00000", "00001", "00002"]


def files_of(folder: Path) -> dict[str, bytes]:
    """Everything of a run but its failures (times) and the answers that are due, by path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("failures.jsonl", expectation.NAME)
    }


def shards_of(folder: Path) -> dict[str, bytes]:
    """Manifest and shards, without records."""
    return {name: data for name, data in files_of(folder).items() if not is_record(name)}


def is_record(name: str) -> bool:
    return name.startswith("shards/") and name.endswith(".json")


def record_of(folder: Path, name: str) -> CommitRecord:
    return CommitRecord.read(folder / "shards" / f"{name}.json")


def repaired(folder: Path, **options: Any) -> list[Finding]:
    """What a repair found; a dry run before it must find the same and change nothing."""
    before = files_of(folder)
    dry = list(repair(folder, dry_run=True, **options))
    assert files_of(folder) == before
    found = list(repair(folder, **options))
    assert [(one.name, one.problem, one.is_left) for one in dry] == [
        (one.name, one.problem, one.is_left) for one in found
    ]
    return found


def is_whole(folder: Path) -> bool:
    return all(finding.damage is None for finding in verify_run(folder))


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where runs that several tests begin from are kept."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def run(kept: Path, run_extract: Extract, tmp_path: Path) -> Path:
    """A run of seven questions in shards of 3, 3 and 1."""
    if not (kept / "seven").exists():
        run_extract(out=kept / "seven")
    shutil.copytree(kept / "seven", tmp_path / "run")
    return tmp_path / "run"


# Records ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [None, b"", b'{"schema":1,"name":"0', b"\xff\x00"])
@pytest.mark.parametrize("name", SHARDS)
def test_a_lost_record_is_made_again(
    run: Path, run_extract: Extract, name: str, content: bytes | None
) -> None:
    before, right = files_of(run), record_of(run, name)
    path = run / "shards" / f"{name}.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    (found,) = repaired(run)
    assert (found.name, found.is_left) == (name, False)
    assert found.action == f"its commit record made again from its {len(right.keys)} traces"
    assert files_of(run) == before
    assert is_whole(run)
    assert run_extract().new_traces == 0
    assert repaired(run) == []


def test_records_that_are_all_lost_are_made_again(run: Path, run_extract: Extract) -> None:
    right = [record_of(run, name) for name in SHARDS]
    for name in SHARDS:
        (run / "shards" / f"{name}.json").unlink()
    found = repaired(run)
    assert [one.name for one in found] == SHARDS
    assert [record_of(run, name) for name in SHARDS] == right
    assert is_whole(run)

    class Notes:
        notes: list[str] = []  # noqa: RUF012 - of one call

        def note(self, text: str) -> None:
            self.notes.append(text)

        def begin(self, total: int | None, done: int) -> None: ...
        def skip(self, answers: int) -> None: ...
        def advance(self, traces: int, tokens: int, failures: int, answers: int) -> None: ...

    assert run_extract(Notes()).new_traces == 0
    # An unknown environment is no other environment.
    assert not any("environment" in note for note in Notes.notes)


def larger_than_one(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of (model, batch, ...), without memory for batches above one."""

    def fail(loaded: Any, batch: Any, *args: Any, **kwargs: Any) -> Any:
        if len(batch) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return function(loaded, batch, *args, **kwargs)

    return fail


@pytest.mark.parametrize("journal", ["kept", "lost", "another"])
def test_a_record_knows_of_halvings_whatever_becomes_of_the_journal(
    run_extract: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: str
) -> None:
    monkeypatch.setattr(replay, "replay", larger_than_one(replay.replay))
    run_extract(out=tmp_path / "right")
    right = files_of(tmp_path / "right")
    assert record_of(tmp_path / "right", "00001").halvings == [[0, 1]]

    def stop(run: Run, record: CommitRecord) -> None:
        if record.name == "00001":
            raise KeyboardInterrupt
        commit(run, record)

    commit, run = Run.commit, tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Run, "commit", stop)
        with pytest.raises(KeyboardInterrupt):
            run_extract()
    path = run / "partial" / "00001.journal"
    assert path.exists()
    if journal == "lost":
        path.unlink()
    if journal == "another":
        path.write_text("something else")
    (found,) = repaired(run)
    assert found.action == "its commit record made again from its 3 traces"
    assert files_of(run).items() <= right.items()
    run_extract()
    assert files_of(run) == right


@pytest.mark.parametrize("content", [None, b"{", b""])
def test_a_record_on_its_way_is_what_the_shard_says(run: Path, content: bytes | None) -> None:
    before = files_of(run)
    path = run / "shards" / "00001.json"
    path.rename(run / "partial" / "00001.json")
    if content is not None:
        (run / "partial" / "00001.json").write_bytes(content)
    (found,) = repaired(run)
    assert found.action == "its commit record made again from its 3 traces"
    assert files_of(run) == before


def test_a_record_that_its_shard_contradicts_is_named(run: Path) -> None:
    path = run / "shards" / "00001.json"
    changed = replace(record_of(run, "00001"), environment={"threads": 99})
    path.write_bytes(changed.to_json())
    (found,) = repaired(run)
    assert found.is_left
    assert "got another environment than in the header of" in found.problem
    assert found.action == "delete the record, and `hallutrace repair` makes it again"
    path.unlink()
    assert [one.is_left for one in repaired(run)] == [False]
    assert is_whole(run)


def test_the_next_shards_are_extracted_as_if_nothing_had_been(
    run: Path, run_extract: Extract, tmp_path: Path
) -> None:
    right = shards_of(run)
    shutil.rmtree(run)
    run_extract(limit=6)
    (run / "shards" / "00000.json").unlink()
    assert len(repaired(run)) == 1
    assert run_extract().new_traces == 1
    assert shards_of(run) == right


# Questions that failed --------------------------------------------------------------------------


@pytest.fixture
def failing(run_extract: Extract, questions: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes a run in which some of the seven questions fail."""

    def make(*lost: int) -> Path:
        rows = question_rows(7)
        for row in lost:
            rows[row]["question"] = "why " * 100
        write_lines(questions, rows)
        run_extract()
        return tmp_path / "run"

    return make


@pytest.mark.parametrize("missing", [["00001"], ["00000", "00001"], ["00000"], SHARDS])
@pytest.mark.parametrize("lost", [[0], [1], [2], [3], [5], [2, 3], [0, 1, 4, 5]])
def test_a_shard_tells_of_questions_that_failed(
    failing: Callable[..., Path], lost: list[int], missing: list[str]
) -> None:
    run = failing(*lost)
    right = {name: record_of(run, name) for name in missing}
    for name in missing:
        (run / "shards" / f"{name}.json").unlink()
    (run / "failures.jsonl").unlink()
    found = repaired(run)
    assert not any(one.is_left for one in found)
    for name in missing:
        assert record_of(run, name) == right[name]


def test_a_shard_of_failures_alone_has_a_record_too(
    failing: Callable[..., Path], run_extract: Extract
) -> None:
    run = failing(3, 4, 5)
    right = files_of(run)
    (run / "shards" / "00001.json").unlink()
    (found,) = repaired(run)
    assert found.action == "its commit record made again from its 0 traces"
    assert files_of(run) == right


@pytest.mark.parametrize("still", [(), (4,)], ids=["all good", "one fails again"])
def test_the_record_of_retried_questions_is_made_again(
    run_extract: Extract,
    questions: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    still: tuple[int, ...],
) -> None:
    def fail(*rows: int) -> None:
        """Has no memory for some of the questions."""
        lost = [prompts[row] for row in rows]

        def without_memory(loaded: Any, batch: Any, *args: Any, **kwargs: Any) -> Any:
            if any(one.tokens[: len(prompt)] == prompt for one in batch for prompt in lost):
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return whole(loaded, batch, *args, **kwargs)

        monkeypatch.setattr(replay, "replay", without_memory)

    whole = replay.replay
    run_extract(out=tmp_path / "first")
    prompts = {
        trace.index: trace.tokens[: trace.prompt_length].tolist()
        for trace in hallutrace.open(tmp_path / "first")
    }
    run = tmp_path / "run"
    fail(1, 4)
    run_extract(batch_size=1)
    fail(*still)
    assert len(run_extract(batch_size=1, retry_failed=True).failing) == len(still)
    right = record_of(run, "retry-00000")
    assert (right.questions, right.counts["failures"]) == (2, len(still))
    (run / "shards" / "retry-00000.json").unlink()
    (found,) = repaired(run)
    assert not found.is_left
    assert record_of(run, "retry-00000") == right


@pytest.mark.parametrize("missing", SHARDS[:2])
def test_records_of_given_answers_are_made_again(
    run_extract: Extract, tmp_path: Path, missing: str
) -> None:
    rows = [
        {"question": f"who {'so ' * row}?", "response": ["an", " it is"][: 1 + row % 2]}
        for row in range(5)
    ]
    rows[2]["response"] = [[9999]]
    said = write_lines(tmp_path / "said.jsonl", rows)
    run = tmp_path / "run"
    run_extract(responses=said, questions="demo", shard_size=2)
    right = record_of(run, missing)
    (run / "shards" / f"{missing}.json").unlink()
    (found,) = repaired(run)
    assert not found.is_left
    assert record_of(run, missing) == right


# What is never touched --------------------------------------------------------------------------


@pytest.mark.parametrize("has_record", [True, False])
def test_a_damaged_shard_is_left_and_named(run: Path, has_record: bool) -> None:
    path = run / "shards" / "00001.safetensors"
    content = bytearray(path.read_bytes())
    content[-2000] ^= 1
    path.write_bytes(content)
    if not has_record:
        (run / "shards" / "00001.json").unlink()
    before = shards_of(run)
    (found,) = repaired(run)
    assert (found.name, found.is_left) == ("00001", True)
    assert "00001" in found.problem
    assert before.items() <= shards_of(run).items()


def test_a_missing_shard_is_left_to_a_copy(run: Path) -> None:
    (run / "shards" / "00001.safetensors").unlink()
    before = files_of(run)
    (found,) = repaired(run)
    assert (found.name, found.is_left) == ("00001", True)
    (run / "shards" / "00001.json").write_bytes(b"{")
    (found,) = repaired(run)
    assert found.problem == "neither a commit record that can be read nor a shard is there"
    assert files_of(run).keys() == before.keys()


def test_a_record_that_the_disk_does_not_give_is_left(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path) -> bytes:
        if path.name == "00001.json":
            raise OSError(5, "Input/output error")
        return whole(path)

    whole, before = Path.read_bytes, files_of(run)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", broken)
        found = list(repair(run))
    assert [(one.name, one.is_left) for one in found] == [("00001", True)]
    assert found[0].problem.endswith("got: Input/output error")
    assert files_of(run) == before


def test_a_record_of_a_later_schema_is_left(run: Path) -> None:
    path = run / "shards" / "00001.json"
    path.write_text(path.read_text().replace('"schema":2', '"schema":3'))
    before = files_of(run)
    (found,) = repaired(run)
    assert (found.is_left, found.action) == (
        True,
        "it is of schema 3: use a hallutrace that knows it",
    )
    assert files_of(run) == before


def test_shards_of_other_runs_are_left(run: Path, run_extract: Extract, tmp_path: Path) -> None:
    run_extract(out=tmp_path / "other", hidden_states="none", limit=3)
    (run / "shards" / "00001.json").unlink()
    shutil.copyfile(
        tmp_path / "other" / "shards" / "00000.safetensors", run / "shards" / "00001.safetensors"
    )
    (found,) = repaired(run)
    assert found.is_left
    assert f"Expected a shard of the run {Run(run).manifest().fingerprint}" in found.problem
    assert found.action == "it is of another run; move it away"
    # The same run, but another shard of it.
    shutil.copyfile(run / "shards" / "00000.safetensors", run / "shards" / "00001.safetensors")
    (found,) = repaired(run)
    assert found.is_left
    assert "Expected the shard 00001, got 00000 in its place" in found.problem
    (run / "shards" / "00001.safetensors").rename(run / "shards" / "mine.safetensors")
    found_now = repaired(run)
    assert [(one.name, one.is_left) for one in found_now] == [("mine", True)]
    assert found_now[0].action == "move them away"


def test_a_run_made_of_others_is_made_of_them_again(
    run: Path, run_extract: Extract, questions: Path, tmp_path: Path
) -> None:
    rows = [{**row, "id": f"other-{row['id']}"} for row in question_rows(2)]
    run_extract(out=tmp_path / "two", questions=str(write_lines(tmp_path / "two.jsonl", rows)))
    ways: dict[str, Callable[[Path], object]] = {
        "subset": lambda out: subset(run, out, indices=[0, 5]),
        "merge": lambda out: merge([run, tmp_path / "two"], out),
    }
    for verb, make in ways.items():
        out = tmp_path / verb
        make(out)
        right = files_of(out)
        (out / "shards" / "00000.json").unlink()
        (found,) = repaired(out)
        assert found.is_left == (verb == "merge")
        if verb == "merge":
            assert "the same `hallutrace merge` writes the record again" in found.action
            make(out)
        assert {name: data for name, data in files_of(out).items() if "claim" not in name} == right


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotARunError):
        list(repair(tmp_path))


def test_what_the_file_system_says_is_told(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    (run / "shards" / "00001.json").unlink()
    monkeypatch.setattr(Run, "commit", full)
    with pytest.raises(StorageError, match="got: No space left on device - nothing committed"):
        list(repair(run))
    assert not (run / "shards" / "00001.json").exists()


@pytest.mark.parametrize("where", ["shards", "partial"])
def test_a_repair_that_was_killed_is_repeated(
    run: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    right, record = shards_of(run), record_of(run, "00001")
    (run / "shards" / "00001.json").write_bytes(b"{")
    if where == "partial":
        (run / "shards" / "00001.json").unlink()
        (run / "shards" / "00001.safetensors").rename(run / "partial" / "00001.safetensors")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "commit", killed)
        with pytest.raises(KeyboardInterrupt):
            list(repair(run))
    (found,) = repaired(run)
    assert not found.is_left
    assert shards_of(run) == right
    assert record_of(run, "00001") == record


# Claims -----------------------------------------------------------------------------------------


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_a_process_works_on_is_refused(run: Path, run_extract: Extract) -> None:
    (run / "shards" / "00001.json").unlink()
    mine = claim(run / "partial", "00001", 3)
    assert not isinstance(mine, Holder)
    (run / "partial" / ".clock-77").touch()
    with mine:
        before = files_of(run)
        (found,) = repaired(run)
        assert found.is_left
        assert f"process {os.getpid()} on" in found.action
        assert files_of(run) == before
    found_now = repaired(run)
    assert [(one.name, one.is_left) for one in found_now] == [("00001", False), ("", False)]
    assert not list((run / "partial").iterdir())


def test_a_claim_of_the_dead_is_given_up(run: Path, run_extract: Extract) -> None:
    right = files_of(run)
    for kind in ("json", "safetensors"):
        (run / "shards" / f"00002.{kind}").unlink()
    dead = replace(Holder.me(1), pid=dead_process())
    for name in ("00001", "00002"):
        (run / "partial" / f"{name}.claim").write_text(json.dumps(asdict(dead)))
    committed, open_ = repaired(run)
    assert (committed.name, committed.action) == ("00001", "removed")
    assert (open_.name, open_.action) == ("00002", "given up")
    # Links of what is not committed stay: another process may be about to inherit.
    last = last_holder(run / "partial", "00002")
    assert last is not None
    assert last[1].released
    assert repaired(run) == []
    run_extract()
    assert files_of(run) == right


def test_who_comes_by_while_a_shard_is_repaired_passes_it(run: Path, run_extract: Extract) -> None:
    (run / "shards" / "00002.json").unlink()
    mine = claim(run / "partial", "00002", UNKNOWN_COUNT)
    assert not isinstance(mine, Holder)
    with mine:
        assert run_extract().new_traces == 0


# Leftovers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (["00002.journal"], "00002"),
        (["00002.safetensors"], "00002"),
        (["00002.json"], "00002"),
        (["00002.json", "00002.safetensors"], "00002"),
        (["00001.journal", "00001.json"], "00001"),
        (["manifest-1234.json", ".clock-1", ".released-2"], ""),
    ],
)
def test_leftovers_are_removed(
    run: Path, run_extract: Extract, files: list[str], name: str
) -> None:
    right = files_of(run)
    if name == "00002":
        for kind in ("json", "safetensors"):
            (run / "shards" / f"00002.{kind}").unlink()
    for file in files:
        (run / "partial" / file).write_bytes(b"\0" * 5000)
    (found,) = repaired(run)
    assert (found.name, found.action) == (name, "removed")
    assert not any((run / "partial" / file).exists() for file in files)
    assert repaired(run) == []
    run_extract()
    assert files_of(run) == right


def test_a_second_name_of_a_shard_is_removed(run: Path) -> None:
    right = files_of(run)
    for name in ("00000", "00001"):
        os.link(run / "shards" / f"{name}.safetensors", run / "partial" / f"{name}.safetensors")
    (run / "shards" / "00001.json").unlink()
    first, second = repaired(run)
    assert (first.name, first.action) == ("00000", "removed")
    assert (second.name, second.is_left) == ("00001", False)
    assert shards_of(run).items() <= right.items()
    assert not list((run / "partial").iterdir())


def test_a_finished_shard_without_journal_is_put_in_its_place(run: Path) -> None:
    right, record = shards_of(run), record_of(run, "00001")
    (run / "shards" / "00001.json").unlink()
    (run / "shards" / "00001.safetensors").rename(run / "partial" / "00001.safetensors")
    (found,) = repaired(run)
    assert not found.is_left
    assert shards_of(run) == right
    assert record_of(run, "00001") == record


def test_a_shard_in_progress_is_left_to_extract(
    run_extract: Extract, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = files_of(run)
    shutil.rmtree(run)
    calls = 0

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return whole(*args, **kwargs)

    whole = replay.replay
    with monkeypatch.context() as patch:
        patch.setattr(replay, "replay", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_extract()
    partial = files_of(run)
    assert "partial/00001.journal" in partial
    assert repaired(run) == []
    assert files_of(run) == partial
    run_extract()
    assert files_of(run) == right


# The command ------------------------------------------------------------------------------------


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Runs `hallutrace repair`: exit code and standard output."""

    def call(*arguments: str | Path) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["hallutrace", "repair", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        code: object = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        return int(str(code or 0)), capsys.readouterr().out

    return call


def test_the_command_tells_what_it_does(run: Path, command: Callable[..., tuple[int, str]]) -> None:
    assert command(run) == (0, f"{run}: nothing is wrong (every byte checked)\n")
    (run / "shards" / "00001.json").unlink()
    assert command(run, "--dry-run") == (
        0,
        "to repair  00001: a shard without its commit record in shards/00001.safetensors - its "
        "commit record would be made again from its 3 traces\n"
        f"{run}: 1 to repair, 0 cannot be repaired\n",
    )
    (run / "shards" / "00002.safetensors").write_bytes(b"damaged")
    code, out = command(run, "--json")
    content = json.loads(out)
    assert code == 1
    assert [one["name"] for one in content["repaired"]] == ["00001"]
    (left,) = content["left"]
    assert left["name"] == "00002"
    code, out = command(run)
    assert code == 1
    assert out.startswith("left  00002: ")
    assert out.endswith(f"{run}: 0 repaired, 1 cannot be repaired\n")
