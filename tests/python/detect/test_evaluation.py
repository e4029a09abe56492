"""The evaluation protocol: the same for all, nothing of the test part seen, the same twice."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import hallutrace
from conftest import posix_only
from detect_runs import Made, causal_attention, plain_auroc, write_run
from hallutrace.detect import Detector, Examples, load_examples, make, register, registry
from hallutrace.detect.evaluation import (
    Evaluation,
    EvaluationData,
    EvaluationOptions,
    TableRow,
    evaluate,
    inapplicable,
    processes,
    shuffled,
    table_rows,
    to_json,
    to_markdown,
    write_report,
)
from hallutrace.detect.evaluation.bootstrap import Resampling, bootstrap, compare
from hallutrace.detect.evaluation.processes import SilentProgress
from hallutrace.detect.metrics import METRICS, Platt, Ranked, calibration_error, holm
from hallutrace.errors import DamagedError, InputError, MissingExtraError
from hallutrace.splits import Split, folds

COUNT = 120
CHEAP = "length,question-only,perplexity"
WORDS = ["alder", "birch", "cedar", "dogwood", "elm", "fir", "gorse", "hazel"]


def trace_of(at: int, rng: np.random.Generator, tokens: int = 12) -> Made:
    """A trace whose token probabilities and hidden states tell something of its label."""
    group = at // 3
    label = int(rng.random() < (0.75 if group % 2 else 0.25))
    answer = int(rng.integers(2, 5))
    hidden = rng.normal(size=(2, answer + 1, 8))
    hidden[1, :, 2] += 1.5 * label
    return Made(
        causal_attention((2, 2, tokens), rng),
        tokens - answer,
        label,
        question=" ".join(rng.choice(WORDS, 4)),
        group=f"g{group}",
        logprob=-rng.exponential(1.0 + 0.8 * label, answer),
        token_entropy=rng.exponential(1.0, answer),
        hidden=hidden,
    )


def make_run(folder: Path, seed: int, states: str = "answer", count: int = COUNT) -> Examples:
    rng = np.random.default_rng(seed)
    made = [trace_of(at, rng) for at in range(count)]
    write_run(folder, made, states=states)
    return load_examples(hallutrace.open(folder), "contains")


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    return make_run(tmp_path_factory.mktemp("evaluated") / "run", 5)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    """A run without hidden states."""
    return make_run(tmp_path_factory.mktemp("bare") / "run", 6, "none")


def options_of(detectors: str, **options: Any) -> EvaluationOptions:
    return EvaluationOptions(rows=table_rows(detectors), draws=200, **options)


class Toy(Detector):
    """A graph model as far as an evaluation can tell; it counts what it sees."""

    name = "toy"
    is_graph = True
    seeded = True

    class Options(Detector.Options):
        edges: str = "true"
        breaks: bool = False

    options: Options
    seen: ClassVar[list[tuple[int, set[str], set[str]]]] = []

    def fit(self, train: Examples, validation: Examples, *, progress: Any = None) -> None:
        type(self).seen.append((self.seed, set(train.groups), set(validation.groups)))
        self.noise = 0.1 if self.options.edges == "true" else 5.0
        if progress is not None:
            progress.epoch(1, 0.5, 0.75, 0.0)
            progress.note("stopped early")
        if self.options.breaks:
            raise InputError("Expected a loss, got none - try again")

    def score(self, trace: Any) -> float:
        rng = np.random.default_rng([self.seed, int(trace.id[1:])])
        return float(-trace.logprob.mean() + self.noise * rng.normal())


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Toy]]:
    """The registry with one detector more."""
    register(Toy)
    monkeypatch.setattr(Toy, "seen", [])
    yield Toy
    registry.REGISTRY.remove("toy")


class Counted(SilentProgress):
    """Counts fits; stops after so many, as Ctrl-C would."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.begun: tuple[int, int] = (0, 0)
        self.ended: list[tuple[str, str | None]] = []
        self.epochs: list[tuple[Any, ...]] = []
        self._stop_after = stop_after

    def begin(self, total: int, done: int) -> None:
        self.begun = (total, done)

    def epoch(self, *told: Any) -> None:
        self.epochs.append(told)

    def end(self, job: str, seconds: float, failure: str | None) -> None:
        self.ended.append((job, failure))
        if len(self.ended) == self._stop_after:
            raise KeyboardInterrupt


def lasting(evaluation: Evaluation) -> str:
    """All figures, as JSON, without times."""
    content = to_json(evaluation, "contains")
    del content["timing"]
    return json.dumps(content)


# Bootstrap ----------------------------------------------------------------------------------------


def resampling(seed: int = 0, draws: int = 300) -> Resampling:
    rng = np.random.default_rng(9)
    groups = rng.integers(0, 30, 90)
    return Resampling(rng.integers(0, 2, 90), [f"g{at}" for at in groups], groups % 3, draws, seed)


