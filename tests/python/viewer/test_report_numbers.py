"""What a whole report shows, view by view, against the store and evaluation.json alone.

Nothing here asks a payload of the page: labels are the lines of the file, scores those of
scores.csv, and the rest is numpy on the traces.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hallutrace
from browsers import Opened


def labels_of(run: Path) -> np.ndarray:
    """Labels by the protocol ``contains``, int, in the order of the run."""
    lines = (run / "labels" / "contains.jsonl").read_text("utf-8").splitlines()
    found = {row["id"]: row["label"] for row in map(json.loads, lines)}
    return np.array([found[trace.id] for trace in hallutrace.open(run)])


def best_of(content: dict[str, Any]) -> dict[str, Any]:
    """The detector of the largest AUROC that is no control."""
    ours = [
        row
        for row in content["detectors"]
        if row["status"] == "done" and not row["is_control"] and not row["edges_control_of"]
    ]
    return dict(max(ours, key=lambda row: row["auroc"]["value"]))


def figure_of(row: dict[str, Any], name: str) -> str:
    value = row[name]
    return f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"


def errors_of(evaluation: Path, detector: str) -> tuple[int, int]:
    """Misses and false alarms where at most a tenth of the right answers of a fold may be flagged.

    A trace's rank is the share of its fold below it, ties half, as a mean over seeds.
    """
    with (evaluation / "scores.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    columns = [name for name in rows[0] if name.partition(" seed=")[0] == detector]
    misses = false = 0
    for fold in {row["fold"] for row in rows}:
        inside = [row for row in rows if row["fold"] == fold]
        label = np.array([int(row["label"]) for row in inside])
        scores = np.array([[float(row[name]) for name in columns] for row in inside], np.float32)
        below = (scores[None] < scores[:, None]) + (scores[None] == scores[:, None]) / 2
        ranks = below.mean(1).mean(1)
        right = ranks[label == 0]
        at_least = (right[None] >= ranks[:, None]).sum(1)
        alarm = at_least <= int(len(right) / 10 + 1e-9)
        misses += int((~alarm & (label == 1)).sum())
        false += int((alarm & (label == 0)).sum())
    return misses, false


def check_run(shown: Opened, run: Path, content: dict[str, Any]) -> None:
    label, text = labels_of(run), shown.page.locator("main").inner_text()
    facts = dict(
        zip(
            shown.page.locator(".facts dt").all_inner_texts(),
            shown.page.locator(".facts dd").all_inner_texts(),
            strict=True,
        )
    )
    store = hallutrace.open(run)
    assert facts["traces"] == f"{len(store)}" and facts["failures"] == "0"
    assert facts["answer tokens"] == f"{sum(len(trace.logprob) for trace in store):,}"
    assert f"{(label == 1).sum()} of {len(label)} labelled answers" in text
    assert shown.page.locator(".big").first.inner_text() == f"{100 * label.mean():.1f}%"
    best = best_of(content)
    assert f"{best['label']}, reaches AUROC {figure_of(best, 'auroc')}" in text
    control = content["best_control"]
    row = next(one for one in content["detectors"] if one["label"] == control)
    assert f"{control}, reaches AUROC {figure_of(row, 'auroc')}" in text


def check_layers(shown: Opened, run: Path) -> None:
    label = labels_of(run)
    # The entropy has a row for each token that was produced: P-1 .. N-1.
    values = np.stack(
        [trace.marginals.entropy.astype(np.float64).mean(-1) for trace in hallutrace.open(run)]
    )
    difference = values[label == 1].mean(0) - values[label == 0].mean(0)
    details = shown.page.locator("details.numbers").first
    details.locator("summary").click()
    names = [name.split("\n")[0] for name in details.locator("th").all_inner_texts()]
    column = next(at for at, name in enumerate(names) if "difference" in name)
    cells = [row.split("\t") for row in details.locator("tbody tr").all_inner_texts()]
    assert len(cells) == difference.size
    for row in cells:
        expected = difference[int(row[0]), int(row[1])]
        assert float(row[column]) == pytest.approx(expected, rel=1e-3, abs=2e-6)


def check_trace(shown: Opened, run: Path) -> None:
    trace = hallutrace.open(run)[2]
    for answer in range(len(trace.logprob)):
        shown.show(trace=trace.id, token=trace.prompt_length + answer)
        names = shown.page.locator(".numbers-of-token dt").all_inner_texts()
        told = shown.page.locator(".numbers-of-token dd").all_inner_texts()
        numbers = dict(zip(names, told, strict=True))
        assert float(numbers["log-probability"]) == pytest.approx(
            float(trace.logprob[answer]), rel=6e-3, abs=1e-3
        )


def check_map(shown: Opened, run: Path) -> None:
    store = hallutrace.open(run)
    layer = 3  # the last
    rows = [
        trace.hidden(layer)[-2 if trace.finish_reason == "eos" else -1].astype(np.float64)
        for trace in store
    ]
    states = np.stack(rows)
    variance = np.linalg.svd(states - states.mean(0), compute_uv=False) ** 2
    first, second = 100 * variance[:2] / variance.sum()
    assert f"{first:.1f}% and {second:.1f}%" in shown.page.locator("figcaption").inner_text()


def check_detectors(shown: Opened, content: dict[str, Any]) -> None:
    done = [row for row in content["detectors"] if row["status"] == "done"]
    for row in done:
        cells = shown.page.locator(f'tr[data-label="{row["label"]}"] td').all_inner_texts()
        expected = [figure_of(row, name) for name in ("auroc", "auprc", "tpr5")]
        assert [cell.strip() for cell in cells[:4]] == [*expected, f"{row['ece']:.3f}"]


def check_errors(shown: Opened, run: Path, evaluation: Path, content: dict[str, Any]) -> None:
    label, detector = labels_of(run), best_of(content)["label"]
    misses, false = errors_of(evaluation, detector)
    lead = shown.page.locator(".lead").inner_text()
    assert f"{label.sum()} of {len(label)} labelled answers are hallucinated" in lead
    assert f"{detector} misses {misses} of the {label.sum()} hallucinated ones" in lead
    assert f"raises {false} false alarm" in lead


def test_each_view_shows_what_the_store_and_the_evaluation_give(
    demo_run: Path, demo_evaluation: Path, demo_report: Path, opened: Any
) -> None:
    content = json.loads((demo_evaluation / "evaluation.json").read_text("utf-8"))
    shown = opened(demo_report)
    check_run(shown, demo_run, content)
    shown.show(view="layers")
    check_layers(shown, demo_run)
    shown.show(view="trace")
    check_trace(shown, demo_run)
    shown.show(view="map")
    check_map(shown, demo_run)
    shown.show(view="detectors")
    check_detectors(shown, content)
    shown.show(view="errors")
    check_errors(shown, demo_run, demo_evaluation, content)
