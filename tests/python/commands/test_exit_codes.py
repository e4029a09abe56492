"""How a command ends: exit codes and what is said, in processes of their own."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import subprocess
import sys
from email.message import Message
from pathlib import Path

import pytest

import hallutrace
from conftest import posix_only
from hallutrace import ExtractConfig, extract
from hallutrace.commands import exit_codes
from hallutrace.errors import InputError
from hostile_texts import assert_harmless

HOME = Path(hallutrace.__file__).parent.parent
MAIN = "from hallutrace.commands.app import main; main()"
NASTY = "[final] \x1b[2J a \\ b :smile: \u202e\n日本 [/INST] [/b]"


def ended(
    *words: str | bytes | Path, before: str = "", encoding: str = "utf-8", **environment: str
) -> tuple[int, str, str]:
    """Exit code and streams of a command line; what is ``before`` runs first in its process."""
    told = subprocess.run(
        [sys.executable, "-c", f"{before}\n{MAIN}", *words],
        capture_output=True,
        env={
            **os.environ,
            "PYTHONPATH": str(HOME),
            "PYTHONIOENCODING": encoding,
            "HF_HUB_OFFLINE": "1",
            **environment,
        },
    )
    return told.returncode, told.stdout.decode(encoding), told.stderr.decode(encoding)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three questions that a terminal could read as more than text."""
    home = tmp_path_factory.mktemp("nasty")
    rows = [
        {"id": NASTY, "question": NASTY, "answers": ["[/b]"]},
        {"id": "latex", "question": r"What is \frac{a}{b} in C:\new \ ?", "context": NASTY},
        {"id": "plain", "question": "Is it?"},
    ]
    questions = home / "[final] q.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"questions": str(questions), "out": home / "run [final]", "max_new_tokens": 2}
    return extract(ExtractConfig.from_options(options)).folder


# Text of others -----------------------------------------------------------------------------------


def test_traces_of_any_question_are_shown(run: Path) -> None:
    code, out, _ = ended("inspect", run, "--trace", "0")
    assert code == 0
    assert_harmless(out)
    assert r"[final] \x1b[2J a \ b :smile: \u202e⏎日本 [/INST] [/b], sample 0" in out
    code, out, _ = ended("inspect", run, "--trace", "latex")
    assert code == 0
    assert r"What is \frac{a}{b} in C:\new \ ?" in out


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("ascii", []),
        ("ascii", ["--trace", "0"]),
        ("ascii", ["--json"]),
        ("ascii", ["--trace", "0", "--json"]),
        ("latin-1", ["--trace", "0", "--json"]),
        ("cp1252", ["--trace", "0"]),
    ],
)
def test_any_encoding_is_enough(run: Path, encoding: str, words: list[str]) -> None:
    code, out, error = ended("inspect", run, *words, encoding=encoding)
    assert (code, error) == (0, "")
    assert_harmless(out)
    if "--json" in words:
        found = json.loads(out)
        assert NASTY in (found.get("id", NASTY), *found.get("references", []))


@pytest.mark.parametrize("words", [["--help"], ["extract", "--help"], ["inspect"], ["x\udcff"]])
def test_help_needs_no_encoding(words: list[str]) -> None:
    code, out, error = ended(*words, encoding="ascii")
    assert code in (0, 2)
    assert out or error
    assert "\\u" not in out + error.replace(r"\udcff", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["x" + NASTY], "No such command"),
        (["inspect", "run", NASTY], "unexpected extra argument"),
        (["inspect", "--" + NASTY, "x"], "No such option"),
        (["subset", "run", "--out", "x", "--sample", NASTY], "--sample"),
        (["inspect", NASTY], "Expected a run in"),
        (["inspect", b"name-\xff"], r"name-\udcff"),
        (["extract", "--heads", "\x1b[2J"], "Expected --heads"),
    ],
)
def test_mistakes_are_told_without_steering_the_terminal(
    words: list[str | bytes], said: str, tmp_path: Path
) -> None:
    code, out, error = ended(*words)
    assert (code, out) == (2, "")
    assert_harmless(error)
    assert said in error
    assert "Traceback" not in error
    assert re.search("^Error: ", error, re.MULTILINE)


def test_a_long_message_keeps_its_end() -> None:
    code, _, error = ended("inspect", "x" * 100_000)
    assert code == 2
    assert len(error) < 12_000
    assert "characters left out" in error
    code, _, error = ended("extract", "--heads", "x" * 100_000)
    assert error.endswith("change --heads\n")


# Ctrl-C -------------------------------------------------------------------------------------------

