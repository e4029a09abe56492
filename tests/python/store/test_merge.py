"""Runs made of runs: the same bytes of the same traces, under new names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hallutrace
from conftest import question_rows, write_lines
from hallutrace.commands.subset import condition_of
from hallutrace.errors import DamagedError, IdentityError, InputError
from hallutrace.labels import label, read
from hallutrace.store.claims import Claim, claim
from hallutrace.store.folder import CommitRecord
from hallutrace.store.trace import Trace
from hallutrace.store.verify import verify_run

Extract = Callable[..., Any]


def bytes_of(trace: Trace) -> dict[str, bytes]:
    """All tensors of a trace."""
    names = ("edges.offset", "edges.indptr", "edges.key", "edges.weight", "hidden", "meta")
    names += ("tokens", "logprob", "token_entropy", "marginals.mass", "marginals.diagonal")
    return {name: trace.stored(name).tobytes() for name in names}


def assert_whole(folder: Path) -> None:
    assert [finding.damage for finding in verify_run(folder) if finding.damage] == []


@pytest.fixture
def two_runs(run_extract: Extract, tmp_path: Path) -> tuple[Path, Path]:
    """Seven questions in one run, four others in another."""
    rows = [{**row, "id": f"other-{row['id']}"} for row in question_rows(4)]
    other = write_lines(tmp_path / "other.jsonl", rows)
    run_extract()
    run_extract(questions=str(other), out=tmp_path / "other")
    return tmp_path / "run", tmp_path / "other"


def test_a_merge_holds_the_traces_of_all(two_runs: tuple[Path, Path], tmp_path: Path) -> None:
    merged = hallutrace.merge(two_runs, tmp_path / "merged")
    parts = [trace for run in two_runs for trace in hallutrace.open(run)]
    assert [trace.id for trace in merged] == [trace.id for trace in parts]
    assert [bytes_of(trace) for trace in merged] == [bytes_of(trace) for trace in parts]
    assert merged["other-q2"].question == question_rows(4)[2]["question"]
    assert_whole(tmp_path / "merged")
    # Shards are links where the file system can.
    linked = tmp_path / "merged" / "shards" / "00000.safetensors"
    assert linked.samefile(two_runs[0] / "shards" / "00000.safetensors")


def test_a_merge_goes_on_where_it_stopped(two_runs: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "merged"
    before = [bytes_of(trace) for trace in hallutrace.merge(two_runs, out)]
    for path in out.glob("shards/00002.*"):
        path.unlink()
    assert [bytes_of(trace) for trace in hallutrace.merge(two_runs, out)] == before


def test_runs_that_differ_are_not_merged(
    two_runs: tuple[Path, Path], run_extract: Extract, tmp_path: Path
) -> None:
    other = write_lines(tmp_path / "third.jsonl", [{"id": "x", "question": "who?"}])
    run_extract(questions=str(other), out=tmp_path / "third", top_k=3)
    with pytest.raises(IdentityError) as raised:
        hallutrace.merge([two_runs[0], tmp_path / "third"], tmp_path / "merged")
    assert str(raised.value) == (
        f"Expected runs that differ in nothing but their questions, got {tmp_path / 'third'} with "
        "other sparsification.top_k - leave it out, or name the field with `force_differing`"
    )
    forced = hallutrace.merge(
        [two_runs[0], tmp_path / "third"], tmp_path / "merged", force_differing=["sparsification"]
    )
    assert len(forced) == 8


def test_a_question_may_be_in_one_run_alone(
    two_runs: tuple[Path, Path], run_extract: Extract, tmp_path: Path
) -> None:
    run_extract(out=tmp_path / "again")
    with pytest.raises(InputError, match="Expected each question once, got 'q0', sample 0, in"):
        hallutrace.merge([two_runs[0], tmp_path / "again"], tmp_path / "merged")


@pytest.mark.parametrize(
    ("conditions", "ids"),
    [
        ({"ids": ["q5", "q1"]}, ["q1", "q5"]),
        ({"indices": [6, 0]}, ["q0", "q6"]),
        ({"where": lambda trace: trace.index % 2 == 1}, ["q1", "q3", "q5"]),
        ({"indices": range(4), "where": lambda trace: trace.index > 1}, ["q2", "q3"]),
        ({"label": "wrong"}, [f"q{n}" for n in range(7)]),
    ],
)
def test_a_subset_holds_the_same_bytes(
    run_extract: Extract, tmp_path: Path, conditions: dict[str, Any], ids: list[str]
) -> None:
    whole = hallutrace.open(run_extract().folder)
    part = hallutrace.subset(tmp_path / "run", tmp_path / "part", **conditions)
    assert [trace.id for trace in part] == ids
    assert [bytes_of(trace) for trace in part] == [bytes_of(whole[id_]) for id_ in ids]
    np.testing.assert_array_equal(part[0].layer(0).weights, whole[ids[0]].layer(0).weights)
    assert_whole(tmp_path / "part")


@pytest.mark.parametrize(
    ("expression", "ids"),
    [
        ("index > 4", ["q5", "q6"]),
        ("any(word in question for word in question.split()) and index < 2", ["q0", "q1"]),
        ("[n for n in range(index) if n < index - 5]", ["q6"]),
        ("id in {x for x in ('q1', 'q2') if x != id[::-1]}", ["q1", "q2"]),
        ("  len(references) >= 0 and max(index, 0) == 3", ["q3"]),
        ("(lambda least: index >= least)(6)", ["q6"]),
    ],
)
def test_an_expression_sees_names_and_python(
    run_extract: Extract, tmp_path: Path, expression: str, ids: list[str]
) -> None:
    run_extract()
    part = hallutrace.subset(tmp_path / "run", tmp_path / "p", where=condition_of(expression))
    assert [trace.id for trace in part] == ids


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("index >", "Expected a Python expression, got 'index >' (invalid syntax) - change"),
        ("index\0", "Expected a Python expression, got 'index\\x00' ("),
        ("(" * 500 + ")" * 500, "Expected a Python expression, got '(((("),
        ("index = 3", "Expected a Python expression, got 'index = 3' ("),
        ("idx > 3", "Expected an expression over answer, "),
        ("question + 1", "Expected an expression over answer, "),
    ],
)
def test_an_expression_that_is_none_is_told(
    run_extract: Extract, tmp_path: Path, expression: str, said: str
) -> None:
    run_extract()
    with pytest.raises(InputError) as caught:
        hallutrace.subset(tmp_path / "run", tmp_path / "part", where=condition_of(expression))
    assert str(caught.value).startswith(said)
    if "of the trace" in str(caught.value):
        assert "of the trace 'q0' - change --where" in str(caught.value)


def test_a_random_subset_is_seeded(run_extract: Extract, tmp_path: Path) -> None:
    run_extract()
    drawn = [
        [t.id for t in hallutrace.subset(tmp_path / "run", tmp_path / f"{n}", sample=3, seed=seed)]
        for n, seed in enumerate([1, 1, 2, 3, 4])
    ]
    assert drawn[0] == drawn[1]
    assert len({tuple(ids) for ids in drawn}) > 1
    assert all(len(set(ids)) == 3 for ids in drawn)


def test_what_a_subset_cannot_be_made_of(run_extract: Extract, tmp_path: Path) -> None:
    run_extract()
    for conditions, said in [
        ({"ids": ["q1", "nobody"]}, "Expected ids of traces in"),
        ({"indices": [7]}, "Expected indices in 0..7, got 7 to 7"),
        ({"label": "true"}, "Expected `label` to be right, wrong, NAME=0 or NAME=1, got"),
        ({"where": lambda trace: False}, "Expected traces that meet all conditions, got none"),
    ]:
        with pytest.raises(InputError) as raised:
            hallutrace.subset(tmp_path / "run", tmp_path / "part", **conditions)
        assert str(raised.value).startswith(said)
    assert not (tmp_path / "part").exists()


def test_all_traces_come_once_however_they_are_shuffled(
    run_extract: Extract, tmp_path: Path
) -> None:
    run_extract(shard_size=1)
    store = hallutrace.open(tmp_path / "run")
    orders = [[trace.id for trace in store.shuffled(seed, buffer=2)] for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert all(sorted(order) == [f"q{n}" for n in range(7)] for order in orders)
    parts = [[t.id for t in store.shuffled(1, worker=n, workers=3)] for n in range(3)]
    assert sorted(id_ for part in parts for id_ in part) == [f"q{n}" for n in range(7)]


def test_a_store_goes_to_other_processes(run_extract: Extract, tmp_path: Path) -> None:
    import pickle

    run_extract()
    store = hallutrace.open(tmp_path / "run", verify="always")
    copy = pickle.loads(pickle.dumps(store))
    assert bytes_of(copy[3]) == bytes_of(store[3])


def test_verify_names_what_is_damaged(run_extract: Extract, tmp_path: Path) -> None:
    run_extract()
    run = tmp_path / "run"
    assert_whole(run)
    shard = run / "shards" / "00001.safetensors"
    content = bytearray(shard.read_bytes())
    content[-200] ^= 4
    shard.write_bytes(content)
    assert_damaged(run, {"00001": "bytes that their checksum does not know"})
    assert [finding.damage for finding in verify_run(run, fast=True)] == [None] * 3
    shard.write_bytes(content[:-1])
    assert_damaged(run, {"00001": "where the header tells of"}, fast=True)
    (run / "shards" / "00000.json").write_text("{")
    (run / "shards" / "00002.safetensors").unlink()
    assert_damaged(
        run,
        {
            "00000": "Expected JSON in",
            "00001": "where the header tells of",
            "00002": "No such file",
        },
    )


def assert_damaged(run: Path, wanted: dict[str, str], fast: bool = False) -> None:
    found = {finding.name: finding.damage for finding in verify_run(run, fast) if finding.damage}
    assert found.keys() == wanted.keys()
    for name, said in wanted.items():
        assert said in str(found[name])


def test_a_subset_killed_before_its_manifest_goes_on(run_extract: Extract, tmp_path: Path) -> None:
    run_extract()
    (tmp_path / "part" / "partial").mkdir(parents=True)
    assert len(hallutrace.subset(tmp_path / "run", tmp_path / "part", sample=2)) == 2


def test_a_folder_of_something_else_is_left_alone(run_extract: Extract, tmp_path: Path) -> None:
    run_extract()
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="Expected an empty folder or a run, got"):
        hallutrace.subset(tmp_path / "run", tmp_path / "part")


def test_a_merge_outlives_the_redoing_of_a_linked_shard(
    two_runs: tuple[Path, Path], run_extract: Extract, tmp_path: Path
) -> None:
    merged = tmp_path / "merged"
    before = [bytes_of(trace) for trace in hallutrace.merge(two_runs, merged)]
    for kind in ("json", "safetensors"):
        (two_runs[0] / "shards" / f"00000.{kind}").unlink()
    assert run_extract().traces == 7
    assert_whole(merged)
    assert [bytes_of(trace) for trace in hallutrace.open(merged)] == before
    redone = two_runs[0] / "shards" / "00000.safetensors"
    assert not redone.samefile(merged / "shards" / "00000.safetensors")


# Runs that changed ------------------------------------------------------------------------------


def files_of(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture
def growing(run_extract: Extract, tmp_path: Path) -> Callable[[str, int], Path]:
    """Makes a run of so many questions of its own, or lets it grow, by one shard a question."""

    def grown(name: str, limit: int) -> Path:
        rows = [
            {**row, "id": f"{name}{at}", "answers": ["north"]}
            for at, row in enumerate(question_rows(limit))
        ]
        file = write_lines(tmp_path / f"{name}.jsonl", rows)
        out = tmp_path / name
        return Path(run_extract(questions=str(file), out=out, limit=limit, shard_size=1).folder)

    return grown


def ids_of(folder: Path) -> list[str]:
    return [trace.id for trace in hallutrace.open(folder)]


def test_a_merge_of_a_run_that_grew_is_refused(
    growing: Callable[[str, int], Path], tmp_path: Path
) -> None:
    parts = [growing("a", 2), growing("b", 2)]
    hallutrace.merge(parts, tmp_path / "ab")
    before = files_of(tmp_path / "ab")
    growing("a", 4)
    with pytest.raises(InputError) as raised:
        hallutrace.merge(parts, tmp_path / "ab")
    assert str(raised.value) == (
        f"Expected the shard 00002 of {tmp_path / 'ab'} to be what a new merge would write, got "
        "other first, other digest, other keys, other size, other checksum: what it was made of "
        "has changed since (now 6 traces) - merge into another folder, or delete this one first"
    )
    assert files_of(tmp_path / "ab") == before
    assert ids_of(tmp_path / "ab") == ["a0", "a1", "b0", "b1"]


def test_a_merge_grows_at_its_end(growing: Callable[[str, int], Path], tmp_path: Path) -> None:
    parts = [growing("a", 2), growing("b", 2)]
    for part in parts:
        label(part, "contains")
    hallutrace.merge(parts, tmp_path / "ab")
    growing("b", 3)
    label(parts[1], "contains")
    hallutrace.merge(parts, tmp_path / "ab")
    hallutrace.merge(parts, tmp_path / "new")
    assert files_of(tmp_path / "ab") == files_of(tmp_path / "new")
    assert ids_of(tmp_path / "ab") == ["a0", "a1", "b0", "b1", "b2"]
    assert len(read(tmp_path / "ab", "contains")) == 5


def test_a_merge_may_be_merged_again(growing: Callable[[str, int], Path], tmp_path: Path) -> None:
    ab = hallutrace.merge([growing("a", 2), growing("b", 2)], tmp_path / "ab").folder
    merged = hallutrace.merge([ab, growing("c", 1)], tmp_path / "abc")
    assert [trace.id for trace in merged] == ["a0", "a1", "b0", "b1", "c0"]
    with pytest.raises(InputError, match="Expected each question once, got 'a0', sample 0, in"):
        hallutrace.merge([ab, tmp_path / "a"], tmp_path / "aba")


def test_a_merge_of_a_subset_is_no_subset(
    growing: Callable[[str, int], Path], tmp_path: Path
) -> None:
    part = hallutrace.subset(growing("a", 3), tmp_path / "part", ids=["a1"]).folder
    merged = hallutrace.merge(
        [part, growing("b", 1)], tmp_path / "merged", force_differing=["subset"]
    )
    assert [trace.id for trace in merged] == ["a1", "b0"]
    assert "subset" not in merged.manifest.identity


def test_a_run_is_not_merged_with_itself(
    growing: Callable[[str, int], Path], tmp_path: Path
) -> None:
    run = growing("a", 1)
    (tmp_path / "link").symlink_to(run, target_is_directory=True)
    for again in (run, tmp_path / "link"):
        with pytest.raises(InputError, match="Expected different runs, got one as"):
            hallutrace.merge([run, again], tmp_path / "merged")


def test_traces_that_are_read_in_another_way_are_not_merged_by_force(
    run_extract: Extract, two_runs: tuple[Path, Path], tmp_path: Path
) -> None:
    other = write_lines(tmp_path / "third.jsonl", [{"id": "x", "question": "who?"}])
    run_extract(questions=str(other), out=tmp_path / "third", heads="each")
    with pytest.raises(IdentityError) as raised:
        hallutrace.merge(
            [two_runs[0], tmp_path / "third"],
            tmp_path / "merged",
            force_differing=["sparsification"],
        )
    assert "read in the same way" in str(raised.value)
    assert "sparsification.heads" in str(raised.value)


def test_a_subset_of_a_run_that_changed_is_refused(
    growing: Callable[[str, int], Path], tmp_path: Path
) -> None:
    whole = growing("a", 3)
    hallutrace.subset(whole, tmp_path / "part", indices=[0, 2])
    before = files_of(tmp_path / "part")
    # A question that failed is there now: places mean other traces.
    for kind in ("json", "safetensors"):
        (whole / "shards" / f"00001.{kind}").unlink()
    (tmp_path / "part" / "shards" / "00001.json").unlink()
    with pytest.raises(InputError, match=r"Expected indices in 0..2, got 0 to 2"):
        hallutrace.subset(whole, tmp_path / "part", indices=[0, 2])
    hallutrace.subset(whole, tmp_path / "other", indices=[0, 1])
    growing("a", 3)
    with pytest.raises(InputError, match=r"00001 of .*other to be what a new subset would write"):
        hallutrace.subset(whole, tmp_path / "other", indices=[0, 1])
    hallutrace.subset(whole, tmp_path / "part", indices=[0, 2])
    assert files_of(tmp_path / "part") == before


def test_who_writes_a_shard_of_a_merge_is_left_alone(
    two_runs: tuple[Path, Path], tmp_path: Path
) -> None:
    merged = hallutrace.merge(two_runs, tmp_path / "merged").folder
    (merged / "shards" / "00001.json").unlink()
    mine = claim(merged / "partial", "00001", 0)
    assert isinstance(mine, Claim)
    with mine:
        with pytest.raises(InputError, match="Expected to write the shard 00001 of"):
            hallutrace.merge(two_runs, merged)
        assert (merged / "shards" / "00001.safetensors").exists()
    assert len(hallutrace.merge(two_runs, merged)) == 11


def doubled(growing: Callable[[str, int], Path], tmp_path: Path) -> Path:
    """A run whose shards hold a trace twice, as merges once made them."""
    run = hallutrace.merge([growing("a", 1), growing("b", 1)], tmp_path / "twice").folder
    record = CommitRecord.read(run / "shards" / "00001.json")
    (run / "shards" / "00002.json").write_bytes(
        json.dumps({**json.loads(record.to_json()), "name": "00002"}).encode()
    )
    (run / "shards" / "00002.safetensors").write_bytes(
        (run / "shards" / "00001.safetensors").read_bytes()
    )
    return run


def test_verify_finds_what_is_there_twice(
    growing: Callable[[str, int], Path], tmp_path: Path
) -> None:
    run = doubled(growing, tmp_path)
    said = {"00002": "once in a run, got 'b0', sample 0, in 00001 as well"}
    assert_damaged(run, said)
    assert_damaged(run, said, fast=True)
    with pytest.raises(DamagedError, match="some that come twice - `hallutrace verify"):
        hallutrace.open(run)
