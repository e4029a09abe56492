"""The report: one file, in a real browser without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hallutrace
from hallutrace.viewer.report.report import write_report
from hallutrace.viewer.viewed_run import ViewedRun


def test_the_page_opens_and_asks_nobody(demo_run: Path, tmp_path: Path, opened: Any) -> None:
    out = tmp_path / "report.html"
    write_report(ViewedRun(hallutrace.open(demo_run)), out)
    page = opened(out).page
    assert page.locator("nav a").all_inner_texts()[0] == "Run"
    facts = dict(
        zip(
            page.locator(".facts dt").all_inner_texts(),
            page.locator(".facts dd").all_inner_texts(),
            strict=True,
        )
    )
    assert facts["traces"] == "60"
