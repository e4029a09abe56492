"""What runs, traces, evaluations and edge lists show in a notebook, without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hallutrace
from hallutrace.errors import InputError
from hallutrace.viewer.edges_picture import CELLS, edges_picture
from hallutrace.viewer.notebook import view


def framed(value: Any, file: Path) -> Path:
    """A notebook's page with a cell that shows a value, as nbconvert writes it."""
    html = value._repr_html_()
    file.write_text(f"<!doctype html><html data-ready='true'><body>{html}</body></html>", "utf-8")
    return file


@pytest.mark.parametrize("which", ["run", "trace"])
def test_a_frame_shows_the_page(which: str, demo_run: Path, tmp_path: Path, opened: Any) -> None:
    store = hallutrace.open(demo_run)
    value: Any = store if which == "run" else store[3]
    shown = opened(framed(value, tmp_path / "notebook.html"))
    frame = shown.page.frame_locator("iframe")
    frame.locator("nav a[aria-current]").wait_for()
    assert frame.locator("h1").inner_text() == (demo_run.name if which == "run" else store[3].id)
    if which == "trace":
        frame.get_by_text(store[3].question).first.wait_for()


def test_a_trace_of_no_run_shows_itself(tmp_path: Path, opened: Any) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from hallutrace.demo import MODEL_FOLDER

    model = AutoModelForCausalLM.from_pretrained(MODEL_FOLDER)
    tokenizer = AutoTokenizer.from_pretrained(MODEL_FOLDER)
    prompt = "Question: Where was Ada Berg born?\nAnswer:"
    (trace,) = hallutrace.trace(model, tokenizer, [prompt], [" Oslo"])
    shown = opened(framed(trace, tmp_path / "notebook.html"))
    frame = shown.page.frame_locator("iframe")
    frame.get_by_text("Oslo").first.wait_for()


def test_an_edge_list_is_a_raster_of_its_largest_weights() -> None:
    rng = np.random.default_rng(0)
    edges = hallutrace.sparsify(rng.random((2, 300, 300), dtype=np.float32), top_k=3)
    text = edges_picture(edges)
    step = -(-300 // CELLS)
    cells = {
        (query // step, key // step)
        for query, key in zip(edges.queries.tolist(), edges.keys.tolist(), strict=True)
    }
    assert text.count("<rect") == len(cells) + 1
    assert f"{len(edges):,} edges" in text and edges._repr_html_().startswith("<iframe")


def test_a_page_is_saved_as_a_file(demo_run: Path, tmp_path: Path, opened: Any) -> None:
    view(hallutrace.open(demo_run)[0]).save(tmp_path / "trace.html")
    shown = opened(tmp_path / "trace.html")
    assert shown.page.locator("nav a").all_inner_texts() == ["Trace"]


def test_what_cannot_be_shown_is_refused() -> None:
    with pytest.raises(InputError, match="got int"):
        view(3)
