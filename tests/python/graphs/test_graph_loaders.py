"""Datasets of graphs: batches, orders, workers, splits, memory, and what a reducer has seen."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hallutrace
from conftest import write_lines
from hallutrace import ExtractConfig, extract
from hallutrace.detect import load_examples
from hallutrace.detect.evaluation import EvaluationData
from hallutrace.errors import InputError
from hallutrace.graphs import (
    FEATURES,
    GraphLoader,
    HiddenReducer,
    ShardSampler,
    TraceGraphs,
    collate,
    graph_of,
)
from hallutrace.graphs.edges import TraceSlice
from hallutrace.splits import PARTS
from hallutrace.store.reader import OPEN_SHARDS, TraceStore
from hallutrace.store.trace import Trace
from hallutrace.text_measures import contains

collate.import_geometric()  # which warns when it is imported by others


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty answers of the small model in 12 shards; two have no label."""
    out = tmp_path_factory.mktemp("loaders") / "run"
    folder = extract(ExtractConfig(questions="demo:60", out=out, shard_size=5)).folder
    rows = [
        {"id": trace.id, "sample": trace.sample, "label": label_of(at, trace), "score": None}
        for at, trace in enumerate(hallutrace.open(folder))
    ]
    (folder / "labels").mkdir(exist_ok=True)
    write_lines(folder / "labels" / "hand.jsonl", rows)
    return folder


def label_of(at: int, trace: Trace) -> int | None:
    return None if at in (7, 30) else int(not contains(trace.answer, trace.references))


def same(one: Any, other: Any) -> None:
    """Two graphs or batches with equal attributes."""
    assert set(one.keys()) == set(other.keys())
    for name in one.keys():  # noqa: SIM118, a graph goes through pairs
        if torch.is_tensor(one[name]):
            assert one[name].dtype == other[name].dtype, name
            assert torch.equal(one[name], other[name]), name
        else:
            assert one[name] == other[name], name


