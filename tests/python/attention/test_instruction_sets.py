"""Every instruction set of the machine against the oracle, and against the others."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle
from hallutrace import _core
from hallutrace.attention.sparsify import borrow, marginals, sparsify
from hallutrace.errors import InputError

SETS = _core.instruction_sets()
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@pytest.fixture(autouse=True)
def restore():
    """Goes back to the set that the process chose."""
    yield
    _core._use_instruction_set(None)


def attention(dtype, shape, seed, causal):
    """Softmax rows as stored in a type; what causal rows do not read is NaN."""
    weights = oracle.rows("softmax", shape, np.random.default_rng(seed))
    if causal:
        weights = np.where(np.tri(shape[1], shape[2], shape[2] - shape[1]) > 0, weights, np.nan)
    return torch.from_numpy(weights.astype(np.float32)).to(dtype)


@pytest.mark.parametrize("name", SETS)
@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES), heads=st.integers(1, 3), queries=st.integers(1, 30),
    more=st.integers(0, 60), causal=st.booleans(), seed=st.integers(0, 2**32 - 1),
    top_k=st.none() | st.integers(1, 80), top_mass=st.none() | st.floats(0.1, 1.0),
    combine=st.sampled_from(["mean", "max", "each"]),
)  # fmt: skip
def test_each_set_is_the_oracle(
    name, dtype, heads, queries, more, causal, seed, top_k, top_mass, combine
):
    weights = attention(dtype, (heads, queries, queries + more), seed, causal)
    rules = {"top_k": top_k, "min_weight": 0.0, "top_mass": top_mass}
    _core._use_instruction_set(name)
    made = sparsify(weights, **rules, heads=combine, causal=causal)
    indptr, keys, kept, _ = oracle.edges(
        weights.float().numpy(), **rules, heads=combine, causal=causal, first_query=more
    )
    np.testing.assert_array_equal(made.indptr, indptr)
    np.testing.assert_array_equal(made.keys, keys)
    np.testing.assert_array_equal(made.weights, kept)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("causal", [True, False])
def test_all_sets_give_the_same_bytes(dtype, causal):
    weights = attention(dtype, (3, 90, 1100), 5, causal)
    made = []
    for name in SETS:
        _core._use_instruction_set(name)
        assert _core.instruction_set() == name
        edges = sparsify(weights, top_k=20, heads="each", causal=causal)
        sums = marginals(weights, segments=[1, 70], causal=causal)
        arrays = [edges.indptr, edges.keys, edges.weights, edges.retained]
        arrays += [sums.diagonal, sums.previous, sums.received, sums.entropy, sums.square]
        arrays += [sums.mass, sums.rough]
        made.append([array.tobytes() for array in arrays])
    assert all(one == made[0] for one in made)


def test_all_sets_reduce_a_layer_to_the_same_bytes():
    weights = attention(torch.bfloat16, (4, 130, 130), 6, True)
    made = []
    for name in SETS:
        _core._use_instruction_set(name)
        reducer = _core.LayerReducer(
            4, [(130, 71, [1, 71])], top_k=16, min_weight=0.0, top_mass=0.95, combine="mean",
            answer_edges=False, all_marginal_rows=False,
        )  # fmt: skip
        reducer.push(*borrow(weights[None]), 0)
        (layer,) = reducer.finish()
        names = ("indptr", "keys", "weights", "diagonal", "received_mean", "previous", "entropy",
                 "square", "mass", "rough", "log_diagonal", "log_square")  # fmt: skip
        made.append([getattr(layer, array).tobytes() for array in names])
    assert all(one == made[0] for one in made)


def run(simd, code):
    """The output of a process in which the variable forces a set."""
    environment = {**os.environ, "HALLUTRACE_SIMD": simd}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return ran.stdout.strip()


@pytest.mark.parametrize("name", SETS)
def test_the_variable_forces_a_set(name):
    assert run(name, "from hallutrace import _core; print(_core.instruction_set())") == name


def test_an_empty_variable_forces_none():
    assert run("", "from hallutrace import _core; print(_core.instruction_set())") == SETS[0]


def test_a_set_the_machine_has_not_is_refused_by_name():
    code = (
        "import numpy as np\n"
        "from hallutrace import sparsify, HallutraceError\n"
        "try:\n    sparsify(np.eye(3, dtype='float32'))\n"
        "except HallutraceError as error:\n    print(type(error).__name__, error)\n"
    )
    assert run("sse9", code) == (
        "InputError Expected an instruction set that this machine has "
        f'({", ".join(SETS)}), got "sse9" in HALLUTRACE_SIMD - name one of these, or unset it to '
        "take the fastest"
    )
    with pytest.raises(InputError, match='got "neon" in HALLUTRACE_SIMD'):
        _core._use_instruction_set("neon")


def test_plain_is_always_there():
    assert SETS[-1] == "plain"
    assert set(SETS) <= {"avx512", "avx2", "plain"}
