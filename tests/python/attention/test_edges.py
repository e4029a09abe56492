"""`EdgeList`: what it holds and what it turns into."""

from __future__ import annotations

import sys

import networkx
import numpy as np
import pytest
import torch

import oracle
from hallutrace.attention.edges import EdgeList
from hallutrace.attention.sparsify import sparsify
from hallutrace.errors import InputError, MissingExtraError


def weights(heads=2, queries=3, keys=5):
    made = oracle.rows("softmax", (heads, queries, keys), np.random.default_rng(1))
    return np.where(np.arange(keys) <= np.arange(queries)[:, None] + keys - queries, made, 0)


def arrays(**changes):
    given = {
        "indptr": np.array([0, 1, 3]),
        "keys": np.array([0, 0, 1], np.int32),
        "weights": np.array([1, 0.25, 0.75], np.float32),
        "shape": (1, 2, 2),
        "first_query": 0,
        "retained": np.array([[1, np.nan]], np.float32),
    }
    return {**given, **changes}


def test_heads_and_queries_of_each_edge():
    edges = sparsify(weights(), top_k=2, heads="each")
    assert edges.heads.tolist() == [0] * 6 + [1] * 6
    assert edges.queries.tolist() == [2, 2, 3, 3, 4, 4] * 2
    assert len(edges) == 12


def test_dense_is_what_was_given():
    edges = sparsify(weights(), heads="each")
    assert edges.to_dense().tobytes() == weights().tobytes()


def test_one_head():
    edges = sparsify(weights(), top_k=2, heads="each")
    alone = sparsify(weights()[1], top_k=2)
    for head in (1, -1):
        taken = edges.head(head)
        assert taken.indptr.tolist() == alone.indptr.tolist()
        assert taken.keys.tolist() == alone.keys.tolist()
        assert taken.retained.tolist() == alone.retained.tolist()
        assert (taken.shape, taken.first_query) == ((1, 3, 5), 2)
    with pytest.raises(InputError, match=r"Expected a head in 0\.\.2, got 2 - see `shape`"):
        edges.head(2)


def test_torch_has_keys_above_queries():
    edges = sparsify(weights(), top_k=2)
    edge_index, edge_weight = edges.to_torch()
    assert (edge_index.dtype, edge_weight.dtype) == (torch.int64, torch.float32)
    assert edge_index[0].tolist() == edges.keys.tolist()
    assert edge_index[1].tolist() == [2, 2, 3, 3, 4, 4]
    edge_weight[:] = 0
    assert edges.weights.all()


def test_scipy_has_rows_of_queries():
    edges = sparsify(weights(), top_k=2)
    matrix = edges.to_scipy()
    assert matrix.shape == (3, 5)
    assert (matrix.toarray() == edges.to_dense()[0]).all()
    with pytest.raises(InputError) as caught:
        sparsify(weights(), heads="each").to_scipy()
    assert str(caught.value) == (
        "Expected edges of one head, got 2 heads - pass edges.head(h).to_scipy()"
    )


def test_networkx_points_from_key_to_query():
    edges = sparsify(weights(), top_k=1)
    graph = edges.to_networkx()
    assert type(graph) is networkx.DiGraph
    assert sorted(graph.nodes) == [0, 1, 2, 3, 4]
    wanted = zip(edges.keys.tolist(), [2, 3, 4], edges.weights.tolist(), strict=True)
    assert sorted(graph.edges(data="weight")) == sorted(wanted)


def test_networkx_of_several_heads_names_them():
    edges = sparsify(weights(), top_k=1, heads="each")
    graph = edges.to_networkx()
    assert type(graph) is networkx.MultiDiGraph
    assert sorted(head for *_, head in graph.edges(data="head")) == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(("package", "call"), [("scipy", "to_scipy"), ("networkx", "to_networkx")])
def test_a_missing_package_is_named(package, call, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError) as caught:
        getattr(sparsify(weights()), call)()
    assert str(caught.value) == (
        f"Expected the package `{package}` for {call}(), got no such package - "
        'pip install "hallutrace[graphs]"'
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"keys": np.array([0, 0, 1])},
            "Expected `keys` int32 [3], got int64 [3] - pass the arrays of one matrix",
        ),
        (
            {"weights": np.ones(2, np.float32)},
            "Expected `weights` float32 [3], got float32 [2] - pass the arrays of one matrix",
        ),
        (
            {"shape": (1, 3, 2)},
            "Expected `indptr` int64 [4], got int64 [3] - pass the arrays of one matrix",
        ),
        (
            {"indptr": np.array([0, 1, 2])},
            "Expected `indptr` from 0 to 3, the number of edges, got 0 to 2 - "
            "pass the arrays of one matrix",
        ),
    ],
)
def test_arrays_that_do_not_agree_are_refused(changes, message):
    with pytest.raises(InputError) as caught:
        EdgeList(**arrays(**changes))
    assert str(caught.value) == message


def test_repr_tells_counts_shape_mass_and_the_heaviest():
    assert repr(EdgeList(**arrays())) == (
        "EdgeList of 3 edges: 1 x 2 queries on 2 keys, first query at 0\n"
        "  1.5 edges and 100.0% of the mass per query\n"
        "  heaviest key -> query: 0 -> 0 (1.000), 1 -> 1 (0.750), 0 -> 1 (0.250)"
    )
    unknown = EdgeList(**arrays(retained=np.full((1, 2), np.nan, np.float32)))
    assert "an unknown share of the mass" in repr(unknown)
    assert repr(sparsify(np.zeros((0, 0, 0), np.float32))).endswith("of the mass per query")
    assert "head 1)" in repr(sparsify(weights(), heads="each"))