def test_a_draw_takes_whole_groups_within_their_fold() -> None:
    made = resampling()
    weights = np.concatenate(list(made.weights()))
    assert weights.shape == (300, 90)
    names = np.array(made.groups)
    for name in set(made.groups):
        of_group = weights[:, names == name]
        assert (of_group == of_group[:, :1]).all()
    first = np.unique(names, return_index=True)[1]
    for fold in range(3):
        inside = first[made.folds[first] == fold]
        assert (weights[:, inside].sum(axis=1) == len(inside)).all()
        for label in (0, 1):
            chosen = (made.folds == fold) & (made.labels == label)
            assert (weights[:, chosen].sum(axis=1) > 0).all()
    assert weights.mean() == pytest.approx(1, abs=0.05)
    assert len({row.tobytes() for row in weights}) == 300


def test_draws_are_seeded_and_come_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    def weights(seed: int) -> bytes:
        return np.concatenate(list(resampling(seed).weights())).tobytes()

    assert weights(1) == weights(1) != weights(2)
    monkeypatch.setattr("hallutrace.detect.evaluation.bootstrap._CELLS", 90 * 7)
    assert [len(part) for part in resampling(draws=40).weights()] == [7] * 5 + [5]
    scores = np.random.default_rng(1).normal(size=90)
    assert bootstrap({"one": [scores]}, resampling(draws=40))["one"].draws.shape == (
        len(METRICS),
        40,
    )


def test_metrics_are_means_over_folds_and_seeds() -> None:
    made = resampling()
    rng = np.random.default_rng(3)
    several = [rng.normal(size=90) + made.labels for _ in range(2)]
    found = bootstrap({"two": several}, made)["two"]
    by_hand = np.array(
        [
            [Ranked(scores[made.folds == fold], made.labels[made.folds == fold]).metrics()[:, 0]
             for fold in range(3)]
            for scores in several
        ]
    )  # fmt: skip
    np.testing.assert_allclose(found.values, by_hand.mean(axis=(0, 1)), atol=1e-12)
    np.testing.assert_allclose(found.by_fold, by_hand.transpose(0, 2, 1), atol=1e-12)
    weights = next(iter(made.weights()))[17]
    drawn = [
        [
            Ranked(
                np.repeat(scores[made.folds == fold], weights[made.folds == fold].astype(int)),
                np.repeat(made.labels[made.folds == fold], weights[made.folds == fold].astype(int)),
            ).metrics()[:, 0]
            for fold in range(3)
        ]
        for scores in several
    ]
    expected = made.shares(2)[:, 17] @ np.mean(drawn, axis=1)
    np.testing.assert_allclose(found.draws[:, 17], expected, atol=1e-12)
    # One seed is what it was: groups alone are drawn.
    one = bootstrap({"one": several[:1]}, made)["one"]
    np.testing.assert_allclose(one.draws[:, 17], np.mean(drawn[0], axis=0), atol=1e-12)
    interval = found.interval("auroc", 0.9)
    expected = np.quantile(found.draws[0], [0.05, 0.95])
    assert [interval.low, interval.high] == pytest.approx(expected, abs=1e-12)
    assert interval.value == found.values[0]


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_drawn_seeds_vary_as_means_of_new_seeds_would(seeds: int) -> None:
    values = np.random.default_rng(seeds).normal(size=seeds)
    shares = resampling(draws=20_000).shares(seeds)
    np.testing.assert_allclose(shares.sum(axis=0), 1, atol=1e-12)
    means = values @ shares
    assert means.mean() == pytest.approx(values.mean(), abs=0.02)
    assert means.var() == pytest.approx(values.var(ddof=1) / seeds, rel=0.05)
    assert (resampling().shares(1) == 1).all()


def test_intervals_and_tests_know_of_seeds_that_differ() -> None:
    made = resampling(draws=2000)
    rng = np.random.default_rng(6)
    noise = rng.normal(size=90)
    alike = [noise + made.labels + 0.01 * rng.normal(size=90) for _ in range(3)]
    # On average as good, but one seed has learnt nothing and one everything.
    apart = [noise + strength * made.labels for strength in (0.0, 1.0, 9.0)]
    found = bootstrap({"alike": alike, "apart": apart, "none": [rng.normal(size=90)]}, made)

    def width(name: str) -> float:
        interval = found[name].interval("auroc", 0.95)
        assert 0 <= interval.low < interval.value < interval.high <= 1
        return interval.high - interval.low

    held = bootstrap({"apart": [apart[1]]}, made)["apart"].interval("auroc", 0.95)
    assert width("alike") == pytest.approx(held.high - held.low, rel=0.1)
    assert width("apart") > 1.5 * width("alike")
    steady, unsteady = (compare(found[name], found["none"], 0.95) for name in ("alike", "apart"))
    assert abs(unsteady.value - steady.value) < 0.05
    assert steady.p < 0.01 < unsteady.p
    # What a seed does to both falls out of their difference.
    moved = bootstrap({"one": apart, "other": [2 * scores - 7 for scores in apart]}, made)
    same = compare(moved["one"], moved["other"], 0.95)
    assert (same.value, same.low, same.high) == pytest.approx((0.0, 0.0, 0.0))


def test_the_paired_test_knows_equals_from_others() -> None:
    made = resampling(draws=2000)
    rng = np.random.default_rng(3)
    good = rng.normal(size=90) + 2 * made.labels
    found = bootstrap({"good": [good], "same": [2 * good - 7], "bad": [rng.normal(size=90)]}, made)
    same = compare(found["good"], found["same"], 0.95)
    assert (same.value, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)
    other = compare(found["good"], found["bad"], 0.95)
    assert other.p < 1e-3
    assert 0 < other.low < other.value < other.high
    back = compare(found["bad"], found["good"], 0.95)
    assert (back.value, back.p) == (-other.value, other.p)