INTERRUPTED = """
import os, signal, {module}
# Where the tests themselves run in the background, a shell has them ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
def stop(*_, **__):
    os.kill(os.getpid(), signal.SIGINT)
    signal.pause()
{module}.{name} = stop
"""


# An extraction that is stopped while it works, without the time that loading torch takes.
WITHOUT_TORCH = """
import sys, types, hallutrace.commands.library_warnings, hallutrace.extraction
hallutrace.commands.library_warnings.quiet_libraries = lambda is_small: None
pipeline = types.ModuleType("pipeline")
hallutrace.extraction.pipeline = sys.modules["hallutrace.extraction.pipeline"] = pipeline
"""


@posix_only
def test_ctrl_c_tells_how_to_go_on() -> None:
    words = ["extract", "--prompt", "[INST] {question} [/INST]", "--out", "my [run]'s"]
    stop = WITHOUT_TORCH + INTERRUPTED.format(
        module="hallutrace.extraction.pipeline", name="extract"
    )
    code, out, error = ended(*words, before=stop)
    assert (code, out) == (130, "")
    assert "Traceback" not in error
    last = error.splitlines()[-1]
    assert last.startswith("To go on: hallutrace extract --prompt '[INST] {question} [/INST]'")
    assert shlex.split(last.removeprefix("To go on: ")) == ["hallutrace", *words]


@posix_only
@pytest.mark.parametrize(
    ("words", "module", "name"),
    [
        (["inspect", "x"], "hallutrace.store.reader", "open_run"),
        (["verify", "x"], "hallutrace.store.verify", "verify_run"),
        (["subset", "x", "--out", "y"], "hallutrace.store.subset", "subset"),
        (["--help"], "hallutrace.commands.app.typer.main", "get_command"),
    ],
)
def test_ctrl_c_anywhere_is_a_line(words: list[str], module: str, name: str) -> None:
    if module == "hallutrace.commands.app.typer.main":
        stop = INTERRUPTED.format(module="typer.main", name=name)
    else:
        stop = INTERRUPTED.format(module=module, name=name)
    assert ended(*words, before=stop) == (130, "", "\nStopped.\n")


# Faults -------------------------------------------------------------------------------------------

FAULTY = """
import hallutrace.store.reader
def fail(*_):
    raise {error}
hallutrace.store.reader.open_run = fail
"""


def test_a_fault_of_ours_shows_where_and_asks_for_a_report() -> None:
    text = "RuntimeError('\\x1b[2J [/b] \\ud800')"
    code, out, error = ended("inspect", "x", before=FAULTY.format(error=text))
    assert (code, out) == (1, "")
    assert_harmless(error)
    assert error.startswith("Traceback (most recent call last):\n")
    *_, raised, last = error.splitlines()
    assert raised == r"RuntimeError: \x1b[2J [/b] \ud800"
    assert last.startswith("This is a fault of hallutrace ")
    assert f"(Python {platform.python_version()}, torch " in last
    assert ", transformers " in last
    assert last.endswith(" with the lines above")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("OSError(28, 'No space left on device')", 2),
        ("PermissionError(13, 'Permission denied', 'a\\x1bb')", 2),
        ("FileNotFoundError(2, 'No such file', 'ours')", 1),
        ("MemoryError()", 1),
        ("BaseException('a panic')", 1),
        ("SystemExit(7)", 7),
    ],
)
def test_every_exception_has_its_code(error: str, code: int) -> None:
    ending = ended("inspect", "x", before=FAULTY.format(error=error))
    assert ending[0] == code
    assert_harmless(ending[2])
    assert ("Traceback" in ending[2]) == (code == 1)
    if code == 2:
        assert ending[2].startswith("Error: Expected to read and write files, got: ")
    if "a\\x1bb" in error:
        assert r"Permission denied: a\x1bb - " in ending[2]


def test_the_place_for_reports_is_that_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    about = Message()
    monkeypatch.setattr(exit_codes, "metadata", lambda _: about)
    assert "report it to the maintainers with the lines above" in exit_codes.fault_line()
    about["Project-URL"] = "Homepage, https://example.org"
    assert "report it at https://example.org with the lines above" in exit_codes.fault_line()
    about["Project-URL"] = "Issues, https://example.org/issues"
    assert "report it at https://example.org/issues with" in exit_codes.fault_line()


def test_further_lines_of_a_message_are_set_in(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_codes.report_error(InputError("Expected a\nError: b")) == 2
    assert capsys.readouterr().err == "Error: Expected a\n  Error: b\n"
