"""Layers and heads: every figure against plain numpy over the traces."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hallutrace
from detect_runs import Made, causal_attention, plain_auroc, write_run
from hallutrace.detect.evaluation.bootstrap import Resampling
from hallutrace.detect.metrics import auroc, holm
from hallutrace.errors import NotInRunError
from hallutrace.viewer.data import heads, layers
from hallutrace.viewer.data.head_quantities import QUANTITIES
from hallutrace.viewer.data.head_statistics import head_aurocs, head_differences
from hallutrace.viewer.data.head_tables import HeadTables
from hallutrace.viewer.payload import unpack
from hallutrace.viewer.providers import payload_of
from hallutrace.viewer.viewed_run import ViewedRun
from oracle import rough

PROMPT, TOKENS = 6, 10


def dense(made: Made) -> dict[str, np.ndarray]:
    """The figures of a trace from its dense attention, float64 [layers, heads]."""
    whole = made.attention.astype(np.float64)
    rows = whole[:, :, made.prompt - 1 :]
    places = np.arange(made.prompt - 1, made.tokens)
    logs = np.log(rows, out=np.zeros_like(rows), where=rows > 0)
    bounds = [0, *(made.segments or [1, made.prompt]), made.tokens]
    mass = [rows[..., begin:end].sum(-1).mean(-1) for begin, end in pairwise(bounds)]
    squares = [rough(rows[..., begin:end]) ** 2 for begin, end in pairwise(bounds)]
    received = [
        whole[:, :, at + 1 : made.tokens - 1, at].mean(-1) if at < made.tokens - 2 else 0 * mass[0]
        for at in range(1, made.tokens)
    ]
    found = {
        "entropy": -(rows * logs).sum(-1).mean(-1),
        "previous": np.mean([whole[:, :, at, at - 1] for at in places], axis=0),
        "diagonal": np.mean([whole[:, :, at, at] for at in places], axis=0),
        "received": np.mean(received, axis=0),
        "mass-first": mass[0],
        "mass-question": mass[1] + (mass[3] if len(mass) == 5 else 0),
        "mass-answer": mass[-1],
        "square": (rows**2).sum(-1).mean(-1),
        "rough": np.sqrt(sum(squares)).mean(-1),
        "value-norm": np.ones((len(whole), 1)),
    }
    if len(mass) == 5:
        found["mass-context"] = mass[2]
    return found


@pytest.fixture(scope="module")
def made() -> list[Made]:
    rng = np.random.default_rng(0)
    found = []
    for number in range(60):
        label = [1, 0, None][number % 3]
        attention = causal_attention((2, 3, TOKENS), rng, 1.0 + (label == 1))
        segments = [1, 2, 4, PROMPT] if number % 2 else []
        group = f"g{number // 2}"
        found.append(Made(attention, PROMPT, label, group=group, segments=segments))
    return found


@pytest.fixture(scope="module")
def viewed(made: list[Made], tmp_path_factory: pytest.TempPathFactory) -> ViewedRun:
    folder = write_run(tmp_path_factory.mktemp("layers") / "run", made)
    return ViewedRun(hallutrace.open(folder))


@pytest.mark.parametrize("name", QUANTITIES)
def test_a_quantity_is_the_mean_of_the_dense_attention(
    name: str, made: list[Made], viewed: ViewedRun
) -> None:
    table = viewed.head_tables.table(name)
    for at, one in enumerate(made):
        expected = dense(one).get(name)
        assert table.known[at] == (expected is not None)
        if expected is not None:
            np.testing.assert_allclose(table.values[at], expected, atol=2e-3)


def test_the_run_and_its_labels_are_those_of_numpy(made: list[Made], viewed: ViewedRun) -> None:
    found = unpack(payload_of(viewed, "layers", {"marginal": "entropy", "label": "contains"}))
    values = viewed.head_tables.table("entropy").values.astype(np.float64)
    labels = np.array([-1 if one.label is None else one.label for one in made])
    np.testing.assert_allclose(found["mean"], values.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found["deviation"], values.std(0), rtol=1e-5)
    np.testing.assert_allclose(found["mean_hallucinated"], values[labels == 1].mean(0), rtol=1e-6)
    np.testing.assert_allclose(
        found["difference"],
        values[labels == 1].mean(0) - values[labels == 0].mean(0),
        rtol=1e-4,
        atol=1e-6,
    )
    for layer, head in np.ndindex(2, 3):
        expected = plain_auroc(values[labels >= 0, layer, head], labels[labels >= 0])
        assert found["auroc"][layer, head] == pytest.approx(expected)
    assert (found["traces"], found["hallucinated"], found["right"]) == (60, 20, 20)
    is_marked = found["corrected"] < 1 - found["level"]
    assert is_marked.all()  # the attention of hallucinated answers is sharper by construction
    np.testing.assert_array_equal(is_marked, (found["low"] > 0) | (found["high"] < 0))


def test_heads_that_a_layer_does_not_have_are_blank(viewed: ViewedRun) -> None:
    store: Any = FewerHeads(viewed.store)
    blank = ViewedRun(store)
    found = layers.layers_data(blank, marginal="entropy", label="contains")
    assert found["marginal"]["heads"] == [3, 2]
    for name in ("mean", "difference", "auroc", "corrected", "low"):
        np.testing.assert_array_equal(np.isnan(found[name]), [[0, 0, 0], [0, 0, 1]])
    assert heads.heads_data(blank)["counts"].sum((2, 3)).tolist() == [[60] * 3, [60, 60, 0]]
    values = heads.trace_heads(blank, trace="q3")
    assert np.isnan(values["value"][1, 2]) and np.isnan(values["below"][1, 2])
    # What is blank is not counted among the tests that p is corrected for.
    flat = layers.layers_data(blank, label="contains")["corrected"]
    assert np.isfinite(flat).sum() == 5


class FewerHeads:
    """A run whose second layer has a head less than its first."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.folder = store.folder
        facts = {**store.manifest.facts, "heads": [3, 2]}
        self.manifest = type("Manifest", (), {"facts": facts, "identity": store.manifest.identity})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def __len__(self) -> int:
        return len(self._store)

    def __getitem__(self, at: Any) -> Any:
        return self._store[at]


