"""`hallutrace.sparsify` against the oracle, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle
from hallutrace.attention.edges import EdgeList
from hallutrace.attention.sparsify import borrow, sparsify
from hallutrace.errors import HallutraceError, InputError

# The package holds the function of this name.
MODULE = sys.modules["hallutrace.attention.sparsify"]
HEADS = st.sampled_from(["mean", "max", "each"])


def attention(heads=2, queries=4, keys=4):
    return oracle.rows("softmax", (heads, queries, keys), np.random.default_rng(0))


def same(one: EdgeList, other: EdgeList) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("indptr", "keys", "weights", "retained", "shape", "first_query")
    )


@settings(max_examples=400, deadline=None)
@given(oracle.cases(), oracle.rules(), HEADS)
def test_edges_are_those_of_the_oracle(case, rules, heads):
    edges = sparsify(
        case.given, heads=heads, causal=case.causal, first_query=case.first_query, **rules
    )
    indptr, keys, weights, retained = oracle.edges(
        case.values, heads=heads, causal=case.causal, first_query=case.position, **rules
    )
    assert (edges.indptr.dtype, edges.keys.dtype) == (np.int64, np.int32)
    assert edges.indptr.tolist() == list(indptr)
    assert edges.keys.tolist() == keys.tolist()
    assert edges.weights.tobytes() == weights.tobytes()
    oracle.assert_close(edges.retained.ravel(), retained)
    assert edges.first_query == case.position


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(oracle.KINDS), st.integers(0, 2**32 - 1), oracle.rules(), st.integers(600, 2100)
)
def test_long_rows_are_those_of_the_oracle(kind, seed, rules, keys):
    weights = oracle.rows(kind, (1, 3, keys), np.random.default_rng(seed))
    edges = sparsify(weights, causal=False, **rules)
    wanted = oracle.edges(weights, heads="mean", causal=False, first_query=0, **rules)
    assert edges.keys.tolist() == wanted[1].tolist()
    assert edges.weights.tobytes() == wanted[2].tobytes()


@pytest.mark.parametrize("kind", ["softmax", "peaked", "equal", "ties", "wide", "large"])
def test_a_share_reached_to_the_last_bit(kind):
    """Only the sum in descending order decides here; any other order differs in the last bits."""
    row = oracle.rows(kind, (1, 300), np.random.default_rng(5))
    cumulative = np.cumsum(-np.sort(-row[0]), dtype=np.float64)
    for share in cumulative[::7] / cumulative[-1]:
        for top_mass in (np.nextafter(share, 0), share, np.nextafter(share, 1)):
            rules = {"top_k": None, "min_weight": 0.0, "top_mass": min(float(top_mass), 1.0)}
            edges = sparsify(row, causal=False, **rules)
            assert edges.keys.tolist() == oracle.keep(row[0], **rules).tolist()


def test_all_that_is_kept_is_the_whole_mass():
    edges = sparsify(attention(queries=40, keys=40))
    assert edges.retained.tolist() == [[1.0] * 40]


@pytest.mark.parametrize("heads", ["mean", "max", "each"])
@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 0, 0), (1, 1, 1)])
def test_small_shapes(shape, heads):
    edges = sparsify(np.ones(shape, np.float32), heads=heads)
    graphs = shape[0] if heads == "each" else 1
    assert edges.shape == (graphs, *shape[1:])
    assert edges.retained.tolist() == [[1.0] * shape[1]] * graphs
    assert len(edges) == (1 if shape == (1, 1, 1) else 0)


def test_queries_without_keys():
    edges = sparsify(np.ones((2, 3, 0), np.float32), causal=False)
    assert (edges.shape, len(edges), edges.retained.tolist()) == ((1, 3, 0), 0, [[1.0, 1.0, 1.0]])


def test_two_axes_are_one_head():
    weights = attention()
    assert same(sparsify(weights[0], top_k=2), sparsify(weights[:1], top_k=2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_tensors_that_are_negated_when_read(dtype: torch.dtype) -> None:
    weights = torch.rand(2, 5, 5).to(dtype)
    negated = torch._neg_view(-weights)
    assert negated.is_neg()
    expected = sparsify(weights, top_k=2)
    assert (sparsify(negated, top_k=2).to_dense() == expected.to_dense()).all()


def test_queries_far_beyond_the_keys():
    edges = sparsify(np.ones((1, 2, 3), np.float32), causal=False, first_query=2**40)
    assert edges.queries.tolist() == [2**40] * 3 + [2**40 + 1] * 3


def strided():
    """Arrays that are read in place, all of the same values."""
    weights = attention(3, 5, 5)
    batch = np.full((2, 3, 9, 11), np.nan, np.float32)
    batch[1, :, :5, :5] = weights
    frozen = weights.copy()
    frozen.flags.writeable = False
    middle = np.full((3, 10, 5), -1, np.float32)
    middle[:, ::2] = weights
    tensor = torch.from_numpy(batch)[1, :, :5, :5].requires_grad_()
    return {
        "padded": batch[1, :, :5, :5],
        "read-only": frozen,
        "every other row": middle[:, ::2],
        "heads in the middle": np.ascontiguousarray(weights.transpose(1, 0, 2)).transpose(1, 0, 2),
        "tensor with gradient": tensor,
    }


@pytest.mark.parametrize("name", strided())
def test_what_has_unit_stride_is_not_copied(name, monkeypatch):
    monkeypatch.setattr(MODULE, "_copy", lambda array: pytest.fail("copied"))
    assert same(sparsify(strided()[name], top_k=3), sparsify(attention(3, 5, 5), top_k=3))


def test_bfloat16_of_a_padded_batch_is_not_copied():
    batch = torch.rand(2, 3, 9, 11).to(torch.bfloat16)
    array, bfloat16 = borrow(batch[1, :, :5, :5])
    assert bfloat16
    assert array.ctypes.data == batch[1].data_ptr()


def test_broadcast_heads_are_not_copied(monkeypatch):
    monkeypatch.setattr(MODULE, "_copy", lambda array: pytest.fail("copied"))
    weights = np.broadcast_to(attention(1), (4, 4, 4))
    assert same(sparsify(weights, heads="max"), sparsify(attention(1)))


def test_bfloat16_of_numpy():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    weights = attention().astype(ml_dtypes.bfloat16)
    assert same(sparsify(weights), sparsify(torch.from_numpy(attention()).to(torch.bfloat16)))


def copied():
    """Arrays that are copied once, all of the same values."""
    weights = attention(3, 5, 5)
    unaligned = np.zeros(weights.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(3, 5, 5)
    unaligned[:] = weights
    return {
        "Fortran order": np.asfortranarray(weights),
        "keys backwards": np.ascontiguousarray(weights[..., ::-1])[..., ::-1],
        "rows backwards": np.ascontiguousarray(weights[:, ::-1])[:, ::-1],
        "byte order": weights.astype(">f4"),
        "unaligned": unaligned,
    }


@pytest.mark.parametrize("name", copied())
def test_the_rest_is_copied_once(name, monkeypatch):
    copies = []
    original = MODULE._copy
    monkeypatch.setattr(MODULE, "_copy", lambda array: copies.append(1) or original(array))
    assert same(sparsify(copied()[name], top_k=3), sparsify(attention(3, 5, 5), top_k=3))
    assert copies == [1]


def bad(value, place):
    weights = attention(2, 5, 5)
    weights[place] = value
    return weights


REFUSED = {
    "float64": (
        np.zeros((32, 128, 128)), {},
        "Expected `attention` float32, float16 or bfloat16, got float64 [32, 128, 128] - "
        'pass attention.astype("float32")',
    ),
    "integers": (
        np.zeros((1, 2, 3), int), {},
        "Expected `attention` float32, float16 or bfloat16, got int64 [1, 2, 3] - "
        'pass attention.astype("float32")',
    ),
    "complex": (
        np.zeros((1, 2), np.complex64), {},
        "Expected `attention` float32, float16 or bfloat16, got complex64 [1, 2] - "
        'pass attention.astype("float32")',
    ),
    "float64 tensor": (
        torch.zeros(1, 2, 3, dtype=torch.float64), {},
        "Expected `attention` float32, float16 or bfloat16, got float64 [1, 2, 3] - "
        "pass attention.float()",
    ),
    "device": (
        torch.zeros(1, 2, 3, device="meta"), {},
        "Expected `attention` on the CPU, got on meta - pass attention.cpu()",
    ),
    "sparse tensor": (
        torch.eye(3).to_sparse(), {},
        "Expected `attention` dense, got torch.sparse_coo - pass attention.to_dense()",
    ),
    "list": (
        [[1.0]], {},
        "Expected `attention` a numpy array or a torch tensor, got list - pass numpy.asarray(...)",
    ),
    "mask": (
        np.ma.masked_array(np.eye(3, dtype=np.float32)), {},
        "Expected `attention` without a mask, got a masked array - pass attention.filled(0.0)",
    ),
    "one axis": (
        np.zeros(3, np.float32), {},
        "Expected `attention` [heads, queries, keys] or [queries, keys], got 1 axes [3] - "
        "index or reshape it",
    ),
    "four axes": (
        np.zeros((1, 2, 3, 3), np.float32), {},
        "Expected `attention` [heads, queries, keys] or [queries, keys], got 4 axes [1, 2, 3, 3] "
        "- index or reshape it",
    ),
    "more queries than keys": (
        np.zeros((1, 5, 3), np.float32), {},
        "Expected at most as many queries as keys with causal=True, got 5 queries and 3 keys - "
        "pass all keys, or causal=False",
    ),
    "first query": (
        np.zeros((1, 2, 5), np.float32), {"first_query": 4},
        "Expected `first_query` in 0..=3 (keys 5 - queries 2), got 4 - "
        "pass the key position of the first query row",
    ),
    "negative first query": (
        np.zeros((1, 2, 5), np.float32), {"first_query": -1},
        "Expected `first_query` in 0..=3 (keys 5 - queries 2), got -1 - "
        "pass the key position of the first query row",
    ),
    "negative first query, not causal": (
        np.zeros((1, 2, 5), np.float32), {"first_query": -1, "causal": False},
        "Expected `first_query` >= 0, got -1 - pass the key position of the first query row",
    ),
    "huge first query": (
        np.zeros((1, 2, 5), np.float32), {"first_query": 2**70, "causal": False},
        f"Expected `first_query` an integer below 2**62 or None, got {2**70} - "
        "pass the key position of query row 0",
    ),
    "first query of another type": (
        np.zeros((1, 2, 5), np.float32), {"first_query": 1.0},
        "Expected `first_query` an integer below 2**62 or None, got 1.0 - "
        "pass the key position of query row 0",
    ),
    "nan": (
        bad(np.nan, (1, 3, 2)), {},
        "Expected finite weights >= 0, got NaN at head 1, query 3, key 2 - "
        "pass attention after softmax; mask or drop broken rows first",
    ),
    "infinity": (
        bad(np.inf, (0, 0, 0)), {"heads": "max"},
        "Expected finite weights >= 0, got inf at head 0, query 0, key 0 - "
        "pass attention after softmax; mask or drop broken rows first",
    ),
    "negative": (
        bad(-0.5, (0, 4, 4)), {"heads": "each"},
        "Expected finite weights >= 0, got -0.5 at head 0, query 4, key 4 - "
        "pass attention after softmax; mask or drop broken rows first",
    ),
    "overflow": (
        np.full((3, 2, 2), 3e38, np.float32), {},
        "Expected a mean over heads that float32 holds, got more than 3.4028235e38 at head 2, "
        "query 0, key 0 - pass attention after softmax",
    ),
    "top_k 0": (
        attention(), {"top_k": 0},
        "Expected `top_k` an integer >= 1 or None, got 0 - pass None to leave the rule out",
    ),
    "top_k true": (
        attention(), {"top_k": True},
        "Expected `top_k` an integer >= 1 or None, got True - pass None to leave the rule out",
    ),
    "top_k float": (
        attention(), {"top_k": 2.0},
        "Expected `top_k` an integer >= 1 or None, got 2.0 - pass None to leave the rule out",
    ),
    "min_weight negative": (
        attention(), {"min_weight": -1e-60},
        "Expected `min_weight` finite in float32 and >= 0, got -1e-60 - "
        "pass 0.0 to leave the rule out",
    ),
    "min_weight nan": (
        attention(), {"min_weight": float("nan")},
        "Expected `min_weight` finite in float32 and >= 0, got NaN - "
        "pass 0.0 to leave the rule out",
    ),
    "min_weight beyond float32": (
        attention(), {"min_weight": 1e39},
        "Expected `min_weight` finite in float32 and >= 0, got 1e39 - "
        "pass 0.0 to leave the rule out",
    ),
    "min_weight none": (
        attention(), {"min_weight": None},
        "Expected `min_weight` finite in float32 and >= 0, got None - "
        "pass 0.0 to leave the rule out",
    ),
    "top_mass 0": (
        attention(), {"top_mass": 0},
        "Expected `top_mass` in (0, 1] or None, got 0.0 - pass None to leave the rule out",
    ),
    "top_mass above": (
        attention(), {"top_mass": 1.5},
        "Expected `top_mass` in (0, 1] or None, got 1.5 - pass None to leave the rule out",
    ),
    "top_mass text": (
        attention(), {"top_mass": "0.5"},
        "Expected `top_mass` in (0, 1] or None, got '0.5' - pass None to leave the rule out",
    ),
    "heads": (
        attention(), {"heads": "sum"},
        'Expected `heads` "mean", "max" or "each", got "sum" - pass one of the three',
    ),
    "heads of another type": (
        attention(), {"heads": 3},
        'Expected `heads` "mean", "max" or "each", got 3 - pass one of the three',
    ),
    "causal": (
        attention(), {"causal": 1},
        "Expected `causal` True or False, got 1 - pass one of the two",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_errors_say_what_where_and_how_to_mend_it(name):
    given, options, message = REFUSED[name]
    with pytest.raises(InputError) as caught:
        sparsify(given, **options)
    assert str(caught.value) == message
    assert isinstance(caught.value, (ValueError, HallutraceError))


@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize("heads", ["mean", "max", "each"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -1e-7])
def test_a_bad_weight_anywhere_is_found(value, heads, dtype):
    for keys in (1, 16, 17, 40):
        for key in {0, keys // 2, keys - 1}:
            weights = np.full((2, 1, keys), 0.01, np.float32)
            weights[1, 0, key] = value
            with pytest.raises(InputError, match=rf"at head 1, query 0, key {key} -"):
                sparsify(oracle.store(weights, dtype)[0], heads=heads, top_k=3)


def run(code: str, **environment: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


DIGEST = """
import hashlib, numpy as np
from hallutrace.attention.sparsify import marginals, sparsify
weights = np.random.default_rng(3).dirichlet(np.full(300, .1), (8, 300)).astype(np.float32)
digest = hashlib.sha256()
for heads in ("mean", "max", "each"):
    edges = sparsify(weights, top_k=16, top_mass=.9, heads=heads)
    for array in (edges.indptr, edges.keys, edges.weights, edges.retained):
        digest.update(array.tobytes())
