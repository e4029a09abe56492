"""The view of the run as a whole: its payloads against numpy, and what the page shows of them."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hallutrace
from detect_runs import Made, causal_attention, write_run
from evaluations import write_made_up
from hallutrace.store.failures import Failure, FailureLog
from hallutrace.viewer.data.distributions import bin_edges, distributions_data
from hallutrace.viewer.data.run import run_data
from hallutrace.viewer.data.trace_list import traces_data
from hallutrace.viewer.evaluations.verdict import probe_layers
from hallutrace.viewer.payload import pack, unpack
from hallutrace.viewer.viewed_run import ViewedRun
from viewed_pages import write_page

PAYLOADS = ("run", "distributions", "traces")


def made_run(folder: Path, count: int = 60, cut: int = 40) -> Path:
    """A run of which ``cut`` answers end by length, every fifth has no label."""
    rng = np.random.default_rng(3)
    traces = []
    for number in range(count):
        answer = int(rng.integers(1, 6))
        label = None if number % 5 == 4 else int(rng.random() < 0.4)
        traces.append(
            Made(
                causal_attention((2, 2, 6 + answer), rng),
                6,
                label,
                question=f"who was it, the {number}th?",
                group=f"g{number // 2}",
                logprob=-rng.exponential(1.0 + (label or 0), answer),
                token_entropy=rng.exponential(1.0, answer),
                eos=number >= cut,
            )
        )
    return write_run(folder / "run", traces)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_run(tmp_path_factory.mktemp("run-view"))


def test_the_payload_of_the_run_reads_no_shard(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    whole = run_data(ViewedRun(hallutrace.open(run)))
    for shard in (copy / "shards").glob("*.safetensors"):
        shard.unlink()
    found = run_data(ViewedRun(hallutrace.open(copy)))
    assert found == {**whole, "name": "copy"}
    assert unpack(pack(found)) == json.loads(json.dumps(found))


def test_labels_are_counted_with_those_that_have_none(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    file = copy / "labels" / "contains.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:50], ""]))  # ten traces have no row
    (copy / "labels" / "broken.jsonl").write_text("{}\n")
    found = run_data(ViewedRun(hallutrace.open(copy)))["label_counts"]
    values = Counter(json.loads(line)["label"] for line in lines[:50])
    counts = found["contains"]
    assert (counts["hallucinated"], counts["right"]) == (values[1], values[0])
    assert counts["dropped"] + counts["unjudged"] == values[None]
    assert counts["unlabelled"] == 10
    assert "line 1" in found["broken"]["problem"]


def test_failures_are_grouped_by_stage_and_kind(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    log = FailureLog(copy / "failures.jsonl")
    for number in range(3):
        log.add(Failure(f"x{number}", 0, 100 + number, "replay", f"RuntimeError: {number}"))
    log.add(Failure("long", None, 110, "prompt", "Expected fewer tokens"))
    log.add(Failure("q1", 0, 1, "replay", "RuntimeError: made good since"))
    found = run_data(ViewedRun(hallutrace.open(copy)))["failures"]
    assert found["total"] == 4
    first, second = found["kinds"]
    assert (first["stage"], first["kind"], first["count"]) == ("replay", "RuntimeError", 3)
    assert (first["id"], first["error"], first["retried"]) == ("x0", "RuntimeError: 0", True)
    assert (second["stage"], second["count"], second["retried"]) == ("prompt", 1, False)


def test_distributions_are_those_of_numpy(run: Path) -> None:
    viewed = ViewedRun(hallutrace.open(run))
    found, traces = distributions_data(viewed), traces_data(viewed)
    labels = traces["labels"]["contains"]
    store = hallutrace.open(run)
    assert (found["traces"], found["groups"]) == (60, len({trace.group for trace in store}))
    for quantity in found["quantities"]:
        values, edges = traces[quantity["name"]], quantity["edges"]
        assert quantity["all"].sum() + quantity["missing"] == 60
        inside = np.clip(values.astype(float), edges[0], edges[-1])
        np.testing.assert_array_equal(quantity["all"], np.histogram(inside, edges)[0])
        for row, label in enumerate((1, 0, -1)):
            chosen = labels == label
            expected = np.histogram(inside[chosen], edges)[0]
            np.testing.assert_array_equal(quantity["counts"]["contains"][row], expected)
            assert quantity["medians"]["contains"][row] == np.median(values[chosen])
        assert quantity["beyond"] == ((values < edges[0]) | (values > edges[-1])).sum()
    share = found["shares"]["contains"]
    decided = labels >= 0
    assert share["labelled"] == decided.sum() == 48
    assert share["share"] == (labels[decided] == 1).mean()
    assert share["low"] < share["share"] < share["high"]
    ends = found["finish_reasons"]
    assert dict(zip(ends["names"], ends["all"].tolist(), strict=True)) == {"eos": 20, "length": 40}
    assert ends["counts"]["contains"].sum() == 60
    assert ends["counts"]["contains"][2, 1] == (labels[:40] == -1).sum()


def test_edges_of_bins() -> None:
    whole = np.arange(1000, dtype=np.uint32)
    edges = bin_edges(whole)
    assert len(edges) <= 41 and edges[0] <= 0 and edges[-1] >= 999
    assert set(np.diff(edges)) == {edges[1] - edges[0]} and (edges[1] - edges[0]) % 1 == 0
    far = np.array([*np.linspace(0, 1, 500), 1e6])
    assert bin_edges(far)[-1] < 3
    assert bin_edges(np.ones(3)).tolist() == [0.5, 1.5]
    assert bin_edges(np.zeros(0)).tolist() == [0.0, 1.0]


def test_the_verdict_is_that_of_the_evaluation(demo_run: Path, demo_evaluation: Path) -> None:
    verdict = run_data(ViewedRun(hallutrace.open(demo_run), demo_evaluation))["evaluation"]
    content = json.loads((demo_evaluation / "evaluation.json").read_text())
    done = {row["label"]: row for row in content["detectors"] if row["status"] == "done"}
    ours = {
        name: row["auroc"]["value"]
        for name, row in done.items()
        if not row["is_control"] and row["edges_control_of"] is None
    }
    best = max(ours, key=lambda name: ours[name])
    assert verdict["best"] == {"label": best, **done[best]["auroc"]}
    control = content["best_control"]
    assert verdict["control"] == {"label": control, **done[control]["auroc"]}
    test = next(one for one in content["against_control"] if one["one"] == best)
    assert verdict["difference"] == test
    tests = [one for one in content["against_control"] if one["one"] in ours]
    assert verdict["tested"] == len(tests)
    above = [one["one"] for one in tests if one["value"] > 0 and one["p_corrected"] < 0.05]
    assert verdict["above"] == above
    notes = [note for fit in done["linear-probe"]["notes"][0] for note in fit]
    for one in verdict["layers"]:
        found = [
            float(note.split()[-1]) for note in notes if note.startswith(f"layer {one['layer']}:")
        ]
        assert one["auroc"] == pytest.approx(np.mean(found)) and len(found) == 2
    assert [one["layer"] for one in verdict["layers"]] == [0, 1, 2, 3]


def test_a_probe_that_was_not_fitted_says_nothing() -> None:
    assert probe_layers([{"name": "linear-probe", "status": "missing"}, {"name": "x"}]) == []


def test_a_damaged_evaluation_does_not_hide_the_run(run: Path, tmp_path: Path) -> None:
    evaluation = write_made_up(tmp_path / "evaluation", run, {"a": np.zeros(60)})
    (evaluation / "evaluation.json").write_text("{")
    found = run_data(ViewedRun(hallutrace.open(run), evaluation))
    assert found["traces"] == 60 and "Expected what `hallutrace" in found["evaluation"]["problem"]


# The page -----------------------------------------------------------------------------------------


def cards(page: Any) -> dict[str, str]:
    shown = page.locator(".asked > div")
    return {
        shown.nth(at).locator("h2").inner_text(): shown.nth(at).inner_text()
        for at in range(shown.count())
    }


def test_the_first_screen_answers_three_questions(
    demo_run: Path, demo_evaluation: Path, tmp_path: Path, opened: Any
) -> None:
    viewed = ViewedRun(hallutrace.open(demo_run), demo_evaluation)
    page = opened(write_page(viewed, tmp_path / "page.html", *PAYLOADS)).page
    shown = cards(page)
    labels = viewed.label_values("contains")
    share = distributions_data(viewed)["shares"]["contains"]
    text = shown["How much is hallucinated?"]
    assert f"{100 * (labels == 1).mean():.1f}%" in text
    assert f"{(labels == 1).sum()} of 60 labelled answers, by contains." in text
    assert f"{100 * share['low']:.1f}% to {100 * share['high']:.1f}%" in text
    verdict = run_data(viewed)["evaluation"]
    text = shown["Detected beyond the controls?"]
    assert ("Yes" if verdict["above"] else "No evidence") in text
    best, control = verdict["best"], verdict["control"]
    assert (
        f"{best['label']}, reaches AUROC {best['value']:.3f} [{best['low']:.3f}, "
        f"{best['high']:.3f}]; the best control, {control['label']}, reaches AUROC "
        f"{control['value']:.3f}"
    ) in text
    layer = max(verdict["layers"], key=lambda one: one["auroc"])
    text = shown["Where in the model does it show?"]
    assert f"Layer {layer['layer']}" in text and f"AUROC {layer['auroc']:.3f}" in text


def test_numbers_of_the_figures_are_those_of_the_payload(
    run: Path, tmp_path: Path, opened: Any
) -> None:
    viewed = ViewedRun(hallutrace.open(run))
    page = opened(write_page(viewed, tmp_path / "page.html", *PAYLOADS)).page
    for quantity in distributions_data(viewed)["quantities"]:
        figure = page.locator("figure", has_text=f"{quantity['title']} ({quantity['unit']})")
        figure.locator("summary").click()
        rows = figure.locator("tbody tr")
        rows.first.wait_for()  # they are made once the details are open
        read = [rows.nth(at).locator("td").all_inner_texts() for at in range(rows.count())]
        counts = np.array([[int(cell) for cell in row[2:]] for row in read])
        np.testing.assert_array_equal(counts.T, quantity["counts"]["contains"])
    assert "Most answers were cut: 40 of 60 (66.7%) ended by length" in page.inner_text("main")
    assert "12 answers (20.0%) have no label" in page.inner_text("main")
    assert "hallutrace evaluate RUN --label contains" in page.inner_text(".asked")


def test_all_traces_are_listed_filtered_and_opened(run: Path, tmp_path: Path, opened: Any) -> None:
    viewed = ViewedRun(hallutrace.open(run))
    found = traces_data(viewed)
    labels = found["labels"]["contains"]
    shown = opened(write_page(viewed, tmp_path / "page.html", *PAYLOADS))
    page = shown.page
    grid = page.get_by_role("grid", name="Traces of the run")
    assert grid.get_attribute("aria-rowcount") == "61"
    page.locator(".controls select").select_option("hallucinated")
    status = page.get_by_role("status")
    assert status.inner_text().startswith(f"{(labels == 1).sum()} traces of 60")
    page.get_by_role("searchbox").fill("the 1")
    expected = [at for at in range(60) if labels[at] == 1 and "the 1" in found["question"][at]]
    assert status.inner_text().startswith(f"{len(expected)} trace")
    assert "find=the+1" in page.evaluate("location.hash")
    grid.get_by_role("button", name="logprob").click()  # the largest first
    rows = grid.locator(".rows > div")
    order = sorted(expected, key=lambda at: -found["mean_logprob"][at])
    assert [
        re.sub(r"\s+", " ", one) for one in rows.locator("> div:nth-child(2)").all_inner_texts()
    ] == [found["question"][at] for at in order]
    rows.first.press("Enter")
    assert f"trace={found['key'][order[0]]}" in page.evaluate("location.hash")


def test_a_run_without_labels_or_traces(run: Path, tmp_path: Path, opened: Any) -> None:
    bare = Path(shutil.copytree(run, tmp_path / "bare"))
    shutil.rmtree(bare / "labels")
    page = opened(
        write_page(ViewedRun(hallutrace.open(bare)), tmp_path / "bare.html", *PAYLOADS)
    ).page
    assert "hallutrace label RUN --by contains" in page.inner_text(".asked")
    assert page.locator("figure svg.chart").count() == 5
    for file in (bare / "shards").iterdir():
        file.unlink()
    page = opened(
        write_page(ViewedRun(hallutrace.open(bare)), tmp_path / "empty.html", *PAYLOADS)
    ).page
    assert "This run has no traces yet." in page.inner_text("main")
