"""Reductions in torch operations against the core's: on the CPU, and on a GPU if there is one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle
from conftest import load_tiny
from hallutrace import _core
from hallutrace.attention.sparsify import borrow
from hallutrace.capture import replay
from hallutrace.capture.torch_reducer import DeviceReducer, Rules
from hallutrace.errors import InputError

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
EDGES = ("indptr", "keys", "weights")
MARGINALS = (
    "diagonal", "received_mean", "previous", "entropy", "square", "mass", "rough",
    "log_diagonal", "log_square",
)  # fmt: skip
OPTIONS = {
    "top_k": 4, "min_weight": 0.0, "top_mass": None, "combine": "mean",
    "answer_edges": False, "all_marginal_rows": False,
}  # fmt: skip


@st.composite
def batches(draw):
    """Right-padded attention [sequences, heads, keys, keys] of nasty rows, garbage as padding."""
    heads, count = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    tokens = [draw(st.integers(2, 70)) for _ in range(count)]
    keys = max(tokens) + draw(st.integers(0, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    padded = np.full((count, heads, keys, keys), np.nan, np.float32)
    for at, total in enumerate(tokens):
        kinds = draw(st.lists(st.sampled_from(oracle.KINDS), min_size=1, max_size=8))
        for row in range(total):
            kind = kinds[row % len(kinds)]
            padded[at, :, row, : row + 1] = oracle.rows(kind, (heads, row + 1), rng)
    prompts = [draw(st.integers(1, total - 1)) for total in tokens]
    sequences = [
        (total, prompt, sorted({min(1, total), prompt}))
        for total, prompt in zip(tokens, prompts, strict=True)
    ]
    cuts = sorted(draw(st.sets(st.integers(1, keys - 1), max_size=4)))
    dtype = draw(st.sampled_from(oracle.DTYPES))
    return torch.as_tensor(oracle.store(padded, dtype)[0]), sequences, [0, *cuts, keys]


def options():
    return st.fixed_dictionaries({
        "top_k": st.none() | st.integers(1, 20) | st.just(100),
        "min_weight": st.sampled_from([0.0, 0.05, 1 / 16, 1e-40, 1e-60]),
        # Shares whose ends no rounding decides: a parallel sum may differ in its last bit.
        "top_mass": st.none() | st.sampled_from([0.333, 0.777, 1.0]),
        "combine": st.sampled_from(["mean", "max", "each"]),
        "answer_edges": st.booleans(),
        "all_marginal_rows": st.booleans(),
    })  # fmt: skip


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=150, deadline=None)
@given(batches(), options())
def test_every_reduction_is_the_core_s(device, drawn, options):
    padded, sequences, bounds = drawn
    heads = padded.shape[1]
    core = _core.LayerReducer(heads, sequences, **options)
    ours = DeviceReducer(heads, sequences, Rules(**options))
    for begin, end in itertools.pairwise(bounds):
        block = padded[:, :, begin:end, :end].contiguous()
        core.push(*borrow(block), begin)
        ours.push(block.to(device), begin)
    for actual, wanted in zip(ours.finish(), core.finish(), strict=True):
        for name in EDGES:
            made, whole = getattr(actual, name), getattr(wanted, name)
            assert (made.dtype, made.shape) == (whole.dtype, whole.shape), name
            assert made.tobytes() == whole.tobytes(), name
        for name in MARGINALS:
            made, whole = getattr(actual, name), getattr(wanted, name)
            assert made.shape == whole.shape, name
            oracle.assert_close(made, whole)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.5])
def test_a_bad_weight_is_named_as_the_core_names_it(device, value):
    weights = np.tril(oracle.rows("softmax", (2, 2, 5, 5), np.random.default_rng(0)))
    weights[1, 1, 3, 2] = value
    sequences = [(5, 3, [1]), (4, 2, [])]
    with pytest.raises(InputError) as wanted:
        _core.LayerReducer(2, sequences, **OPTIONS).push(weights, False, 0)
    reducer = DeviceReducer(2, sequences, Rules(**OPTIONS))
    with pytest.raises(InputError) as caught:
        reducer.push(torch.from_numpy(weights).to(device), 0)
    assert str(caught.value).lower() == str(wanted.value).lower()


@pytest.mark.parametrize("device", DEVICES)
def test_squares_that_overflow_are_refused_as_the_core_refuses_them(device):
    weights = torch.full((2, 2, 3, 3), 0.25).tril()
    weights[1, 1, 2, 0] = 2e19
    sequences = [(3, 2, []), (3, 1, [])]
    with pytest.raises(InputError) as wanted:
        _core.LayerReducer(2, sequences, **OPTIONS).push(*borrow(weights), 0)
    with pytest.raises(InputError) as caught:
        DeviceReducer(2, sequences, Rules(**OPTIONS)).push(weights.to(device), 0)
    assert str(caught.value) == str(wanted.value)


@pytest.mark.parametrize("rows", [None, 6])
def test_a_replay_that_reduces_on_the_device_gives_the_same(rows, monkeypatch):
    texts = [replay.Text(list(range(5, 25)), 14, [1, 14]), replay.Text([7, 8, 9, 10], 2, [1, 2])]
    model = load_tiny("qwen3")
    wanted = replay.replay(model, texts, replay.Reduction(heads="each"), rows=rows)
    monkeypatch.setattr(
        replay._Reducers,
        "_reducer",
        lambda self, weights: DeviceReducer(weights.shape[1], self._sequences, self._rules),
    )
    made = replay.replay(model, texts, replay.Reduction(heads="each"), rows=rows)
    for one, other in zip(made, wanted, strict=True):
        for ours, core in zip(one.layers, other.layers, strict=True):
            for name in EDGES:
                assert getattr(ours, name).tobytes() == getattr(core, name).tobytes()
            for name in MARGINALS:
                oracle.assert_close(getattr(ours, name), getattr(core, name))
