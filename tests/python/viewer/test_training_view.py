"""The view of trainings: histories as they were written, live and afterwards."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

import hallutrace
from explorers import served
from hallutrace.commands.app import app
from hallutrace.detect.evaluation.fit_cache import PLAN
from hallutrace.detect.nets.history import Epoch
from hallutrace.detect.nets.history_log import ALL, append_to_log
from hallutrace.detect.nets.training import TrainingState
from hallutrace.errors import NotInRunError
from hallutrace.viewer.data.training import training_data
from hallutrace.viewer.evaluations.progress import fit_progress
from hallutrace.viewer.page import page
from hallutrace.viewer.payload import pack
from hallutrace.viewer.viewed_run import ViewedRun

NAMES = [field.name for field in fields(Epoch)]


@pytest.fixture(scope="module")
def trained(demo_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workplace with a run, a net and a linear detector; nobody may change it."""
    place = tmp_path_factory.mktemp("trained")
    run = shutil.copytree(demo_run, place / "runs" / "demo")
    for name, more in (("mlp-probe", ["--epochs", "4"]), ("perplexity", [])):
        words = ["train", str(run), "--detector", name, "--label", "contains", *more]
        typer.main.get_command(app).main(
            [*words, "--out", str(place / "detectors" / name)], standalone_mode=False
        )
    return place