def test_p_values_of_equal_detectors_are_spread_evenly() -> None:
    rng = np.random.default_rng(8)
    found = []
    for seed in range(150):
        labels = rng.integers(0, 2, 120)
        shared = rng.normal(size=120) + labels
        ours, theirs = (shared + 0.7 * rng.normal(size=120) for _ in range(2))
        made = Resampling(labels, [str(at) for at in range(120)], np.zeros(120, int), 200, seed)
        drawn = bootstrap({"ours": [ours], "theirs": [theirs]}, made)
        found.append(compare(drawn["ours"], drawn["theirs"], 0.95).p)
    # Of 150 below .1, 15 are expected; 4 and 29 are beyond four standard deviations.
    assert 4 < sum(p < 0.1 for p in found) < 29
    assert 0.35 < np.mean(found) < 0.65


# Rows ---------------------------------------------------------------------------------------------


def test_controls_are_in_every_table() -> None:
    assert [row.label for row in table_rows("scalars")] == [
        "length", "question-only", "perplexity", "scalars", "linear-probe",
    ]  # fmt: skip
    rows = table_rows("rauq:alpha=0.5,rauq")
    assert [row.label for row in rows if row.is_requested] == ["rauq alpha=0.5", "rauq"]
    assert [row.label for row in rows if row.is_control] == [
        "length", "question-only", "perplexity", "linear-probe",
    ]  # fmt: skip


def test_graph_models_stand_beside_their_own_controls(toy: type[Toy]) -> None:
    rows = table_rows("toy:breaks=false")
    assert [(row.label, row.control_of) for row in rows if row.name == "toy"] == [
        ("toy breaks=false", None),
        ("toy breaks=false edges=shuffled", "toy breaks=false"),
        ("toy breaks=false edges=none", "toy breaks=false"),
    ]
    assert [row.label for row in table_rows("toy:edges=none") if row.name == "toy"] == [
        "toy edges=none"
    ]
    # Text by default stays text, whatever YAML would make of it.
    given = next(row for row in table_rows("toy:edges=true:breaks=true") if row.name == "toy")
    assert given.options == {"edges": "true", "breaks": True}


def test_lists_keep_their_commas() -> None:
    row = table_rows("linear-probe,attention-gnn:features=[role,position]:edges=none,rauq")[-1]
    assert row.options == {"features": ["role", "position"], "edges": "none"}


def test_all_and_quick_take_them_from_the_registry(
    toy: type[Toy], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ("length", "scalars", "linear-probe", "question-only", "perplexity")
    built_in = registry.REGISTRY._built_in
    monkeypatch.setattr(registry.REGISTRY, "_built_in", {name: built_in[name] for name in few})
    labels = [row.label for row in table_rows("all")]
    assert labels == [
        "length", "scalars", "linear-probe", "question-only", "perplexity",
        "toy", "toy edges=shuffled", "toy edges=none",
    ]  # fmt: skip
    quick = [row.label for row in table_rows("all", quick=True)]
    assert quick == [label for label in labels if not label.startswith("toy")]
    assert [row.label for row in table_rows("all,toy:edges=none:breaks=true", quick=True)] == [
        *quick, "toy edges=none breaks=true",
    ]  # fmt: skip
    monkeypatch.setattr("hallutrace.detect.evaluation.rows.QUICK_GRAPH_MODEL", "toy")
    assert [row.label for row in table_rows("all", quick=True)] == labels


@pytest.mark.parametrize(
    ("detectors", "said"),
    [
        (
            "scalars,scalars",
            "Expected each detector once, got scalars, scalars - change `detectors`",
        ),
        ("rauq:alpha", "Expected name=value, got 'alpha' - change `detectors`"),
        (
            "rauq:beta=1",
            "Expected options of `rauq` (one of alpha), got beta - leave out what it does not know",
        ),
        (
            "rauq:alpha=7",
            "Expected `alpha` of `rauq` a number from 0 to 1, got 7 - change that option",
        ),
    ],
)
def test_detectors_that_cannot_be_are_refused(detectors: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        table_rows(detectors)
    assert str(caught.value) == said
    with pytest.raises(InputError, match=r"Expected a detector \(length, .*\), got 'crystal-ball'"):
        table_rows("crystal-ball")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"seeds": 0}, "Expected seeds >= 1, got 0 - change `seeds`"),
        ({"level": 1.0}, "Expected level above 0 and below 1, got 1.0 - change `level`"),
        ({"draws": 10}, "Expected draws >= 100, got 10 - change `draws`"),
        ({"seeds_on": "some"}, "Expected seeds_on all or spread, got some - change `seeds_on`"),
    ],
)
def test_plans_that_mean_nothing_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        EvaluationOptions(**{"rows": (TableRow("length"),), **options})
    assert str(caught.value) == said


