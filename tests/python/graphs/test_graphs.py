"""A graph is what its trace says: edges, features by name, heads, windows, cuts, controls."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import hallutrace
from conftest import RUN_OPTIONS, question_rows, write_lines
from hallutrace import ExtractConfig, extract
from hallutrace.errors import InputError, MissingExtraError
from hallutrace.graphs import FEATURES, HiddenReducer, TraceGraphs, controls, graph_of
from hallutrace.store.reader import TraceStore
from hallutrace.store.trace import Trace
from tiny_models import save_tiny

Open = Callable[..., TraceStore]


@pytest.fixture(scope="session")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Open:
    """Runs of seven questions, one with a context, each extracted once."""
    base = tmp_path_factory.mktemp("graphs")
    rows = question_rows(7)
    rows[1] |= {"context": "It was the ox.", "group": "animals"}
    questions = write_lines(base / "seven.jsonl", rows)

    @cache
    def extracted(architecture: str, options: str) -> Path:
        model = base / architecture
        if not model.exists():
            save_tiny(model, architecture)
        chosen = {"model": str(model), "questions": str(questions)}
        chosen |= RUN_OPTIONS | json.loads(options)
        out = base / f"run{len(list(base.iterdir()))}"
        return extract(ExtractConfig.from_options(chosen | {"out": out})).folder

    return lambda architecture="qwen3", **options: hallutrace.open(
        extracted(architecture, json.dumps(options))
    )


def plain_edges(trace: Trace, layers: list[int]) -> dict[tuple[int, int, int, int], float]:
    """Weight by layer, head, query and key."""
    found = {}
    for layer in layers:
        edges = trace.layer(layer)
        ends = zip(edges.heads, edges.queries, edges.keys, edges.weights, strict=True)
        for head, query, key, weight in ends:
            found[layer, int(head), int(query), int(key)] = float(weight)
    return found


def edges_of(graph: Any) -> dict[tuple[int, int, int, int], float]:
    """The same of a graph, in the numbering of the trace's tokens; no edge comes twice."""
    keys, queries = (graph.edge_index + graph.first_token).tolist()
    count = len(keys)
    heads = graph.edge_head.tolist() if "edge_head" in graph else [0] * count
    layers = graph.edge_layer.tolist() if "edge_layer" in graph else [graph.layer] * count
    ends = zip(layers, heads, queries, keys, strict=True)
    found = dict(zip(ends, graph.edge_attr[:, 0].tolist(), strict=True))
    assert len(found) == count
    return found


# Edges ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"heads": "each", "top_k": 3}, {"edge_rows": "answer"}, {"edge_dtype": "float32"}],
)
@pytest.mark.parametrize("architecture", ["qwen3", "qwen3_next"])
def test_edges_are_those_of_the_trace(opened: Open, architecture: str, options: Any) -> None:
    store = opened(architecture, **options)
    for trace in store:
        for layer in trace.layers:
            index, weights = trace.layer(layer).to_torch()
            graph = graph_of(trace, layer)
            assert torch.equal(graph.edge_index, index)
            assert torch.equal(graph.edge_attr, weights[:, None])
            assert ("edge_head" in graph) == (options.get("heads") == "each")
            if "edge_head" in graph:
                assert graph.edge_head.tolist() == trace.layer(layer).heads.tolist()
            assert (graph.layer, graph.num_nodes) == (layer, len(trace.tokens))
            assert graph.validate()
        whole = graph_of(trace)
        assert "layer" not in whole
        assert edges_of(whole) == plain_edges(trace, trace.layers)
        some = graph_of(trace, trace.layers[::-2])
        assert edges_of(some) == plain_edges(trace, trace.layers[::-2])


