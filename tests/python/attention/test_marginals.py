"""`hallutrace.marginals` against float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle
from hallutrace.attention.sparsify import marginals
from hallutrace.errors import InputError

NAMES = ("diagonal", "previous", "received", "entropy", "square", "mass", "rough")


def assert_marginals(made, wanted):
    for name, expected in zip(NAMES, wanted, strict=True):
        oracle.assert_close(getattr(made, name), expected)


@settings(max_examples=300, deadline=None)
@given(oracle.cases(), st.data())
def test_marginals_are_those_of_float64(case, data):
    positions = st.integers(0, case.values.shape[-1])
    segments = sorted(data.draw(st.lists(positions, max_size=4)))
    made = marginals(
        case.given, segments=segments, causal=case.causal, first_query=case.first_query
    )
    values = np.where(np.isfinite(case.values) & (case.values > 0), case.values, 0)
    wanted = oracle.marginals(
        values, segments=segments, causal=case.causal, first_query=case.position
    )
    assert_marginals(made, wanted)


@pytest.mark.parametrize("kind", oracle.KINDS)
@pytest.mark.parametrize("keys", [700, 8192])
def test_long_rows_are_those_of_float64(kind, keys):
    weights = oracle.rows(kind, (1, 300, keys), np.random.default_rng(0))
    made = marginals(weights, segments=[1, 30, keys - 1])
    wanted = oracle.marginals(
        weights, segments=[1, 30, keys - 1], causal=True, first_query=keys - 300
    )
    assert_marginals(made, wanted)


def test_a_few_known_values():
    weights = np.array([[[1, 0, 0], [0.5, 0.5, 0], [0.25, 0.25, 0.5]]], np.float32)
    made = marginals(weights, segments=[1])
    assert made.diagonal.tolist() == [[1, 0.5, 0.5]]
    assert made.previous.tolist() == [[0, 0.5, 0.25]]
    assert made.received.tolist() == [[0.75, 0.25, 0]]
    assert made.mass.tolist() == [[[1, 0], [0.5, 0.5], [0.25, 0.75]]]
    np.testing.assert_allclose(made.entropy, [[0, np.log(2), 1.5 * np.log(2)]], rtol=1e-6)
    assert made.entropy[0, 0] == 0
    np.testing.assert_allclose(made.log_diagonal, [[0, -np.log(2), -np.log(2)]], rtol=1e-6)
    assert made.log_diagonal.dtype == np.float32


def test_log_diagonal_of_zero_is_that_of_the_least_normal_number():
    made = marginals(np.zeros((1, 2, 2), np.float32))
    np.testing.assert_allclose(made.log_diagonal, -126 * np.log(2), rtol=1e-6)
    np.testing.assert_allclose(made.log_square, -126 * np.log(2), rtol=1e-6)


def test_known_squares_and_roughness():
    weights = np.array([[[1, 0, 0], [0.5, 0.5, 0], [0.25, 0.25, 0.5]]], np.float32)
    made = marginals(weights, segments=[1, 1])
    assert made.square.tolist() == [[1, 0.5, 0.375]]
    np.testing.assert_allclose(made.log_square, np.log([[1, 0.5, 0.375]]), atol=1e-7)
    # One key of weight w gives the differences w, -2w, w; two equal ones w, -w, -w, w.
    first = np.sqrt(6) * np.array([1, 0.5, 0.25])
    last = [0, np.sqrt(6) / 2, np.sqrt(0.25**2 + 0 + 0.75**2 + 0.5**2)]
    np.testing.assert_allclose(made.rough, [np.stack([first, [0, 0, 0], last], axis=1)], rtol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 700.0])
@pytest.mark.parametrize("keys", [300, 5000])
def test_smooth_rows_have_little_roughness_and_it_is_exact(scale, keys):
    bump = np.exp(-(np.linspace(-6, 6, keys) ** 2))
    weights = (scale * bump / bump.sum()).astype(np.float32)[None, None]
    segments = [7, keys // 2, keys - 1]
    made = marginals(weights, segments=segments)
    wanted = oracle.marginals(weights, segments=segments, causal=True, first_query=keys - 1)
    assert_marginals(made, wanted)


def test_weights_whose_squares_overflow_are_refused():
    weights = np.full((2, 3, 3), 0.25, np.float32)
    weights[1, 1, 0] = 2e19
    with pytest.raises(InputError) as caught:
        marginals(weights)
    assert str(caught.value) == (
        "Expected sums of rows and columns that float32 holds, got more than 3.4028235e38 at "
        "head 1, query 1, key 1 - pass attention after softmax"
    )


def test_negative_zero_is_zero():
    made = marginals(np.full((1, 3, 3), -0.0, np.float32), segments=[1])
    for name in NAMES:
        assert not np.signbit(getattr(made, name)).any(), name


def test_positions_without_a_key_give_zero():
    made = marginals(np.ones((1, 3, 2), np.float32), causal=False, first_query=1)
    assert made.diagonal.tolist() == [[1, 0, 0]]
    assert made.previous.tolist() == [[1, 1, 0]]
    assert made.received.tolist() == [[3, 2]]


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 0, 0), (1, 1, 1)])
def test_small_shapes(shape):
    heads, queries, keys = shape
    made = marginals(np.ones(shape, np.float32), segments=[keys])
    assert made.diagonal.shape == made.previous.shape == made.entropy.shape == (heads, queries)
    assert made.received.shape == (heads, keys)
    assert made.square.shape == (heads, queries)
    assert made.mass.shape == made.rough.shape == (heads, queries, 2)
    assert not made.received.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_exactly(dtype):
    weights = torch.rand(3, 70, 70, generator=torch.Generator().manual_seed(0)).to(dtype)
    half, full = marginals(weights, segments=[9]), marginals(weights.float(), segments=[9])
    for name in NAMES:
        assert getattr(half, name).tobytes() == getattr(full, name).tobytes()


@pytest.mark.parametrize("segments", [[3, 2], [-1], [5], [1.0], [True]])
def test_segments_must_increase_within_the_keys(segments):
    with pytest.raises(InputError) as caught:
        marginals(np.ones((1, 2, 4), np.float32), segments=segments)
    assert str(caught.value) == (
        f"Expected `segments` increasing key positions in 0..=4, got {segments} - "
        "pass where each segment after the first begins"
    )


def test_a_bad_weight_is_an_error_and_one_that_is_not_read_is_not():
    weights = np.full((2, 2, 3), 0.25, np.float32)
    weights[1, 0, 2] = np.nan
    marginals(weights)
    weights[1, 1, 2] = np.nan
    with pytest.raises(InputError, match=r"got NaN at head 1, query 1, key 2 -"):
        marginals(weights)
