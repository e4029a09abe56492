"""A view saved as one file: it shows the same without the server."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from explorers import POST, client_of, explorer_of, served
from hallutrace.errors import InputError
from hallutrace.viewer.explorer.bodies import payloads_of, state_of
from hallutrace.viewer.explorer.catalog import run_id


@pytest.fixture
def run(demo_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(demo_run, tmp_path / "runs" / "demo")


def test_a_saved_page_carries_what_was_used(run: Path, tmp_path: Path, opened: Any) -> None:
    body = {
        "run": run_id(run),
        "payloads": [["run", {}], ["run", {"x": None}], ["nothing", {}]],
        "state": {"view": "run", "label": "contains"},
    }
    answer = client_of(explorer_of(run)).post("/save", json=body, headers=POST)
    assert answer.status_code == 200
    assert answer.headers["content-disposition"].startswith("attachment")
    assert str(run.parent) not in answer.text
    file = tmp_path / "saved.html"
    file.write_bytes(answer.content)
    page = opened(file).page
    assert page.evaluate("location.hash") == "#view=run&label=contains"
    assert page.locator("main").inner_text()


@pytest.mark.parametrize(
    "body",
    [
        {"run": "demo"},
        {"run": "demo", "payloads": [["run"]], "state": {}},
        {"run": "demo", "payloads": [["run", {"x": [1]}]], "state": {}},
        {"run": "demo", "payloads": [["run", {}]] * 401, "state": {}},
        {"run": "demo", "payloads": [], "state": []},
        {"payloads": [], "state": {}},
    ],
)
def test_bodies_that_are_refused(run: Path, body: Any) -> None:
    answer = client_of(explorer_of(run)).post("/save", json=body, headers=POST)
    assert answer.status_code == 400 and answer.json()["message"].startswith("Expected")


def test_values_are_written_as_the_page_writes_them() -> None:
    assert payloads_of([["a", {"x": True, "y": 2, "z": None}]]) == [("a", {"x": "true", "y": "2"})]
    assert state_of({"view": "run"}) == {"view": "run"}
    with pytest.raises(InputError):
        state_of({"x": {}})


def test_saving_in_a_browser(run: Path, opened: Any, tmp_path: Path) -> None:
    with served(run) as address:
        page = opened(f"{address}#run={run_id(run)}&view=run").page
        shown = page.locator("main").inner_text()
        with page.expect_download() as download:
            page.get_by_role("button", name="Save this page").click()
        assert download.value.suggested_filename == "demo-run.html"
        download.value.save_as(tmp_path / "saved.html")
        page.close()
    saved = opened(tmp_path / "saved.html").page
    assert saved.locator("main").inner_text() == shown
    assert saved.get_by_role("button", name="Save this page").count() == 0