def test_seeds_are_for_those_that_depend_on_one(toy: type[Toy]) -> None:
    rows = (TableRow("length"), TableRow("toy"))
    every = EvaluationOptions(rows, seeds=3).fits(rows, 5)
    assert len([job for job in every if job.row.name == "length"]) == 5
    assert sorted((job.fold, job.seed) for job in every if job.row.name == "toy") == [
        (fold, seed) for fold in range(5) for seed in range(3)
    ]
    spread = EvaluationOptions(rows, seeds=3, seeds_on="spread").fits(rows, 5)
    assert [(job.fold, job.seed) for job in spread if job.row.name == "toy"] == [
        (0, 0), (1, 1), (2, 2), (3, 0), (4, 1),
    ]  # fmt: skip


# Evaluation ---------------------------------------------------------------------------------------


def test_figures_are_those_of_the_scores(examples: Examples, tmp_path: Path) -> None:
    data = EvaluationData.of(examples, 4, 0)
    found = evaluate(data, options_of("scalars"), tmp_path / "fits")
    labels = examples.labels
    for name in ("perplexity", "scalars", "linear-probe"):
        scores = found.scores[name].scores[0]
        reached = [plain_auroc(scores[part.test], labels[part.test]) for part in data.splits]
        figures = found.comparison.metrics[name]
        assert figures.by_fold[0] == pytest.approx(reached, abs=1e-12)
        assert figures.intervals["auroc"].value == pytest.approx(np.mean(reached), abs=1e-12)
    # What was learnt, fold by fold, is what one would learn by hand.
    for part in data.splits:
        detector = make("scalars")
        train, validation = (examples.take(at) for at in (part.train, part.validation))
        detector.fit(train, validation)
        scores = detector.scores(examples.take(part.test))
        assert found.scores["scalars"].scores[0][part.test].tolist() == scores.tolist()
        curve = Platt.fit(detector.scores(validation), validation.labels)
        risks = found.scores["scalars"].risks[0]
        assert risks[part.test].tolist() == curve(scores).tolist()
    assert found.comparison.metrics["scalars"].ece == calibration_error(risks, labels)


def test_tests_are_corrected_and_against_the_best_control(
    examples: Examples, tmp_path: Path
) -> None:
    found = evaluate(
        EvaluationData.of(examples, 4, 0), options_of("scalars"), tmp_path / "fits"
    ).comparison
    reached = {label: one.intervals["auroc"].value for label, one in found.metrics.items()}
    controls = ["length", "question-only", "perplexity", "linear-probe"]
    assert found.best_control == max(controls, key=lambda label: reached[label]) == "linear-probe"
    assert [test.one for test in found.against_control] == [*controls[:3], "scalars"]
    for family in (found.against_control, found.pairs):
        assert [test.corrected for test in family] == holm([test.difference.p for test in family])
        for test in family:
            expected = reached[test.one] - reached[test.other]
            assert test.difference.value == pytest.approx(expected, abs=1e-12)
    assert len(found.pairs) == 10


def test_the_same_evaluation_twice_gives_the_same_numbers(
    examples: Examples, toy: type[Toy], tmp_path: Path
) -> None:
    chosen = options_of("scalars,toy", seeds=2)
    first, second = (
        evaluate(EvaluationData.of(examples, 3, 0), chosen, tmp_path / name)
        for name in ("one", "two")
    )
    assert lasting(first) == lasting(second)
    other = evaluate(EvaluationData.of(examples, 3, 1), chosen, tmp_path / "three")
    assert lasting(other) != lasting(first)


def test_several_processes_give_the_same_numbers(examples: Examples, tmp_path: Path) -> None:
    chosen, counted = options_of("scalars"), Counted()
    data = EvaluationData.of(examples, 3, 0)
    one = evaluate(data, chosen, tmp_path / "one")
    two = evaluate(data, chosen, tmp_path / "two", processes=2, progress=counted)
    assert lasting(one) == lasting(two)
    assert counted.begun == (15, 0)
    assert len({job for job, _ in counted.ended}) == 15


def die_of_rauq(job: Any) -> Any:
    """Ends the process, as a kernel that is out of memory does."""
    if job.row.name == "rauq":
        os.kill(os.getpid(), signal.SIGKILL)
    return WORK(job)


WORK = processes._work


