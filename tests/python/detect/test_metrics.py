"""Metrics against scikit-learn and against what they are defined as."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from hallutrace.detect.metrics import (
    FPRS,
    METRICS,
    Platt,
    Ranked,
    auroc,
    average_precision,
    calibration_error,
    holm,
    tpr_at,
)
from hallutrace.errors import InputError


@st.composite
def cases(draw: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores with ties, labels of both classes, weights such as a bootstrap draws."""
    count = draw(st.integers(2, 60))
    scores = draw(arrays.arrays(np.float64, count, elements=st.integers(-5, 5).map(float)))
    labels = draw(arrays.arrays(np.int8, count, elements=st.integers(0, 1)))
    weights = draw(arrays.arrays(np.int64, count, elements=st.integers(0, 3)))
    labels[:2], weights[:2] = (0, 1), 1
    return scores, labels, weights


@settings(deadline=None)
@given(cases())
def test_metrics_are_those_of_scikit_learn(case: Any) -> None:
    scores, labels, weights = case
    found = Ranked(scores, labels).metrics(np.stack([np.ones(len(labels)), weights]))
    for column, weight in ((0, np.ones(len(labels))), (1, weights)):
        kept = weight > 0
        given_to = {"sample_weight": weight[kept]}
        truth, values = labels[kept], scores[kept]
        fpr, tpr, _ = roc_curve(truth, values, drop_intermediate=False, **given_to)
        expected = [
            roc_auc_score(truth, values, **given_to),
            average_precision_score(truth, values, **given_to),
            *(tpr[fpr <= rate + 1e-9].max() for rate in FPRS),
        ]
        np.testing.assert_allclose(found[:, column], expected, rtol=0, atol=1e-12)


@settings(deadline=None)
@given(cases())
def test_the_single_functions_agree(case: Any) -> None:
    scores, labels, _ = case
    found = dict(zip(METRICS, Ranked(scores, labels).metrics()[:, 0], strict=True))
    assert auroc(scores, labels) == found["auroc"]
    assert average_precision(scores, labels) == found["auprc"]
    assert [tpr_at(scores, labels, fpr) for fpr in FPRS] == pytest.approx(
        [found["tpr5"], found["tpr10"]], abs=1e-12
    )
    assert tpr_at(scores, labels, 1.0) == 1.0


@settings(deadline=None)
@given(cases())
def test_a_weight_is_so_many_copies(case: Any) -> None:
    scores, labels, weights = case
    weighted = Ranked(scores, labels).metrics(weights[None])[:, 0]
    copied = Ranked(np.repeat(scores, weights), np.repeat(labels, weights)).metrics()[:, 0]
    np.testing.assert_allclose(weighted, copied, rtol=0, atol=1e-12)


def test_figures_by_hand() -> None:
    scores, labels = [0.9, 0.8, 0.7, 0.6, 0.5], [1, 0, 1, 0, 0]
    assert auroc(scores, labels) == pytest.approx(5 / 6)
    assert average_precision(scores, labels) == pytest.approx((1 + 2 / 3) / 2)
    assert tpr_at(scores, labels, 0.05) == 0.5
    assert tpr_at(scores, labels, 0.34) == 1.0
    assert auroc([1, 1, 1, 1], [1, 0, 1, 0]) == 0.5
    assert average_precision([1, 1, 1, 1], [1, 0, 0, 0]) == 0.25
    assert tpr_at([1, 1, 1, 1], [1, 0, 1, 0], 0.1) == 0.0