def test_a_trace_lies_among_all_others(viewed: ViewedRun) -> None:
    found = heads.trace_heads(viewed, trace="q5", marginal="previous")
    values = viewed.head_tables.table("previous").values
    np.testing.assert_array_equal(found["value"], values[5])
    below = (values < values[5]).mean(0) + (values == values[5]).mean(0) / 2
    np.testing.assert_allclose(found["below"], below, rtol=1e-6)


def test_the_histogram_and_the_ends_of_a_head(made: list[Made], viewed: ViewedRun) -> None:
    found = heads.heads_data(viewed, marginal="square", label="contains")
    values = viewed.head_tables.table("square").values[:, 1, 2].astype(np.float64)
    labels = np.array([-1 if one.label is None else one.label for one in made])
    edges = found["edges"][1, 2].astype(np.float64)
    for row, label in enumerate((1, 0, -1)):
        expected, _ = np.histogram(values[labels == label], heads.BINS, tuple(edges))
        np.testing.assert_array_equal(found["counts"][1, 2, row], expected)
    keys = found["traces"]["keys"]
    lowest = [keys[at] for at in found["lowest"][1, 2]]
    assert lowest == [f"q{at}" for at in np.argsort(values, kind="stable")[: heads.EXTREMES]]
    highest = [keys[at] for at in found["highest"][1, 2]]
    assert highest[0] == f"q{values.argmax()}"
    assert found["highest_values"][1, 2, 0] == np.float32(values.max())
    for key, label in zip(keys, found["traces"]["labels"], strict=True):
        assert label == labels[int(key[1:])]


def test_where_every_group_is_one_trace_the_error_is_welchs() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(90, 4)).astype(np.float32)
    labels = (rng.random(90) < 0.4).astype(np.int8)
    found = head_differences(values, labels, np.arange(90))
    risky, safe = (values[labels == one].astype(np.float64) for one in (1, 0))
    error = np.sqrt(risky.var(0, ddof=1) / len(risky) + safe.var(0, ddof=1) / len(safe))
    np.testing.assert_allclose(found.difference, risky.mean(0) - safe.mean(0), rtol=1e-9)
    z = np.abs(found.difference) / error
    np.testing.assert_allclose(found.p, [math.erfc(one / math.sqrt(2)) for one in z], rtol=1e-9)
    assert found.corrected.tolist() == holm(found.p.tolist())