@pytest.fixture
def place(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, to be changed; it is the current folder."""
    folder = shutil.copytree(trained, tmp_path / "place")
    monkeypatch.chdir(folder)
    return folder


def _viewed(place: Path) -> ViewedRun:
    return ViewedRun(hallutrace.open(place / "runs" / "demo"))


def _net(data: dict[str, Any]) -> dict[str, Any]:
    (found,) = (one for one in data["trainings"] if one["detector"] == "mlp-probe")
    return dict(found)


def test_histories_are_those_that_were_written(place: Path) -> None:
    data = training_data(_viewed(place))
    net = _net(data)
    assert net["is_done"] and net["label"] == "contains" and net["problem"] is None
    folder = place / "detectors" / "mlp-probe" / "training"
    assert [part["name"] for part in net["parts"]] == sorted(one.name for one in folder.iterdir())
    for part in net["parts"]:
        written = json.loads((folder / part["name"] / "history.json").read_bytes())
        for name in NAMES:
            expected = [row[name] for row in written["epochs"]]
            np.testing.assert_array_equal(part["columns"][name], expected)
        assert part["notes"] == written["notes"] and part["kept"] == 0
    (linear,) = (one for one in data["trainings"] if one["detector"] == "perplexity")
    assert linear["parts"] == []


def test_a_cursor_gives_only_what_is_new(place: Path) -> None:
    folder = place / "detectors" / "mlp-probe"
    (folder / "detector.json").unlink()  # as while it is being trained
    viewed = _viewed(place)
    data = training_data(viewed)
    before = len(_net(data)["parts"][-1]["columns"]["epoch"])
    again = training_data(viewed, cursor=data["cursor"])
    for part in _net(again)["parts"]:
        assert (part["kept"], len(part["columns"]["epoch"]), part["notes"]) == (ALL, 0, [])
    row = dict.fromkeys(NAMES, 0.5) | {"epoch": before + 1}
    append_to_log(folder / "training" / _net(data)["parts"][-1]["name"], row)
    news = _net(training_data(viewed, cursor=again["cursor"]))["parts"][-1]
    assert (news["kept"], news["columns"]["epoch"].tolist()) == (before, [before + 1])
    assert len(pack(training_data(viewed, cursor=again["cursor"]))) < 2000


def test_a_finished_training_is_told_once(place: Path) -> None:
    viewed = _viewed(place)
    data = training_data(viewed)
    assert _net(training_data(viewed, cursor=data["cursor"]))["parts"] is None
    os.utime(place / "detectors" / "mlp-probe" / "detector.json", (1, time.time() + 5))
    assert _net(training_data(viewed, cursor=data["cursor"]))["parts"]


@pytest.mark.parametrize("cursor", ["", "x", "[]", '{"a": 1}', "[" * 5000])
def test_any_other_cursor_tells_all(place: Path, cursor: str) -> None:
    assert _net(training_data(_viewed(place), cursor=cursor))["parts"]


def test_a_damaged_history_is_told_beside_the_others(place: Path) -> None:
    part = next((place / "detectors" / "mlp-probe" / "training").iterdir())
    (part / "history.jsonl").unlink()
    (part / "history.json").write_text("{")
    net = _net(training_data(_viewed(place)))
    assert "history.json - restore it from a copy" in net["problem"]
    assert len(net["parts"]) == 3


def test_a_run_without_trainings_says_how(demo_run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(demo_run, tmp_path / "alone" / "runs" / "demo")
    with pytest.raises(NotInRunError, match="No detector was trained on this run: `hallutrace tr"):
        training_data(_viewed(tmp_path / "alone"))


@pytest.fixture
def running(place: Path, demo_evaluation: Path) -> Path:
    """An evaluation of which half of the fits are there."""
    folder = place / "evaluations" / "running"
    folder.mkdir(parents=True)
    shutil.copytree(demo_evaluation / "fits", folder / "fits")
    plan = json.loads((folder / "fits" / PLAN).read_bytes())
    plan["found"] = []
    (folder / "fits" / PLAN).write_text(json.dumps(plan))
    for label in ("perplexity", "linear-probe"):
        for name in plan["rows"][label]:
            os.utime(folder / "fits" / name, (1, plan["began"] - 100))  # of an earlier evaluation
    return folder


def test_fits_of_a_running_evaluation_are_counted(place: Path, running: Path) -> None:
    (found,) = training_data(_viewed(place))["evaluations"]
    plan = json.loads((running / "fits" / PLAN).read_bytes())
    assert found["name"] == "running"
    assert found["total"] == sum(map(len, plan["rows"].values()))
    rows = {label: (done, total) for label, done, total in found["rows"]}
    assert rows["length"] == (2, 2) and rows["perplexity"] == (0, 2)
    assert rows["test-failing"] == (0, 2)
    assert found["done"] == sum(done for done, _ in rows.values())


def test_a_finished_or_foreign_evaluation_is_not_running(
    place: Path, running: Path, demo_evaluation: Path
) -> None:
    fingerprint = hallutrace.open(place / "runs" / "demo").manifest.fingerprint
    assert fit_progress(running, fingerprint) is not None
    assert fit_progress(running, "0" * 16) is None
    assert fit_progress(demo_evaluation, fingerprint) is None
    assert fit_progress(place, fingerprint) is None
    (running / "fits" / PLAN).write_text('{"run": 1}')
    assert fit_progress(running, fingerprint) is None


# In the browser -----------------------------------------------------------------------------------


def _page(data: dict[str, Any], file: Path) -> Path:
    payloads = [("training", pack(data))]
    file.write_text("".join(page({"title": "t", "served": False}, payloads)), "utf-8")
    return file


def test_numbers_and_best_epochs_read_back(place: Path, running: Path, opened: Any) -> None:
    data = training_data(_viewed(place))
    shown = opened(_page(data, place / "page.html"))
    shown.show(view="training")
    text = shown.page.locator("main").inner_text()
    assert "perplexity, labels contains: done, validation AUROC" in text
    assert "It is not trained in epochs." in text
    found = data["evaluations"][0]
    assert f"{found['done']} of {found['total']} fits" in text
    figure = shown.page.locator("figure").nth(1)
    figure.locator("summary").click()
    rows = [one.split("\t") for one in figure.locator("tbody tr").all_inner_texts()]
    expected = {}
    for part in _net(data)["parts"]:
        columns = part["columns"]
        rows_of = zip(*(columns[one].tolist() for one in NAMES), strict=True)
        epochs = [Epoch(int(values[0]), *values[1:]) for values in rows_of]
        best = TrainingState(1, epochs=epochs).best_epoch
        for epoch in epochs:
            mark = "yes" if epoch.epoch == best else ""
            expected[part["name"], int(epoch.epoch)] = (epoch.validation_auroc, mark)
    assert len(rows) == len(expected)
    for name, number, auroc, mark in rows:
        value, is_best = expected[name, int(number)]
        assert float(auroc) == pytest.approx(value, rel=1e-3) and mark == is_best


def test_several_trainings_are_compared(place: Path, opened: Any) -> None:
    data = training_data(_viewed(place))
    net = _net(data)
    other = {**net, "id": "other", "name": "second <b>", "is_done": True}
    shown = opened(_page({**data, "trainings": [net, other]}, place / "page.html"))
    shown.show(view="training")
    shown.page.get_by_label("second <b>").check()
    legend = shown.page.locator("figure").first.locator("svg").text_content()
    assert "second <b>" in legend and "mlp-probe" in legend
    assert shown.page.evaluate("document.activeElement.dataset.key") == "other"


def test_a_training_is_followed_in_the_explorer(place: Path, opened: Any) -> None:
    folder = place / "detectors" / "mlp-probe"
    (folder / "detector.json").unlink()
    part = sorted((folder / "training").iterdir())[0]
    with served(place / "runs" / "demo") as address:
        shown = opened(f"{address}#view=training")
        assert "being trained" in shown.page.locator("main").inner_text()
        row = dict.fromkeys(NAMES, 0.5) | {"epoch": 5, "monitored": 9.0, "loss": 0.125}
        append_to_log(part, row)
        shown.page.get_by_text("last epoch 5, loss 0.125").wait_for(timeout=15_000)
        append_to_log(part, {"note": "<i>learns</i>"})
        shown.page.get_by_text("<i>learns</i>").wait_for(timeout=15_000)
        asked = [url for url in shown.requests if "cursor=" in url]
        assert asked
        shown.page.close()