@pytest.mark.parametrize(
    ("scores", "labels", "said"),
    [
        (
            [1.0, np.nan, np.inf],
            [1, 0, 0],
            "Expected finite scores, got 2 of 3 that are not - leave those traces out, or fix "
            "the detector",
        ),
        (
            [1.0, 2.0],
            [1, 1],
            "Expected hallucinated and right answers, got 2 of one class - take more traces or "
            "another labelling protocol",
        ),
        (
            [1.0, 2.0],
            [1, 0, 1],
            "Expected scores and labels [traces], got [2] and [3] - give one of each for every "
            "trace",
        ),
        (
            [1.0, 2.0],
            [1, 2],
            "Expected labels 1 (hallucinated) and 0 (right), got others - map them",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(scores: Any, labels: Any, said: str) -> None:
    with pytest.raises(InputError) as caught:
        auroc(scores, labels)
    assert str(caught.value) == said


# Calibration --------------------------------------------------------------------------------------


@given(
    arrays.arrays(np.float64, 40, elements=st.floats(0, 1)),
    arrays.arrays(np.int8, 40, elements=st.integers(0, 1)),
    st.integers(1, 20),
)
def test_calibration_error_is_its_definition(values: Any, labels: Any, bins: int) -> None:
    total = 0.0
    for at in range(bins):
        # A bin holds what `ceil` puts there; the first one holds 0 too.
        inside = np.maximum(np.ceil(values * bins), 1) == at + 1
        if inside.any():
            total += inside.sum() * abs(labels[inside].mean() - values[inside].mean())
    assert calibration_error(values, labels, bins) == pytest.approx(total / 40, abs=1e-12)


def test_calibration_error_by_hand() -> None:
    assert calibration_error([0.25] * 4, [1, 0, 0, 0]) == pytest.approx(0.0)
    assert calibration_error([1.0, 1.0, 0.0, 0.0], [1, 1, 0, 0]) == 0.0
    assert calibration_error([1.0, 1.0], [0, 0]) == 1.0
    with pytest.raises(InputError) as caught:
        calibration_error([0.5, 1.5], [0, 1])
    assert str(caught.value) == (
        "Expected probabilities from 0 to 1, got 0.5 to 1.5 - calibrate scores first (Platt)"
    )


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("signal", [-1.0, 0.0, 2.0, 50.0])
def test_platt_is_logistic_regression_on_soft_targets(scale: float, signal: float) -> None:
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 2, 300)
    scores = (rng.normal(size=300) + signal * labels) * scale + 3 * scale
    risky = int(labels.sum())
    high, low = (risky + 1) / (risky + 2), 1 / (300 - risky + 2)
    target = np.where(labels == 1, high, low)
    # Each trace twice, once for either class, weighted by its target.
    plain = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(
        np.tile(scores / scale, 2)[:, None],
        np.repeat([1, 0], 300),
        sample_weight=np.concatenate([target, 1 - target]),
    )
    expected = plain.predict_proba(scores[:, None] / scale)[:, 1]
    curve = Platt.fit(scores, labels)
    np.testing.assert_allclose(curve(scores), expected, rtol=0, atol=1e-4)
    assert curve(scores).mean() == pytest.approx(target.mean(), abs=1e-8)


def test_platt_stays_finite_where_classes_are_apart_or_scores_alike() -> None:
    apart = Platt.fit([-1.0, -2.0, 1.0, 2.0], [0, 0, 1, 1])
    assert np.isfinite([apart.slope, apart.intercept]).all()
    assert apart.slope > 0
    assert (apart([-1e9, 1e9]) == [0, 1]).all()
    alike = Platt.fit([3.0, 3.0, 3.0], [1, 0, 0])
    assert alike([3.0])[0] == pytest.approx((2 / 3 + 2 * 1 / 4) / 3)


@pytest.mark.parametrize("scale", [1e-300, 1e-20, 1e150, 1e308])
def test_platt_does_not_depend_on_the_scale_of_scores(scale: float) -> None:
    scores, labels = np.array([-1.0, 0.5, 0.25, 1.0]), [0, 1, 0, 1]
    wanted = Platt.fit(scores, labels)(scores)
    np.testing.assert_allclose(Platt.fit(scores * scale, labels)(scores * scale), wanted, rtol=1e-9)


@pytest.mark.parametrize("score", [0.0, -3.0, 1e300, 5e-324])
def test_scores_that_are_all_alike_are_calibrated_to_the_base_rate(score: float) -> None:
    labels = [1, 0, 0, 0]
    curve = Platt.fit([score] * 4, labels)
    risks = curve([score] * 4)
    assert risks == pytest.approx(np.full(4, (2 / 3 + 3 * 1 / 5) / 4))
    assert calibration_error(risks, labels) == pytest.approx(abs(risks[0] - 0.25))
    assert auroc([score] * 4, labels) == 0.5


# Many tests ---------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_what_its_steps_reject(p_values: list[float]) -> None:
    corrected = holm(p_values)
    ordered = sorted(range(len(p_values)), key=lambda at: p_values[at])
    for level in (0.01, 0.05, 0.2):
        rejected = set()
        for rank, at in enumerate(ordered):
            if p_values[at] * (len(p_values) - rank) > level:
                break
            rejected.add(at)
        assert {at for at, p in enumerate(corrected) if p <= level} == rejected
