"""Compact graphs hold what PyTorch Geometric's do; message passing gives GINEConv's numbers."""

from __future__ import annotations

import warnings
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

import hallutrace
from detect_runs import Made, causal_attention, write_run
from edge_runs import planted_edges
from hallutrace.detect import Examples, make
from hallutrace.detect.nets.encoders import AttentionNet
from hallutrace.detect.nets.graph_batches import GraphBatch, GraphTable, read_compact
from hallutrace.detect.nets.message import GineLayer, answer_max, answer_mean
from hallutrace.graphs import graph_of
from hallutrace.graphs.arrays import GraphArrays
from hallutrace.graphs.layout import GraphLayout
from hallutrace.graphs.options import GraphOptions

FEATURES = ("hidden", "marginals", "position", "role", "logprob")


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    return planted_edges(tmp_path_factory.mktemp("edges") / "run", 12, states="answer")


def layout_of(examples: Examples, per: str, **options: object) -> GraphLayout:
    chosen = GraphOptions(per=per, features=FEATURES, **options)
    return GraphLayout.of(chosen, examples.store.manifest, "here")


def dense(batch: GraphBatch, graph: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of a graph's nodes, and weights [nodes, nodes, channels]."""
    nodes = (batch.graph == graph).nonzero()[:, 0]
    begin, count = int(nodes[0]), len(nodes)
    edges = batch.graph[batch.query] == graph
    weights = torch.zeros(count, count, batch.weights.shape[1])
    weights[batch.query[edges] - begin, batch.key[edges] - begin] = batch.weights[edges]
    return batch.x[nodes], weights


@pytest.mark.parametrize("edges", ["true", "shuffled", "none"])
def test_a_graph_of_each_layer_is_graph_of(examples: Examples, edges: str) -> None:
    table = GraphTable(examples, layout_of(examples, "layer", edges=edges, top_k=3), 2**30)
    rows = np.array([7, 2, 9])
    batch = table.batch(rows)
    assert len(batch) == 6 and not table.is_streamed
    for layer in range(2):
        for at, row in enumerate(rows):
            data = graph_of(examples[row], layer, features=FEATURES, edges=edges, top_k=3)
            x, weights = dense(batch, 3 * layer + at)
            expected = torch.zeros(len(x), len(x))
            expected[data.edge_index[1], data.edge_index[0]] = data.edge_attr[:, 0]
            assert torch.equal(x, data.x) and torch.equal(weights[..., 0], expected)
            chosen = batch.answer[batch.graph == 3 * layer + at]
            assert torch.equal(chosen, data.answer_mask)


def test_a_graph_of_a_trace_has_a_weight_for_each_layer(examples: Examples) -> None:
    table = GraphTable(examples, layout_of(examples, "trace"), 2**30)
    batch = table.batch(np.array([3, 0]))
    for at, row in enumerate((3, 0)):
        data = graph_of(examples[row], features=FEATURES)
        x, weights = dense(batch, at)
        expected = torch.zeros(len(x), len(x), 2)
        expected[data.edge_index[1], data.edge_index[0], data.edge_layer] = data.edge_attr[:, 0]
        assert torch.equal(x, data.x) and torch.equal(weights, expected)
    code = batch.query * len(batch.x) + batch.key
    assert bool((code.diff() > 0).all())  # in order, each pair once


@pytest.mark.parametrize("per", ["layer", "trace"])
def test_heads_kept_apart_have_a_weight_each(per: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    made = [Made(causal_attention((2, 3, 9 + at), rng), 5, at % 2) for at in range(4)]
    store = hallutrace.open(write_run(tmp_path / "run", made, combine="each"))
    examples = Examples(store, np.arange(4), np.zeros(4, np.int8))
    options = GraphOptions(per=per, features=("role",), top_k=2)
    table = GraphTable(examples, GraphLayout.of(options, store.manifest, "here"), 2**30)
    batch = table.batch(np.array([2, 1]))
    data = graph_of(examples[1], features=["role"], top_k=2)
    _, weights = dense(batch, 1)
    expected = torch.zeros(*weights.shape[:2], 2, 3)
    key, query = data.edge_index
    expected[query, key, data.edge_layer, data.edge_head] = data.edge_attr[:, 0]
    assert weights.shape[2] == (6 if per == "trace" else 3)
    assert torch.equal(weights, expected.flatten(2) if per == "trace" else expected[:, :, 0])
    for name in ("attention-gnn", "graph-vae"):
        labelled = Examples(store, np.arange(4), np.array([0, 1, 0, 1], np.int8))
        detector = make(name, epochs=1)
        detector.fit(labelled, labelled)
        assert np.isfinite(detector.scores(labelled)).all()


@pytest.mark.parametrize("per", ["layer", "trace"])
def test_streamed_graphs_are_those_in_memory(examples: Examples, per: str) -> None:
    layout = layout_of(examples, per)
    held, streamed = GraphTable(examples, layout, 2**30), GraphTable(examples, layout, 1)
    assert streamed.is_streamed and not held.is_streamed
    rows = np.array([5, 1, 11, 0])
    one, other = held.batch(rows), streamed.batch(rows)
    for part in fields(GraphBatch):
        assert torch.equal(getattr(one, part.name), getattr(other, part.name)), part.name
    for some, others in zip(held.moments(rows), streamed.moments(rows), strict=True):
        assert np.array_equal(some[0], others[0]) and np.array_equal(some[1], others[1])
    everything = np.arange(12)
    assert sorted(streamed.order(np.random.default_rng(0), everything)) == list(range(12))


def test_features_of_a_table_have_these_moments(examples: Examples) -> None:
    table = GraphTable(examples, layout_of(examples, "layer"), 2**30)
    (mean, std), of_edges = table.moments(np.arange(12))
    x = torch.cat([graph_of(trace, 1, features=FEATURES).x for trace in examples]).double()
    assert np.allclose(mean[1], x.mean(dim=0), atol=1e-5)
    spread = x.std(dim=0, correction=0)
    assert np.allclose(std[1], torch.where(spread < 1e-6, 1.0, spread), atol=1e-4)
    weights = np.concatenate([trace.layer(at).weights for trace in examples for at in (0, 1)])
    assert np.allclose(of_edges, [[weights.mean()], [weights.std()]], atol=1e-6)


def test_compact_means_small(examples: Examples) -> None:
    layout = layout_of(examples, "layer")
    graphs = read_compact(list(examples), layout)
    assert graphs.of_edges["edge_attr"].dtype == np.float16
    assert graphs.of_edges["edge_index"].dtype == np.uint8
    assert GraphArrays.join([graphs, graphs]).bytes == 2 * graphs.bytes


def test_message_passing_is_that_of_gineconv(examples: Examples) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch_geometric.nn import GINEConv
    table = GraphTable(examples, layout_of(examples, "trace"), 2**30)
    batch = table.batch(np.arange(5))
    torch.manual_seed(0)
    ours = GineLayer(8, 2).double()
    torch.nn.init.normal_(ours.net[-1].weight)  # which begins as zero
    theirs = GINEConv(ours.net, edge_dim=2).double()
    theirs.lin.load_state_dict(ours.edge.state_dict())
    x = torch.randn(len(batch.x), 8, dtype=torch.float64, requires_grad=True)
    index, goal = torch.stack([batch.key, batch.query]), torch.randn(len(x), 8, dtype=torch.float64)
    doubled = GraphBatch(**{**vars(batch), "weights": batch.weights.double()})
    found, expected = ours(x, doubled.weights, doubled), theirs(x, index, doubled.weights)
    # Ours passes messages in float32.
    assert torch.allclose(found, expected, atol=1e-5)
    kept = [x, ours.edge.weight, ours.edge.bias]
    of_ours = torch.autograd.grad((found * goal).sum(), kept)
    of_theirs = torch.autograd.grad(
        (expected * goal).sum(), [x, theirs.lin.weight, theirs.lin.bias]
    )
    for one, other in zip(of_ours, of_theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-3, rtol=1e-4)


def test_pooling_reads_answer_tokens_alone(examples: Examples) -> None:
    batch = GraphTable(examples, layout_of(examples, "trace"), 2**30).batch(np.arange(4))
    x = torch.randn(len(batch.x), 3)
    for graph in range(4):
        chosen = x[(batch.graph == graph) & batch.answer]
        assert torch.allclose(answer_mean(x, batch)[graph], chosen.mean(dim=0), atol=1e-6)
        assert torch.equal(answer_max(x, batch)[graph], chosen.amax(dim=0))


def test_a_network_reads_graphs_without_edges(examples: Examples) -> None:
    table = GraphTable(examples, layout_of(examples, "trace", edges="none"), 2**30)
    batch = table.batch(np.arange(3))
    assert not len(batch.key)
    net = AttentionNet(batch.x.shape[1], 2, 8, 2, 0.0)
    net(batch).sum().backward()
    assert net(batch).shape == (3,)


def test_mixed_precision_reads_the_same_graphs(examples: Examples) -> None:
    batch = GraphTable(examples, layout_of(examples, "trace"), 2**30).batch(np.arange(6))
    torch.manual_seed(0)
    net = AttentionNet(batch.x.shape[1], 2, 8, 2, 0.0)
    plain = net(batch)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = net(batch)
        (mixed**2).mean().backward()
    assert mixed.dtype == torch.float32
    assert torch.allclose(mixed, plain, atol=0.05)
    assert all(bool(p.grad.isfinite().all()) for p in net.parameters() if p.grad is not None)
