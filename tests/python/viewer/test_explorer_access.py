"""The explorer's own views are read and used: by axe-core's rules, and when small."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hallutrace
from browsers import assert_fits, serious_violations
from explorers import served
from hallutrace.viewer.explorer.catalog import run_id

VIEWS = ("runs", "ask", "sensitivity")


@pytest.fixture(scope="module")
def address(probed_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An explorer of two runs and two detectors."""
    folder = shutil.copytree(probed_runs, tmp_path_factory.mktemp("explored") / "runs")
    shutil.copytree(folder / "run", folder / "other")
    key = hallutrace.open(folder / "run")[3].id
    detector = run_id(folder / "lookback-lens")
    with served(folder, "--device", "cpu") as found:
        yield f"{found}#run={run_id(folder / 'run')}&trace={key}&asked_by={detector}"


def forgive_absences(shown: Any) -> None:
    """What a run does not have is answered with 404, which the console of a browser tells."""
    shown.errors = [one for one in shown.errors if "Failed to load resource" not in one]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_violation(scheme: str, address: str, opened: Any) -> None:
    # What axe-core runs in the page is text, which the page's own policy forbids.
    shown = opened(address, color_scheme=scheme, bypass_csp=True)
    found = serious_violations(shown, VIEWS)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("width", [360, 1280])
def test_no_view_is_wider_than_the_window(width: int, address: str, opened: Any) -> None:
    shown = opened(address, viewport={"width": width, "height": 800})
    assert_fits(shown, VIEWS)


def test_every_view_is_reached_by_keyboard(address: str, opened: Any) -> None:
    shown = opened(address)
    names = shown.page.locator("nav.tabs a").all_inner_texts()
    assert {"Runs", "Ask", "Sensitivity"} <= set(names)
    for name in names:
        shown.page.locator("nav.tabs").get_by_role("link", name=name, exact=True).focus()
        shown.page.keyboard.press("Enter")
        shown.settled()
        assert shown.page.locator("nav.tabs [aria-current]").inner_text() == name
    forgive_absences(shown)