def test_a_dataset_is_the_graphs_of_its_traces(opened: Open) -> None:
    store = opened()
    graphs = TraceGraphs(store, features=FEATURES, layers=[2, 0])
    assert len(graphs) == 14
    for number, graph in enumerate(graphs):
        trace = store[number // 2]
        alone = graph_of(trace, [2, 0][number % 2], features=FEATURES)
        assert graph.keys() == alone.keys()
        assert (graph.trace_id, graph.sample, graph.group) == (trace.id, 0, trace.group)
        assert (graph.prompt_length, graph.layer) == (trace.prompt_length, [2, 0][number % 2])
        for name, value in graph:
            same = torch.equal(value, alone[name]) if torch.is_tensor(value) else True
            assert same, name
    assert torch.equal(graphs[-1].x, graphs[13].x)
    with pytest.raises(IndexError) as raised:
        graphs[14]
    assert raised.value.args == ("Expected a graph in 0..14, got 14",)
    for one, other in zip(graphs.__getitems__([9, 0, 1, 8, 9]), [9, 0, 1, 8, 9], strict=True):
        assert torch.equal(one.x, graphs[other].x)
        assert torch.equal(one.edge_index, graphs[other].edge_index)


@pytest.mark.parametrize("how", ["mean", "max"])
@pytest.mark.parametrize("layer", [1, [2, 0]])
def test_heads_can_be_combined(opened: Open, how: str, layer: Any) -> None:
    for trace in opened(heads="each", top_k=3):
        layers = [layer] if isinstance(layer, int) else layer
        expected = {}
        for number in layers:
            dense = trace.layer(number).to_dense()
            combined = dense.mean(axis=0) if how == "mean" else dense.max(axis=0)
            for query, key in np.argwhere(combined > 0):
                expected[number, 0, int(query), int(key)] = float(combined[query, key])
        graph = graph_of(trace, layer, heads=how)
        assert "edge_head" not in graph
        found = edges_of(graph)
        assert list(found) == list(expected)
        assert list(found.values()) == pytest.approx(list(expected.values()), rel=1e-6)


def test_edges_can_be_pruned_further(opened: Open) -> None:
    for trace in opened(heads="each", top_k=5):
        kept = {}
        rows: dict[tuple[int, int, int], list[tuple[float, int]]] = {}
        for (layer, head, query, key), weight in plain_edges(trace, [0, 2]).items():
            if weight >= np.float32(0.1):
                rows.setdefault((layer, head, query), []).append((-weight, key))
        for row, weights in rows.items():
            for weight, key in sorted(weights)[:2]:  # ties to the lower key
                kept[(*row, key)] = -weight
        assert edges_of(graph_of(trace, [0, 2], top_k=2, min_weight=0.1)) == kept


def test_ties_go_to_the_lower_key(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = opened()[3]
    read = Trace.stored

    def equal(self: Trace, name: str) -> Any:
        array = read(self, name)
        return np.full_like(array, 0.25) if name == "edges.weight" else array

    monkeypatch.setattr(Trace, "stored", equal)
    graph = graph_of(trace, 0, top_k=2)
    edges = trace.layer(0)
    expected = [keys[:2] for keys in np.split(edges.keys, edges.indptr[1:-1])]
    assert graph.edge_index[0].tolist() == np.concatenate(expected).tolist()


# Features ---------------------------------------------------------------------------------------


def plain_masses(mass: np.ndarray) -> np.ndarray:
    """[heads, rows, segments] as the four of a node."""
    if mass.shape[2] == 3:
        first, prompt, answer = np.moveaxis(mass, 2, 0)
        return np.stack([first, prompt, np.zeros_like(first), answer])
    first, before, context, after, answer = np.moveaxis(mass, 2, 0)
    return np.stack([first, before + after, context, answer])


def plain_features(trace: Trace, layer: int, name: str) -> np.ndarray:
    """One feature of all tokens, a token at a time."""
    tokens, prompt = len(trace.tokens), trace.prompt_length
    m, at = trace.marginals, trace.layers.index(layer)
    begin = tokens - m.entropy.shape[2]
    answer = tokens - prompt
    rows = []
    for token in range(tokens):
        if name == "position":
            rows.append([token, np.float32(token) / max(tokens - 1, 1)])
        elif name == "role":
            rows.append([token < prompt, token >= prompt])
        elif name == "logprob":
            said = token - prompt
            known = 0 <= said < answer
            values = [trace.logprob[said], trace.token_entropy[said], 1] if known else [0, 0, 0]
            rows.append(values)
        elif name == "hidden":
            kept = dict(zip(trace.hidden_tokens, trace.hidden(layer), strict=True))
            zeros = np.zeros(trace.hidden(layer).shape[1])
            rows.append([*kept.get(token, zeros), token in kept])
        else:
            heads = m.diagonal.shape[1]
            row = token - begin
            parts = [m.diagonal[at, :, token], m.received_mean[at, :, token]]
            if row >= 0:
                parts += [m.previous[at, :, row], m.entropy[at, :, row]]
                parts += list(plain_masses(m.mass[at])[:, :, row])
            else:
                parts += [np.zeros(heads)] * 6
            rows.append([*np.concatenate(parts), row >= 0])
    return np.array(rows, np.float32)


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"hidden_states": "all", "marginal_rows": "all"},
        {"hidden_dtype": "int8", "heads": "each", "top_k": 3},
        {"hidden_dtype": "bfloat16", "hidden_layers": "0,2"},
    ],
)
def test_features_by_name(opened: Open, name: str, options: Any) -> None:
    for trace in opened(**options):
        expected = [plain_features(trace, layer, name) for layer in (2, 0)]
        for layer, plain in zip((2, 0), expected, strict=True):
            np.testing.assert_array_equal(graph_of(trace, layer, features=[name]).x, plain)
        both = graph_of(trace, [2, 0], features=[name]).x
        wide = np.concatenate(expected, axis=1) if name in ("hidden", "marginals") else expected[0]
        np.testing.assert_array_equal(both, wide)


