"""Every block of code in the documents is run as it stands, page by page, on the small model.

The blocks of a page run in order, in one folder that has `runs/demo` in it: Python in one
namespace, commands of hallutrace in this process. A block with `title="NAME"` is a file, which is
put there. A block that cannot run says why in a comment before it: `<!-- not run: REASON -->`.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from conftest import Command
from hallutrace import ExtractConfig, extract
from hallutrace.commands.app import app

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+) -->\n)?"
    r"^```(?P<language>\S*)(?: title=\"(?P<file>[^\"\n]+)\")?\n"
    r"(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
DATA = {"json", "yaml", "csv", "text"}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    code: str
    file: str | None
    reason: str | None


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [
        Block(one["language"], one["code"], one["file"], (one["reason"] or "").strip() or None)
        for one in found
    ]


def commands(block: Block) -> list[list[str]]:
    """The words of each command of a shell block."""
    return [
        words for line in block.code.splitlines() if (words := shlex.split(line, comments=True))
    ]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that `hallutrace extract` makes without options."""
    run = tmp_path_factory.mktemp("documents") / "runs" / "demo"
    extract(ExtractConfig(out=run))
    return run


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=name_of)
def test_the_blocks_of_a_page_run(
    page: Path, demo: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(demo, tmp_path / "runs" / "demo")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.file:
            Path(block.file).write_text(block.code, encoding="utf-8")
        elif block.reason or block.language in DATA:
            continue
        elif block.language == "python":
            exec(compile(block.code, name_of(page), "exec"), namespace)
        else:
            assert block.language == "sh", f"a block of {block.language!r} in {name_of(page)}"
            for program, *words in commands(block):
                assert program == "hallutrace", f"{program} is not run: say why before the block"
                code, _, errors = command(*words)
                assert code == 0, f"hallutrace {shlex.join(words)}: {errors}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_option_of_a_command_exists(page: Path) -> None:
    known = {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in typer.main.get_group(app).commands.items()
    }
    for block in blocks(page):
        for program, *words in commands(block) if block.language == "sh" else []:
            if program == "hallutrace" and words[0] in known:
                options = {word for word in words if word.startswith("--")}
                assert options <= known[words[0]], shlex.join(words)
            else:
                assert program != "hallutrace" or words[0].startswith("-"), shlex.join(words)


def test_every_fence_is_seen() -> None:
    for page in PAGES:
        fences = re.findall(r"^\s*```", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(fences) == 2 * len(blocks(page)), name_of(page)


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    for page in PAGES[:4]:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert "://" in link or (page.parent / link).exists(), f"{link} in {name_of(page)}"


def test_the_figures_of_the_small_model_are_those_measured() -> None:
    from hallutrace.demo import FIGURES_FILE

    figures = json.loads(FIGURES_FILE.read_text())
    for page in ("README.md", "docs/explanations/measured.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        for number in (
            figures["right"]["held_out"],
            figures["auroc"]["mean logprob"],
            figures["auroc"]["probe, last answer token"],
        ):
            assert f"{number:.3f}".lstrip("0") in text, page
