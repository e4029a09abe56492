"""`LayerReducer`: blocks and batches against the same matrices whole and alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle
from hallutrace import _core
from hallutrace.attention.sparsify import borrow, marginals, sparsify
from hallutrace.errors import InputError

EDGES = ("indptr", "keys", "weights")
MARGINALS = (
    "diagonal", "received_mean", "previous", "entropy", "square", "mass", "rough",
    "log_diagonal", "log_square",
)  # fmt: skip
OPTIONS = {
    "top_k": 4, "min_weight": 0.0, "top_mass": None, "combine": "mean",
    "answer_edges": False, "all_marginal_rows": False,
}  # fmt: skip


def attention(tokens, heads=3, seed=0):
    """[heads, tokens, tokens], causal, zero after the query."""
    weights = oracle.rows("softmax", (heads, tokens, tokens), np.random.default_rng(seed))
    return np.tril(weights)


def batch(matrices, keys, fill=np.nan):
    """Right-padded to [sequences, heads, keys, keys], garbage in all that is padding."""
    padded = np.full((len(matrices), len(matrices[0]), keys, keys), fill, np.float32)
    for sequence, matrix in enumerate(matrices):
        tokens = matrix.shape[-1]
        padded[sequence, :, :tokens, :tokens] = matrix
    return padded


def reduce(padded, sequences, cuts=(), trim=True, **options):
    """The reductions of a batch that comes in blocks, cut before the rows told."""
    reducer = _core.LayerReducer(padded.shape[1], sequences, **{**OPTIONS, **options})
    bounds = [0, *cuts, padded.shape[2]]
    for begin, end in itertools.pairwise(bounds):
        block = padded[:, :, begin:end, : end if trim else None]
        reducer.push(*borrow(block), begin)
    return reducer.finish()


def assert_same(one, other, received_exact=True):
    for name in (*EDGES, *MARGINALS):
        actual, wanted = getattr(one, name), getattr(other, name)
        if name == "received_mean" and not received_exact:
            oracle.assert_close(actual, wanted)
        else:
            assert (actual.dtype, actual.shape) == (wanted.dtype, wanted.shape), name
            assert actual.tobytes() == wanted.tobytes(), name


@st.composite
def batches(draw):
    count = draw(st.integers(1, 3))
    tokens = [draw(st.integers(2, 90)) for _ in range(count)]
    sequences = []
    for total in tokens:
        prompt = draw(st.integers(1, total - 1))
        sequences.append((total, prompt, sorted({min(1, total), prompt})))
    matrices = [attention(total, seed=draw(st.integers(0, 99))) for total in tokens]
    return matrices, sequences, max(tokens) + draw(st.integers(0, 3))


def options():
    return st.fixed_dictionaries({
        "top_k": st.none() | st.integers(1, 9),
        "min_weight": st.sampled_from([0.0, 0.05]),
        "top_mass": st.none() | st.sampled_from([0.5, 0.9]),
        "combine": st.sampled_from(["mean", "max", "each"]),
        "answer_edges": st.booleans(),
        "all_marginal_rows": st.booleans(),
    })  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(batches(), options(), st.data())
def test_blocks_of_a_batch_are_each_sequence_whole_and_alone(drawn, options, data):
    matrices, sequences, keys = drawn
    cuts = sorted(data.draw(st.sets(st.integers(1, keys - 1), max_size=5)))
    trim = data.draw(st.booleans())
    made = reduce(batch(matrices, keys), sequences, cuts, trim, **options)
    for reduction, matrix, sequence in zip(made, matrices, sequences, strict=True):
        (alone,) = reduce(matrix[None], [sequence], **options)
        assert_same(reduction, alone, received_exact=not cuts)


@settings(max_examples=150, deadline=None)
@given(batches(), options())
def test_a_layer_is_what_sparsify_and_marginals_give(drawn, options):
    (matrix, *_), ((tokens, prompt, segments), *_), _ = drawn
    (made,) = reduce(matrix[None], [(tokens, prompt, segments)], **options)
    rules = {name: options[name] for name in ("top_k", "min_weight", "top_mass")}
    edges = sparsify(matrix, heads=options["combine"], **rules)
    first = prompt - 1 if options["answer_edges"] else 0
    kept = edges.queries >= first
    counts = np.diff(edges.indptr).reshape(-1, tokens) * (np.arange(tokens) >= first)
    assert np.diff(made.indptr).tolist() == counts.tolist()
    assert not made.indptr[:, 0].any()
    assert made.keys.tobytes() == edges.keys[kept].tobytes()
    assert made.weights.tobytes() == edges.weights[kept].tobytes()

    whole = marginals(matrix, segments=segments)
    detail = slice(0 if options["all_marginal_rows"] else prompt - 1, None)
    assert made.diagonal.tobytes() == whole.diagonal.tobytes()
    for name in ("previous", "entropy", "square", "mass", "rough"):
        assert np.array_equal(getattr(made, name), getattr(whole, name)[:, detail])
    below = np.tril(matrix.astype(np.float64), -1)[:, :-1]
    rows = np.maximum(tokens - 2 - np.arange(tokens), 1)
    oracle.assert_close(made.received_mean, below.sum(1) / rows)
    for name in ("diagonal", "square"):  # of all rows, whichever are kept
        logs = np.log(np.maximum(getattr(whole, name).astype(np.float64), 2.0**-126))
        means = [logs[:, :prompt].mean(1), logs[:, prompt:].mean(1)]
        oracle.assert_close(getattr(made, f"log_{name}"), np.stack(means, axis=1))


def test_shapes_and_dtypes():
    made = reduce(batch([attention(9), attention(6)], 9), [(9, 5, [1, 5]), (6, 2, [])])
    first, second = made
    assert (first.indptr.shape, first.indptr.dtype) == ((1, 10), np.int32)
    assert first.diagonal.shape == first.received_mean.shape == (3, 9)
    assert first.previous.shape == first.entropy.shape == first.square.shape == (3, 5)
    for name in ("mass", "rough"):
        shapes = getattr(first, name).shape, getattr(second, name).shape
        assert shapes == ((3, 5, 3), (3, 5, 1))
    assert first.log_diagonal.shape == first.log_square.shape == (3, 2)


def test_the_least_trace_has_a_token_of_prompt_and_one_of_answer():
    (made,) = reduce(attention(2)[None], [(2, 1, [1])])
    assert made.received_mean.tolist() == [[0.0, 0.0]] * 3
    assert made.entropy.shape == (3, 2)


@pytest.mark.parametrize("dtype", oracle.DTYPES)
def test_dtypes(dtype):
    given, values = oracle.store(attention(40)[None], dtype)
    sequences = [(40, 30, [1, 30])]
    assert_same(reduce(given, sequences)[0], reduce(values, sequences)[0])


def test_heads_of_a_real_replay_may_be_in_the_middle():
    weights = torch.from_numpy(attention(20)[None].copy())
    moved = weights.transpose(1, 2).contiguous().transpose(1, 2)
    sequences = [(20, 10, [])]
    assert_same(reduce(moved, sequences)[0], reduce(weights, sequences)[0])


def reducer(**options):
    return _core.LayerReducer(3, [(6, 4, [1]), (4, 2, [1])], **{**OPTIONS, **options})


def refused(call, *arguments, **options):
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    return str(caught.value)


def test_blocks_come_in_order_without_gaps():
    block = batch([attention(6), attention(4)], 6)
    started = reducer()
    message = "Expected the block that begins at row {}, got one that begins at row {} - "
    fix = "push blocks in order, without gaps"
    assert refused(started.push, block, False, 2) == message.format(0, 2) + fix
    started.push(block[:, :, :3], False, 0)
    assert refused(started.push, block[:, :, 4:], False, 4) == message.format(3, 4) + fix
    assert refused(started.push, block, False, 0) == message.format(3, 0) + fix


def test_all_rows_must_come():
    block = batch([attention(6), attention(4)], 6)
    started = reducer()
    started.push(block[:, :, :5], False, 0)
    assert refused(started.finish) == (
        "Expected all 6 rows of sequence 0 before the layer is finished, got 5 - "
        "push the remaining blocks"
    )


def test_a_finished_reducer_is_spent():
    started = reducer()
    started.push(batch([attention(6), attention(4)], 6), False, 0)
    started.finish()
    message = (
        "Expected a reducer that has not finished, got one that has - "
        "make a new one for each batch and layer"
    )
    assert refused(started.finish) == message
    assert refused(started.push, np.zeros((2, 3, 1, 1), np.float32), False, 6) == message


def test_blocks_are_of_the_batch():
    assert refused(reducer().push, np.zeros((2, 2, 6, 6), np.float32), False, 0) == (
        "Expected blocks [sequences 2, heads 3, rows, keys], got [2, 2, 6, 6] - "
        "make one reducer per batch and layer"
    )
    assert refused(reducer().push, np.zeros((3, 6, 6), np.float32), False, 0) == (
        "Expected `attention` [sequences, heads, rows, keys], got 3 axes [3, 6, 6] - "
        "index or reshape it"
    )
    assert refused(reducer().push, np.zeros((2, 3, 6, 5), np.float32), False, 0) == (
        "Expected at least 6 keys for the rows of sequence 0 up to 5, got 5 - "
        "trim keys no further than the last row"
    )
    assert refused(reducer().push, np.zeros((2, 3, 6, 6)), False, 0) == (
        "Expected `attention` float32, float16 or bfloat16, got float64 [2, 3, 6, 6] - "
        "convert it first"
    )
    backwards = np.zeros((2, 3, 6, 6), np.float32)[..., ::-1]
    assert refused(reducer().push, backwards, False, 0) == (
        "Expected `attention` aligned, with unit stride over keys and no negative stride, "
        "got strides of [432, 144, 24, -4] bytes - pass numpy.ascontiguousarray(attention)"
    )


def test_a_bad_weight_leaves_the_reducer_as_it_was():
    block = batch([attention(6), attention(4)], 6)
    broken = block.copy()
    broken[1, 2, 3, 1] = np.inf
    started = reducer()
    assert refused(started.push, broken, False, 0) == (
        "Expected finite weights >= 0, got inf at sequence 1, head 2, query 3, key 1 - "
        "pass attention after softmax; mask or drop broken rows first"
    )
    started.push(block, False, 0)
    (wanted, _) = reduce(block, [(6, 4, [1]), (4, 2, [1])])
    assert_same(started.finish()[0], wanted)


@pytest.mark.parametrize(("tokens", "prompt"), [(4, 0), (4, 4), (0, 0)])
def test_a_sequence_has_a_prompt_and_an_answer(tokens, prompt):
    sequences = [(6, 4, []), (tokens, prompt, [])]
    assert refused(_core.LayerReducer, 3, sequences, **OPTIONS) == (
        "Expected a prompt of at least 1 token and an answer of at least 1, "
        f"got prompt {prompt} of {tokens} tokens at sequence 1 - "
        "drop sequences that are only a prompt or only an answer"
    )


def test_rules_are_checked():
    assert refused(reducer, top_k=0).startswith("Expected `top_k` an integer >= 1 or None, got 0")
    assert refused(reducer, combine="sum").startswith('Expected `heads` "mean", "max" or "each"')
    assert refused(_core.LayerReducer, 3, [(6, 4, [7])], **OPTIONS) == (
        "Expected `segments` increasing key positions in 0..=6, got [7] - "
        "pass where each segment after the first begins"
    )
