"""What a score reads, against features that are replaced by hand; and what the model does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hallutrace
from explorers import POST, client_of, explorer_of
from hallutrace import ExtractConfig, extract
from hallutrace.detect import Scorer, load, load_examples, make
from hallutrace.detect.provenance import TrainingTraces
from hallutrace.errors import NotInRunError
from hallutrace.model.ablation import Ablated, ablating
from hallutrace.viewer import sensitivity
from hallutrace.viewer.explorer.ablating import Ablater, parts_of
from hallutrace.viewer.explorer.catalog import run_id
from hallutrace.viewer.explorer.own_model import OwnModel
from hallutrace.viewer.payload import unpack
from hallutrace.viewer.sensitivity import EditedTrace, score_sensitivity, training_mean
from hallutrace.viewer.viewed_run import ViewedRun


@pytest.fixture(scope="module")
def viewed(probed_runs: Path) -> ViewedRun:
    return ViewedRun(hallutrace.open(probed_runs / "run"))


@pytest.fixture(scope="module")
def model() -> OwnModel:
    """Loads the small model once for all tests."""
    return OwnModel("cpu")


def replaced(detector: Any, trace: Any, values: Any, chosen: Any) -> float:
    """The score with some of its features replaced by others."""
    features = detector.feature(trace).astype(np.float64)
    features[chosen] = values[chosen]
    return float(features @ detector.linear.weight + detector.linear.bias)


def test_heads_layers_and_features_replaced(viewed: ViewedRun, probed_runs: Path) -> None:
    detector, store = load(probed_runs / "lookback-lens"), viewed.store
    training = TrainingTraces.read(probed_runs / "lookback-lens")
    trace = store[3]
    found = score_sensitivity(detector, trace, store, training)["linear"]
    trained = [one for one in store if (one.id, one.sample) in training.train]
    mean = np.mean([detector.feature(one).astype(np.float64) for one in trained], axis=0)
    assert (found["traces"], found["is_training"]) == (len(trained), True)
    score = detector.score(trace)
    assert found["score"] == score
    of_feature = np.arange(len(mean)).reshape(4, 8)
    for layer in range(4):
        due = replaced(detector, trace, mean, of_feature[layer]) - score
        np.testing.assert_allclose(found["layers"][layer], due, atol=1e-9)
        for head in range(8):
            due = replaced(detector, trace, mean, of_feature[layer, head]) - score
            np.testing.assert_allclose(found["heads"][layer, head], due, atol=1e-9)
    first = found["features"][0]
    due = replaced(detector, trace, mean, first["feature"]) - score
    np.testing.assert_allclose(first["change"], due, atol=1e-9)
    assert abs(first["change"]) == np.abs(found["changes"]).max()
    np.testing.assert_allclose(found["all"], detector.linear(mean[None])[0] - score, atol=1e-9)


def test_a_probe_of_hidden_states_has_no_heads(viewed: ViewedRun, probed_runs: Path) -> None:
    detector = load(probed_runs / "linear-probe")
    found = score_sensitivity(detector, viewed.store[0], viewed.store, None)["linear"]
    assert found["heads"] is None and found["is_training"] is False
    assert len(found["features"]) == sensitivity.TOP


def test_a_mean_is_of_few_traces(viewed: ViewedRun, probed_runs: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(sensitivity, "MOST_TRACES", 7)
    detector = load(probed_runs / "lookback-lens")
    mean = training_mean(detector, viewed.store, None)
    chosen = np.linspace(0, len(viewed.store) - 1, 7).round().astype(int)
    due = np.mean([detector.feature(viewed.store[int(at)]).astype(float) for at in chosen], axis=0)
    assert mean.traces == 7
    np.testing.assert_allclose(mean.values, due)


@pytest.mark.parametrize("heads", ["mean", "each"])
def test_fewer_edges(tmp_path: Path, heads: str) -> None:
    config = ExtractConfig(model="demo", questions="demo:2", out=tmp_path, top_k=6, heads=heads)
    extract(config)
    trace = hallutrace.open(tmp_path)[1]
    edited = EditedTrace(trace, top_k=2, without=[1])
    assert edited.layer(1).keys.size == 0
    for layer in (0, 2, 3):
        whole, found = trace.layer(layer).to_dense(), edited.layer(layer).to_dense()
        due = np.zeros_like(whole)
        for head, query in np.ndindex(whole.shape[:2]):
            row = whole[head, query]
            largest = np.argsort(-row, kind="stable")[:2]
            due[head, query, largest] = row[largest]
        np.testing.assert_array_equal(found, due)
    same = EditedTrace(trace)
    for name in ("edges.indptr", "edges.offset", "edges.key", "edges.weight", "logprob"):
        np.testing.assert_array_equal(same.stored(name), trace.stored(name))


def test_a_detector_of_edges(viewed: ViewedRun) -> None:
    detector = make("attention-gnn", epochs=1, device="cpu")
    examples = load_examples(viewed.store, "contains")
    detector.fit(examples, examples)
    trace = viewed.store[2]
    found = score_sensitivity(detector, trace, viewed.store, None)
    assert found["linear"] is None
    edges = found["edges"]
    assert [k for k, _ in edges["top_k"]] == [2, 1]
    assert [layer for layer, _ in edges["layers"]] == [0, 1, 2, 3]
    due = detector.score(EditedTrace(trace, without=[2])) - detector.score(trace)
    assert edges["layers"][2][1] == due and any(change for _, change in edges["layers"])


class LastToken(Scorer):
    """Reads neither features nor edges."""

    name = "last-token"

    def score(self, trace: Any) -> float:
        return -float(trace.logprob[-1])


def test_a_detector_that_cannot_be_looked_into(viewed: ViewedRun) -> None:
    with pytest.raises(NotInRunError, match="one that reads edges, got `last-token`"):
        score_sensitivity(LastToken(), viewed.store[0], viewed.store, None)


def test_passes_without_a_part(viewed: ViewedRun, probed_runs: Path, model: OwnModel) -> None:
    told: list[tuple[str, Any]] = []
    key, trace = viewed.key_texts[4], viewed.store[4]
    folder = probed_runs / "linear-probe"
    arguments = (key, 1, folder, lambda name, content: told.append((name, content)), lambda: False)
    Ablater(model).ablate(viewed, *arguments)
    whole = next(content for name, content in told if name == "whole")
    np.testing.assert_allclose(whole["logprob"], trace.logprob.sum(), atol=1e-4)
    np.testing.assert_allclose(whole["score"], load(folder).score(trace), atol=1e-4)
    passes = [content for name, content in told if name == "ablated"]
    assert [(one["layer"], one["head"]) for one in passes] == [(1, head) for head in range(8)]
    # The same by transformers alone.
    import torch

    loaded = model._loaded[1]
    prompt, ids = trace.prompt_length, torch.tensor(np.array(trace.tokens), dtype=torch.long)
    for one in (passes[0], passes[7]):
        with torch.inference_mode(), ablating(loaded.model, Ablated(1, one["head"]), 8):
            logits = loaded.model(input_ids=ids[None], use_cache=False).logits[0]
        logprobs = torch.log_softmax(logits[prompt - 1 : -1].float(), dim=-1)
        due = float(logprobs.gather(1, ids[prompt:, None]).sum())
        np.testing.assert_allclose(one["logprob"], due - whole["logprob"], atol=1e-4)


def test_an_ablated_layer_changes_what_is_read_of_it(
    viewed: ViewedRun, probed_runs: Path, model: OwnModel
) -> None:
    detector, told = load(probed_runs / "linear-probe"), []
    arguments = (None, probed_runs / "linear-probe")
    tell = lambda name, content: told.append((name, content))  # noqa: E731
    Ablater(model).ablate(viewed, viewed.key_texts[4], *arguments, tell, lambda: False)
    passes = {one["layer"]: one for name, one in told if name == "ablated"}
    assert passes[detector.layer]["score"] != 0
    later = [one["score"] for layer, one in passes.items() if layer > detector.layer]
    np.testing.assert_allclose(later, 0, atol=1e-5)


def test_layers_that_are_not_there(viewed: ViewedRun) -> None:
    with pytest.raises(NotInRunError, match="a layer with attention"):
        parts_of(viewed.store[0], 9)


def test_over_the_wire(probed_runs: Path, viewed: ViewedRun) -> None:
    client, run = client_of(explorer_of(probed_runs)), run_id(probed_runs / "run")
    key, detector = viewed.key_texts[3], run_id(probed_runs / "lookback-lens")
    answer = client.get(f"/sensitivity/{run}/{detector}", params={"trace": key})
    found = unpack(answer.content)["linear"]
    due = score_sensitivity(
        load(probed_runs / "lookback-lens"),
        viewed.store[3],
        viewed.store,
        TrainingTraces.read(probed_runs / "lookback-lens"),
    )["linear"]
    np.testing.assert_array_equal(found["heads"], due["heads"])
    assert client.get(f"/sensitivity/{run}/none?trace={key}").status_code == 404
    assert client.get(f"/sensitivity/{run}/{detector}?trace=none").status_code == 404
    body = {"run": run, "trace": key, "layer": "1"}
    assert client.post("/ablate", json=body, headers=POST).status_code == 400
    text = client.post("/ablate", json={**body, "layer": 9}, headers=POST).text
    assert text.startswith("event: failed") and "a layer with attention" in text


def test_sensitivity_in_a_browser(
    probed_runs: Path, probed_explorer: str, viewed: ViewedRun, opened: Any
) -> None:
    run, detector = run_id(probed_runs / "run"), run_id(probed_runs / "lookback-lens")
    state = f"run={run}&view=sensitivity&trace={viewed.key_texts[3]}&asked_by={detector}"
    page = opened(f"{probed_explorer}#{state}").page
    assert page.locator("table.reading td.cell").count() == 4 * 8
    page.get_by_role("button", name="Without each layer").click()
    page.get_by_text("4 of 4 passes done").wait_for(timeout=90_000)
    assert page.get_by_role("region", name="Passes").locator("tbody tr").count() == 4
