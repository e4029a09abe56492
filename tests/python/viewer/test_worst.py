"""Which traces a report carries in full."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hallutrace.viewer.data.worst import worst_traces

NAN = float("nan")


def test_misses_and_false_alarms_come_first() -> None:
    ranks = np.array([0.1, 0.9, 0.8, 0.2, 0.5])
    found = worst_traces(np.full(5, -1.0), np.array([1, 0, 1, 0, -1]), ranks).tolist()
    assert set(found[:2]) == {0, 1}
    assert set(found[2:]) == {2, 3}, "traces without a label are not judged"


def test_traces_without_a_score_come_last() -> None:
    found = worst_traces(np.full(3, -1.0), np.array([1, 1, 0]), np.array([NAN, 0.5, 0.4]))
    assert found[-1] == 0


@given(st.lists(st.tuples(st.sampled_from([0, 1]), st.floats(-9, 0)), min_size=1, max_size=30))
def test_with_labels_alone_confident_hallucinations_come_first(rows: list[Any]) -> None:
    labels, logprob = (np.array(one) for one in zip(*rows, strict=True))
    expected = sorted(
        range(len(rows)),
        key=lambda at: (-labels[at], -logprob[at] if labels[at] else logprob[at], at),
    )
    assert worst_traces(logprob, labels).tolist() == expected


def test_without_labels_the_least_likely_come_first() -> None:
    logprob = np.array([-1.0, -3.0, -2.0])
    assert worst_traces(logprob).tolist() == worst_traces(logprob, np.full(3, -1)).tolist()
    assert worst_traces(logprob)[0] == 1
