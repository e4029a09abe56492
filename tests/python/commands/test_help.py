"""The help of each command teaches it, and shells complete commands and values."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from hallutrace.commands.app import app, main

GROUP: Any = typer.main.get_command(app)
COMMANDS = sorted(GROUP.commands)


def completions(monkeypatch: pytest.MonkeyPatch, capsys: Any, *words: str) -> list[str]:
    """What bash is offered for the last of these words."""
    monkeypatch.setenv("_HALLUTRACE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", shlex.join(["hallutrace", *words]).removesuffix("''"))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    with pytest.raises(SystemExit):
        main()
    return capsys.readouterr().out.split()


DETECTOR = """
from hallutrace.detect import Scorer, register

@register
class Mine(Scorer):
    name = "mine"

    def score(self, trace):
        return 0.0
"""


@pytest.mark.parametrize("name", COMMANDS)
def test_each_example_is_a_command_line_that_is_accepted(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_detector.py").write_text(DETECTOR, encoding="utf-8")  # plugins have to be there
    command = GROUP.commands[name]
    title, *examples = [part.strip() for part in command.epilog.split("\n\n")]
    assert title == "Examples:"
    assert examples
    for example in examples:
        program, given, *arguments = shlex.split(example)
        assert (program, given) == ("hallutrace", name)
        command.make_context(name, arguments)  # raises where an option is unknown


@pytest.mark.parametrize("name", COMMANDS)
def test_each_option_is_explained_in_a_phrase(name: str) -> None:
    for one in GROUP.commands[name].params:
        # Of arguments, some versions of click drop the help.
        if one.param_type_name == "option" and one.name != "help":
            text = re.sub(r"\s*\[required\]$", "", one.help or "")
            assert len(text.split()) > 2, (name, one.name)
            assert text[0].isupper() or text.startswith("all: "), (name, one.name)
            assert text.endswith("."), (name, one.name)


def test_help_shows_defaults() -> None:
    options = {one.name: one.help for one in GROUP.commands["extract"].params}
    assert options["heads"].endswith("(default: mean).")
    assert options["seed"] == "Seed of sampling (default: 0)."


def test_help_shows_the_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        GROUP.commands["verify"].main(["--help"])
    assert "hallutrace verify runs/demo" in capsys.readouterr().out


def test_commands_are_completed(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert completions(monkeypatch, capsys, "ev") == ["evaluate"]
    assert set(completions(monkeypatch, capsys, "")) == set(COMMANDS)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["extract", "--heads", ""], ["mean", "max", "each"]),
        (["extract", "--heads", "m"], ["mean", "max"]),
        (["extract", "--preset", "triviaqa-q"], ["triviaqa-qwen3-4b"]),
        (["label", "run", "--by", "r"], ["rouge-l"]),
        (["label", "run", "--normalize", ""], ["unicode", "triviaqa"]),
        (["evaluate", "run", "--seeds-on", "s"], ["spread"]),
        (["train", "run", "--detector", "lookback"], ["lookback-lens"]),
        (["subset", "run", "--label", "w"], ["wrong"]),
    ],
)
def test_values_are_completed(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, words: list[str], expected: list[str]
) -> None:
    assert completions(monkeypatch, capsys, *words) == expected


def test_options_are_completed(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    found = completions(monkeypatch, capsys, "extract", "--top")
    assert {"--top-k", "--top-mass"} <= set(found)
    assert all(option.startswith("--top") for option in found)


def test_completion_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script that is installed asks this program, by the variable that it answers to."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    done = subprocess.run(
        [sys.executable, "-m", "hallutrace", "--install-completion", "bash"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "completion installed" in done.stdout
    scripts = list((tmp_path / ".bash_completions").iterdir())
    assert [path.name for path in scripts] == ["hallutrace.sh"]
    assert "_HALLUTRACE_COMPLETE=complete_bash" in scripts[0].read_text()
    assert str(scripts[0]) in (tmp_path / ".bashrc").read_text()
