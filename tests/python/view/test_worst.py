"""Which traces a report carries in full."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hallutrace.view.data.worst import worst_traces


def columns(labels: list[int], scores: list[float], logprob: list[float]) -> dict[str, Any]:
    return {
        "mean_logprob": np.array(logprob, np.float32),
        "labels": {"l": np.array(labels, np.int8)},
        "scores": {"d": np.array(scores, np.float32)},
    }


def test_misses_and_false_alarms_come_first() -> None:
    traces = columns([1, 0, 1, 0, -1], [0.1, 0.9, 0.8, 0.2, 0.5], [-1.0] * 5)
    positions, sentence = worst_traces(traces, "l", "d", 10)
    assert set(positions[:2]) == {0, 1}
    assert set(positions[2:]) == {2, 3}, "traces without a label are not judged"
    assert sentence == "whose label and score by d are furthest apart"


def test_traces_without_a_score_come_last() -> None:
    traces = columns([1, 1, 0], [float("nan"), 0.5, 0.4], [-1.0] * 3)
    assert worst_traces(traces, "l", "d", 3)[0][-1] == 0


@given(st.lists(st.tuples(st.sampled_from([0, 1]), st.floats(-9, 0)), min_size=1, max_size=30))
def test_with_labels_alone_confident_hallucinations_come_first(rows: list[Any]) -> None:
    labels, logprob = [list(one) for one in zip(*rows, strict=True)]
    traces = columns(labels, [float("nan")] * len(rows), logprob)
    positions, _ = worst_traces(traces, "l", "d", len(rows))
    stored = traces["mean_logprob"]
    expected = sorted(
        range(len(rows)),
        key=lambda one: (-labels[one], -stored[one] if labels[one] else stored[one], one),
    )
    assert positions.tolist() == expected


def test_without_labels_the_least_likely_come_first() -> None:
    traces = columns([-1, -1, -1], [0.0] * 3, [-1.0, -3.0, -2.0])
    assert worst_traces(traces, None, None, 2)[0].tolist() == [1, 2]
