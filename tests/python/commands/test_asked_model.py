"""`hallutrace ask` asks the model that the detector was trained on, or says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from checkpoints import edit_weights
from conftest import Command
from hallutrace import ExtractConfig, extract, labels
from hallutrace.demo import MODEL_FOLDER, PROMPT_TEMPLATE
from hallutrace.extraction.same_settings import settings_of
from hallutrace.store.reader import open_run


def test_another_model_in_the_folder_is_refused(command: Command, tmp_path: Path) -> None:
    model, run, detector = (tmp_path / name for name in ("model", "run", "detector"))
    shutil.copytree(MODEL_FOLDER, model)
    options = {"model": str(model), "questions": "demo:40", "prompt": PROMPT_TEMPLATE, "out": run}
    extract(ExtractConfig.from_options({**options, "chat": "off"}))
    labels.label(run, "contains")
    trained = ["train", run, "--detector", "length", "--label", "contains", "--out", detector]
    assert command(*trained)[0] == 0
    asked = ["ask", "Where was Ada born?", "--detector", detector, "--json"]
    code, shown, _ = command(*asked)
    assert code == 0

    # The same files elsewhere are the same model.
    moved = shutil.copytree(model, tmp_path / "moved")
    code, again, said = command(*asked, "--model", moved)
    assert (code, json.loads(again)["answer"]) == (0, json.loads(shown)["answer"])
    assert "Warning" not in said

    edit_weights(model, lambda all_: {name: weight * 1.01 for name, weight in all_.items()})
    was = open_run(run).manifest.identity["model"]["commit"]
    code, shown, said = command(*asked)
    assert (code, shown) == (2, "")
    error = said.splitlines()[-1]
    assert error.startswith(
        f"Error: Expected the model whose traces {detector} was trained on, got another one in "
        f"{model} (commit is {was}, here folder-"
    )
    assert error.endswith(f" - restore it, or ask this one with --model {model}")
    code, shown, said = command(*asked, "--model", model)
    assert code == 0
    assert f"Warning: the detector was trained on traces of another model (commit is {was}" in said


def test_a_detector_gives_no_leave_to_run_code(command: Command, tmp_path: Path) -> None:
    run = tmp_path / "run"
    extract(ExtractConfig.from_options({"questions": "demo:5", "out": run}))
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["identity"]["model"] |= {"trust_remote_code": True, "quantization": "fp8"}
    settings = settings_of(manifest["identity"], has_context=False)
    assert "trust_remote_code" not in settings
    # That of a checkpoint itself is no option of extract.
    assert settings["quantization"] == "none"
