"""The parts of the graph VAE against plain formulas, and what it sees without labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import hallutrace
from detect_runs import Made, causal_attention, plain_auroc, write_run
from edge_runs import parts, planted_edges
from hallutrace.detect import Examples, make
from hallutrace.detect.nets.anomaly import AnomalyScore, mahalanobis
from hallutrace.detect.nets.graph_batches import GraphBatch, GraphTable
from hallutrace.detect.nets.vae import LayerVae, SequenceScorer, divergence, negative_edges
from hallutrace.graphs.layout import GraphLayout
from hallutrace.graphs.options import GraphOptions


@pytest.fixture(scope="module")
def edges(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    return planted_edges(tmp_path_factory.mktemp("edges") / "run", 60)


@pytest.fixture(scope="module")
def batch(edges: Examples) -> GraphBatch:
    options = GraphOptions(features=("marginals", "position"), top_k=3)
    layout = GraphLayout.of(options, edges.store.manifest, "here")
    return GraphTable(edges, layout, 2**30).batch(np.arange(5))


@pytest.fixture
def vae(batch: GraphBatch) -> LayerVae:
    torch.manual_seed(0)
    made = LayerVae(batch.x.shape[1], 1, 2, hidden_dim=8, latent=3, num_layers=2, dropout=0.0)
    torch.nn.init.normal_(made.offset)
    return made


def ends_of(batch: GraphBatch, graph: int) -> tuple[int, int]:
    begin = int(batch.begins[graph])
    return begin, begin + int((batch.graph == graph).sum())


@pytest.mark.parametrize("draw", [True, False])
def test_pairs_without_an_edge_respect_causality(batch: GraphBatch, draw: bool) -> None:
    torch.manual_seed(0)
    key, is_free = negative_edges(batch, draw)
    assert bool((key <= batch.query).all())
    assert torch.equal(batch.graph[key], batch.graph[batch.query])
    known = set(zip(batch.query.tolist(), batch.key.tolist(), strict=True))
    asked = zip(batch.query.tolist(), key.tolist(), strict=True)
    assert is_free.tolist() == [pair not in known for pair in asked]
    assert 0.3 < is_free.float().mean() < 0.95


def test_pairs_that_lie_evenly_do_not_depend_on_other_graphs(edges: Examples) -> None:
    layout = GraphLayout.of(GraphOptions(features=("role",), top_k=3), edges.store.manifest, "here")
    table = GraphTable(edges, layout, 2**30)
    alone, together = table.batch(np.array([4])), table.batch(np.array([2, 4]))
    one, _ = negative_edges(alone, draw=False)
    other, _ = negative_edges(together, draw=False)
    of_it = together.graph[together.query] == 1
    begin = together.begins[1]
    assert torch.equal(one[alone.graph[alone.query] == 0], other[of_it] - begin)


@pytest.mark.parametrize("objective", ["binary", "weighted"])
def test_reconstruction_is_the_mean_cross_entropy(
    vae: LayerVae, batch: GraphBatch, objective: str
) -> None:
    z = torch.randn(len(batch.x), 3)
    found = vae.reconstruction(z, batch, objective, draw=False).detach()
    offset = vae.offset.detach()
    others, is_free = negative_edges(batch, draw=False)
    for graph in range(len(batch)):
        terms = []
        for edge in (batch.graph[batch.query] == graph).nonzero()[:, 0].tolist():
            query = int(batch.query[edge])
            target = 1.0 if objective == "binary" else float(batch.weights[edge, 0])
            pairs = [(int(batch.key[edge]), target)]
            if is_free[edge]:
                pairs.append((int(others[edge]), 0.0))
            for key, truth in pairs:
                logit = float(z[key] @ z[query]) + float(offset[graph // 5])
                chance = 1 / (1 + np.exp(-logit))
                terms.append(-truth * np.log(chance) - (1 - truth) * np.log(1 - chance))
        assert float(found[graph]) == pytest.approx(np.mean(terms), rel=1e-4)


def test_divergence_is_that_of_normal_distributions(vae: LayerVae, batch: GraphBatch) -> None:
    code = vae.encode(batch, draw=True)
    normal = torch.distributions.Normal(code.mu, torch.exp(code.log_variance / 2))
    plain = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum(1)
    found, plain = divergence(code, batch).detach(), plain.detach()
    for graph in range(len(batch)):
        begin, end = ends_of(batch, graph)
        assert float(found[graph]) == pytest.approx(float(plain[begin:end].mean()), rel=1e-4)


def test_codes_are_drawn_in_training_and_mu_in_scoring(vae: LayerVae, batch: GraphBatch) -> None:
    torch.manual_seed(1)
    drawn = [vae.encode(batch, draw=True) for _ in range(200)]
    spread = torch.stack([code.z for code in drawn]).std(dim=0)
    assert torch.allclose(spread, torch.exp(drawn[0].log_variance / 2), rtol=0.35)
    still = vae.encode(batch, draw=False)
    assert torch.equal(still.z, still.mu)


def test_the_sequence_is_the_mean_over_answer_tokens(vae: LayerVae, batch: GraphBatch) -> None:
    z = torch.randn(len(batch.x), 3)
    sequence = vae.sequence(z, batch)
    assert sequence.shape == (5, 2, 3)
    for graph in range(len(batch)):
        begin, end = ends_of(batch, graph)
        mean = z[begin:end][batch.answer[begin:end]].mean(dim=0)
        assert torch.allclose(sequence[graph % 5, graph // 5], mean, atol=1e-6)
    assert vae.token_sequence(z, batch).shape == (int(batch.answer.sum()) // 2, 2, 3)


def test_layers_have_their_own_way_in(vae: LayerVae, batch: GraphBatch) -> None:
    before = vae.encode(batch, draw=False).mu
    with torch.no_grad():
        vae.embed[1] += 1.0
    after = vae.encode(batch, draw=False).mu
    half = len(before) // 2
    assert torch.equal(before[:half], after[:half])
    assert not torch.allclose(before[half:], after[half:])


@pytest.mark.parametrize("kind", ["mlp", "gru"])
@pytest.mark.parametrize("layers", [1, 4])
def test_scorers_read_layers_and_their_changes(kind: str, layers: int) -> None:
    torch.manual_seed(0)
    scorer = SequenceScorer(layers, 3, kind, 8, 0.0)
    sequence = torch.randn(6, layers, 3)
    found = scorer(sequence)
    assert found.shape == (6,)
    if layers > 1:
        assert not torch.allclose(found, scorer(sequence.flip(1)))


def test_mixed_precision_gives_nearly_the_same(vae: LayerVae, batch: GraphBatch) -> None:
    """As on a GPU, in bfloat16; messages and losses stay in float32."""

    def told() -> torch.Tensor:
        code = vae.encode(batch, draw=False)
        error = vae.reconstruction(code.z, batch, "weighted", draw=False)
        return (error + divergence(code, batch)).mean()

    plain = told()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = told()
    mixed.backward()
    assert mixed.dtype == torch.float32
    assert torch.allclose(mixed, plain, rtol=0.05)
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in vae.parameters())


def test_distance_from_right_answers() -> None:
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(4000, 3)) @ np.array([[2.0, 0, 0], [1, 1, 0], [0, 0, 0.2]])
    errors = rng.normal(5.0, 2.0, 4000)
    made = AnomalyScore.fit(errors, codes)
    covariance = np.cov(codes.T)
    far = np.array([[3.0, -1.0, 0.4]])
    centred = far[0] - codes.mean(axis=0)
    expected = np.sqrt(centred @ np.linalg.inv(covariance) @ centred)
    assert mahalanobis(far, made.mean, made.precision)[0] == pytest.approx(
        expected, rel=0.03
    )  # shrunk by 3 in 4003
    scores = made(errors, codes)
    assert abs(scores.mean()) < 1e-9
    # A unit of error counts as one std of errors.
    assert made(errors + 2.0, codes).mean() == pytest.approx(1.0, rel=0.05)
    again = AnomalyScore.from_arrays(made.arrays())
    assert np.array_equal(again(errors, codes), scores)


def test_a_code_that_never_varies_is_no_error() -> None:
    made = AnomalyScore.fit(np.ones(10), np.ones((10, 4)))
    assert np.isfinite(made(np.ones(2), np.zeros((2, 4)))).all()


def test_without_labels_strange_answers_are_far_from_right_ones(tmp_path: Any) -> None:
    rng = np.random.default_rng(1)
    made = []
    for at in range(240):
        answer = int(rng.integers(3, 7))
        attention = causal_attention((2, 2, 6 + answer), rng, 3.0 if at % 2 else 0.5)
        made.append(Made(attention, 6, at % 2))
    store = hallutrace.open(write_run(tmp_path / "run", made))
    labels = np.array([one.label for one in made], np.int8)
    examples = Examples(store, np.arange(240), labels)
    train, validation, test = parts(examples)
    detector = make("graph-vae", supervised=False, epochs=6)
    detector.fit(train, validation)
    assert plain_auroc(detector.scores(test), test.labels) > 0.95
    # What it learns from are right answers alone: labels of others change nothing.
    right = np.flatnonzero(train.labels == 0)
    few = train.take(np.sort(np.append(right, np.flatnonzero(train.labels)[0])))
    second = make("graph-vae", supervised=False, epochs=6)
    second.fit(few, validation)
    assert np.allclose(detector.scores(test), second.scores(test), rtol=1e-3, atol=1e-3)
