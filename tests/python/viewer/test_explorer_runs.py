"""Where runs stand: states, counts from journals and records, and changes with a cursor."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hallutrace
from detect_runs import Made, arrays_of, causal_attention, write_run
from explorers import client_of, explorer_of, served
from hallutrace import ExtractConfig, extract, labels
from hallutrace.extraction.trace_arrays import HiddenChoice
from hallutrace.progress import Silent
from hallutrace.store import expectation
from hallutrace.store.claims import claim
from hallutrace.store.failures import Failure, FailureLog
from hallutrace.store.folder import Run, differences
from hallutrace.viewer.explorer import status
from hallutrace.viewer.explorer.catalog import Catalog, run_id
from hallutrace.viewer.explorer.live import INTERVAL, Watch
from hallutrace.viewer.explorer.status import RunStatus
from hallutrace.viewer.payload import unpack
from made_shards import begin_shard, finish_shard


@pytest.fixture
def run(demo_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(demo_run, tmp_path / "runs" / "demo")


@pytest.fixture
def now(monkeypatch: Any) -> Any:
    """Lets the watch look at once, and takes a run for stopped at once."""
    monkeypatch.setattr("hallutrace.viewer.explorer.live.INTERVAL", 0.0)
    monkeypatch.setattr(status, "CALM", 0.0)
    return monkeypatch


def test_a_finished_run_is_what_the_store_says(run: Path) -> None:
    store, row = hallutrace.open(run), RunStatus(run).row()
    info = store.info()
    assert row["state"] == "finished" and row["rate"] is None
    assert row["traces"] == row["total"] == len(store)
    assert (row["shards"], row["bytes"]) == (info["shards"], info["bytes"])
    assert row["labels"] == store.labels()
    assert row["model"] == "demo"


def test_a_growing_shard_is_followed_batch_by_batch(tmp_path: Path, now: Any) -> None:
    rng = np.random.default_rng(0)
    made = Made(causal_attention((1, 2, 6), rng), prompt=3)
    folder = write_run(tmp_path / "run", [made])
    writer, record = begin_shard(folder, "00001", 4, Run(folder).manifest().fingerprint)
    follower, hidden = RunStatus(folder), HiddenChoice("none", [], "float32")
    ours = claim(folder / "partial", "00001", 4)
    expectation.write(folder / "partial", 5)
    with ours:
        first = follower.row(now=-1.0)
        assert (first["traces"], first["rate"]) == (1, None)
        for number in range(4):
            arrays = arrays_of(made, number + 1, hidden, False)
            writer.append(number, f"q{number + 1}", 0, arrays)
            writer.end_batch("")
            writer.sync()
            row = follower.row(now=float(number))
            assert (row["state"], row["traces"], row["total"]) == ("running", 2 + number, 5)
            assert row["rate"] == 1.0
    assert follower.row()["state"] == "stopped"
    ids = [f"q{number + 1}" for number in range(4)]
    Run(folder).commit(finish_shard(writer, record, ids, first=1))
    writer.forget()
    with claim(folder / "partial", "00001", 4) as again:
        again.done = True
    expectation.remove(folder / "partial")
    row = follower.row()
    assert (row["state"], row["traces"], row["shards"]) == ("finished", 5, 2)
    assert row["bytes"] == hallutrace.open(folder).info()["bytes"]


def test_a_journal_that_is_cut_short_or_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "00000.journal"
    journal = status._Journal()
    lines = [f"{'0' * 16} {json.dumps({'data': 8, 'note': '', 'traces': [1, 2]})}\n"] * 2
    path.write_text(lines[0] + lines[1][:30])
    journal.follow(path)
    assert (journal.traces, journal.data_bytes) == (2, 8)
    path.write_text("".join(lines) + "not a line\n")
    journal.follow(path)
    assert journal.traces == 4
    path.write_text(lines[0])
    journal.follow(path)
    assert journal.traces == 2


def test_other_states(run: Path) -> None:
    FailureLog(run / "failures.jsonl").add(Failure("q", None, 0, "memory", "x"))
    assert RunStatus(run).row()["failures"] == 1
    (run / "shards" / "00000.json").write_text("{}")
    assert RunStatus(run).row()["state"] == "damaged"
    (run / "shards" / "00000.json").unlink()
    assert RunStatus(run).row()["state"] == "empty"
    (run / "manifest.json").write_text("[]")
    assert RunStatus(run).row()["state"] == "damaged"


def test_looking_writes_nothing(run: Path) -> None:
    with claim(run / "partial", "00007", 1):
        before = sorted(path.name for path in run.rglob("*"))
        times = [path.stat().st_mtime_ns for path in (run, run / "partial")]
        RunStatus(run).row()
        assert sorted(path.name for path in run.rglob("*")) == before
        assert [path.stat().st_mtime_ns for path in (run, run / "partial")] == times


def test_an_extraction_tells_how_far_it_will_go(tmp_path: Path) -> None:
    out, told = tmp_path / "run", []

    class Looking(Silent):
        def advance(self, traces: int, tokens: int, failures: int, answers: int) -> None:
            told.append(expectation.read(out / "partial"))

    config = ExtractConfig(model="demo", questions="demo:5", out=out, device="cpu")
    extract(config, Looking())
    assert set(told) == {5}
    assert expectation.read(out / "partial") is None


def test_only_what_changed_is_told(run: Path, now: Any) -> None:
    watch = Watch(Catalog([run.parent]))
    first = watch.changes(None)
    assert first["whole"] and [row["id"] for row in first["runs"]] == [run_id(run)]
    assert watch.changes(first["cursor"])["runs"] == []
    labels.label(run, "exact")
    second = watch.changes(first["cursor"])
    assert not second["whole"]
    (row,) = second["runs"]
    assert row == {"id": run_id(run), "labels": ["contains", "exact"]}
    assert watch.changes(first["cursor"])["runs"] == second["runs"]
    for cursor in ("other-1", "", f"{first['cursor']}0000", "x" * 9999):
        assert watch.changes(cursor)["whole"]


def test_runs_come_and_go(run: Path, now: Any) -> None:
    now.setattr("hallutrace.viewer.explorer.live.LOOK_AGAIN", 0.0)
    watch = Watch(Catalog([run.parent]))
    first = watch.changes(None)
    other = shutil.copytree(run, run.parent / "other")
    assert [row["name"] for row in watch.changes(first["cursor"])["runs"]] == ["other"]
    cursor = watch.changes(None)["cursor"]
    shutil.rmtree(other)
    assert watch.changes(cursor)["gone"] == [run_id(other)]


def test_the_runs_of_an_explorer(run: Path) -> None:
    other = shutil.copytree(run, run.parent / "other")
    manifest = json.loads((other / "manifest.json").read_text())
    config = ExtractConfig(model="demo", questions="demo:2", out=run.parent / "more", top_k=3)
    extract(config)
    client = client_of(explorer_of(run.parent))
    rows = unpack(client.get("/runs").content)["runs"]
    assert {row["name"]: row["traces"] for row in rows} == {"demo": 60, "more": 2, "other": 60}
    one, more = run_id(run), run_id(run.parent / "more")
    assert unpack(client.get(f"/differences/{one}/{run_id(other)}").content) == []
    found = unpack(client.get(f"/differences/{one}/{more}").content)
    there = json.loads((run.parent / "more" / "manifest.json").read_text())
    due = differences(manifest["identity"], there["identity"])
    due = [[name, json.dumps(first), json.dumps(second)] for name, first, second in due]
    assert [row for row in found if not row[0].startswith("facts.")] == due
    assert client.get(f"/differences/{one}/none").status_code == 404


def test_the_page_follows_a_run(run: Path, opened: Any) -> None:
    with served(run.parent) as address:
        page = opened(f"{address}#view=runs").page
        row = page.locator(".rows [role=row]").first
        assert "60" in row.inner_text() and "finished" in row.inner_text()
        labels.label(run, "exact")
        page.get_by_text("contains, exact").wait_for(timeout=int(5000 * INTERVAL))
        row.focus()
        page.keyboard.press("Enter")
        page.wait_for_selector("dl.facts")
        assert f"run={run_id(run)}" in page.url
        page.close()
