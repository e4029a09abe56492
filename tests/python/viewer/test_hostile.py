"""A hostile run harms neither page nor report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import hallutrace
from hallutrace.viewer.report.report import write_report
from hallutrace.viewer.viewed_run import ViewedRun
from hostile_runs import hostile_run, megabyte_run


@pytest.mark.parametrize("make", [hostile_run, megabyte_run])
def test_no_view_runs_what_it_shows(make: Any, tmp_path: Path, opened: Any) -> None:
    out = tmp_path / "report.html"
    write_report(ViewedRun(hallutrace.open(make(tmp_path / "run"))), out)
    shown = opened(out)
    titles = shown.page.locator("nav a").all_inner_texts()
    assert titles
    for title in titles:
        shown.page.get_by_role("link", name=title, exact=True).first.click()
        shown.settled()
        assert shown.page.evaluate("window.harmed") is None
        assert not shown.page.locator("main img").count()
        assert shown.page.evaluate("document.scripts.length") == shown.page.evaluate(
            "document.querySelectorAll('script[data-key], #settings, script[type=module]').length"
        )
        width = shown.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert width <= 0, f"{title} is wider than the window"
