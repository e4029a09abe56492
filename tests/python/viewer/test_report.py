"""The report: one file, in a real browser without a network."""

from __future__ import annotations

import json
import shutil
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


def test_the_traces_in_full_are_counted_as_they_are(demo_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(demo_run, tmp_path / "run"))
    labels = run / "labels" / "contains.jsonl"
    rows = [json.loads(line) for line in labels.read_text().splitlines()]
    for row in rows[3:]:
        row["label"] = None  # which leaves three traces that can be worst
    labels.write_text("".join(json.dumps(row) + "\n" for row in rows))
    notes = write_report(ViewedRun(hallutrace.open(run)), tmp_path / "report.html")
    assert notes[0].startswith("3 of 60 traces carry their attention graphs")
