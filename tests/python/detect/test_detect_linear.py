"""Detectors on planted signals, on none, and against scikit-learn written out plainly."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import hallutrace
from detect_runs import Made, causal_attention, plain_auroc, write_run
from hallutrace.detect import Examples, Silent, make
from hallutrace.detect.choosing import INNER_FOLDS, inner_aurocs, is_few
from hallutrace.detect.logistic import CHOICES, Recipe, fit_logistic
from hallutrace.errors import InputError
from hallutrace.splits import folds, holdout

WIDTH = 12
LINEAR = [
    "scalars", "lookback-lens", "lapeigvals", "attneigvals", "sinkprobe", "sinkprobe-later",
]  # fmt: skip
NO_HIDDEN = [*LINEAR, "length", "question-only", "perplexity", "attention-score", "rauq"]


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def plant(label: int, rng: np.random.Generator, signal: str) -> Made:
    """A trace of two layers and three heads; hallucinated answers differ in one place alone."""
    prompt, answer = int(rng.integers(6, 12)), int(rng.integers(3, 7))
    attention = causal_attention((2, 3, prompt + answer), rng, 0.5)
    if signal == "received" and label:
        # Later tokens look at token 2 of one head more than chance has it.
        head = attention[1, 2]
        head[3:] *= 0.4
        head[3:, 2] += 0.6
    hidden = rng.normal(size=(2, answer + 1, WIDTH))
    if signal == "hidden":
        hidden[1, :, 5] += 3.0 * (2 * label - 1)
    return Made(
        attention,
        prompt,
        label,
        question=" ".join(rng.choice(list("abcdefgh"), 5)),
        logprob=-rng.exponential(1.0, answer),
        token_entropy=rng.exponential(1.0, answer),
        hidden=hidden,
    )


def planted(folder: Path, signal: str, count: int = 300) -> Examples:
    rng = np.random.default_rng(7)
    made = [plant(at % 2, rng, signal) for at in range(count)]
    store = hallutrace.open(write_run(folder, made, states="answer"))
    return Examples(store, np.arange(count), np.array([one.label for one in made], np.int8))


@pytest.fixture(scope="module")
def received(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    return planted(tmp_path_factory.mktemp("received") / "run", "received")


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    return planted(tmp_path_factory.mktemp("hidden") / "run", "hidden")


def parts(examples: Examples) -> tuple[Examples, Examples, Examples]:
    """Train, validation and test: 120, 60 and the others."""
    at = np.arange(len(examples))
    return examples.take(at[:120]), examples.take(at[120:180]), examples.take(at[180:])


def reached(name: str, examples: Examples, **options: Any) -> float:
    train, validation, test = parts(examples)
    detector = make(name, **options)
    detector.check(examples.store)
    detector.fit(train, validation)
    return plain_auroc(detector.scores(test), test.labels)


def holds_half(auroc: float, test: Examples) -> bool:
    """Whether the 99.9% interval of an AUROC under no signal holds it (Hanley and McNeil)."""
    risky = int(test.labels.sum())
    safe = len(test) - risky
    return abs(auroc - 0.5) < 3.29 * np.sqrt((risky + safe + 1) / (12 * risky * safe))


# Signals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sinkprobe", "sinkprobe-later", "lapeigvals"])
def test_received_attention_is_seen_by_those_that_read_it(name: str, received: Examples) -> None:
    assert reached(name, received) > 0.95


@pytest.mark.parametrize(
    "name", ["length", "question-only", "perplexity", "min-logprob", "token-entropy", "scalars"]
)
def test_controls_do_not_see_attention(name: str, received: Examples) -> None:
    assert holds_half(reached(name, received), parts(received)[2])


@pytest.mark.parametrize("token", ["last_prompt", "last_answer", "last", "mean_answer"])
def test_a_hidden_direction_is_seen_by_the_probe(token: str, hidden: Examples) -> None:
    train, validation, test = parts(hidden)
    probe: Any = make("linear-probe", token=token)
    probe.fit(train, validation)
    assert probe.layer == 1
    assert plain_auroc(probe.scores(test), test.labels) > 0.95


@pytest.mark.parametrize("name", NO_HIDDEN)
def test_nothing_else_sees_a_hidden_direction(name: str, hidden: Examples) -> None:
    assert holds_half(reached(name, hidden), parts(hidden)[2])


@pytest.mark.parametrize("name", [*NO_HIDDEN, "linear-probe"])
def test_shuffled_labels_teach_nothing(name: str, hidden: Examples, received: Examples) -> None:
    for examples in (hidden, received):
        labels = np.random.default_rng(3).permutation(examples.labels)
        shuffled = Examples(examples.store, examples.indices, labels)
        assert holds_half(reached(name, shuffled), parts(shuffled)[2])


# Against scikit-learn ----------------------------------------------------------------------------


def features_of(detector: Any, examples: Examples) -> np.ndarray:
    return np.stack([detector.feature(trace) for trace in examples]).astype(np.float64)


def plain_pipeline(detector: Any, train: Examples, standardize: bool, penalty: float) -> Any:
    """A pipeline of scikit-learn, fitted on the detector's features."""
    features = features_of(detector, train)
    steps: list[Any] = [StandardScaler()] if standardize else []
    if detector.options.components is not None:
        steps.append(PCA(min(detector.options.components, *features.shape)))
    weight = "balanced" if detector.options.balanced else None
    steps.append(LogisticRegression(C=penalty, class_weight=weight, max_iter=5000))
    return make_pipeline(*steps).fit(features, train.labels)


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("name", LINEAR)
def test_linear_detectors_are_those_of_scikit_learn(
    name: str, standardize: bool, received: Examples
) -> None:
    train, validation, test = parts(received)
    for options in ({}, {"components": 3, "balanced": True}):
        detector: Any = make(name, standardize=standardize, C=0.5, **options)
        detector.fit(train, validation)
        pipeline = plain_pipeline(detector, train, standardize, 0.5)
        wanted = pipeline.decision_function(features_of(detector, test))
        found = detector.scores(test)
        assert plain_auroc(found, test.labels) == plain_auroc(wanted, test.labels)
        np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("name", LINEAR)
