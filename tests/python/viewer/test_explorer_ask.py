"""Questions to a run's own model: the answer as it comes, and what is shown of it afterwards."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hallutrace
from explorers import POST, client_of, explorer_of
from hallutrace.detect import load
from hallutrace.detect.provenance import Provenance
from hallutrace.errors import InputError, NotInRunError
from hallutrace.viewer.explorer.asking import ASKED, Asker
from hallutrace.viewer.explorer.catalog import Catalog, run_id
from hallutrace.viewer.explorer.neighbors import Neighbors
from hallutrace.viewer.explorer.own_model import BusyError, OwnModel, Question, StoppedError
from hallutrace.viewer.explorer.partial_trace import live_layers
from hallutrace.viewer.explorer.runs import OpenRuns
from hallutrace.viewer.payload import unpack
from hallutrace.viewer.viewed_run import ViewedRun


class Told(list[tuple[str, Any]]):
    """Keeps the events that it is told."""

    def __call__(self, name: str, content: Any) -> None:
        self.append((name, content))

    def of(self, name: str) -> list[Any]:
        return [content for one, content in self if one == name]


@pytest.fixture(scope="module")
def model() -> OwnModel:
    """Loads the small model once for all tests."""
    return OwnModel("cpu")


@pytest.fixture
def asker(probed_runs: Path, model: OwnModel) -> Any:
    catalog = Catalog([probed_runs])
    made = Asker(catalog, OpenRuns(catalog), model)
    yield made
    made.close()


def never() -> bool:
    return False


def asked(asker: Asker, folder: Path, question: str, detector: str | None) -> Told:
    told = Told()
    chosen = None if detector is None else run_id(folder / detector)
    asker.ask(run_id(folder / "run"), Question(question), chosen, told, never)
    return told


@pytest.mark.parametrize("name", ["linear-probe", "lookback-lens"])
def test_the_answer_is_that_of_the_run(asker: Asker, probed_runs: Path, name: str) -> None:
    stored = hallutrace.open(probed_runs / "run")[7]
    told = asked(asker, probed_runs, stored.question, name)
    (done,) = told.of("done")
    trace = asker._runs.viewed(ASKED).store[0]
    np.testing.assert_array_equal(trace.tokens, stored.tokens)
    # The run answered in batches, whose last bits differ.
    np.testing.assert_allclose(trace.logprob, stored.logprob, atol=1e-5)
    assert done["answer"] == stored.answer and done["logprob"] == trace.logprob.tolist()
    detector = load(probed_runs / name)
    assert done["score"] == detector.score(trace)
    assert done["risk_by_token"] == detector.token_scores(trace).tolist()
    provenance = Provenance.read(probed_runs / name)
    assert done["risk"] == float(provenance.curve([done["score"]])[0])


def test_tokens_come_with_what_is_known_of_them(asker: Asker, probed_runs: Path) -> None:
    question = hallutrace.open(probed_runs / "run")[3].question
    told = asked(asker, probed_runs, question, "linear-probe")
    (done,), tokens = told.of("done"), told.of("token")
    assert len(tokens) == len(done["tokens"]) - 1 > 0
    assert "".join(one["text"] for one in tokens).strip() == done["answer"]
    for name, exact in (("logprob", "logprob"), ("entropy", "entropy"), ("risk", "risk_by_token")):
        live = [one[name] for one in tokens]
        np.testing.assert_allclose(live, done[exact][:-1], atol=1e-4)


def test_which_detectors_can_follow_an_answer(probed_runs: Path) -> None:
    probe = load(probed_runs / "linear-probe")
    assert live_layers(probe) == (probe.layer,)
    assert live_layers(load(probed_runs / "lookback-lens")) is None
    assert live_layers(None) is None


def test_neighbours_are_the_nearest_by_cosine(asker: Asker, probed_runs: Path) -> None:
    told = asked(asker, probed_runs, "Where was Ada Berg born?", "linear-probe")
    (found,) = told.of("neighbors")
    store, layer = hallutrace.open(probed_runs / "run"), found["layer"]
    assert layer == load(probed_runs / "linear-probe").layer

    def vector(trace: Any) -> np.ndarray:
        row = -2 if trace.finish_reason == "eos" else -1
        return trace.hidden(layer)[row].astype(np.float64)

    own = vector(asker._runs.viewed(ASKED).store[0])
    due = np.array([vector(one) @ own / np.linalg.norm(vector(one)) for one in store])
    due /= np.linalg.norm(own)
    order = np.argsort(-due)[:8]
    assert [one["key"] for one in found["nearest"]] == [store[int(at)].id for at in order]
    np.testing.assert_allclose([one["cosine"] for one in found["nearest"]], due[order])
    viewed = ViewedRun(store)
    labels = viewed.label_values("contains")
    assert [one["label"] for one in found["nearest"]] == labels[order].tolist()


def test_a_trace_is_no_neighbour_of_itself(probed_runs: Path) -> None:
    viewed, neighbors = ViewedRun(hallutrace.open(probed_runs / "run")), Neighbors()
    first = neighbors.nearest(viewed, viewed.store[5], layer=1)
    assert viewed.key_texts[5] not in [one["key"] for one in first["nearest"]]
    assert neighbors.nearest(viewed, viewed.store[5], layer=1) == first  # of the kept vectors
    with pytest.raises(NotInRunError, match="a layer with hidden states"):
        neighbors.nearest(viewed, viewed.store[5], layer=99)


def test_stopping_and_waiting(asker: Asker, probed_runs: Path) -> None:
    told = Told()
    run, question = run_id(probed_runs / "run"), Question("Where was Ada Berg born?")
    with pytest.raises(StoppedError):
        asker.ask(run, question, None, told, lambda: bool(told.of("token")))
    assert len(told.of("token")) == 1 and not told.of("done")
    with asker.model.in_use(), pytest.raises(BusyError, match="answers another question"):
        asker.ask(run, question, None, told, never)
    assert asked(asker, probed_runs, question.text, None).of("done")  # it is free again


def test_what_is_not_there(asker: Asker, probed_runs: Path) -> None:
    run = run_id(probed_runs / "run")
    with pytest.raises(NotInRunError, match="a detector of this run"):
        asker.ask(run, Question("Who?"), "../../etc", Told(), never)
    with pytest.raises(NotInRunError, match="a run that is explored"):
        asker.ask("none", Question("Who?"), None, Told(), never)
    about = asker.about(run)
    assert [one["name"] for one in about["detectors"]] == ["lookback-lens", "linear-probe"]


def test_existing_answers_cannot_be_asked_for(
    probed_runs: Path, tmp_path: Path, model: OwnModel
) -> None:
    run = shutil.copytree(probed_runs / "run", tmp_path / "run")
    manifest = hallutrace.open(run).manifest
    manifest.identity["decoding"] = {"responses": True}
    with pytest.raises(InputError, match="existing answers"):
        model.config(manifest, Question("Who?"), tmp_path)


def test_a_question_over_the_wire(probed_runs: Path) -> None:
    client = client_of(explorer_of(probed_runs))
    body = {"run": run_id(probed_runs / "run"), "question": "Where was Ada Berg born?"}
    text = client.post("/ask", json=body, headers=POST).text
    events = [
        dict(line.split(": ", 1) for line in one.split("\n")) for one in text.split("\n\n")[:-1]
    ]
    names = [one["event"] for one in events]
    assert names[0] == "state" and names[-2:] == ["neighbors", "end"] and "token" in names
    done = json.loads(events[names.index("done")]["data"])
    payload = client.get(f"/data/{done['run']}/run")
    assert unpack(payload.content)["traces"] == 1
    about = unpack(client.get(f"/ask/{done['run']}").content)
    assert about["run"] == body["run"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"run": "x"}, "Expected a text as `question`"),
        ({"run": "x", "question": " "}, "Expected a text as `question`"),
        ({"run": "x", "question": 5}, "Expected a text as `question`"),
        ({"run": "x", "question": "y" * 8001}, "Expected at most 8,000 characters"),
        ([], "Expected a JSON object"),
    ],
)
def test_bodies_that_are_refused(probed_runs: Path, body: Any, told: str) -> None:
    answer = client_of(explorer_of(probed_runs)).post("/ask", json=body, headers=POST)
    assert answer.status_code == 400
    assert answer.json()["message"].startswith(told)


def test_a_run_that_is_not_there_is_told_in_the_stream(probed_runs: Path) -> None:
    body = {"run": "none", "question": "Who?"}
    text = client_of(explorer_of(probed_runs)).post("/ask", json=body, headers=POST).text
    assert text.startswith("event: failed") and "Expected a run that is explored" in text


def test_asking_in_a_browser(probed_runs: Path, probed_explorer: str, opened: Any) -> None:
    page = opened(f"{probed_explorer}#run={run_id(probed_runs / 'run')}&view=ask").page
    page.get_by_label("Question").fill("Where was Ada Berg born?")
    page.get_by_label("scored by").select_option(run_id(probed_runs / "linear-probe"))
    page.keyboard.press("Tab")
    page.get_by_role("button", name="Ask").press("Enter")
    page.get_by_text("Neighbours in the run").wait_for(timeout=60_000)
    assert page.locator(".said .piece").count() > 1
    assert "linear-probe scores it" in page.get_by_role("status").inner_text()
    page.get_by_role("link", name="Open its trace").click()
    assert f"run={ASKED}" in page.url and "view=trace" in page.url
