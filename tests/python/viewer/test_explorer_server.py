"""The explorer's answers: the page, payloads, and errors in words without places of files."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

import hallutrace
from explorers import client_of, explorer_of, served
from hallutrace import labels
from hallutrace.errors import InputError
from hallutrace.viewer import providers
from hallutrace.viewer.explorer import runs as open_runs
from hallutrace.viewer.explorer.catalog import Catalog, run_id
from hallutrace.viewer.payload import unpack
from hallutrace.viewer.providers import payload_of
from hallutrace.viewer.viewed_run import ViewedRun


@pytest.fixture
def run(demo_run: Path, tmp_path: Path) -> Path:
    """A run of its own, in a folder with nothing else."""
    return shutil.copytree(demo_run, tmp_path / "runs" / "demo")


def test_a_payload_is_what_a_report_embeds(run: Path) -> None:
    client, name = client_of(explorer_of(run)), run_id(run)
    answer = client.get(f"/data/{name}/run")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.content == payload_of(ViewedRun(hallutrace.open(run)), "run", {})
    again = client.get(f"/data/{name}/run", headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304 and not again.content


def test_what_changes_is_made_anew(run: Path) -> None:
    client, name = client_of(explorer_of(run)), run_id(run)
    first = client.get(f"/data/{name}/run")
    labels.label(run, "exact")
    second = client.get(f"/data/{name}/run")
    assert unpack(second.content)["labels"] == ["contains", "exact"]
    assert first.headers["etag"] != second.headers["etag"]


def test_errors_are_words(run: Path) -> None:
    client, name = client_of(explorer_of(run)), run_id(run)
    for address, status, told in [
        (f"/data/{name}/nothing", 404, "Expected one of run"),
        ("/data/other/run", 404, "Expected a run that is explored, got 'other'"),
        (f"/data/{name}/run?x=1", 400, "Expected parameters among"),
        (f"/data/{name}/run?x=1&x=2", 400, "Expected each parameter once"),
        ("/data/%2e%2e/run", 404, "Expected"),
        ("/manifest.json", 404, "Expected an address of the page"),
    ]:
        answer = client.get(address)
        assert answer.status_code == status, address
        assert answer.json()["message"].startswith(told)


def test_damage_names_no_path(run: Path) -> None:
    (run / "manifest.json").write_text("{}")
    answer = client_of(explorer_of(run)).get(f"/data/{run_id(run)}/run")
    assert answer.status_code == 409
    message = answer.json()["message"]
    assert message.startswith("Expected a manifest") and "manifest.json" in message
    assert str(run.parent) not in message


def test_a_fault_says_nothing_of_itself(run: Path, monkeypatch: Any) -> None:
    def broken(_: ViewedRun) -> None:
        raise RuntimeError(f"secret of {run}")

    monkeypatch.setitem(providers.PROVIDERS, "run", broken)
    client = client_of(explorer_of(run), raise_server_exceptions=False)
    answer = client.get(f"/data/{run_id(run)}/run")
    assert answer.status_code == 500
    assert answer.json() == {"message": "the server failed; its terminal says why"}


def test_a_payload_is_made_once_and_a_trace_does_not_wait(run: Path, monkeypatch: Any) -> None:
    began, goes_on, made = threading.Event(), threading.Event(), []

    def slow(viewed: ViewedRun) -> str:
        made.append(viewed)
        began.set()
        assert goes_on.wait(20)
        return "all"

    def quick(viewed: ViewedRun, *, trace: str) -> str:
        return trace

    monkeypatch.setitem(providers.PROVIDERS, "slow", slow)
    monkeypatch.setitem(providers.PROVIDERS, "quick", quick)
    opened, name = open_runs.OpenRuns(Catalog([run])), run_id(run)
    found: list[Any] = []
    waiting = [
        threading.Thread(target=lambda: found.append(opened.payload(name, "slow", {})))
        for _ in range(3)
    ]
    for one in waiting:
        one.start()
    assert began.wait(20)
    assert unpack(opened.payload(name, "quick", {"trace": "q"}).content) == "q"
    assert not found
    goes_on.set()
    for one in waiting:
        one.join(20)
    assert len(made) == 1 and len(found) == 3 and found[0] is found[1] is found[2]


def test_few_runs_are_open_and_few_payloads_are_kept(tmp_path: Path, demo_run: Path) -> None:
    for number in range(open_runs.OPEN_RUNS + 2):
        shutil.copytree(demo_run, tmp_path / f"run{number}")
    catalog = Catalog([tmp_path])
    opened = open_runs.OpenRuns(catalog)
    for name in catalog.runs:
        opened.payload(name, "run", {})
    assert len(opened._open) == open_runs.OPEN_RUNS
    assert opened._kept_bytes == sum(len(one.content) for one in opened._kept.values())


def test_what_lies_in_folders_is_found(tmp_path: Path, demo_run: Path) -> None:
    shutil.copytree(demo_run, tmp_path / "a" / "b" / "demo")
    fingerprint = hallutrace.open(demo_run).manifest.fingerprint
    evaluation = tmp_path / "evaluation" / "evaluation.json"
    evaluation.parent.mkdir()
    evaluation.write_text(json.dumps({"run": {"fingerprint": fingerprint}, "detectors": []}))
    training = tmp_path / "detector" / "training.json"
    training.parent.mkdir()
    about = {"fingerprint": fingerprint, "detector": {"name": "length"}, "identity": {}}
    training.write_text(json.dumps(about))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "training.json").write_text("[" * 100_000)
    catalog = Catalog([tmp_path])
    assert [folder.name for folder in catalog.runs.values()] == ["demo"]
    assert [one.folder.name for one in catalog.evaluations_of(fingerprint)] == ["evaluation"]
    assert [one.folder.name for one in catalog.detectors_of(fingerprint)] == ["detector"]
    assert catalog.detectors_of("other") == []


def test_folders_that_are_not_there(tmp_path: Path, command: Any) -> None:
    with pytest.raises(InputError, match="got no folder"):
        Catalog([tmp_path / "none"])
    code, _, errors = command("explore", tmp_path)
    assert code == 2 and "Expected runs in" in errors


def test_a_real_server_in_a_browser(run: Path, opened: Any) -> None:
    shutil.copytree(run, run.parent / "other")
    with served(run.parent) as address:
        page = opened(f"{address}#run={run_id(run)}&view=run")
        facts = page.page.locator(".facts dd").all_inner_texts()
        assert "60" in facts
        assert page.page.get_by_label("Run", exact=True).input_value() == run_id(run)
        page.page.get_by_label("Run", exact=True).select_option(run_id(run.parent / "other"))
        page.settled()
        assert "view=run" in page.page.url and run_id(run.parent / "other") in page.page.url
        page.page.close()
