"""The report of a run: one file, as a page or in other formats."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from hallutrace import atomic_files
from hallutrace.atomic_files import storage_errors
from hallutrace.choices import ReportFormat
from hallutrace.option_names import parameter
from hallutrace.viewer.report.content import Limits, Report
from hallutrace.viewer.report.formats import to_csv, to_html, to_json
from hallutrace.viewer.report.text import to_markdown
from hallutrace.viewer.viewed_run import ViewedRun

FORMATS: dict[ReportFormat, Callable[[Report], Iterator[bytes]]] = {
    "html": to_html,
    "md": to_markdown,
    "json": to_json,
    "csv": to_csv,
}


def write_report(
    viewed: ViewedRun, out: Path, format: ReportFormat = "html", limits: Limits | None = None
) -> list[str]:
    """Writes the report; a file that is there is replaced.

    Args:
        viewed: the run, with what was made from it.
        out: the file.
        format: one of :data:`FORMATS`.
        limits: how much of the run it carries.

    Returns:
        Sentences on what it does not carry.

    Raises:
        DamagedError: a label file or the evaluation is damaged.
        InputError: the evaluation is of another run.
        StorageError: the file cannot be written.

    Examples:
        >>> write_report(ViewedRun(hallutrace.open(run)), folder / "report.html")
        []
        >>> (folder / "report.html").read_text("utf-8").startswith("<!doctype html>")
        True
    """
    report = Report(viewed, limits or Limits())
    with storage_errors(f"write {out}", f"choose another {parameter('out')}"):
        atomic_files.write_pieces(out, FORMATS[format](report))
    return report.notes
