"""What other libraries say while a command runs: once, on a line, or not at all."""

from __future__ import annotations

import io
import json
import logging
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from checkpoints import edit_json, edit_weights, save_bitsandbytes, save_fp8
from conftest import question_rows, write_lines
from hallutrace.commands.app import main
from hallutrace.commands.library_warnings import LibraryNotes
from tiny_models import save_tiny


def test_each_warning_is_said_once_and_on_one_line() -> None:
    out = io.StringIO()
    notes = LibraryNotes(Console(file=out, width=1000))
    logger = logging.getLogger("some_library.part")
    logger.addHandler(notes)
    logger.propagate = False
    for _ in range(3):
        logger.warning("first\nsecond \x1b[31m[bold]%s[/bold]", "third")
        logger.info("not a warning")
        logger.warning("This argument is deprecated")
        notes.warn("numbers overflow", RuntimeWarning, "file", 1)
        notes.warn("old", FutureWarning, "file", 1)
    logger.warning("a" * 1000)
    assert out.getvalue().splitlines() == [
        "some_library: first second [31m[bold]third[/bold]",
        "RuntimeWarning: numbers overflow",
        f"some_library: {'a' * 120} ... {'a' * 175}",
    ]


@pytest.mark.parametrize("kind", ["hostile", "int8", "fp8"])
def test_extract_prints_nothing_of_other_libraries(
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if kind == "hostile":
        folder = save_tiny(tmp_path / "model")
        edit_weights(folder, lambda all_: all_ | {"value_head.weight": torch.ones(2)})
        edit_json(folder / "config.json", dtype=None, torch_dtype="float32")
        edit_json(folder / "generation_config.json", temperature=0.3, top_p=0.5, top_k=3)
    elif kind == "int8":
        pytest.importorskip("bitsandbytes")
        folder = save_bitsandbytes(tmp_path, "int8")
    else:
        folder = save_fp8(tmp_path / "model")
    source = write_lines(tmp_path / "two.jsonl", question_rows(2))
    options = ["--model", folder, "--questions", source, "--out", tmp_path / "run"]
    arguments = ["hallutrace", "extract", *options, "--chat", "off", "--max-new-tokens", "4"]
    monkeypatch.setattr(sys, "argv", [*map(str, arguments), "--json"])
    monkeypatch.setenv("COLUMNS", "1000")
    logging.Logger.warning_once.cache_clear()  # type: ignore[attr-defined]
    capfd.readouterr()
    with pytest.raises(SystemExit):
        main()
    shown, said = capfd.readouterr()
    assert json.loads(shown)["traces"] == 2
    first, read, found, *others = said.splitlines()
    assert first == f"Loading torch, transformers and the model {folder} ..."
    assert read.startswith("Read from two.jsonl: ")
    assert found.startswith("Right answers in 2 of ")
    expected = {
        "hostile": [
            f"Left out weights in {folder} that the model has no place for: value_head.weight"
        ],
        "int8": [],
        "fp8": [
            "transformers: Using FP8 quantized models requires a GPU or XPU, we will default to "
            "dequantizing the model to bf16 since no GPU or XPU is available"
        ],
    }
    assert others == expected[kind]