made = marginals(weights, segments=[1, 40])
for array in (made.diagonal, made.previous, made.received, made.entropy, made.mass):
    digest.update(array.tobytes())
print(digest.hexdigest())
"""


def test_the_number_of_threads_changes_no_bit():
    assert len({run(DIGEST, RAYON_NUM_THREADS=threads) for threads in ("1", "2", "3", "7")}) == 1


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads in /proc")
def test_a_small_input_wakes_no_thread():
    code = """
import os, numpy as np
from hallutrace.attention.sparsify import sparsify
before = len(os.listdir("/proc/self/task"))
sparsify(np.full((32, 32, 32), 1 / 32, np.float32), causal=False, heads="each", top_k=8)
print(len(os.listdir("/proc/self/task")) - before)
sparsify(np.full((32, 512, 512), 1 / 512, np.float32), heads="each", top_k=8)
print(len(os.listdir("/proc/self/task")) - before)
"""
    small, large = run(code, RAYON_NUM_THREADS="3").split()
    # The thread that calls is the third.
    assert (small, large) == ("0", "2")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_process_works_without_the_threads_it_lost():
    code = """
import os, signal, numpy as np
from hallutrace.attention.sparsify import sparsify
def edges():
    return sparsify(np.full((32, 256, 256), 1 / 256, np.float32), heads="each", top_k=8)
