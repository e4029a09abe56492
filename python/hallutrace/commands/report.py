"""`hallutrace report`: a page of a run that opens anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hallutrace.commands.common_options import Plugins, RunFolder, choices
from hallutrace.commands.console import ERR, OUT, bytes_text, plain
from hallutrace.errors import InputError
from hallutrace.paths import expanded


def run_report(
    run: RunFolder,
    evaluation: Annotated[
        Path | None,
        typer.Option(
            help="Folder of an evaluation of this run (default: the newest of it that is found in "
            "evaluations/ here or beside the run).",
            metavar="DIR",
            parser=expanded,
        ),
    ] = None,
    detector: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a saved detector, whose risk by token is shown (default: the newest "
            "that was trained on this run and is found in detectors/ here or beside the run).",
            metavar="DIR",
            parser=expanded,
        ),
    ] = None,
    format: Annotated[
        str,
        typer.Option(
            help="Form of the report. html: a page; md: a summary to read; json: all data of the "
            "page; csv: a row for each trace.",
            **choices("html", "md", "json", "csv"),
        ),
    ] = "html",
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write (default: RUN.html, or with the ending of --format).",
            metavar="FILE",
            parser=expanded,
        ),
    ] = None,
    pdf: Annotated[
        Path | None,
        typer.Option(
            help="Print the page to this file too, with a Chromium of this machine (default: do "
            "not).",
            metavar="FILE",
            parser=expanded,
        ),
    ] = None,
    plugins: Plugins = None,
) -> None:
    """Write what a run shows as one file that needs no network and no other file.

    The page has the run, layers and heads, single traces, a map of hidden states, detectors and
    errors, as far as the run has them. A report that is there is replaced.
    """
    from hallutrace.store.reader import open_run
    from hallutrace.viewer.evaluations.discovery import find_for
    from hallutrace.viewer.report.pdf import find_chromium, print_to_pdf
    from hallutrace.viewer.report.report import FORMATS, write_report
    from hallutrace.viewer.viewed_run import ViewedRun

    if format not in FORMATS:
        raise InputError(f"Expected one of {', '.join(FORMATS)}, got {format!r} - change --format")
    if pdf is not None:
        if format != "html":
            raise InputError(f"Expected --format html with --pdf, got {format} - change one")
        find_chromium()
    store = open_run(run)
    given = ([evaluation] if evaluation else [], [detector] if detector else [])
    found = find_for(store, evaluations=given[0], detectors=given[1])
    chosen = next((one.folder for one in found.evaluations if evaluation or not one.is_check), None)
    saved = next((one.folder for one in found.detectors if one.is_done), None)
    for name, folder, command in (
        ("Evaluation", chosen, "evaluate"),
        ("Detector", saved, "train"),
    ):
        hint = f"none found; `hallutrace {command} ...` makes one"
        ERR.print(plain(f"{name}: {folder or hint}"), highlight=False)
    file = out or Path(f"{run.resolve().name}.{format}")
    with ERR.status("Reading the run ..."):
        notes = write_report(ViewedRun(store, chosen, saved), file, format)
    for line in (*found.skipped, *notes):
        ERR.print(plain(line), highlight=False)
    OUT.print(plain(f"{file} ({bytes_text(file.stat().st_size)})"), highlight=False)
    if pdf is not None:
        with ERR.status("Printing ..."):
            print_to_pdf(file, pdf)
        OUT.print(plain(f"{pdf} ({bytes_text(pdf.stat().st_size)})"), highlight=False)