def test_features_stand_in_the_order_given(opened: Open) -> None:
    store = opened()
    order = ("role", "hidden", "position", "marginals", "logprob")
    graphs = TraceGraphs(store, layers=[1], features=order)
    assert list(graphs.columns) == list(order)
    graph = graphs[4]
    for name, columns in graphs.columns.items():
        np.testing.assert_array_equal(graph.x[:, columns], plain_features(store[4], 1, name))
    assert graph.x.shape[1] == graphs.num_node_features == graphs.columns["logprob"].stop
    nothing = TraceGraphs(store, features=())[0]
    assert nothing.x.shape == (len(store[0].tokens), 0)
    assert nothing.num_nodes == len(store[0].tokens)


def test_pooled_states_are_put_on_their_tokens(opened: Open) -> None:
    pooled, kept = opened(hidden_states="pooled"), opened()
    for trace, whole in zip(pooled, kept, strict=True):
        states = graph_of(trace, 1, features=["hidden"]).x
        last = len(trace.tokens) - 1
        eos = trace.finish_reason == "eos"
        places = {trace.prompt_length - 1, last - 1 if eos else last, last}
        assert set(np.flatnonzero(states[:, -1]).tolist()) == places
        answer_rows = graph_of(whole, 1, features=["hidden"]).x
        for place in places:
            torch.testing.assert_close(states[place], answer_rows[place])
        cut = graph_of(trace, 1, features=["hidden"], window=0).x
        torch.testing.assert_close(cut, states[trace.prompt_length :])
    assert {trace.finish_reason for trace in pooled} >= {"length"}


# Windows and cuts -------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [1, [0, 2]])
@pytest.mark.parametrize("window", ["answer", 0, 1, 5, 1000])
def test_a_window_keeps_the_end(opened: Open, window: Any, layer: Any) -> None:
    for trace in opened(hidden_states="all"):
        whole = graph_of(trace, layer, features=FEATURES)
        graph = graph_of(trace, layer, features=FEATURES, window=window)
        before = 0 if window == "answer" else window
        first = max(0, trace.prompt_length - before)
        assert (graph.first_token, graph.cut_nodes) == (first, 0)
        assert torch.equal(graph.x, whole.x[first:])
        assert torch.equal(graph.answer_mask, whole.answer_mask[first:])
        assert int(whole.answer_mask.sum()) == len(trace.answer_tokens)
        inside = {
            ends: weight
            for ends, weight in edges_of(whole).items()
            if ends[2] >= first and ends[3] >= first
        }
        assert edges_of(graph) == inside


def test_a_cap_on_nodes_says_what_it_cut(opened: Open) -> None:
    trace = opened()[1]
    tokens, prompt = len(trace.tokens), trace.prompt_length
    whole = graph_of(trace, 0, features=FEATURES)
    with pytest.warns(UserWarning) as said:
        graph = graph_of(trace, 0, features=FEATURES, max_nodes=tokens - 3)
    assert str(said[0].message) == (
        f"max_nodes={tokens - 3} cut the first 3 tokens of 'q1'; the answer is whole. "
        "`cut_nodes` of each graph counts them"
    )
    assert (graph.num_nodes, graph.cut_nodes, graph.first_token) == (tokens - 3, 3, 3)
    assert torch.equal(graph.x, whole.x[3:])
    with pytest.warns(UserWarning) as said:
        graph = graph_of(trace, 0, window=1, max_nodes=2, features=FEATURES)
    answer = tokens - prompt
    assert str(said[0].message).startswith(
        f"max_nodes=2 cut the first {answer - 1} tokens of 'q1'; {answer - 2} of them of the answer"
    )
    assert torch.equal(graph.x, whole.x[-2:])
    assert graph.answer_mask.tolist() == [True, True]
    assert graph_of(trace, 0, max_nodes=tokens).cut_nodes == 0  # and no warning