@posix_only
def test_a_killed_worker_costs_its_row_alone(
    examples: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_work", die_of_rauq)
    chosen = EvaluationOptions(
        (TableRow("length"), TableRow("rauq", is_requested=True), TableRow("min-logprob")),
        draws=100,
    )
    data, counted = EvaluationData.of(examples, 3, 0), Counted()
    found = evaluate(data, chosen, tmp_path / "fits", processes=2, progress=counted)
    assert {label: one.reason for label, one in found.failed.items()} == {
        "rauq": "its process was killed, also when it was the only one (out of memory?)"
    }
    assert sorted(found.scores) == ["length", "min-logprob"]
    assert [failure for job, failure in counted.ended if job.startswith("rauq")] == [
        found.failed["rauq"].reason
    ]
    monkeypatch.undo()
    # What went through is that of an evaluation in which nothing was killed.
    calm = evaluate(data, chosen, tmp_path / "calm")
    for label, scored in found.scores.items():
        assert scored.scores.tolist() == calm.scores[label].scores.tolist()


def killed_beside_others(job: Any) -> Any:
    """Ends the process unless it is the only one, as where memory is enough for one."""
    if job.row.name == "rauq" and job.fold == 1 and not Path(os.environ[MARK]).exists():
        Path(os.environ[MARK]).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return WORK(job)


MARK = "HALLUTRACE_TEST_MARK"


@posix_only
def test_a_fit_that_was_killed_beside_others_is_tried_alone(
    examples: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MARK, str(tmp_path / "killed"))
    monkeypatch.setattr(processes, "_work", killed_beside_others)
    chosen = EvaluationOptions((TableRow("length"), TableRow("rauq")), draws=100)
    found = evaluate(EvaluationData.of(examples, 3, 0), chosen, tmp_path / "fits", processes=2)
    assert (tmp_path / "killed").exists()
    assert (found.failed, sorted(found.scores)) == ({}, ["length", "rauq"])


def test_nothing_of_the_test_part_is_learnt_from(
    examples: Examples, toy: type[Toy], tmp_path: Path
) -> None:
    data = EvaluationData.of(examples, 3, 0)
    evaluate(data, options_of("toy:edges=none", seeds=2), tmp_path / "fits")
    assert len(toy.seen) == 6
    groups = examples.groups
    for at, (seed, learnt, held) in enumerate(toy.seen):
        assert seed == at // 3
        tested = {groups[one] for one in data.splits[at % 3].test}
        assert not (tested & learnt or tested & held or learnt & held)
        assert tested | learnt | held == set(groups)


def test_seeds_and_edges_are_in_the_table(
    examples: Examples, toy: type[Toy], tmp_path: Path
) -> None:
    counted = Counted()
    chosen = options_of("toy", seeds=3)
    found = evaluate(EvaluationData.of(examples, 3, 0), chosen, tmp_path / "fits", progress=counted)
    assert found.scores["toy"].scores.shape == (3, COUNT)
    assert found.scores["perplexity"].scores.shape == (1, COUNT)
    assert [(test.one, test.other) for test in found.comparison.against_edges] == [
        ("toy", "toy edges=shuffled"), ("toy", "toy edges=none"),
    ]  # fmt: skip
    assert found.comparison.against_edges[0].difference.value > 0
    assert counted.epochs[0] == ("toy, fold 1, seed 0", 1, 0.5, 0.75)
    detector = next(one for one in to_json(found, "contains")["detectors"] if one["name"] == "toy")
    assert detector["seeds"] == [[0] * 3, [1] * 3, [2] * 3]
    assert (detector["epochs"], detector["notes"][0][0]) == ([[1] * 3] * 3, ("stopped early",))
    reached = detector["auroc_by_series"]
    assert len(reached) == 3
    assert detector["auroc"]["value"] == pytest.approx(np.mean(reached))
    table = to_markdown(found, "contains")
    assert "| 3 x 3 |" in table
    assert "200 bootstrap draws of groups, and of seeds where a detector has several. " in table
    assert "toy against edges=shuffled: +" in table
    spread = replace(chosen, seeds_on="spread")
    found = evaluate(EvaluationData.of(examples, 3, 0), spread, tmp_path / "fits", progress=counted)
    assert found.scores["toy"].scores.shape == (1, COUNT)
    assert "| 3, 3 seeds spread |" in to_markdown(found, "contains")
    assert "200 bootstrap draws of groups; seeds are held fixed. " in to_markdown(found, "contains")
    # All of its fits were there already.
    assert counted.begun[0] == counted.begun[1]


def test_shuffled_labels_teach_nothing(examples: Examples, tmp_path: Path) -> None:
    moved = shuffled([examples], 2)[0]
    chosen = replace(options_of("scalars"), level=0.999, shuffle_labels=2)
    found = evaluate(EvaluationData.of(moved, 4, 0), chosen, tmp_path / "fits")
    for figures in found.comparison.metrics.values():
        assert figures.intervals["auroc"].low < 0.5 < figures.intervals["auroc"].high
    assert "labels `contains` shuffled with seed 2: " in to_markdown(found, "contains")


def test_shuffled_labels_show_a_leak_through_groups(tmp_path: Path) -> None:
    """A run whose questions name their group, and splits that do not keep groups together."""
    rng = np.random.default_rng(3)
    made = [
        replace(trace_of(at, rng), question=f"what of entity{at // 4}", group=f"g{at // 4}",
                label=int(at // 4 % 2))
        for at in range(240)
    ]  # fmt: skip
    write_run(tmp_path / "run", made)
    whole = load_examples(hallutrace.open(tmp_path / "run"), "contains")
    chosen = EvaluationOptions((TableRow("question-only"),), draws=200, shuffle_labels=1)

    def reached(moved: Examples, leaks: bool) -> float:
        groups = [id_ for id_, _ in moved.keys] if leaks else moved.groups
        parts = tuple(folds(moved.labels, groups, 4, 0))
        found = evaluate(EvaluationData(moved, moved, parts), chosen, tmp_path / f"{leaks}")
        return found.comparison.metrics["question-only"].intervals["auroc"].value

    assert reached(shuffled([whole], 1)[0], leaks=True) > 0.9
    assert reached(shuffled([whole], 1)[0], leaks=False) == pytest.approx(0.5, abs=0.1)
    # Labels that move from trace to trace take away what would show it.
    by_trace = replace(whole, labels=np.random.default_rng(1).permutation(whole.labels))
    assert reached(by_trace, leaks=True) == pytest.approx(0.5, abs=0.1)


def test_labels_of_a_group_that_both_runs_have_move_together(
    examples: Examples, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    runs = []
    for name in ("ours", "theirs"):
        made = [replace(trace_of(at, rng), label=at // 3 % 2) for at in range(60)]
        write_run(tmp_path / name, made)
        runs.append(load_examples(hallutrace.open(tmp_path / name), "contains"))
    ours, theirs = shuffled(runs, 4)
    assert ours.labels.tolist() == theirs.labels.tolist() != runs[0].labels.tolist()


# What cannot be evaluated -------------------------------------------------------------------------


def test_a_control_without_hidden_states_is_told_in_the_table(
    bare: Examples, tmp_path: Path
) -> None:
    found = evaluate(EvaluationData.of(bare, 3, 0), options_of("scalars"), tmp_path / "fits")
    why = (
        f"Expected hidden states for `linear-probe`, got none in {bare.store.folder} - extract it "
        "again with `hidden_states='answer'`"
    )
    assert found.missing == {"linear-probe": why}
    assert found.comparison.best_control == "perplexity"
    table = to_markdown(found, "contains")
    cells = " | ".join(["-"] * 8)
    assert f"| linear-probe (control) | not applicable | {cells} |" in table
    assert f"linear-probe, not applicable: {why}" in table
    row = to_json(found, "contains")["detectors"][-1]
    assert (row["status"], row["reason"]) == ("missing", why)


def test_a_detector_named_by_the_caller_must_apply(bare: Examples, tmp_path: Path) -> None:
    chosen, counted = options_of("linear-probe"), Counted()
    for work in (
        lambda: inapplicable(chosen.rows, EvaluationData.of(bare, 3, 0)),
        lambda: evaluate(
            EvaluationData.of(bare, 3, 0), chosen, tmp_path / "fits", progress=counted
        ),
    ):
        with pytest.raises(InputError, match="Expected hidden states for `linear-probe`"):
            work()
    assert not counted.ended
    assert not (tmp_path / "fits").exists()


def test_a_missing_package_names_the_extra(
    examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'pip install "hallutrace\[detect\]"'):
        inapplicable(table_rows("scalars"), EvaluationData.of(examples, 3, 0))


def raising(error: BaseException) -> Callable[..., Any]:
    def fit(*_: Any, **__: Any) -> None:
        raise error

    return fit


class Panic(BaseException):
    """What an extension in Rust raises."""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InputError("Expected a loss, got none"), "Expected a loss, got none"),
        (ValueError("array is too large\nsecond line"), "ValueError: array is too large"),
        (ZeroDivisionError(), "ZeroDivisionError"),
        (MemoryError("512 GiB"), "MemoryError: 512 GiB"),
        (RuntimeError("[final] \x1b[31mred"), "RuntimeError: [final] \x1b[31mred"),
        (Panic("called unwrap"), "Panic: called unwrap"),
        (SystemExit(3), "SystemExit: 3"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_requested", [False, True])
def test_whatever_a_detector_raises_is_a_row(
    examples: Examples,
    toy: type[Toy],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    reason: str,
    is_requested: bool,
) -> None:
    monkeypatch.setattr(toy, "fit", raising(error))
    data, counted = EvaluationData.of(examples, 3, 0), Counted()
    chosen = EvaluationOptions(
        (TableRow("toy", is_requested=is_requested), TableRow("length")), draws=100, seeds=2
    )
    found = evaluate(data, chosen, tmp_path / "fits", progress=counted)
    assert found.failed["toy"].reason == reason
    assert "in fit" in str(found.failed["toy"].traceback)
    assert list(found.scores) == ["length"]
    assert [job for job, failure in counted.ended if failure] == ["toy, fold 1, seed 0"]
    assert len(counted.ended) == 4
    table = to_markdown(found, "contains")
    assert "| toy | failed | " in table
    assert f"toy, failed: {reason}" in table
    row = to_json(found, "contains")["detectors"][0]
    assert (row["status"], row["reason"]) == ("failed", reason)
    assert row["traceback"] == found.failed["toy"].traceback


def test_a_table_of_nothing_but_failures_is_one(
    examples: Examples, toy: type[Toy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy, "score", raising(OSError(28, "No space left on device")))
    chosen = EvaluationOptions((TableRow("toy"),), draws=100, seeds=1)
    found = evaluate(EvaluationData.of(examples, 3, 0), chosen, tmp_path / "fits")
    assert found.failed["toy"].reason == "OSError: [Errno 28] No space left on device"
    write_report(found, "contains", tmp_path)
    assert "toy, failed: OSError" in (tmp_path / "table.md").read_text()


def test_ctrl_c_and_a_damaged_run_end_the_table(
    examples: Examples, toy: type[Toy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = EvaluationOptions((TableRow("toy"), TableRow("length")), draws=100, seeds=1)
    for error in (KeyboardInterrupt(), DamagedError("Expected a trace, got none")):
        monkeypatch.setattr(toy, "fit", raising(error))
        with pytest.raises(type(error)):
            evaluate(EvaluationData.of(examples, 3, 0), chosen, tmp_path / "fits")


def test_a_detector_whose_check_raises_is_a_row(
    examples: Examples, toy: type[Toy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy, "check", raising(KeyError("layers")))
    chosen = EvaluationOptions((TableRow("toy", is_requested=True), TableRow("length")), draws=100)
    found = evaluate(EvaluationData.of(examples, 3, 0), chosen, tmp_path / "fits")
    assert found.missing == {"toy": "KeyError: 'layers'"}


# Numbers that are not finite ----------------------------------------------------------------------


def test_scores_that_are_not_finite_are_refused_by_trace(
    examples: Examples, toy: type[Toy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = {"q5": float("nan"), "q17": float("inf"), "q40": -float("inf")}
    monkeypatch.setattr(toy, "score", lambda self, trace: bad.get(trace.id, 0.5))
    one = Split(*(np.array(part) for part in (range(50, 90), range(90, 120), range(50))))
    chosen = EvaluationOptions((TableRow("toy"),), draws=100, seeds=1)
    found = evaluate(EvaluationData(examples, examples, (one,)), chosen, tmp_path / "fits")
    assert found.failed["toy"].reason == (
        "Expected finite scores of `toy`, got 3 of 50 that are NaN or infinite, first of the "
        "traces 'q5', sample 0; 'q17', sample 0; 'q40', sample 0 - extract it again, or leave it "
        "out (`null` as its label, or `hallutrace subset` without it)"
    )
    monkeypatch.setattr(toy, "scores", lambda self, some: np.zeros(len(some) + 1))
    found = evaluate(EvaluationData(examples, examples, (one,)), chosen, tmp_path / "fits")
    assert found.failed["toy"].reason == (
        "Expected a score of `toy` for each of 50 traces, got [51] - fix its `scores`"
    )


@pytest.fixture(scope="module")
def not_finite(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    """A run of an older version: one trace has log-probabilities that are NaN, one a state."""
    rng = np.random.default_rng(5)
    made = [trace_of(at, rng) for at in range(COUNT)]
    made[7].logprob[1] = np.nan  # type: ignore[index]
    made[9].hidden[1, -2, 3] = np.inf  # type: ignore[index]
    folder = write_run(tmp_path_factory.mktemp("nan") / "run", made, states="answer")
    return load_examples(hallutrace.open(folder), "contains")


def test_numbers_of_a_trace_that_are_not_finite_cost_the_rows_that_read_them(
    not_finite: Examples, tmp_path: Path
) -> None:
    names = (
        "length", "question-only", "perplexity", "min-logprob", "scalars", "rauq", "lapeigvals",
        "linear-probe", "mlp-probe", "attention-gnn",
    )  # fmt: skip
    rows = tuple(TableRow(name, {"epochs": 1} if name in names[-2:] else {}) for name in names)
    chosen = EvaluationOptions(rows, draws=100, seeds=1)
    found = evaluate(EvaluationData.of(not_finite, 3, 0), chosen, tmp_path / "fits")
    assert sorted(found.scores) == ["lapeigvals", "length", "question-only"]
    reasons = {label.split(" ")[0]: one.reason for label, one in found.failed.items()}
    assert len(reasons) == 7
    for name in ("perplexity", "min-logprob", "rauq"):
        assert f"Expected finite scores of `{name}`, got 1 of " in reasons[name]
    assert "Expected finite features `scalars`, got 2 of 4 numbers" in reasons["scalars"]
    assert "Expected finite features of graphs, got 1 of " in reasons["attention-gnn"]
    for name in ("linear-probe", "mlp-probe"):
        assert "Expected finite hidden state `last_answer` of layer 1, got 1 of 8" in reasons[name]
        assert "the trace 'q9', sample 0" in reasons[name]
    for name in ("perplexity", "min-logprob", "rauq", "scalars", "attention-gnn"):
        assert "'q7', sample 0" in reasons[name]


# Going on -----------------------------------------------------------------------------------------


def test_a_stopped_evaluation_goes_on_with_what_is_missing(
    examples: Examples, tmp_path: Path
) -> None:
    data, chosen = EvaluationData.of(examples, 3, 0), options_of("scalars")
    with pytest.raises(KeyboardInterrupt):
        evaluate(data, chosen, tmp_path / "fits", progress=Counted(stop_after=5))
    again = Counted()
    found = evaluate(data, chosen, tmp_path / "fits", progress=again)
    assert again.begun == (15, 4)  # the fit at which it was stopped was not kept yet
    assert len(again.ended) == 11
    assert lasting(found) == lasting(evaluate(data, chosen, tmp_path / "undisturbed"))


@pytest.mark.parametrize("change", ["labels", "split", "traces", "damage", "options"])
def test_what_was_computed_from_something_else_is_computed_again(
    examples: Examples, tmp_path: Path, change: str
) -> None:
    chosen = EvaluationOptions((TableRow("length"), TableRow("rauq")), draws=100)
    evaluate(EvaluationData.of(examples, 3, 0), chosen, tmp_path / "fits")
    expected, data = (6, 0), EvaluationData.of(examples, 3, 0)
    if change == "labels":
        labels = examples.labels.copy()
        labels[0] = 1 - labels[0]
        data = replace(
            data,
            train_run=replace(examples, labels=labels),
            test_run=replace(examples, labels=labels),
        )
    elif change == "split":
        data = EvaluationData.of(examples, 3, 7)
    elif change == "traces":
        data = EvaluationData.of(examples[:90], 3, 0)
    elif change == "damage":
        files = sorted((tmp_path / "fits").glob("length*"))
        files[0].write_text(files[0].read_text()[:-9])
        expected = (6, 5)
    else:
        chosen = EvaluationOptions(
            (TableRow("length"), TableRow("rauq", {"alpha": 0.7})), draws=100
        )
        expected = (6, 3)
    counted = Counted()
    found = evaluate(data, chosen, tmp_path / "fits", progress=counted)
    assert counted.begun == expected
    assert lasting(found) == lasting(evaluate(data, chosen, tmp_path / "fresh"))


# Transfer -----------------------------------------------------------------------------------------


def test_transfer_learns_from_one_run_and_tests_on_the_other(
    examples: Examples, tmp_path: Path
) -> None:
    rng = np.random.default_rng(11)
    made = [replace(trace_of(at, rng), group=f"other{at // 2}") for at in range(60)]
    write_run(tmp_path / "other", made, states="answer")
    other = load_examples(hallutrace.open(tmp_path / "other"), "contains")
    data = EvaluationData.transfer(examples, other, 5, 0)
    assert (len(data.splits), data.shared_groups, data.is_transfer) == (1, 0, True)
    assert data.splits[0].test.tolist() == list(range(60))
    found = evaluate(data, options_of("scalars"), tmp_path / "fits")
    detector = make("scalars")
    part = data.splits[0]
    detector.fit(examples.take(part.train), examples.take(part.validation))
    assert found.scores["scalars"].scores[0].tolist() == detector.scores(other).tolist()
    content = to_json(found, "contains")
    assert content["trained_on"]["counts"]["traces"] == COUNT
    assert content["run"]["counts"]["traces"] == 60
    assert "Learnt from 120 traces in run; 0 groups are in both" in to_markdown(found, "contains")


def test_transfer_keeps_groups_apart_that_both_runs_have(
    examples: Examples, tmp_path: Path, toy: type[Toy]
) -> None:
    other = make_run(tmp_path / "other", 12, count=60)
    data = EvaluationData.transfer(examples, other, 3, 0)
    assert data.shared_groups == 20
    tested = np.sort(np.concatenate([part.test for part in data.splits]))
    assert tested.tolist() == list(range(60))
    evaluate(data, options_of("toy:edges=none", seeds=1), tmp_path / "fits")
    for part, (_, learnt, held) in zip(data.splits, toy.seen, strict=True):
        groups = {other.groups[at] for at in part.test}
        assert not (groups & learnt or groups & held or learnt & held)


# Report -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reported(examples: Examples, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    folder = tmp_path_factory.mktemp("report")
    found = evaluate(EvaluationData.of(examples, 4, 0), options_of("scalars"), folder / "fits")
    write_report(found, "contains", folder)
    return lambda: (found, folder)


def test_the_csv_has_a_score_of_each_trace(reported: Any, examples: Examples) -> None:
    found, folder = reported()
    rows = list(csv.DictReader(io.StringIO((folder / "scores.csv").read_text())))
    assert [(row["id"], int(row["sample"])) for row in rows] == examples.keys
    assert [int(row["label"]) for row in rows] == examples.labels.tolist()
    assert [int(row["fold"]) for row in rows] == found.data.fold_of.tolist()
    for name, scored in found.scores.items():
        assert [float(row[name]) for row in rows] == scored.scores[0].tolist()


def test_the_json_says_everything(reported: Any, examples: Examples) -> None:
    found, folder = reported()
    content = json.loads((folder / "evaluation.json").read_text())
    assert content == json.loads(json.dumps(to_json(found, "contains")))
    run = content["run"]
    assert run["fingerprint"] == examples.store.manifest.fingerprint
    assert run["label"]["name"] == "contains"
    assert run["counts"]["hallucinated"] + run["counts"]["right"] == COUNT
    assert run["base_rate"] == examples.labels.mean()
    assert content["versions"]["numpy"] == np.__version__
    assert content["protocol"]["bootstrap"] == {
        "draws": 200, "level": 0.95, "seed": 0, "over": ["groups", "seeds"],
    }  # fmt: skip
    assert content["protocol"]["test_fold"] == found.data.fold_of.tolist()
    assert [sum(part[name] for name in ("train", "validation", "test"))
            for part in content["protocol"]["parts"]] == [COUNT] * 4  # fmt: skip
    assert set(content["timing"]) == {row["label"] for row in content["detectors"]}


def test_the_table_has_a_row_for_each_with_intervals(reported: Any) -> None:
    found, folder = reported()
    lines = (folder / "table.md").read_text().splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert table[0].startswith("| detector | AUROC [95%] | AUPRC [95%] | TPR at 5% FPR [95%] |")
    assert len(table) == 2 + 5
    assert {line.count("|") for line in table} == {table[0].count("|")}
    interval = found.comparison.metrics["scalars"].intervals["auroc"]
    shown = [f"{value:.3f}".lstrip("0") for value in (interval.value, interval.low, interval.high)]
    row = next(line for line in table if line.startswith("| scalars |"))
    assert row.startswith(f"| scalars | {shown[0]} [{shown[1]}, {shown[2]}] |")
    assert "| 4 x 1 |" in row
    assert sum("(control)" in line for line in table) == 4
    assert any(line.startswith("p: AUROC against the best control, linear-probe") for line in lines)
