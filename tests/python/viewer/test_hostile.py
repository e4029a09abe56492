"""A hostile run harms no page, picture, notebook, file or terminal that shows it."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import hallutrace
from explorers import served
from hallutrace.viewer.explorer.catalog import run_id
from hallutrace.viewer.figures.drawing import FigureRequest
from hallutrace.viewer.figures.registry import make_figure
from hallutrace.viewer.report.report import write_report
from hallutrace.viewer.viewed_run import ViewedRun
from hostile_runs import hostile_run, megabyte_run
from hostile_texts import assert_harmless

IMAGE = "<img src=x onerror=window.harmed=1>"
NAME = f"\u202egnp\x1b[31m\x1b]0;harmed\x07[red]{IMAGE}"
# Elements of matplotlib's SVG: shapes, texts, and what they say of themselves.
INERT = {
    *("svg", "g", "defs", "path", "use", "text", "tspan", "clipPath", "rect", "style", "metadata"),
    *("image", "title", "RDF", "Work", "type", "date", "format", "creator", "Agent"),
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hostile run in a folder with a hostile name; nobody may change it."""
    folder = tmp_path_factory.mktemp("hostile") / "runs"
    folder.mkdir()
    return hostile_run(folder / NAME)


def assert_unharmed(shown: Any, view: str) -> None:
    """The page shows texts as texts, runs its own script alone, and is not widened by them."""
    assert shown.page.evaluate("window.harmed") is None
    assert not shown.page.locator("img, main iframe, main script").count()
    width = shown.page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert width <= 0, f"{view} is wider than the window"


@pytest.mark.parametrize("which", ["hostile", "megabyte"])
def test_no_view_runs_what_it_shows(which: str, hostile: Path, tmp_path: Path, opened: Any) -> None:
    run = hostile if which == "hostile" else megabyte_run(tmp_path / "run")
    out = tmp_path / "report.html"
    write_report(ViewedRun(hallutrace.open(run)), out)
    shown = opened(out)
    titles = shown.page.locator("nav a").all_inner_texts()
    assert titles
    for title in titles:
        shown.page.get_by_role("link", name=title, exact=True).first.click()
        shown.settled()
        assert_unharmed(shown, title)
        assert shown.page.evaluate("document.scripts.length") == shown.page.evaluate(
            "document.querySelectorAll('script[data-key], #settings, script[type=module]').length"
        )


def explored(hostile: Path, folder: Path) -> Path:
    """A folder with the run, and labels, an evaluation and a detector with hostile names."""
    run = Path(shutil.copytree(hostile, folder / "runs" / hostile.name))
    (run / "labels" / f"{IMAGE}.jsonl").write_text("")
    fingerprint = hallutrace.open(run).manifest.fingerprint
    evaluation = {
        "run": {"fingerprint": fingerprint, "label": {"name": IMAGE}},
        "detectors": [{"label": IMAGE, "status": "done", "auroc": {"value": 0.9}}],
    }
    detector = {"fingerprint": fingerprint, "detector": {"name": IMAGE}, "identity": {}}
    for name, content in (("evaluation", evaluation), ("training", detector)):
        (folder / "runs" / name).mkdir()
        (folder / "runs" / name / f"{name}.json").write_text(json.dumps(content))
    return run


def test_no_view_of_the_explorer_runs_what_it_shows(
    hostile: Path, tmp_path: Path, opened: Any
) -> None:
    run = explored(hostile, tmp_path)
    keys = ViewedRun(hallutrace.open(run)).key_texts
    with served(run.parent) as address:
        shown = opened(f"{address}#view=runs")
        assert IMAGE in shown.page.locator(".virtual").inner_text()
        shown.show(run=run_id(run), view="run", trace=keys[1])
        titles = shown.page.locator("nav a").all_inner_texts()
        assert len(titles) == 10
        for title in titles:
            shown.page.get_by_role("link", name=title, exact=True).first.click()
            shown.settled()
            assert_unharmed(shown, title)
        for key in keys[:4]:
            shown.show(view="trace", trace=key)
            assert_unharmed(shown, key)
        shown.show(view="ask")
        shown.page.get_by_label("Question", exact=True).fill(f"{IMAGE} who?")
        shown.page.get_by_label("scored by").select_option("")
        shown.page.get_by_role("button", name="Ask").click()
        shown.page.get_by_text("of a run of existing answers").wait_for(timeout=60_000)
        assert_unharmed(shown, "ask")
        shown.page.close()
        # What the run does not have is a 404, which Chromium tells in its console.
        shown.errors[:] = [one for one in shown.errors if "Failed to load resource" not in one]