# Controls ---------------------------------------------------------------------------------------


def rows_of_weights(graph: Any) -> list[tuple[float, ...]]:
    """Layer, head, query and weight of each edge, those of a query in ascending order."""
    head = graph.edge_head if "edge_head" in graph else torch.zeros_like(graph.edge_layer)
    columns = (graph.edge_layer, head, graph.edge_index[1], graph.edge_attr[:, 0])
    return sorted(zip(*(column.tolist() for column in columns), strict=True))


@pytest.mark.parametrize("options", [{}, {"heads": "each", "top_k": 3}])
@pytest.mark.parametrize("window", [None, 4])
def test_shuffled_edges_keep_counts_and_weights(opened: Open, options: Any, window: Any) -> None:
    moved = reordered = total = 0
    for trace in opened(**options):
        true = graph_of(trace, [0, 2], window=window)
        graph = graph_of(trace, [0, 2], window=window, edges="shuffled", seed=5)
        again = graph_of(trace, 2, window=window, edges="shuffled", seed=5)
        assert torch.equal(graph.edge_index[1], true.edge_index[1])
        assert rows_of_weights(graph) == rows_of_weights(true)
        reordered += int((graph.edge_attr != true.edge_attr).sum())
        assert torch.equal(graph.x, true.x)
        assert (graph.edge_index[0] <= graph.edge_index[1]).all()
        assert (graph.edge_index >= 0).all()
        assert edges_of(graph)  # which counts that no edge comes twice
        of_layer = graph.edge_layer == 2
        assert torch.equal(graph.edge_index[:, of_layer], again.edge_index)
        moved += int((graph.edge_index[0] != true.edge_index[0]).sum())
        total += graph.num_edges
        other = graph_of(trace, [0, 2], window=window, edges="shuffled", seed=6)
        assert not torch.equal(graph.edge_index, other.edge_index)
    # A weight that stayed in its place would tell whether its key was an early or a late one.
    assert moved > total / 10 and reordered > total / 10


def test_no_edges(opened: Open) -> None:
    trace = opened()[0]
    graph = graph_of(trace, edges="none")
    assert (graph.edge_index.shape, graph.edge_attr.shape) == ((2, 0), (0, 1))
    assert torch.equal(graph.x, graph_of(trace).x)


@given(
    rows=st.lists(st.tuples(st.integers(0, 60), st.floats(0, 1)), min_size=1, max_size=20),
    seed=st.integers(0, 2**64 - 1),
)
def test_drawn_keys_are_distinct_and_allowed(rows: list[tuple[int, float]], seed: int) -> None:
    choices = np.array([choice for choice, _ in rows])
    counts = np.array([int(choice * share) for choice, share in rows])
    seeds = controls.row_seeds(
        np.full(len(rows), seed, np.uint64), np.zeros(len(rows), np.int64), np.arange(len(rows))
    )
    keys = controls.shuffled_keys(counts, choices, seeds)
    for drawn, choice in zip(np.split(keys, np.cumsum(counts)[:-1]), choices, strict=True):
        assert (np.diff(drawn) > 0).all()
        assert ((drawn >= 0) & (drawn < choice)).all()


@pytest.mark.parametrize(("count", "choices"), [(3, 5), (3, 40), (1, 100)])
def test_all_keys_are_as_likely(count: int, choices: int) -> None:
    rows = 20_000
    seeds = controls.row_seeds(
        np.full(rows, 7, np.uint64), np.zeros(rows, np.int64), np.arange(rows)
    )
    keys = controls.shuffled_keys(np.full(rows, count), np.full(rows, choices), seeds)
    share = count / choices
    std = np.sqrt(rows * share * (1 - share))
    assert np.abs(np.bincount(keys, minlength=choices) - rows * share).max() < 5 * std
    if choices == 5:  # and all sets of them
        sets = np.unique(keys.reshape(rows, 3), axis=0, return_counts=True)[1]
        assert len(sets) == 10
        assert np.abs(sets - rows / 10).max() < 5 * np.sqrt(rows * 0.09)


# What is refused --------------------------------------------------------------------------------

