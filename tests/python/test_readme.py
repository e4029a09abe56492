"""What the README says is run as it stands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from hallutrace import ExtractConfig, extract
from hallutrace.commands.app import app

README = Path(__file__).parents[2] / "README.md"


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    pattern = rf"^```{language}\n(.*?)^```$"
    return re.findall(pattern, README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/demo in it."""
    folder = tmp_path_factory.mktemp("readme")
    extract(ExtractConfig(questions="demo:20", out=folder / "runs" / "demo"))
    return folder


@pytest.mark.parametrize("code", blocks("python"))
def test_python_blocks_run(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    exec(compile(code, str(README), "exec"), {})


def test_every_option_of_a_command_exists() -> None:
    known = {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in typer.main.get_group(app).commands.items()
    }
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    commands = [shlex.split(line, comments=True) for line in lines if "hallutrace " in line]
    assert commands
    for _, name, *words in (words for words in commands if words[0] == "hallutrace"):
        assert {word for word in words if word.startswith("--")} <= known[name], name


def test_the_figures_of_the_small_model_are_those_measured() -> None:
    import json

    from hallutrace.demo import FIGURES_FILE

    figures = json.loads(FIGURES_FILE.read_text())
    text = README.read_text(encoding="utf-8")
    for number in (
        figures["right"]["held_out"],
        figures["auroc"]["mean logprob"],
        figures["auroc"]["probe, last answer token"],
    ):
        assert f"{number:.3f}".lstrip("0") in text
