"""Curves of scores against scikit-learn and plain counting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_curve, roc_curve

from hallutrace.detect.metrics import calibration_error
from hallutrace.viewer.evaluations.curves import MOST_CUTS, calibration, cuts, histogram, risks


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Scores with ties, and labels of both classes."""
    labels = draw(st.lists(st.integers(0, 1), min_size=2, max_size=40))
    labels[:2] = [0, 1]
    size = len(labels)
    scores = draw(st.lists(st.integers(-8, 8), min_size=size, max_size=size))
    return np.array(scores) / 4, np.array(labels)


@given(scored())
def test_every_cut_is_what_scikit_learn_gives(given_scores: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = given_scores
    found = cuts(scores, labels)
    fpr, tpr, thresholds = roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_array_equal(found.thresholds, thresholds.astype(np.float32))
    np.testing.assert_allclose(found.alarms / (labels == 0).sum(), fpr)
    np.testing.assert_allclose(found.hits / (labels == 1).sum(), tpr)
    precision, recall, _ = precision_recall_curve(labels, scores)
    flagged = (found.hits + found.alarms)[:0:-1]
    np.testing.assert_allclose(found.hits[:0:-1] / flagged, precision[:-1])
    np.testing.assert_allclose(found.hits[:0:-1] / (labels == 1).sum(), recall[:-1])


@given(scored())
def test_presets_are_the_best_cuts(given_scores: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = given_scores
    found = cuts(scores, labels)
    positives, negatives = int((labels == 1).sum()), int((labels == 0).sum())
    tpr, fpr = found.hits / positives, found.alarms / negatives
    f1 = 2 * found.hits / (found.hits + found.alarms + positives)
    assert fpr[found.presets["fpr5"]] <= 0.05
    assert tpr[found.presets["fpr5"]] == tpr[fpr <= 0.05].max()
    assert f1[found.presets["f1"]] == f1.max()
    assert (tpr - fpr)[found.presets["youden"]] == pytest.approx((tpr - fpr).max())


def test_many_traces_make_few_cuts_that_are_exact() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(5000) < 0.1).astype(int)
    scores = rng.normal(size=5000) + labels
    found, all_of_them = cuts(scores, labels), cuts(scores, labels, most=10_000)
    assert len(found.thresholds) <= MOST_CUTS < len(all_of_them.thresholds)
    assert np.isinf(found.thresholds[0]) and found.hits[-1] + found.alarms[-1] == 5000
    for threshold, hits, alarms in zip(found.thresholds, found.hits, found.alarms, strict=True):
        flagged = scores.astype(np.float32) >= threshold
        assert (hits, alarms) == ((flagged & (labels == 1)).sum(), (flagged & (labels == 0)).sum())
    for name, at in found.presets.items():
        assert found.thresholds[at] == all_of_them.thresholds[all_of_them.presets[name]]


@given(scored())
def test_histograms_count_every_trace(given_scores: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = given_scores
    found = histogram(scores, labels, bins=7)
    for name, label in (("hallucinated", 1), ("right", 0)):
        inside = np.clip(scores[labels == label], found["edges"][0], found["edges"][-1])
        np.testing.assert_array_equal(found[name], np.histogram(inside, found["edges"])[0])
        assert found[name].sum() == (labels == label).sum()


def test_calibration_bins_give_the_calibration_error() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 300)
    probabilities = np.clip(rng.random((1, 300)) * 0.7 + 0.2 * labels, 0, 1)
    probabilities[0, :3] = [0.0, 1.0, 0.2]
    found = calibration(probabilities, labels)
    gaps = np.nansum(found["count"] * np.abs(found["share"] - found["risk"])) / 300
    assert gaps == pytest.approx(calibration_error(probabilities[0], labels))
    assert found["count"].sum() == 300


def test_risks_take_the_curve_of_their_fold_and_series() -> None:
    series = np.array([[1.0, -2.0, 0.5], [0.0, 1.0, 2.0]])
    folds = np.array([0, 1, 1])
    curves = [[(1.0, 0.5), (2.0, -1.0)], [(0.5, 0.0), (-1.0, 1.0)]]
    found = risks(series, folds, curves)
    for one in range(2):
        for at, fold in enumerate(folds):
            slope, level = curves[one][fold]
            expected = 1 / (1 + np.exp(-(slope * series[one, at] + level)))
            assert found[one, at] == pytest.approx(expected)
