"""The notebooks of the documentation, executed from top to bottom by a Jupyter kernel."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.py"))
_CELL = re.compile(r"^# %%(.*)\n", re.MULTILINE)


def cells_of(script: str) -> list[tuple[bool, str]]:
    """The cells of a script in percent format: whether it is text, and what is in it."""
    parts = _CELL.split(script)[1:]
    return [
        ("[markdown]" in kind, content)
        for kind, content in zip(parts[::2], parts[1::2], strict=True)
    ]


def test_there_are_notebooks_and_each_begins_with_a_title() -> None:
    assert len(NOTEBOOKS) >= 4
    for path in NOTEBOOKS:
        is_text, content = cells_of(path.read_text(encoding="utf-8"))[0]
        assert is_text and content.startswith("# # "), path


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    if "matplotlib" in path.read_text(encoding="utf-8"):
        pytest.importorskip("matplotlib")
    version = nbformat.v4
    notebook = version.new_notebook(
        cells=[
            version.new_markdown_cell(re.sub(r"^# ?", "", content, flags=re.MULTILINE))
            if is_text
            else version.new_code_cell(content)
            for is_text, content in cells_of(path.read_text(encoding="utf-8"))
        ]
    )
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