here = edges()
child = os.fork()
if child == 0:
    signal.alarm(100)
    os._exit(0 if (edges().keys == here.keys).all() else 1)
print(os.waitpid(child, 0)[1])
"""
    assert run(code, RAYON_NUM_THREADS="2") == "0\n"


def test_torch_is_not_imported():
    code = """
import sys, numpy as np, hallutrace
from hallutrace.attention.sparsify import marginals, sparsify
sparsify(np.eye(3, dtype=np.float32)), marginals(np.eye(3, dtype=np.float32))
print([name for name in ("torch", "scipy", "networkx") if name in sys.modules])
"""
    assert run(code).strip() == "[]"


def test_the_names_of_the_package_are_functions_in_any_order():
    code = """
import numpy as np, hallutrace
weights = np.eye(3, dtype=np.float32)
hallutrace.marginals(weights), hallutrace.sparsify(weights)
from hallutrace.attention.sparsify import borrow
import hallutrace.extraction.pipeline
print(callable(hallutrace.sparsify) and callable(hallutrace.extract))
"""
    assert run(code).strip() == "True"


def test_other_threads_run_meanwhile():
    """With no forced switches, another thread gets on only where the interpreter is let go."""
    weights = np.full((32, 1024, 1024), 2**-10, np.float32)
    started, done, progress = threading.Event(), [], []

    def work():
        started.set()
        sparsify(weights, causal=False, heads="each", top_k=8)
        done.append(True)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        thread = threading.Thread(target=work)
        thread.start()
        started.wait()
        progress.append(not done)
    finally:
        sys.setswitchinterval(interval)
    thread.join()
    assert progress == [True]