def test_scaling_and_penalty_are_the_best_on_the_validation_part(
    name: str, received: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hallutrace.detect.choosing.FEW", 0)
    train, validation, test = parts(received)
    detector: Any = make(name)
    detector.fit(train, validation)
    pipelines = [plain_pipeline(detector, train, *choice) for choice in CHOICES]
    held = features_of(detector, validation)
    reach = [plain_auroc(one.decision_function(held), validation.labels) for one in pipelines]
    best = int(np.argmax(np.round(reach, 12)))
    recipe = detector.state()[1]["recipe"]
    assert (recipe["standardize"], recipe["C"]) == CHOICES[best]
    wanted = pipelines[best].decision_function(features_of(detector, test))
    assert plain_auroc(detector.scores(test), test.labels) == plain_auroc(wanted, test.labels)


def test_the_probe_is_that_of_scikit_learn_in_the_layer_it_chose(hidden: Examples) -> None:
    train, validation, test = parts(hidden)
    probe: Any = make("linear-probe", standardize=True, C=1.0)
    probe.fit(train, validation)
    pipeline = plain_pipeline(probe, train, True, 1.0)
    wanted = pipeline.decision_function(features_of(probe, test))
    assert plain_auroc(probe.scores(test), test.labels) == plain_auroc(wanted, test.labels)
    by_layer = []
    for layer in (0, 1):
        alone: Any = make("linear-probe", layers=[layer], standardize=True, C=1.0)
        alone.fit(train, validation)
        by_layer.append(plain_auroc(alone.scores(validation), validation.labels))
    assert probe.layer == int(np.argmax(by_layer))


def test_question_only_counts_the_words_of_the_training_part(hidden: Examples) -> None:
    train, validation, test = parts(hidden)
    detector: Any = make("question-only", min_questions=1, C=1.0)
    detector.fit(train, validation)
    words = sorted({word for trace in train for word in trace.question.split()})

    def count(examples: Examples) -> np.ndarray:
        return np.array(
            [[trace.question.split().count(word) for word in words] for trace in examples], float
        )

    model = LogisticRegression(max_iter=5000).fit(count(train), train.labels)
    np.testing.assert_allclose(
        detector.scores(test), model.decision_function(count(test)), atol=1e-6
    )


# What fits promise -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*NO_HIDDEN, "linear-probe"])
def test_the_same_fit_gives_the_same_scores_alone_or_together(
    name: str, received: Examples
) -> None:
    train, validation, test = parts(received)
    first, second = make(name), make(name, seed=5)
    first.fit(train, validation)
    second.fit(Examples(train.store, train.indices, train.labels), validation)
    together = first.scores(test)
    assert together.dtype == np.float64 and together.shape == (len(test),)
    assert together.tobytes() == second.scores(test).tobytes()
    assert [first.score(trace) for trace in test] == together.tolist()


@pytest.mark.parametrize("name", LINEAR)
def test_nothing_of_the_test_part_is_learnt(name: str, received: Examples) -> None:
    train, validation, _ = parts(received)
    states = []
    for held in (validation, validation.take(np.arange(3))):
        detector = make(name, standardize=True, C=1.0)
        detector.fit(train, held)
        states.append(detector.state()[0]["weight"].tobytes())
    assert states[0] == states[1]


def test_token_scores_of_linear_detectors(received: Examples) -> None:
    train, validation, test = parts(received)
    lens, probe = make("lookback-lens"), make("linear-probe")
    for detector in (lens, probe):
        detector.fit(train, validation)
        by_token = detector.token_scores(test[0])
        assert by_token is not None and by_token.shape == test[0].logprob.shape
    by_token = lens.token_scores(test[0])
    assert by_token is not None and lens.score(test[0]) == pytest.approx(by_token.mean(), rel=1e-5)
    by_token = probe.token_scores(test[0])
    assert by_token is not None
    # The answers end with end-of-sequence: the last token that is not is the one before.
    assert probe.score(test[0]) == by_token[-2]


def test_a_solver_that_does_not_converge_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hallutrace.detect.logistic.MAX_ITERATIONS", 1)
    rng, notes = np.random.default_rng(0), Notes()
    features = rng.normal(size=(50, 5)) * [1, 10, 100, 1000, 10000]
    labels = rng.integers(0, 2, 50).astype(np.int8)
    fit_logistic(features, labels, Recipe(standardize=False), notes)
    assert notes.notes == [
        "logistic regression (C 1.0) stopped after 1 iterations before it converged"
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_logistic(features, labels, Recipe(standardize=False))


@pytest.mark.parametrize(("few", "where"), [(0, "validation"), (1000, "inner folds")])
def test_the_probe_tells_what_each_layer_reached(
    hidden: Examples, monkeypatch: pytest.MonkeyPatch, few: int, where: str
) -> None:
    monkeypatch.setattr("hallutrace.detect.choosing.FEW", few)
    train, validation, _ = parts(hidden)
    notes = Notes()
    make("linear-probe").fit(train, validation, progress=notes)
    assert [note.split(":")[0] for note in notes.notes[:2]] == ["layer 0", "layer 1"]
    assert notes.notes[2].startswith("features ")
    assert all(f"{where} AUROC" in note for note in notes.notes)


# Few answers of a class ---------------------------------------------------------------------------


def test_with_few_answers_choices_go_by_inner_folds(received: Examples) -> None:
    train, validation, test = parts(received)
    assert is_few(validation.labels)
    detector: Any = make("scalars")
    detector.fit(train, validation)
    features = np.concatenate([features_of(detector, part) for part in (train, validation)])
    labels = np.concatenate([train.labels, validation.labels])
    reached = np.zeros(len(CHOICES))
    for split in folds(labels, [*train.groups, *validation.groups], INNER_FOLDS):
        learnt = np.concatenate([split.train, split.validation])
        for at, choice in enumerate(CHOICES):
            made = fit_logistic(features[learnt], labels[learnt], Recipe(*choice))
            reached[at] += plain_auroc(made(features[split.test]), labels[split.test]) / INNER_FOLDS
    recipe = detector.state()[1]["recipe"]
    at = CHOICES.index((recipe["standardize"], recipe["C"]))
    assert reached[at] == pytest.approx(reached.max(), abs=1e-9)
    # Weights are of the training part alone.
    pipeline = plain_pipeline(detector, train, *CHOICES[at])
    wanted = pipeline.decision_function(features_of(detector, test))
    np.testing.assert_allclose(detector.scores(test), wanted, atol=1e-6)


def test_inner_folds_find_the_layer_where_few_right_answers_do_not() -> None:
    """Ten layers, of which one knows; 300 answers, of which 24 are right, 5 in validation."""
    recipes, chosen = [Recipe(C=0.01)], {"inner folds": 0, "validation": 0}
    for seed in range(12):
        rng = np.random.default_rng(seed)
        labels = (np.arange(300) >= 24).astype(np.int8)[rng.permutation(300)]
        groups = [str(at) for at in range(300)]
        layers = [rng.normal(size=(300, 8)).astype(np.float32) for _ in range(10)]
        layers[2][:, 0] += labels
        train, validation = holdout(labels, groups, seed)
        by_validation, by_folds = [], []
        for layer in layers:
            made = fit_logistic(layer[train], labels[train], recipes[0])
            by_validation.append(plain_auroc(made(layer[validation]), labels[validation]))
            found = inner_aurocs(layer, labels, groups, recipes)
            assert found is not None
            by_folds.append(float(found[0]))
        chosen["validation"] += int(np.argmax(by_validation)) == 2
        chosen["inner folds"] += int(np.argmax(by_folds)) == 2
    assert chosen["validation"] < chosen["inner folds"] >= 10


def test_too_few_groups_for_inner_folds_are_told() -> None:
    features, labels = np.zeros((6, 2), np.float32), np.array([0, 0, 0, 1, 1, 1], np.int8)
    assert inner_aurocs(features, labels, list("aaabbb"), [Recipe()]) is None
    assert not is_few(np.zeros(9, np.int8))
    assert is_few(np.array([0, 1], np.int8))


# What is refused ---------------------------------------------------------------------------------


def test_one_class_is_refused(hidden: Examples) -> None:
    train, validation, _ = parts(hidden)
    one = Examples(train.store, train.indices, np.zeros(len(train), np.int8))
    for name in ("scalars", "question-only", "linear-probe"):
        with pytest.raises(InputError) as caught:
            make(name).fit(one, validation)
        assert str(caught.value) == (
            "Expected hallucinated and right answers to learn from, got 120 of one class - "
            "take more traces or another labelling protocol"
        )
    few = Examples(validation.store, validation.indices, np.ones(len(validation), np.int8))
    with pytest.raises(InputError, match="to choose on, got 60 of one class in the validation"):
        make("linear-probe").fit(train, few)


@pytest.mark.parametrize("name", ["scalars", "question-only", "linear-probe", "lapeigvals"])
def test_a_detector_that_was_not_fitted_says_so(name: str, hidden: Examples) -> None:
    with pytest.raises(InputError) as caught:
        make(name).score(hidden[0])
    assert str(caught.value) == f"Expected a fitted `{name}`, got a new one - call fit first"


def test_traces_of_another_model_are_refused(hidden: Examples, tmp_path: Path) -> None:
    train, validation, _ = parts(hidden)
    detector = make("lapeigvals")
    detector.fit(train, validation)
    other = Made(causal_attention((1, 3, 9), np.random.default_rng(0)), 4)
    trace = hallutrace.open(write_run(tmp_path / "run", [other]))[0]
    with pytest.raises(InputError, match=r"Expected 60 features, as it was fitted on, got 30 - "):
        detector.score(trace)


def test_a_run_without_hidden_states_is_refused_before_any_work(tmp_path: Path) -> None:
    made = Made(causal_attention((1, 2, 9), np.random.default_rng(0)), 4)
    store = hallutrace.open(write_run(tmp_path / "run", [made]))
    with pytest.raises(InputError) as caught:
        make("linear-probe").check(store)
    assert str(caught.value) == (
        f"Expected hidden states for `linear-probe`, got none in {tmp_path / 'run'} - extract it "
        "again with `hidden_states='answer'`"
    )
    for name in NO_HIDDEN:
        make(name).check(store)


def test_pooled_states_serve_the_probe(hidden: Examples, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    made = [plant(at % 2, rng, "hidden") for at in range(6)]
    store = hallutrace.open(write_run(tmp_path / "pooled", made, states="pooled"))
    for token in ("last_prompt", "last_answer", "last", "mean_answer"):
        probe: Any = make("linear-probe", token=token)
        probe.check(store)
        probe.fit(*parts(hidden)[:2])
        for pooled, answer in zip(store, hidden, strict=False):
            assert probe.score(pooled) == pytest.approx(probe.score(answer), rel=1e-4, abs=1e-5)
        assert probe.token_scores(store[0]) is None


def test_layers_that_were_not_kept_are_refused(hidden: Examples) -> None:
    with pytest.raises(
        InputError, match=r"Expected layers with hidden states \(0, 1\) .*, got 4 in "
    ):
        make("linear-probe", layers=[1, 4]).check(hidden.store)
    with pytest.raises(InputError, match=r"whose attention was captured \(0, 1\) .*, got 2 in "):
        make("attention-score", layer=2).check(hidden.store)
    make("attention-score", layer=1).check(hidden.store)
