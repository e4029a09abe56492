"""The report of a run: one HTML file that opens anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hallutrace import atomic_files
from hallutrace.atomic_files import storage_errors
from hallutrace.errors import NotInRunError
from hallutrace.view.data import layers
from hallutrace.view.page import page
from hallutrace.view.providers import key_of, payload_of
from hallutrace.view.viewed_run import ViewedRun

FOOTER = (
    "Attention says where a model looked, not why it answered: read no weight here as an "
    "explanation. Whether attention tells anything about hallucination is what the controls with "
    "shuffled and without edges show."
)


def write_report(viewed: ViewedRun, out: Path) -> None:
    """Writes the report; a file that is there is replaced.

    Args:
        viewed: the run, with what was made from it.
        out: of the HTML file.

    Raises:
        StorageError: the file cannot be written.

    Examples:
        >>> write_report(ViewedRun(hallutrace.open(run)), folder / "report.html")
        >>> (folder / "report.html").read_text("utf-8").startswith("<!doctype html>")
        True
    """
    name = viewed.store.folder.resolve().name
    pieces = page({"title": name, "served": False, "footer": FOOTER}, _payloads(viewed))
    with storage_errors(f"write {out}", "choose another --out"):
        atomic_files.write(out, "".join(pieces).encode("utf-8"))


def _payloads(viewed: ViewedRun) -> Iterator[tuple[str, bytes]]:
    """Key and payload of all that the page carries; what the run does not have is left out."""
    names: list[tuple[str, dict[str, str]]] = [("run", {}), *layers.report_keys(viewed)]
    for name, parameters in names:
        try:
            yield key_of(name, parameters), payload_of(viewed, name, parameters)
        except NotInRunError:
            continue
