"""The workflows of the public host agree with the Makefile and with what the package promises."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    return found


def steps(path: Path) -> Iterator[dict[str, Any]]:
    for job in jobs(path).values():
        yield from job.get("steps", [])


def test_there_are_workflows() -> None:
    assert [path.stem for path in WORKFLOWS] == ["release", "test", "wheels"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_target_of_make_exists(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for step in steps(path):
        asked = set(re.findall(r"\bmake ([a-z-]+)", step.get("run", "")))
        assert asked <= targets, step["run"]
    bounds = jobs(path).get("bounds", {"strategy": {"matrix": {"include": []}}})
    assert {row["target"] for row in bounds["strategy"]["matrix"]["include"]} <= targets


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_and_nothing_is_secret(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "secrets." not in text
    for action in re.findall(r"uses: (\S+)", text):
        is_pinned = re.fullmatch(r"[\w/.-]+@[0-9a-f]{40}", action)
        # Its authors move this branch with each release, and ask for it.
        is_known = action == "pypa/gh-action-pypi-publish@release/v1" or action.startswith("./")
        assert is_pinned or is_known, action


def test_every_python_that_the_package_names_is_tested_on_every_system() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    matrix = jobs(ROOT / ".github" / "workflows" / "test.yml")["test"]["strategy"]["matrix"]
    named = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', project)
    assert matrix["python"] == named
    assert f'requires-python = ">={named[0]}"' in project
    assert {name.partition("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}


def test_every_instruction_set_is_forced() -> None:
    sets = jobs(ROOT / ".github" / "workflows" / "test.yml")["instruction-sets"]
    names = re.findall(r'=> "(\w+)"', (ROOT / "rust" / "simd" / "mod.rs").read_text())
    assert sorted(sets["strategy"]["matrix"]["simd"]) == sorted(names)
