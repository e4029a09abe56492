"""The view of detectors: numbers of the page are those of the evaluation."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

import hallutrace
from browsers import Opened
from evaluations import FAILED, MISSING, REASON
from hallutrace.errors import DamagedError, InputError, NotInRunError
from hallutrace.viewer.data.detectors import detectors_data
from hallutrace.viewer.evaluations.content import EvaluationContent
from hallutrace.viewer.evaluations.files import EvaluationFiles
from hallutrace.viewer.evaluations.verdict import verdicts
from hallutrace.viewer.page import page
from hallutrace.viewer.providers import payload_of
from hallutrace.viewer.viewed_run import ViewedRun

GNN = "attention-gnn epochs=1 hidden_dim=8"


@pytest.fixture(scope="module")
def viewed(demo_run: Path, demo_evaluation: Path) -> ViewedRun:
    return ViewedRun(hallutrace.open(demo_run), demo_evaluation)


@pytest.fixture(scope="module")
def html(viewed: ViewedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of the run, its detectors and its traces."""
    payloads = [(name, payload_of(viewed, name, {})) for name in ("run", "detectors", "traces")]
    file = tmp_path_factory.mktemp("page") / "page.html"
    file.write_text("".join(page({"title": "demo", "served": False}, payloads)), "utf-8")
    return file


def test_rows_and_tests_are_those_of_the_evaluation(viewed: ViewedRun) -> None:
    found, written = detectors_data(viewed), viewed.evaluation_json
    assert [row["label"] for row in found["rows"]] == [one["label"] for one in written["detectors"]]
    for row, one in zip(found["rows"], written["detectors"], strict=True):
        assert row["status"] == one["status"] and row["control_of"] == one["edges_control_of"]
        if one["status"] != "done":
            assert row["reason"] == one["reason"]
            continue
        for name in ("auroc", "auprc", "tpr5", "tpr10", "ece"):
            assert row[name] == one[name]
        assert row["fit_seconds"] == written["timing"][row["label"]]["fit_seconds"]
    labels = [row["label"] for row in found["rows"]]
    for name, tests in (("pairs", written["pairs"]), ("edges", written["against_edges"])):
        assert [labels[at] for at in found[name]["one"]] == [one["one"] for one in tests]
        assert [labels[at] for at in found[name]["other"]] == [one["other"] for one in tests]
        assert found[name]["p"].tolist() == [one["p_corrected"] for one in tests]
        assert found[name]["low"].tolist() == [one["low"] for one in tests]
    assert found["about"]["relabelled"] == 0


def test_areas_are_those_of_scikit_learn(viewed: ViewedRun) -> None:
    table = viewed.evaluation_files.scores
    for label, curve in detectors_data(viewed)["curves"].items():
        scores = table.mean(label).astype(np.float32)
        assert curve["auroc"] == pytest.approx(roc_auc_score(table.labels, scores))
        assert curve["auprc"] == pytest.approx(average_precision_score(table.labels, scores))


def test_calibration_gives_the_error_of_the_table(viewed: ViewedRun) -> None:
    found = detectors_data(viewed)
    for row in (one for one in found["rows"] if one["status"] == "done" and one["seeds"] == 1):
        bins = found["curves"][row["label"]]["calibration"]
        gaps = np.nansum(bins["count"] * np.abs(bins["share"] - bins["risk"]))
        assert gaps / bins["count"].sum() == pytest.approx(row["ece"])


