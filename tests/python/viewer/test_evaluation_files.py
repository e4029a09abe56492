"""An evaluation as it is read: what was written comes back, and damage is told."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hallutrace
from evaluations import FAILED, MISSING, REASON
from hallutrace.errors import DamagedError, NotInRunError
from hallutrace.viewer.evaluations.files import EvaluationFiles
from hallutrace.viewer.viewed_run import ViewedRun


@pytest.fixture
def copied(demo_evaluation: Path, tmp_path: Path) -> Path:
    """An evaluation that may be damaged."""
    folder = tmp_path / "evaluation"
    folder.mkdir()
    for name in ("evaluation.json", "scores.csv"):
        shutil.copy(demo_evaluation / name, folder / name)
    return folder


def test_scores_are_means_over_seeds_in_the_order_of_the_run(
    demo_run: Path, demo_evaluation: Path
) -> None:
    store = hallutrace.open(demo_run)
    with (demo_evaluation / "scores.csv").open(newline="") as file:
        rows = {(row["id"], int(row["sample"])): row for row in csv.DictReader(file)}
    found = EvaluationFiles.read(demo_evaluation).aligned([*store.keys(), ("unknown", 0)])
    label = "attention-gnn epochs=1 hidden_dim=8"
    for at, key in enumerate(store.keys()):
        if key not in rows:
            assert np.isnan(found[label][at])
            continue
        mean = (float(rows[key][f"{label} seed=0"]) + float(rows[key][f"{label} seed=1"])) / 2
        assert found[label][at] == np.float32(mean)
        assert found["perplexity"][at] == np.float32(rows[key]["perplexity"])
    assert np.isnan(found[label][-1])
    assert FAILED not in found and MISSING not in found


def test_rows_without_figures_say_why(demo_evaluation: Path) -> None:
    content = EvaluationFiles.read(demo_evaluation).content
    with pytest.raises(NotInRunError, match=f"{FAILED} has no scores .failed.: {REASON}"):
        content.row(FAILED)
    with pytest.raises(NotInRunError, match="missing"):
        content.row(MISSING)
    with pytest.raises(NotInRunError, match="Expected one of the detectors length, "):
        content.row("other")


def test_there_may_be_none(demo_run: Path, tmp_path: Path) -> None:
    with pytest.raises(NotInRunError, match=r"got no evaluation\.json - is .* done\?"):
        EvaluationFiles.read(tmp_path)
    with pytest.raises(NotInRunError, match="No evaluation is shown: `hallutrace evaluate"):
        _ = ViewedRun(hallutrace.open(demo_run)).evaluation_json


def _without(*path: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for name in path[:-1]:
            content = content[name]
        del content[path[-1]]

    return change


def _with(value: Any, *path: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for name in path[:-1]:
            content = content[name]
        content[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_with(2, "schema"), "no JSON object of schema 1"),
        (_without("run", "counts", "right"), "`run.counts.right`: Field required"),
        (_with("high", "detectors", 0, "auroc", "value"), "`detectors.0.auroc.value`: "),
        (_with("done?", "detectors", 0, "status"), "`detectors.0.status`: "),
        (_without("detectors", 0, "auroc"), "no figures of length"),
        (_without("timing", "length"), "no `timing` of length"),
        (_with([[0]], "detectors", 0, "seeds"), "not 2 folds of length"),
        (_with("length", "detectors", 1, "label"), "a row twice in `detectors`"),
    ],
)
def test_damaged_figures_are_told(
    copied: Path, change: Callable[[dict[str, Any]], None], told: str
) -> None:
    path = copied / "evaluation.json"
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(DamagedError) as error:
        EvaluationFiles.read(copied)
    assert str(error.value).startswith(f"Expected what `hallutrace evaluate` wrote, got {told}")
    assert str(path) in str(error.value) and "evaluate again" in str(error.value)


@pytest.mark.parametrize("text", [b"", b"[1]", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_told(copied: Path, text: bytes) -> None:
    (copied / "evaluation.json").write_bytes(text)
    with pytest.raises(DamagedError, match=r"evaluation\.json - restore it from a copy"):
        EvaluationFiles.read(copied)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda lines: [], "no column 'id'"),
        (lambda lines: [lines[0].replace("perplexity", "other"), *lines[1:]], "no column"),
        (lambda lines: [f"{lines[0]},more", *lines[1:]], "other columns"),
        (lambda lines: lines[:-1], "traces, .* instead of"),
        (lambda lines: [*lines[:-1], lines[-1][:20]], "cells in row"),
        (lambda lines: [*lines[:-1], f"{lines[-1][: lines[-1].rindex(',')]},nan"], "not finite"),
        (lambda lines: [*lines[:-1], f"{lines[-1][: lines[-1].rindex(',')]},x"], "could not"),
        (lambda lines: [*lines[:-2], lines[-2], lines[-2]], "traces, .* instead of"),
    ],
)
def test_damaged_scores_are_told(
    copied: Path, change: Callable[[list[str]], list[str]], told: str
) -> None:
    path = copied / "scores.csv"
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    with pytest.raises(DamagedError, match=told):
        _ = EvaluationFiles.read(copied).scores


def test_missing_scores_are_told(copied: Path) -> None:
    (copied / "scores.csv").unlink()
    with pytest.raises(DamagedError, match=r"got no such file in .*scores\.csv"):
        _ = EvaluationFiles.read(copied).scores


def test_long_and_strange_ids_come_back(copied: Path) -> None:
    files = EvaluationFiles.read(copied)
    first = files.scores.keys[0][0]
    strange = 'a,"b"\n' + "x" * 200_000
    path = copied / "scores.csv"
    quoted = '"' + strange.replace('"', '""') + '"'
    path.write_text(path.read_text().replace(f"\n{first},", f"\n{quoted},", 1), newline="")
    found = EvaluationFiles.read(copied).aligned([(strange, 0)])
    assert np.isfinite(found["length"]).all()
