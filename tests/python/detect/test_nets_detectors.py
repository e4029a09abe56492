"""Neural detectors on planted signals, on none, saved and loaded, and killed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hallutrace
from detect_runs import Made, causal_attention, plain_auroc, write_run
from edge_runs import is_chance, parts, planted_edges
from hallutrace.detect import Examples, Silent, load, make
from hallutrace.detect.nets.graph_detector import GraphDetector
from hallutrace.errors import InputError

QUICK: dict[str, Any] = {"learning_rate": 5e-3, "dropout": 0.0, "batch_size": 32}
GRAPHS: dict[str, dict[str, Any]] = {
    "attention-gnn": {**QUICK, "epochs": 12, "patience": 12},
    "graph-vae": {**QUICK, "epochs": 22, "patience": 22},
}


@pytest.fixture(scope="module")
def edges(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    return planted_edges(tmp_path_factory.mktemp("edges") / "run", 600)


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    """A direction of the last layer's states that bends: no line separates it."""
    rng = np.random.default_rng(5)
    made = []
    for at in range(400):
        answer = int(rng.integers(3, 6))
        states = rng.normal(size=(2, answer + 1, 8))
        states[1, :, 3] = (1 + (at % 2) * 2) * rng.choice([-1, 1]) + 0.3 * states[1, :, 3]
        attention = causal_attention((2, 2, 5 + answer), rng)
        made.append(Made(attention, 5, at % 2, hidden=states, group=f"g{at}"))
    run = write_run(tmp_path_factory.mktemp("hidden") / "run", made, states="answer")
    labels = np.array([one.label for one in made], np.int8)
    return Examples(hallutrace.open(run), np.arange(400), labels)


def reached(name: str, examples: Examples, **options: Any) -> tuple[Any, float]:
    train, validation, test = parts(examples)
    detector = make(name, **options)
    detector.check(examples.store)
    detector.fit(train, validation)
    return detector, plain_auroc(detector.scores(test), test.labels)


@pytest.mark.parametrize("name", GRAPHS)
def test_edges_alone_are_seen(name: str, edges: Examples) -> None:
    assert reached(name, edges, **GRAPHS[name])[1] > 0.95


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("control", ["shuffled", "none"])
def test_nothing_is_seen_without_them(name: str, control: str, edges: Examples) -> None:
    options = {**GRAPHS[name], "edges": control, "patience": 4}
    assert is_chance(reached(name, edges, **options)[1], parts(edges)[2].labels)


@pytest.mark.parametrize("name", ["scalars", "lookback-lens", "lapeigvals", "sinkprobe"])
def test_marginals_do_not_tell_them(name: str, edges: Examples) -> None:
    assert is_chance(reached(name, edges)[1], parts(edges)[2].labels)


def test_a_bent_direction_is_seen_by_the_mlp(hidden: Examples) -> None:
    probe, auroc = reached("mlp-probe", hidden, **QUICK, epochs=15)
    assert auroc > 0.95 and probe.state()[1]["layer"] == 1
    assert is_chance(reached("linear-probe", hidden)[1], parts(hidden)[2].labels)
    scores = probe.token_scores(hidden[0])
    assert scores is not None and scores.shape == hidden[0].answer_tokens.shape


def test_reduced_hidden_states_reach_graph_models(hidden: Examples) -> None:
    options = {**QUICK, "features": ["hidden"], "hidden_components": 6, "epochs": 15}
    assert reached("attention-gnn", hidden, **options)[1] > 0.95


@pytest.mark.parametrize("name", [*GRAPHS, "mlp-probe"])
def test_shuffled_labels_teach_nothing(name: str, edges: Examples, hidden: Examples) -> None:
    examples = hidden if name == "mlp-probe" else edges
    rng = np.random.default_rng(2)
    mixed = replace(examples, labels=rng.permutation(examples.labels))
    assert is_chance(reached(name, mixed, **QUICK, epochs=6)[1], parts(mixed)[2].labels)


SMALL: list[tuple[str, dict[str, Any]]] = [
    ("mlp-probe", {"epochs": 2}),
    ("attention-gnn", {"epochs": 1, "features": ["hidden", "marginals"], "hidden_components": 3}),
    ("graph-vae", {"epochs": 1, "features": ["hidden", "role"], "hidden_components": None}),
    ("graph-vae", {"epochs": 1, "scorer": "gru", "objective": "binary"}),
    ("graph-vae", {"epochs": 1, "training": "two-stage"}),
    ("graph-vae", {"epochs": 1, "supervised": False}),
]


@pytest.mark.parametrize(("name", "options"), SMALL)
def test_saved_detectors_score_the_same(
    name: str, options: dict[str, Any], hidden: Examples, tmp_path: Path
) -> None:
    train, validation, test = parts(hidden.take(np.arange(100)))
    detector = make(name, seed=3, **options)
    detector.fit(train, validation)
    scores = detector.scores(test)
    detector.save(tmp_path / "detector")
    again = load(tmp_path / "detector")
    assert np.array_equal(again.scores(test), scores)
    alone = np.array([again.score(trace) for trace in test])
    assert np.allclose(alone, scores, rtol=1e-4, atol=1e-5)
    tokens, expected = again.token_scores(test[0]), detector.token_scores(test[0])
    assert (tokens is None) == (options.get("supervised") is False)
    if tokens is not None and expected is not None:
        assert np.array_equal(tokens, expected)
        assert tokens.shape == test[0].answer_tokens.shape and np.isfinite(tokens).all()
    second = make(name, seed=3, **options)
    second.fit(train, validation)
    assert np.array_equal(second.scores(test), scores)
    other = make(name, seed=4, **options)
    other.fit(train, validation)
    assert not np.array_equal(other.scores(test), scores)