REFUSED = [
    ({"per": "token"}, "Expected `per` to be layer or trace, got 'token'"),
    ({"edges": "some"}, "Expected `edges` to be true, shuffled or none, got 'some'"),
    ({"heads": "sum"}, "Expected `heads` to be each, mean or max, got 'sum'"),
    (
        {"features": ["role", "weight", "role"]},
        "Expected `features` among hidden, marginals, position, role, logprob, each once, got "
        "role, weight, role",
    ),
    (
        {"window": "prompt"},
        "Expected `window` to be answer, None or a number of tokens, got 'prompt'",
    ),
    ({"window": -1}, "Expected `window` a whole number >= 0, or None, got -1"),
    ({"top_k": 0}, "Expected `top_k` a whole number >= 1, or None, got 0"),
    ({"top_k": True}, "Expected `top_k` a whole number >= 1, or None, got True"),
    ({"max_nodes": 2.5}, "Expected `max_nodes` a whole number >= 1, or None, got 2.5"),
    ({"min_weight": -0.1}, "Expected `min_weight` >= 0 and finite, got -0.1"),
    ({"min_weight": float("nan")}, "Expected `min_weight` >= 0 and finite, got nan"),
    (
        {"split": "training"},
        "Expected `split` to be train, validation, test or None, got 'training'",
    ),
    ({"split": "train", "indices": [1]}, "Expected `split` or `indices`, got both - leave one out"),
    ({"indices": [3, 7]}, "Expected `indices` in 0..7, got 7"),
    ({"indices": [1.5]}, "Expected `indices` whole numbers [traces], got float64 [1]"),
    ({"labels": {("q0", 0): 2}}, "Expected labels 1, 0 or None, got 2"),
    (
        {"reducer": HiddenReducer(2)},
        "Expected `hidden` among the features for a reducer of hidden states, got marginals, "
        "position, role, logprob - add it, or leave out the reducer",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_is_asked_wrongly_is_refused(opened: Open, options: Any, message: str) -> None:
    with pytest.raises(InputError) as raised:
        TraceGraphs(opened(), **options)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("run", "options", "message"),
    [
        (
            {},
            {"layers": [0, 3]},
            "Expected layers with captured attention (0, 1, 2), each once, got 0, 3 of {folder}",
        ),
        (
            {},
            {"layers": [1, 1]},
            "Expected layers with captured attention (0, 1, 2), each once, got 1, 1 of {folder}",
        ),
        (
            {},
            {"heads": "each"},
            "Expected `heads` None or mean, as the run combined them, got 'each' for {folder} - "
            "extract it again with `heads='each'` to choose afterwards",
        ),
        (
            {"hidden_states": "none"},
            {"features": ["hidden"]},
            "Expected a run with hidden states for the feature `hidden`, got {folder} without - "
            "extract it again with `hidden_states='answer'`, or leave the feature out",
        ),
        (
            {"hidden_dtype": "bfloat16", "hidden_layers": "0,2"},
            {"features": ["hidden"]},
            "Expected layers with hidden states (0, 2) for the feature `hidden`, got 0, 1, 2 of "
            "{folder} - name those layers",
        ),
        (
            {},
            {"features": ["hidden"], "reducer": HiddenReducer(2)},
            "Expected layers that the reducer was fitted on (none), got 0, 1, 2 - fit it first",
        ),
        (
            {},
            {"labels": "contains"},
            "Expected the labels `contains` in {folder}, got none - make them with "
            "`hallutrace label {folder} --by contains`",
        ),
        (
            {},
            {"labels": {("q0", 0): None}},
            "Expected labels of traces of {folder}, got none of its 7 - take another protocol, or "
            "labels=None for graphs without",
        ),
    ],
)
def test_what_the_run_lacks_is_refused(opened: Open, run: Any, options: Any, message: str) -> None:
    store = opened(**run)
    with pytest.raises(InputError) as raised:
        TraceGraphs(store, **options)
    assert str(raised.value) == message.format(folder=store.folder)


def test_unknown_options_are_named(opened: Open) -> None:
    with pytest.raises(InputError) as raised:
        TraceGraphs(opened(), topk=3)
    assert str(raised.value) == (
        "Expected options of graphs (layers, per, features, heads, top_k, min_weight, window, "
        "max_nodes, edges, seed, reducer), got topk"
    )


def test_a_missing_extra_is_named(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = opened()[0]
    for name in ("torch_geometric", "torch_geometric.data"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    for ask in (lambda: graph_of(trace, 0), lambda: TraceGraphs(opened())):
        with pytest.raises(MissingExtraError) as raised:
            ask()
        assert str(raised.value) == (
            "Expected the package `torch_geometric` for hallutrace.graphs, got no such package - "
            'pip install "hallutrace[detect]"'
        )