# Batches ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("per", ["layer", "trace"])
def test_batches_are_those_of_pytorch_geometric(run: Path, per: str, workers: int) -> None:
    from torch_geometric.data import Batch
    from torch_geometric.loader import DataLoader

    graphs = TraceGraphs(run, per=per, features=FEATURES, labels="hand", top_k=4)
    ours = list(GraphLoader(graphs, 16, workers=workers))
    theirs = list(DataLoader(graphs, 16, num_workers=workers))
    assert len(ours) == len(theirs) == -(-len(graphs) // 16)
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        same(one, other)
        assert one.num_graphs == other.num_graphs
        alone = [graphs[at] for at in range(16 * number, 16 * number + one.num_graphs)]
        same(one, Batch.from_data_list(alone))
        for back, expected in zip(one.to_data_list(), other.to_data_list(), strict=True):
            same(back, expected)
    assert torch.cat([batch.y for batch in ours]).unique().tolist() == [0, 1]


def test_shuffled_and_seeded(run: Path) -> None:
    graphs = TraceGraphs(run, labels="hand")

    def order(loader: GraphLoader) -> list[tuple[str, int]]:
        return [
            pair
            for batch in loader
            for pair in zip(batch.trace_id, batch.layer.tolist(), strict=True)
        ]

    loader = GraphLoader(graphs, 7, shuffle=True, seed=3, workers=2)
    state = torch.get_rng_state()
    first, second = order(loader), order(loader)
    assert torch.equal(torch.get_rng_state(), state)
    assert first != second
    assert Counter(first) == Counter(second)
    assert set(Counter(first).values()) == {1}
    assert len(first) == len(graphs) == 58 * 4
    alone = GraphLoader(graphs, 7, shuffle=True, seed=3)
    assert (order(alone), order(alone)) == (first, second)
    alone.order.epoch = 0
    assert order(alone) == first
    assert order(GraphLoader(graphs, 7, shuffle=True, seed=4)) != first
    in_order = [(graph.trace_id, graph.layer) for graph in graphs]
    assert order(GraphLoader(graphs, 7, workers=2)) == in_order


def test_batches_stay_when_later_ones_come(run: Path) -> None:
    graphs = TraceGraphs(run, features=FEATURES)
    loader = GraphLoader(graphs, 3, workers=2, persistent_workers=True)
    expected = [batch.x.clone() for batch in GraphLoader(graphs, 3)]
    for _ in range(2):
        kept = [batch.x for batch in loader]
        assert all(torch.equal(one, other) for one, other in zip(kept, expected, strict=True))
        for number, batch in enumerate(loader):  # and when an epoch is broken off
            assert torch.equal(batch.x, expected[number])
            if number == 4:
                break


def test_pytorch_geometrics_loader_in_the_samplers_order(run: Path) -> None:
    from torch_geometric.loader import DataLoader

    graphs = TraceGraphs(run, per="trace", labels="hand")
    theirs = DataLoader(graphs, 8, sampler=ShardSampler(graphs, 5), num_workers=2)
    for one, other in zip(theirs, GraphLoader(graphs, 8, shuffle=True, seed=5), strict=True):
        same(one, other)


def test_cuts_are_counted(run: Path) -> None:
    graphs = TraceGraphs(run, max_nodes=12)
    loader = GraphLoader(graphs, 32)
    with pytest.warns(UserWarning, match="max_nodes=12 cut the first") as said:
        batches = list(loader)
    assert len(said) == 1
    cuts = [max(0, len(trace.tokens) - 12) for trace in hallutrace.open(run)]
    assert loader.cut == {"graphs": 4 * sum(cut > 0 for cut in cuts), "nodes": 4 * sum(cuts)}
    assert sum(int(batch.cut_nodes.sum()) for batch in batches) == 4 * sum(cuts)
    assert max(batch.ptr.diff().max() for batch in batches) == 12


# Memory -----------------------------------------------------------------------------------------


def test_few_shards_are_open_and_they_are_read_once(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = TraceGraphs(run, per="trace")
    store = graphs.store
    assert len(store.records) == 12 > OPEN_SHARDS
    opened: list[int] = []
    shard = TraceStore.shard

    def spy(self: TraceStore, number: int) -> Any:
        if number not in self._open:
            opened.append(number)
        found = shard(self, number)
        assert len(self._open) <= OPEN_SHARDS
        return found

    monkeypatch.setattr(TraceStore, "shard", spy)
    for _ in GraphLoader(graphs, 4, shuffle=True, buffer=3):
        pass
    assert sorted(opened) == list(range(12))


def test_a_dataset_can_be_sent_to_another_process(run: Path) -> None:
    graphs = TraceGraphs(run, labels="hand", split="test", seed=2, edges="shuffled")
    again = pickle.loads(pickle.dumps(graphs))
    assert repr(again) == repr(graphs)
    assert len(again) == len(graphs) > 0
    for number in (0, len(graphs) - 1):
        same(again[number], graphs[number])


# Splits -----------------------------------------------------------------------------------------


def test_splits_go_by_group_and_miss_nothing(run: Path) -> None:
    parts = {
        name: TraceGraphs(run, labels="hand", split=name, seed=1)
        for name in ("train", "validation", "test")
    }
    groups = {name: {trace.group for trace in part.traces} for name, part in parts.items()}
    assert not groups["train"] & groups["test"]
    assert not groups["train"] & groups["validation"]
    assert not groups["validation"] & groups["test"]
    indices = np.concatenate([part.indices for part in parts.values()])
    assert sorted(indices.tolist()) == [at for at in range(60) if at not in (7, 30)]
    store = hallutrace.open(run)
    for part in parts.values():
        assert part.labels.tolist() == [label_of(-1, store[at]) for at in part.indices.tolist()]
        assert [int(graph.y) for graph in part] == np.repeat(part.labels, 4).tolist()
    again = TraceGraphs(run, labels="hand", split="train", seed=1)
    assert again.indices.tolist() == parts["train"].indices.tolist()
    other = TraceGraphs(run, labels="hand", split="train", seed=2)
    assert other.indices.tolist() != again.indices.tolist()
    with pytest.warns(UserWarning, match="Expected `labels` with `split`, got none, and .* hand"):
        bare = TraceGraphs(run, split="train", seed=1)
    assert "y" not in bare[0]


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("label", ["hand", "other"])
def test_splits_are_those_of_the_evaluation(run: Path, label: str, seed: int) -> None:
    store = hallutrace.open(run)
    rng = np.random.default_rng(8)
    given: Any = label
    if label == "other":
        given = {key: int(rng.random() < 0.4) for key in store.keys()[5:]}
        rows = [{"id": key[0], "sample": key[1], "label": each} for key, each in given.items()]
        write_lines(run / "labels" / "other.jsonl", rows)
    examples = load_examples(store, label)
    for count, number in ((5, 0), (3, 0), (3, 2)):
        part = EvaluationData.of(examples, count, seed).splits[number]
        for name in PARTS:
            graphs = TraceGraphs(run, labels=given, split=name, seed=seed, fold=number, folds=count)
            assert graphs.indices.tolist() == examples.indices[getattr(part, name)].tolist()
    default = TraceGraphs(run, labels=given, split="test", seed=seed)
    first = EvaluationData.of(examples, 5, seed).splits[0].test
    assert default.indices.tolist() == examples.indices[first].tolist()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fold": 5}, "Expected a fold in 0..4, got 5 - choose one of those"),
        ({"folds": 1}, "Expected at least 2 folds, got 1 - change `folds`"),
        (
            {"folds": 61},
            "Expected at least as many traces as folds, got 58 traces for 61 folds - take fewer "
            "folds or more traces",
        ),
    ],
)
def test_folds_that_are_not_there(run: Path, options: dict[str, int], said: str) -> None:
    with pytest.raises(InputError) as raised:
        TraceGraphs(run, labels="hand", split="test", **options)
    assert str(raised.value) == said


