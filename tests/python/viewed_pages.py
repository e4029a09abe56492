"""Pages of some payloads of a run, to read back what they show."""

from __future__ import annotations

from pathlib import Path

from hallutrace.viewer.page import page
from hallutrace.viewer.providers import key_of, payload_of
from hallutrace.viewer.viewed_run import ViewedRun


def write_page(viewed: ViewedRun, file: Path, *names: str) -> Path:
    """Writes a page that carries these payloads."""
    payloads = [(key_of(name), payload_of(viewed, name, {})) for name in names]
    settings = {"title": "a run", "served": False}
    file.write_text("".join(page(settings, payloads)), "utf-8")
    return file
