"""Which evaluations and detectors belong to a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hallutrace
from hallutrace.errors import DamagedError, NotInRunError
from hallutrace.store.reader import TraceStore
from hallutrace.viewer.evaluations import discovery
from hallutrace.viewer.evaluations.discovery import find_for


@pytest.fixture
def workplace(demo_run: Path, demo_evaluation: Path, tmp_path: Path) -> Path:
    """``runs/demo`` and ``evaluations/one`` in a folder."""
    shutil.copytree(demo_run, tmp_path / "runs" / "demo")
    _copy_evaluation(demo_evaluation, tmp_path / "evaluations" / "one")
    return tmp_path


def _copy_evaluation(source: Path, folder: Path, **changes: Any) -> None:
    folder.mkdir(parents=True)
    shutil.copy(source / "scores.csv", folder)
    content = json.loads((source / "evaluation.json").read_bytes())
    content["run"].update(changes)
    (folder / "evaluation.json").write_text(json.dumps(content))


@pytest.fixture
def store(workplace: Path) -> TraceStore:
    return hallutrace.open(workplace / "runs" / "demo")


def test_what_lies_beside_is_found(workplace: Path, store: TraceStore, tmp_path: Path) -> None:
    found = find_for(store, near=tmp_path / "nowhere")
    (one,) = found.evaluations
    assert (one.folder.name, one.run, one.label, one.is_check) == ("one", "demo", "contains", False)
    assert one.detectors == 8 and one.best is not None and 0 <= one.best[1] <= 1
    assert not found.detectors and not found.skipped
    assert find_for(store, near=workplace) == found


def test_a_trained_detector_is_found(
    workplace: Path, store: TraceStore, command: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    out = tmp_path / "detectors" / "probe"
    code, _, errors = command(
        "train", str(store.folder), "--detector", "perplexity", "--label", "contains", "--out", out
    )
    assert code == 0, errors
    (one,) = find_for(store, near=tmp_path).detectors
    assert (one.folder, one.name, one.label, one.is_done) == (out, "perplexity", "contains", True)
    assert one.validation_auroc is not None
    (out / "detector.json").unlink()
    (one,) = find_for(store, detectors=[out]).detectors
    assert not one.is_done


def test_those_of_other_runs_are_left_out(
    workplace: Path, store: TraceStore, demo_evaluation: Path
) -> None:
    _copy_evaluation(demo_evaluation, workplace / "evaluations" / "two", fingerprint="0" * 16)
    scores = workplace / "evaluations" / "one" / "scores.csv"
    scores.write_text(scores.read_text().replace("\nperson", "\nother"))
    assert find_for(store, near=workplace).evaluations == ()
    with pytest.raises(NotInRunError, match=r"Expected an evaluation of the run .*, got one of"):
        find_for(store, evaluations=[workplace / "evaluations" / "two"])


def test_damaged_ones_are_skipped_with_a_word(workplace: Path, store: TraceStore) -> None:
    bad = workplace / "detectors" / "bad"
    bad.mkdir(parents=True)
    (bad / "training.json").write_text("{}")
    path = workplace / "evaluations" / "one" / "evaluation.json"
    path.write_text("{")
    found = find_for(store, near=workplace)
    assert found.evaluations == () and found.detectors == ()
    assert any(str(path) in one for one in found.skipped)
    assert any(str(bad / "training.json") in one for one in found.skipped)
    with pytest.raises(DamagedError):
        find_for(store, evaluations=[path.parent])
    with pytest.raises(NotInRunError, match=r"got no training\.json"):
        find_for(store, detectors=[path.parent])


def test_the_search_is_bounded(
    workplace: Path, store: TraceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "MOST_FOLDERS", 2)
    for number in range(4):
        (workplace / "evaluations" / f"more-{number}").mkdir()
    (word,) = find_for(store, near=workplace).skipped
    assert "has 5 folders, of which 2 were looked into" in word