def test_a_notebook_runs_nothing_of_a_trace(hostile: Path, tmp_path: Path, opened: Any) -> None:
    store = hallutrace.open(hostile)
    cells = "".join(f"<div>{one._repr_html_()}</div>" for one in (store, store[0], store[1]))
    file = tmp_path / "notebook.html"
    file.write_text(f"<!doctype html><html data-ready='1'><body>{cells}</body></html>", "utf-8")
    shown = opened(file)
    for number in range(3):
        frame = shown.page.frame_locator("iframe").nth(number)
        frame.locator("nav a[aria-current]").wait_for()
        assert not frame.locator("img").count()
    frames = [shown.page.main_frame, *shown.page.main_frame.child_frames]
    assert [frame.evaluate("window.harmed") for frame in frames] == [None] * 4


def test_a_picture_is_inert(hostile: Path, tmp_path: Path, opened: Any) -> None:
    viewed = ViewedRun(hallutrace.open(hostile))
    wanted = [("attention-graph", {"trace": key}) for key in viewed.key_texts[:2]]
    pictures = []
    for name, options in [*wanted, ("map", {}), ("layers-heads", {})]:
        figure = make_figure(name, FigureRequest(viewed, **options))
        assert_harmless(figure.caption)
        assert_harmless(figure.csv().replace("\r\n", "\n"))
        pictures.append(figure.picture("svg").decode())
        for element in ElementTree.fromstring(pictures[-1]).iter():
            assert element.tag.rpartition("}")[2] in INERT
            for name, value in element.attrib.items():
                assert not name.lower().startswith("on")
                assert "href" not in name or value.startswith(("#", "data:image/png;base64,"))
    file = tmp_path / "pictures.html"
    body = "".join(one[one.index("<svg") :] for one in pictures)
    file.write_text(f"<!doctype html><html data-ready='1'><body>{body}</body></html>", "utf-8")
    assert opened(file).page.evaluate("window.harmed") is None


def test_markdown_is_text_in_every_dialect(hostile: Path, tmp_path: Path, opened: Any) -> None:
    out = tmp_path / "report.md"
    write_report(ViewedRun(hallutrace.open(hostile)), out, "md")
    text = out.read_text("utf-8")
    assert_harmless(text)
    assert not {"<", ">"} & set(text)
    markdown = pytest.importorskip("markdown")
    file = tmp_path / "report.html"
    body = markdown.markdown(text, extensions=["tables"])
    file.write_text(f"<!doctype html><html data-ready='1'><body>{body}</body></html>", "utf-8")
    page = opened(file).page
    assert page.evaluate("window.harmed") is None
    assert not page.locator("img, script, a, svg").count()
    assert IMAGE in page.locator("h1").inner_text()


def test_csv_is_no_formula_and_steers_no_terminal(hostile: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.csv"
    write_report(ViewedRun(hallutrace.open(hostile)), out, "csv")
    rows = list(csv.DictReader(io.StringIO(out.read_bytes().decode())))
    assert len(rows) == len(hallutrace.open(hostile))
    assert any(row["question"].startswith("'=HYPERLINK") for row in rows)
    for row in rows:
        for name in ("key", "question", "answer"):
            assert not row[name].startswith(("=", "+", "-", "@"))
    assert_harmless(out.read_bytes().decode().replace("\r\n", "\n"))


def test_names_and_texts_steer_no_terminal(
    hostile: Path,
    tmp_path: Path,
    command: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / NAME).mkdir()
    for code, *arguments in (
        (0, "report", hostile),
        (0, "report", hostile, "--format", "csv"),
        (0, "project", hostile),
        (0, "figure", "attention-graph", hostile),
        (2, "figure", "attention-graph", hostile, "--trace", NAME),
        (2, "figure", "roc", hostile),
        (2, "report", hostile, "--evaluation", tmp_path / NAME),
        (2, "report", tmp_path / NAME),
        (2, "project", tmp_path / NAME / NAME),
        (2, "explore", tmp_path / NAME),
        (2, "explore", tmp_path / NAME / NAME),
    ):
        found, out, errors = command(*arguments)
        assert found == code, errors
        assert_harmless(out + errors)
        assert "Traceback" not in errors