def test_changed_labels_are_counted(demo_run: Path, demo_evaluation: Path, tmp_path: Path) -> None:
    run = shutil.copytree(demo_run, tmp_path / "run")
    path = run / "labels" / "contains.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines[:3]:
        line["label"] = 1 - line["label"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = detectors_data(ViewedRun(hallutrace.open(run), demo_evaluation))
    assert found["about"]["relabelled"] == 3


def test_without_or_with_a_damaged_evaluation(
    demo_run: Path, demo_evaluation: Path, tmp_path: Path
) -> None:
    store = hallutrace.open(demo_run)
    with pytest.raises(NotInRunError, match="No evaluation is shown: `hallutrace evaluate RUN"):
        detectors_data(ViewedRun(store))
    folder = shutil.copytree(demo_evaluation, tmp_path / "evaluation")
    (folder / "scores.csv").write_text("id,sample\n")
    with pytest.raises(DamagedError, match=r"scores\.csv"):
        detectors_data(ViewedRun(store, folder))
    content = json.loads((folder / "evaluation.json").read_bytes())
    content["run"]["fingerprint"] = "0" * 16
    (folder / "evaluation.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="Expected an evaluation of the run"):
        detectors_data(ViewedRun(store, folder))


def _changed(viewed: ViewedRun, change: Callable[[dict[str, Any]], None]) -> EvaluationContent:
    content = json.loads(json.dumps(viewed.evaluation_json))
    change(content)
    return EvaluationContent.model_validate(content)


def test_verdicts_say_what_the_tests_found(viewed: ViewedRun) -> None:
    def clear(content: dict[str, Any]) -> None:
        for test in (*content["against_control"], *content["against_edges"]):
            test.update(value=0.1, low=0.05, high=0.15, p_corrected=0.001)

    def unclear(content: dict[str, Any]) -> None:
        clear(content)
        for test in (*content["against_control"], *content["against_edges"]):
            test.update(p_corrected=0.4)

    def alone(content: dict[str, Any]) -> None:
        content["detectors"] = [one for one in content["detectors"] if one["is_control"]]

    better, edges = verdicts(_changed(viewed, clear))
    assert "It is better than the control (+0.100 [+0.050, +0.150], p 0.001 after Holm" in better
    assert edges.endswith("the edges of attention add something.")
    same, edges = verdicts(_changed(viewed, unclear))
    assert "no difference that these 60 traces can show" in same and "p 0.4" in same
    assert edges.endswith("this does not show that the edges of attention add anything.")
    (only,) = verdicts(_changed(viewed, alone))
    assert only.startswith("The best control, ")

    def shuffled(content: dict[str, Any]) -> None:
        content["protocol"]["shuffle_labels"] = 0

    assert verdicts(_changed(viewed, shuffled))[0].startswith("Labels were shuffled")

    def failed(content: dict[str, Any]) -> None:
        content["detectors"] = [one for one in content["detectors"] if one["status"] != "done"]

    assert verdicts(_changed(viewed, failed)) == ["No detector has figures; the table says why."]


# In the browser -----------------------------------------------------------------------------------


@pytest.fixture
def shown(html: Path, opened: Any) -> Opened:
    found: Opened = opened(html)
    found.show(view="detectors")
    return found


def _row(shown: Opened, label: str) -> list[str]:
    cells = shown.page.locator(f'tr[data-label="{label}"] td')
    return [text.strip() for text in cells.all_inner_texts()]


def test_the_table_reads_back_as_it_was_written(shown: Opened, viewed: ViewedRun) -> None:
    for one in viewed.evaluation_json["detectors"]:
        cells = _row(shown, one["label"])
        if one["status"] != "done":
            word = "failed" if one["status"] == "failed" else "not applicable"
            assert cells == [f"{word}: {one['reason']}"]
            continue
        for cell, name in zip(cells, ("auroc", "auprc", "tpr5"), strict=False):
            expected = [one[name][part] for part in ("value", "low", "high")]
            assert cell == "{:.3f} [{:.3f}, {:.3f}]".format(*expected)
        assert cells[3] == f"{one['ece']:.3f}"
    assert _row(shown, FAILED) == [f"failed: {REASON}"]
    assert _row(shown, MISSING)[0].startswith("not applicable: ")
    text = shown.page.locator("main").inner_text()
    for sentence in verdicts(viewed.evaluation_files.content):
        assert sentence in text


def test_controls_stand_under_their_graph_model_however_it_is_sorted(shown: Opened) -> None:
    def labels() -> list[str]:
        rows = shown.page.locator("tr[data-label]")
        return [str(one.get_attribute("data-label")) for one in rows.all()]

    first = labels()
    for column in ("p", "ms", "auroc", "auroc"):
        shown.page.locator(f'button[data-key="{column}"]').click()
        found = labels()
        at = found.index(GNN)
        assert {*found[at + 1 : at + 3]} == {f"{GNN} edges=shuffled", f"{GNN} edges=none"}
        assert {*found[-2:]} == {FAILED, MISSING}
        assert sorted(found) == sorted(first)
    assert shown.page.evaluate("document.activeElement.dataset.key") == "auroc"


@pytest.mark.parametrize("preset", ["fpr5", "f1", "youden"])
def test_counts_at_a_threshold(shown: Opened, viewed: ViewedRun, preset: str) -> None:
    shown.show(detector=GNN)
    shown.page.locator(f'button[data-preset="{preset}"]').click()
    table, curve = viewed.evaluation_files.scores, detectors_data(viewed)["curves"][GNN]
    threshold = curve["thresholds"][curve["presets"][preset]]
    flagged = table.mean(GNN).astype(np.float32) >= threshold
    counts = [
        f"{int(np.sum(chosen & (table.labels == label)))}"
        for label in (1, 0)
        for chosen in (flagged, ~flagged)
    ]
    assert shown.page.locator(".counts td.number").all_inner_texts() == counts
    assert shown.page.locator(f'button[data-preset="{preset}"]').get_attribute("aria-pressed") == (
        "true"
    )


def test_the_slider_moves_by_keys_and_keeps_the_focus(shown: Opened, viewed: ViewedRun) -> None:
    shown.show(detector="perplexity", detectors_at="0")
    slider = shown.page.locator("input.threshold")
    slider.focus()
    for _ in range(3):
        slider.press("ArrowRight")
    curve = detectors_data(viewed)["curves"]["perplexity"]
    found = shown.page.locator(".counts td.number").all_inner_texts()
    assert (found[0], found[2]) == (str(curve["hits"][3]), str(curve["alarms"][3]))
    assert slider.evaluate("one => one === document.activeElement")
    assert "detectors_at=3" in shown.page.evaluate("location.hash")


def test_where_two_disagree_is_counted_and_opens_traces(shown: Opened, viewed: ViewedRun) -> None:
    shown.show(detector="perplexity", detectors_other="length", detectors_at="f1")
    shown.page.wait_for_timeout(200)
    shown.settled()
    curves, table = detectors_data(viewed)["curves"], viewed.evaluation_files.scores
    flags = []
    for label in ("perplexity", "length"):
        threshold = curves[label]["thresholds"][curves[label]["presets"]["f1"]]
        flags.append(table.mean(label).astype(np.float32) >= threshold)
    one, other = flags
    expected = [
        str(int((chosen & (table.labels == label)).sum()))
        for label in (1, 0)
        for chosen in (one & other, one & ~other, ~one & other, ~one & ~other)
    ]
    place = shown.page.locator('[data-part="disagree"]')
    assert place.locator(".crossed td.number").all_inner_texts() == expected
    assert f"disagree on {int((one != other).sum())} of 60 traces" in place.inner_text()
    place.locator(".virtual .openable").first.press("Enter")
    key = shown.page.evaluate("new URLSearchParams(location.hash.slice(1)).get('trace')")
    at = viewed.position(key)
    row = table.keys.index(viewed.store.keys()[at])
    assert one[row] != other[row]


def test_differences_are_those_of_the_pairs(shown: Opened, viewed: ViewedRun) -> None:
    shown.show(detector="perplexity")
    place = shown.page.locator('[data-part="pairs"]')
    place.locator("summary").click()
    rows = [one.split("\t") for one in place.locator("tbody tr").all_inner_texts()]
    expected = {}
    for test in viewed.evaluation_json["pairs"]:
        if "perplexity" in (test["one"], test["other"]):
            sign = 1 if test["one"] == "perplexity" else -1
            other = test["other"] if sign == 1 else test["one"]
            expected[other] = sign * test["value"]
    assert {row[0] for row in rows} == set(expected)
    for row in rows:
        assert float(row[1]) == pytest.approx(expected[row[0]], abs=1e-3)


def test_compared_detectors_are_in_the_address(shown: Opened) -> None:
    shown.page.get_by_label("compare min-logprob").check()
    legend = shown.page.locator('[data-part="curves"] figure').first.inner_text()
    assert "min-logprob" in legend
    assert "min-logprob" in shown.page.evaluate("decodeURIComponent(location.hash)")


def test_a_page_without_traces_says_what_is_missing(
    viewed: ViewedRun, tmp_path: Path, opened: Any
) -> None:
    file = tmp_path / "page.html"
    payloads = [("detectors", payload_of(viewed, "detectors", {}))]
    file.write_text("".join(page({"title": "t", "served": False}, payloads)), "utf-8")
    shown = opened(file)
    shown.show(view="detectors")
    told = shown.page.locator('[data-part="disagree"] .problem').inner_text()
    assert "`hallutrace explore` shows them" in told
    assert shown.page.locator("svg.chart").count() == 6


def test_an_evaluation_without_curves_shows_the_rest(
    demo_run: Path, demo_evaluation: Path, tmp_path: Path, opened: Any
) -> None:
    folder = shutil.copytree(demo_evaluation, tmp_path / "evaluation")
    content = json.loads((folder / "evaluation.json").read_bytes())
    for row in content["detectors"]:
        row.pop("calibration", None)
    (folder / "evaluation.json").write_text(json.dumps(content))
    assert EvaluationFiles.read(folder).content.done[0].calibration is None
    viewed = ViewedRun(hallutrace.open(demo_run), folder)
    file = tmp_path / "page.html"
    payloads = [("detectors", payload_of(viewed, "detectors", {}))]
    file.write_text("".join(page({"title": "t", "served": False}, payloads)), "utf-8")
    shown = opened(file)
    shown.show(view="detectors")
    assert "with --overwrite does" in shown.page.locator('[data-part="scores"]').inner_text()