# Reducing ---------------------------------------------------------------------------------------


def states_of(traces: Any, layer: int) -> np.ndarray:
    return np.concatenate([trace.hidden(layer) for trace in traces]).astype(np.float64)


def test_principal_components_are_those_of_scikit_learn(run: Path) -> None:
    from sklearn.decomposition import PCA

    traces = TraceGraphs(run, labels="hand", split="train").traces
    reducer = HiddenReducer(5).fit(traces, layers=[3, 1])
    assert reducer.layers == [3, 1]
    for at, layer in enumerate(reducer.layers):
        states = states_of(traces, layer)
        oracle = PCA(5, svd_solver="full").fit(states)
        found = reducer.transform(layer, states.astype(np.float32))
        expected = oracle.transform(states)
        signs = np.sign((found * expected).sum(axis=0))
        np.testing.assert_allclose(found, expected * signs, atol=1e-4)
        assert reducer.explained[at] == pytest.approx(oracle.explained_variance_ratio_.sum())


def test_a_reducer_in_several_passes_is_the_same(run: Path, monkeypatch: Any) -> None:
    from hallutrace.graphs import reducer

    traces = TraceGraphs(run).traces
    once = HiddenReducer(4).fit(traces)
    monkeypatch.setattr(reducer, "_SUMS_BYTES", 1)
    monkeypatch.setattr(reducer, "_ROWS", 1)
    several = HiddenReducer(4).fit(traces)
    for layer in once.layers:
        states = traces[0].hidden(layer)
        np.testing.assert_allclose(
            several.transform(layer, states), once.transform(layer, states), atol=1e-4
        )


def test_random_projections_keep_distances(run: Path) -> None:
    traces = TraceGraphs(run).traces
    reducer = HiddenReducer(100, "random", seed=1).fit(traces[:1])
    states = states_of(traces, 2).astype(np.float32)
    reduced = reducer.transform(2, states)
    ratio = np.linalg.norm(reduced[1:] - reduced[:-1], axis=1)
    ratio /= np.linalg.norm(states[1:] - states[:-1], axis=1)
    assert abs(ratio.mean() - 1) < 0.05
    again = HiddenReducer(100, "random", seed=1).fit(traces)
    np.testing.assert_array_equal(again.transform(0, states), reducer.transform(0, states))
    other = HiddenReducer(100, "random", seed=2).fit(traces)
    assert not np.array_equal(other.transform(2, states), reduced)


@pytest.mark.parametrize("kind", ["pca", "random"])
def test_reduced_states_are_columns_and_can_be_saved(run: Path, kind: str) -> None:
    train = TraceGraphs(run, labels="hand", split="train")
    reducer = HiddenReducer(6, kind).fit(train.traces)
    arrays, facts = reducer.state()
    facts = json.loads(json.dumps(facts))
    again = HiddenReducer.from_state(arrays, facts)
    for per in ("layer", "trace"):
        graphs = TraceGraphs(run, per=per, features=["role", "hidden"], reducer=reducer)
        reread = TraceGraphs(run, per=per, features=["role", "hidden"], reducer=again)
        trace = graphs.store[9]
        graph = graphs[36 if per == "layer" else 9]
        same(graph, reread[36 if per == "layer" else 9])
        rows = slice(trace.prompt_length - 1, None)
        expected = reducer.transform(0, trace.hidden(0))
        np.testing.assert_array_equal(graph.x[rows, 2:8], expected)
        assert (graph.x[: rows.start, 2:9] == 0).all()
        assert graph.x.shape[1] == 2 + 7 * (1 if per == "layer" else 4)
    with pytest.raises(InputError) as raised:
        HiddenReducer.from_state({**arrays, "axes": arrays["axes"][:, :, :5]}, facts)
    assert str(raised.value).startswith("Expected a mean and axes of ")