def test_the_error_is_that_of_a_bootstrap_over_groups() -> None:
    rng = np.random.default_rng(2)
    group = np.repeat(np.arange(80), 3)
    labels = (rng.random(240) < 0.5).astype(np.int8)
    values = (rng.normal(size=80)[group] + 0.3 * rng.normal(size=240)).astype(np.float32)[:, None]
    found = head_differences(values, labels, group)
    names = [f"{one:03}" for one in group]
    drawn = np.concatenate([*Resampling(labels, names, np.zeros(240, np.int64), 4000).weights()])
    risky, safe = drawn * (labels == 1), drawn * (labels == 0)
    means = [(part @ values[:, 0]) / part.sum(1) for part in (risky, safe)]
    deviation = (means[0] - means[1]).std()
    z = abs(found.difference[0]) / deviation
    assert math.sqrt(2) * _inverse_erfc(found.p[0]) == pytest.approx(z, rel=0.08)


def _inverse_erfc(value: float) -> float:
    from scipy.special import erfcinv

    return float(erfcinv(value))


def test_of_many_heads_without_a_signal_few_are_marked() -> None:
    rng = np.random.default_rng(3)
    marked = 0
    for _ in range(40):
        values = rng.normal(size=(120, 200)).astype(np.float32)
        labels = rng.permutation(np.repeat([0, 1], 60)).astype(np.int8)
        marked += bool((head_differences(values, labels, np.arange(120)).corrected < 0.05).any())
    assert marked <= 8  # of 40 families, each with a chance of about .05 to .1


def test_an_interval_leaves_out_zero_where_holm_marks_the_head() -> None:
    rng = np.random.default_rng(4)
    labels = np.repeat(np.int8([0, 1]), 50)
    shift = np.linspace(0, 1.5, 300) * labels[:, None]
    values = (rng.normal(size=(100, 300)) + shift).astype(np.float32)
    found = head_differences(values, labels, np.arange(100))
    is_marked = found.corrected < 0.05
    assert 20 < is_marked.sum() < 250
    np.testing.assert_array_equal(is_marked, (found.low > 0) | (found.high < 0))


def test_a_head_that_never_varies_is_not_marked() -> None:
    values = np.full((60, 1), 0.3, np.float32)
    found = head_differences(values, np.tile(np.int8([0, 1]), 30), np.arange(60))
    assert found.p.tolist() == [1.0]


def test_auroc_of_heads_is_that_of_the_package() -> None:
    rng = np.random.default_rng(5)
    values = rng.integers(0, 6, (70, 3)).astype(np.float32)
    labels = (rng.random(70) < 0.4).astype(np.int8)
    expected = [auroc(values[:, head], labels) for head in range(3)]
    np.testing.assert_allclose(head_aurocs(values, labels), expected, rtol=1e-12)


def test_too_few_groups_are_not_compared(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    few = [Made(causal_attention((1, 2, 5), rng), 3, number % 2) for number in range(8)]
    viewed = ViewedRun(hallutrace.open(write_run(tmp_path / "run", few)))
    found = layers.layers_data(viewed, label="contains")
    assert "difference" not in found and "there are 4 of one kind" in found["untested"]


def test_what_a_run_does_not_have_is_told(viewed: ViewedRun, tmp_path: Path) -> None:
    with pytest.raises(NotInRunError, match="Expected one of entropy, previous"):
        layers.layers_data(viewed, marginal="colour")
    rng = np.random.default_rng(7)
    plain = write_run(tmp_path / "run", [Made(causal_attention((1, 2, 5), rng), 3)])
    run = ViewedRun(hallutrace.open(plain))
    names = [one["name"] for one in layers.layer_choices(run)["marginals"]]
    assert "mass-context" not in names and "mass-context" in viewed.head_tables.names
    with pytest.raises(NotInRunError, match="attention mass on the context - `hallutrace extract`"):
        layers.layers_data(run, marginal="mass-context")
    with pytest.raises(
        NotInRunError, match="This trace does not have it: attention mass on the context"
    ):
        heads.trace_heads(viewed, trace="q0", marginal="mass-context")


def test_only_so_many_tables_are_kept(viewed: ViewedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = HeadTables(viewed.store)
    one = tables.table("entropy")
    monkeypatch.setattr("hallutrace.viewer.data.head_tables._KEPT_BYTES", 2 * one.values.nbytes)
    assert tables.table("entropy") is one
    for name in ("previous", "square"):
        tables.table(name)
    assert tables.table("entropy") is not one


def test_a_report_carries_what_the_view_asks_for(viewed: ViewedRun) -> None:
    asked = list(layers.report_keys(viewed, ["q1"]))
    assert ("layers", {"marginal": "mass-context", "label": "contains"}) in asked
    assert asked[0] == ("layer_choices", {})
    assert ("trace_heads", {"marginal": "entropy", "trace": "q1"}) in asked
