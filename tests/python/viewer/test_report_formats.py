"""The content of a report as JSON and CSV against the run."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np

import hallutrace
from evaluations import write_made_up
from hallutrace.viewer.report.content import Limits, Report
from hallutrace.viewer.report.formats import to_csv, to_json
from hallutrace.viewer.viewed_run import ViewedRun


def test_json_holds_what_the_page_carries(demo_run: Path) -> None:
    limits = Limits(with_edges=2)
    report = Report(ViewedRun(hallutrace.open(demo_run)), limits)
    found = json.loads(b"".join(to_json(report)))
    keys = [key for key, _ in Report(ViewedRun(hallutrace.open(demo_run)), limits).payloads()]
    assert list(found["data"]) == keys
    assert found["notes"] == report.notes != []
    traces = found["data"]["traces"]
    store = hallutrace.open(demo_run)
    assert traces["key"] == [trace.id for trace in store]
    np.testing.assert_allclose(
        traces["mean_logprob"], [trace.logprob.mean() for trace in store], rtol=1e-6
    )


def test_csv_has_a_row_for_each_trace(demo_run: Path, tmp_path: Path) -> None:
    scores = np.random.default_rng(0).normal(size=60).astype(np.float32)
    evaluation = write_made_up(tmp_path / "evaluation", demo_run, {"length": scores})
    viewed = ViewedRun(hallutrace.open(demo_run), evaluation)
    rows = list(csv.DictReader(io.StringIO(b"".join(to_csv(Report(viewed))).decode())))
    labels = hallutrace.labels.read(demo_run, "contains")
    for row, trace, score in zip(rows, viewed.store, scores, strict=True):
        assert row["key"] == trace.id
        assert row["answer"] == trace.answer
        label = labels[trace.id, trace.sample]
        assert row["label.contains"] == ("" if label is None else str(label))
        assert np.float32(row["score.length"]) == score
        np.testing.assert_allclose(float(row["mean_logprob"]), trace.logprob.mean(), rtol=1e-6)
