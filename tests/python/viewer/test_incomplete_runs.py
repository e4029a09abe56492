"""Runs that lack something: the views that can, show; the others say which command gives it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import hallutrace
from hallutrace import ExtractConfig, extract
from hallutrace.viewer.report.report import write_report
from hallutrace.viewer.viewed_run import ViewedRun


def shown_report(run: Path, out: Path, opened: Any) -> dict[str, str]:
    """The text of each view of a run's report."""
    write_report(ViewedRun(hallutrace.open(run)), out)
    page = opened(out)
    texts = {}
    for link in page.page.locator("nav a").all():
        link.click()
        page.settled()
        texts[link.inner_text()] = page.page.locator("main").inner_text()
    for name, text in texts.items():
        assert "could not be shown" not in text, f"{name}: {text}"
    return texts


def copied(run: Path, folder: Path) -> Path:
    return Path(shutil.copytree(run, folder / "run"))


def test_a_run_without_labels(demo_run: Path, tmp_path: Path, opened: Any) -> None:
    run = copied(demo_run, tmp_path)
    shutil.rmtree(run / "labels")
    texts = shown_report(run, tmp_path / "report.html", opened)
    assert "hallutrace label" in texts["Run"]
    assert "60" in texts["Run"]
    assert {"Layers and heads", "Trace", "Map"} <= set(texts)


def test_a_run_without_hidden_states(tmp_path: Path, opened: Any) -> None:
    run = tmp_path / "run"
    extract(
        ExtractConfig(
            model="demo", questions="demo:12", out=run, hidden_states="none", device="cpu"
        )
    )
    texts = shown_report(run, tmp_path / "report.html", opened)
    assert "--hidden-states" in texts["Map"] or "hidden_states" in texts["Map"]
    assert "Layers and heads" in texts


def test_a_run_that_is_not_finished(demo_run: Path, tmp_path: Path, opened: Any) -> None:
    run = tmp_path / "run"
    extract(ExtractConfig(model="demo", questions="demo:12", out=run, shard_size=4, device="cpu"))
    for ending in ("json", "safetensors"):
        (run / "shards" / f"00001.{ending}").unlink()
    texts = shown_report(run, tmp_path / "report.html", opened)
    assert "8" in texts["Run"]


def test_a_damaged_shard(demo_run: Path, tmp_path: Path, opened: Any) -> None:
    run = copied(demo_run, tmp_path)
    shard = run / "shards" / "00000.safetensors"
    data = bytearray(shard.read_bytes())
    question = hallutrace.open(demo_run)[5].question.encode()
    data[data.index(question)] ^= 0x01
    shard.chmod(0o644)
    shard.write_bytes(data)
    texts = shown_report(run, tmp_path / "report.html", opened)
    assert "cannot be read" in texts["Run"]


def test_an_empty_run(tmp_path: Path, opened: Any) -> None:
    run = tmp_path / "run"
    extract(ExtractConfig(model="demo", questions="demo:4", out=run, shard_size=4, device="cpu"))
    for path in (run / "shards").iterdir():
        path.unlink()
    texts = shown_report(run, tmp_path / "report.html", opened)
    assert "hallutrace extract" in texts["Run"] or "no traces" in texts["Run"]