class Spy(TraceStore):
    """A run that remembers which traces were read."""

    seen: set[int]

    def _at(self, at: int) -> Trace:
        self.__dict__.setdefault("seen", set()).add(at)
        return super()._at(at)


def test_nothing_fitted_has_seen_a_test_question(run: Path) -> None:
    store = Spy(run)
    train = TraceGraphs(store, labels="hand", split="train", seed=0)
    others = np.concatenate(
        [
            TraceGraphs(store, labels="hand", split=name, seed=0).indices
            for name in ("validation", "test")
        ]
    )
    store.seen.clear()
    HiddenReducer(4).fit(train.traces)
    assert store.seen == set(train.indices.tolist())
    assert not store.seen & set(others.tolist())
    # What was fitted does not change when the test part is looked at.
    reducer = HiddenReducer(4).fit(train.traces)
    before = {name: array.copy() for name, array in reducer.state()[0].items()}
    for _ in TraceGraphs(store, labels="hand", split="test", features=["hidden"], reducer=reducer):
        pass
    for name, array in reducer.state()[0].items():
        np.testing.assert_array_equal(array, before[name])


def test_what_a_reducer_cannot_do(run: Path, tmp_path: Path) -> None:
    traces = TraceGraphs(run).traces
    without = ExtractConfig(questions="demo:2", out=tmp_path / "none", hidden_states="none")
    bare = hallutrace.open(extract(without).folder)
    refused = [
        (lambda: HiddenReducer(2, "ica"), "Expected `kind` to be pca or random, got 'ica'"),
        (lambda: HiddenReducer(0), "Expected `columns` >= 1, got 0"),
        (lambda: HiddenReducer(2).fit([]), "Expected traces to fit a reducer on, got none"),
        (
            lambda: HiddenReducer(161).fit(traces),
            "Expected at most 160 columns, the size of the states, got 161",
        ),
        (
            lambda: HiddenReducer(160).fit(traces[:1]),
            f"Expected at least 160 hidden states for as many columns, got "
            f"{len(traces[0].answer_tokens) + 1} - take more traces, or fewer columns",
        ),
        (
            lambda: HiddenReducer(2).fit(bare),
            "Expected traces with hidden states for a reducer, got some without - extract them "
            "again with `hidden_states='answer'`",
        ),
        (
            lambda: HiddenReducer(2).fit(traces, [1]).transform(3, np.zeros((1, 160))),
            "Expected a layer that the reducer was fitted on (1), got 3 - fit it first",
        ),
        (
            lambda: GraphLoader(TraceGraphs(run), 0),
            "Expected batch_size >= 1 and workers >= 0, got 0 and 0",
        ),
        (lambda: ShardSampler(TraceGraphs(run), buffer=0), "Expected `buffer` >= 1, got 0"),
    ]  # fmt: skip
    for ask, message in refused:
        with pytest.raises(InputError) as raised:
            ask()
        assert str(raised.value) == message


def test_pooled_states_of_answers_that_end(tmp_path: Path) -> None:
    options = {"questions": "demo:5", "out": tmp_path / "pooled", "hidden_states": "pooled"}
    for trace in hallutrace.open(extract(ExtractConfig(**options)).folder):
        assert trace.finish_reason == "eos"
        states = graph_of(trace, 2, features=["hidden"]).x
        places = [trace.prompt_length - 1, len(trace.tokens) - 2, len(trace.tokens) - 1]
        assert np.flatnonzero(states[:, -1]).tolist() == sorted(set(places))
        np.testing.assert_array_equal(states[places, :-1], trace.hidden(2)[:3])


def test_a_slice_reads_its_lengths(run: Path) -> None:
    trace = hallutrace.open(run)[0]
    layout = TraceGraphs(run, window=3, max_nodes=2)._layout
    part = TraceSlice.of(trace, [0], layout)
    assert part.first == len(trace.tokens) - 2
    assert part.cut == part.first - (trace.prompt_length - 3)
