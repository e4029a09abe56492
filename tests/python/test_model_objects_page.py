"""The page about model objects: its blocks run in order, and its options exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from hallutrace import ExtractConfig

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "model-objects.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_its_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("peft")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 8
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert [trace.answer for trace in names["with_adapter"]]
    assert (tmp_path / "runs" / "object" / "manifest.json").is_file()


def test_its_options_exist() -> None:
    options = set(re.findall(r"--([a-z-]+)", TEXT))
    assert "adapter" in options
    assert {option.replace("-", "_") for option in options} <= ExtractConfig.model_fields.keys()
