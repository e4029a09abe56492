"""The detectors of the page on detectors of your own are evaluated and score, from it alone."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from conftest import Command
from hallutrace import ExtractConfig, extract

PAGES = Path(__file__).parents[2] / "docs" / "how-to"
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("pages") / "runs" / "demo"
    extract(ExtractConfig(out=run))
    return run


def test_every_detector_of_the_page_is_evaluated_and_scores(
    demo: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(demo, tmp_path / "runs" / "demo")
    monkeypatch.chdir(tmp_path)
    files = {}
    text = (PAGES / "own-detector.md").read_text(encoding="utf-8")
    for language, file, code in BLOCK.findall(text):
        if language == "python" and file:
            Path(file).write_text(code, encoding="utf-8")
            (name,) = re.findall(r'^    name = "([\w-]+)"$', code, re.MULTILINE)
            files[name] = file
            assert len([line for line in code.splitlines() if line.strip()]) <= 30
    assert len(files) == 3
    assert command("label", "runs/demo", "--by", "contains")[0] == 0
    plugins = [part for file in files.values() for part in ("--plugin", file)]
    asked = ["--label", "contains", "--detectors", ",".join(files), "--limit", "90", "--folds", "2"]
    status, out, errors = command("evaluate", "runs/demo", *asked, *plugins, "--jobs", "1")
    assert status == 0, errors
    assert all(name in out for name in files)
    for name in files:
        asked = ["--detector", name, "--label", "contains", "--out", name, "--limit", "90"]
        assert command("train", "runs/demo", *asked, *plugins)[0] == 0
        status, out, errors = command("score", "runs/demo", "--detector", name, *plugins)
        assert status == 0, errors
        assert len(out.splitlines()) == 401