@pytest.mark.parametrize(("name", "options"), [SMALL[0], SMALL[1], SMALL[4]])
def test_nothing_of_the_test_part_is_learnt(
    name: str, options: dict[str, Any], hidden: Examples, tmp_path: Path
) -> None:
    train, validation, _ = parts(hidden.take(np.arange(100)))
    detector = make(name, **options)
    detector.fit(train, validation)
    rest = replace(hidden, labels=np.where(np.arange(400) < 70, hidden.labels, 0).astype(np.int8))
    train, validation, _ = parts(rest.take(np.arange(100)))
    second = make(name, **options)
    second.fit(train, validation)
    for one, other in zip(detector.state()[0].values(), second.state()[0].values(), strict=True):
        assert np.array_equal(one, other)


def test_a_workspace_holds_checkpoints_of_each_training(hidden: Examples, tmp_path: Path) -> None:
    train, validation, test = parts(hidden.take(np.arange(100)))
    first = make("graph-vae", epochs=2, training="two-stage")
    first.fit(train, validation, workspace=tmp_path)
    for part in ("vae", "scorer"):
        assert (tmp_path / part / "checkpoints" / "last.safetensors").is_file()
        assert (tmp_path / part / "history.csv").is_file()
    again = make("graph-vae", epochs=2, training="two-stage")
    again.fit(train, validation, workspace=tmp_path)
    assert np.array_equal(first.scores(test), again.scores(test))
    with pytest.raises(InputError, match="got those of another"):
        make("graph-vae", epochs=2, training="two-stage").fit(validation, train, workspace=tmp_path)


class Stops(Silent):
    """Ends a training as a kill would, after some epochs."""

    def __init__(self, after: int) -> None:
        self.left = after

    def epoch(self, number: int, loss: float, validation_auroc: float, seconds: float) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("name", "after"), [("mlp-probe", 5), ("attention-gnn", 2), ("graph-vae", 2)]
)
def test_a_fit_that_was_stopped_goes_on(
    name: str, after: int, hidden: Examples, tmp_path: Path
) -> None:
    train, validation, test = parts(hidden.take(np.arange(100)))
    options = {"epochs": 4, "batch_size": 16}
    with pytest.raises(KeyboardInterrupt):
        make(name, **options).fit(train, validation, progress=Stops(after), workspace=tmp_path)
    goes_on, whole = make(name, **options), make(name, **options)
    goes_on.fit(train, validation, workspace=tmp_path)
    whole.fit(train, validation)
    assert np.array_equal(goes_on.scores(test), whole.scores(test))


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_read_for_each_batch_teach_as_well(
    name: str, edges: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing fits: every batch is read from the run.
    monkeypatch.setattr(GraphDetector, "_cap", 1)
    options = {**QUICK, "epochs": 2, "features": ["position", "role"]}
    detector, auroc = reached(name, edges.take(np.arange(100)), **options)
    assert 0 <= auroc <= 1 and len(next(iter(detector.history.values()))) == 2


@pytest.mark.parametrize("name", ["mlp-probe", *GRAPHS])
def test_what_cannot_be_learnt_from_is_refused(name: str, hidden: Examples) -> None:
    right = hidden.take(np.flatnonzero(hidden.labels == 0)[:10])
    with pytest.raises(InputError, match="in the training part, got 0 hallucinated and 10 right"):
        make(name).fit(right, hidden)
    with pytest.raises(InputError, match="in the validation part"):
        make(name).fit(hidden, right)
    with pytest.raises(InputError, match="call fit first"):
        make(name).score(hidden[0])


def test_runs_that_lack_something_are_refused_before_any_work(edges: Examples) -> None:
    for name, options in (
        ("mlp-probe", {}), ("attention-gnn", {"features": ["hidden"]}),
        ("graph-vae", {"layers": [7]}),
    ):  # fmt: skip
        with pytest.raises(InputError, match="Expected"):
            make(name, **options).check(edges.store)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("mlp-probe", "hidden_dims", []), ("mlp-probe", "token", "middle"),
        ("mlp-probe", "layers", [-1]),
        ("mlp-probe", "dropout", 1.0), ("mlp-probe", "epochs", 0),
        ("attention-gnn", "edges", "false"), ("attention-gnn", "features", []),
        ("attention-gnn", "num_layers", 0), ("attention-gnn", "memory_mib", 0.5),
        ("graph-vae", "scorer", "lstm"), ("graph-vae", "beta", -1.0),
        ("graph-vae", "latent_dim", 0), ("graph-vae", "objective", "rows"),
        ("graph-vae", "hidden_components", 0),
    ],
)  # fmt: skip
def test_options_that_mean_nothing_are_refused(name: str, option: str, value: Any) -> None:
    with pytest.raises(InputError, match=option):
        make(name, **{option: value})


def test_traces_of_another_model_are_refused(edges: Examples, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    wide = [Made(causal_attention((2, 3, 12), rng), 6) for _ in range(2)]
    other = hallutrace.open(write_run(tmp_path / "other", wide))
    train, validation, _ = parts(edges)
    detector = make("attention-gnn", epochs=1)
    detector.fit(train, validation)
    with pytest.raises(InputError, match="Expected graphs as `attention-gnn` was fitted on"):
        detector.score(other[0])
