"""The view of layers and heads in a real browser: its numbers, keys, links."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hallutrace
from browsers import Opened
from hallutrace.viewer.data.layers import layers_data, report_keys
from hallutrace.viewer.page import page
from hallutrace.viewer.providers import key_of, payload_of
from hallutrace.viewer.viewed_run import ViewedRun

Open = Callable[..., Opened]


def write_page(viewed: ViewedRun, out: Path, traces: list[str]) -> Path:
    """A page with this view alone."""
    keys = [*report_keys(viewed, traces), ("traces", {})]
    payloads = [(key_of(name, given), payload_of(viewed, name, given)) for name, given in keys]
    out.write_text("".join(page({"title": "run"}, payloads)), "utf-8")
    return out


@pytest.fixture(scope="module")
def viewed(demo_run: Path) -> ViewedRun:
    return ViewedRun(hallutrace.open(demo_run))


@pytest.fixture(scope="module")
def file(viewed: ViewedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(viewed, tmp_path_factory.mktemp("layers") / "page.html", viewed.key_texts[:2])


def table(opened: Any) -> list[list[str]]:
    """The numbers behind the first figure."""
    details = opened.page.locator("details.numbers").first
    if not details.evaluate("one => one.open"):
        details.locator("summary").click()
    rows = details.locator("tbody tr")
    rows.first.wait_for()  # a browser tells of the opening a moment later
    return [row.locator("td").all_inner_texts() for row in rows.all()]


def test_the_numbers_are_those_of_the_payload(file: Path, viewed: ViewedRun, opened: Open) -> None:
    shown = opened(file)
    data = layers_data(viewed, marginal="entropy", label="contains")
    rows = table(shown)
    assert len(rows) == 32
    names = ["mean", "deviation", "mean_hallucinated", "mean_right", "difference", "low", "high"]
    for row in rows:
        layer, head = int(row[0]), int(row[1])
        for name, text in zip([*names, "corrected", "auroc"], row[2:], strict=True):
            assert float(text) == pytest.approx(float(data[name][layer, head]), rel=1e-3), name
    marked = int((data["corrected"] < 0.05).sum())
    assert shown.page.locator(".headgrid path, .headgrid circle").count() == marked
    assert f"{marked} of 32 heads differ" in shown.page.locator("figcaption").first.inner_text()


def test_the_mean_of_the_run_is_numpys(file: Path, viewed: ViewedRun, opened: Open) -> None:
    shown = opened(file)
    shown.show(shown="mean", marginal="value-norm")
    values = [trace.marginals.value_norm.mean(axis=2) for trace in viewed.store]
    expected = np.mean(values, axis=0)
    rows = table(shown)
    assert len(rows) == expected.size
    for row in rows:
        assert float(row[2]) == pytest.approx(float(expected[int(row[0]), int(row[1])]), rel=1e-3)
    assert "mean over all tokens" in shown.page.locator("figcaption").first.inner_text()


def test_keys_move_and_open(file: Path, opened: Open) -> None:
    shown = opened(file)
    shown.page.locator("[data-cell='0']").focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowUp", "ArrowLeft", "End"):
        shown.page.keyboard.press(key)
    assert "Layer 0, head 7" in shown.page.locator(".readout").inner_text()
    shown.page.keyboard.press("ArrowRight")  # there is no further head
    shown.page.keyboard.press("Enter")
    shown.settled()
    assert shown.page.locator("h2").inner_text() == "Head 7 of layer 0"
    assert "layer=0" in shown.page.url and "head=7" in shown.page.url
    assert shown.page.evaluate("document.activeElement.dataset.cell") == "7"
    assert shown.page.locator("[aria-selected='true']").count() == 1


def test_a_head_leads_to_traces(file: Path, viewed: ViewedRun, opened: Open) -> None:
    shown = opened(file)
    shown.page.locator("[data-cell='13']").click()
    shown.settled()
    values = viewed.head_tables.table("entropy").values[:, 1, 5]
    highest = shown.page.locator("figure", has_text="Where it is highest")
    first = highest.locator("tbody tr").first
    position = int(values.argmax())
    cells = first.locator("td").all_inner_texts()
    assert cells[0] == viewed.key_texts[position]
    assert cells[2] == viewed.store[position].question
    assert float(cells[4]) == pytest.approx(float(values.max()), rel=1e-3)
    first.locator("a").click()
    assert (
        f"trace={viewed.key_texts[position]}" in shown.page.url and "view=trace" in shown.page.url
    )


def test_the_histogram_counts_all_traces(file: Path, viewed: ViewedRun, opened: Open) -> None:
    shown = opened(file)
    shown.show(layer=2, head=3)
    details = shown.page.locator("section section details").first
    details.locator("summary").click()
    details.locator("tbody tr").first.wait_for()
    rows = [one.locator("td").all_inner_texts() for one in details.locator("tbody tr").all()]
    labels = viewed.label_values("contains")
    counts = np.array([[float(cell) for cell in row[2:]] for row in rows]).sum(0)
    assert counts.tolist() == [(labels == 1).sum(), (labels == 0).sum()]


def test_one_trace_is_shown_among_the_others(file: Path, viewed: ViewedRun, opened: Open) -> None:
    shown = opened(file)
    shown.show(shown="trace", trace=viewed.key_texts[1])
    title = shown.page.locator("figcaption h3").first.inner_text()
    assert viewed.key_texts[1] in title
    value = viewed.head_tables.table("entropy").values[1, 0, 0]
    assert float(table(shown)[0][2]) == pytest.approx(float(value), rel=1e-3)
    # One that the page does not carry: the first that it does is shown.
    shown.show(trace=viewed.key_texts[40])
    assert viewed.key_texts[0] in shown.page.locator("figcaption h3").first.inner_text()


def test_a_control_keeps_the_focus(file: Path, opened: Open) -> None:
    shown = opened(file)
    select = shown.page.locator("select[data-state='marginal']")
    select.focus()
    select.select_option("square")
    shown.settled()
    assert shown.page.evaluate("document.activeElement.tagName") == "SELECT"
    assert "Sum of squared" in shown.page.locator("figcaption h3").first.inner_text()


def test_a_head_that_is_not_there_is_told(file: Path, opened: Open) -> None:
    shown = opened(file)
    shown.show(layer=7, head=1)
    assert "no layer 7 with a head 1" in shown.page.locator(".problem").inner_text()


def test_a_run_without_labels_shows_its_means(
    viewed: ViewedRun, tmp_path: Path, opened: Open
) -> None:
    bare = ViewedRun(viewed.store)
    bare.__dict__["labels"] = []  # a cached property
    shown = opened(write_page(bare, tmp_path / "page.html", []))
    assert "mean of the run" in shown.page.locator(".headgrid").text_content()
    shown.page.locator("[data-cell='0']").click()
    shown.settled()
    assert "60 without a label" in shown.page.locator("section section").inner_text()


def test_no_rule_of_accessibility_is_broken(file: Path, opened: Open) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    shown = opened(file, bypass_csp=True)  # axe is a script of its own
    shown.show(layer=1, head=1)
    found = axe.Axe().run(shown.page)
    serious = [
        one for one in found.response["violations"] if one["impact"] in ("serious", "critical")
    ]
    assert not serious, [(one["id"], one["nodes"][0]["html"]) for one in serious]


def test_a_change_before_the_view_is_drawn_draws_it(file: Path, opened: Open) -> None:
    shown = opened(file)
    done = shown.page.evaluate(
        """() => hallutrace["registry.js"].allViews().find((one) => one.id === "layers")
          .render({ source: { get: () => Promise.reject(new Error("gone")) } })
          .catch(() => hallutrace["registry.js"].allViews().find((one) => one.id === "layers")
            .update({ marginal: "square" }, {}))"""
    )
    assert done is False  # the page then renders anew
