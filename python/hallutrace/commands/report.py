"""`hallutrace report`: a page of a run that opens anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hallutrace.commands.common_options import RunFolder
from hallutrace.commands.console import OUT, plain
from hallutrace.paths import expanded


def run_report(
    run: RunFolder,
    evaluation: Annotated[
        Path | None,
        typer.Option(
            help="Folder of an evaluation of this run (default: none).",
            metavar="DIR",
            parser=expanded,
        ),
    ] = None,
    detector: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a saved detector whose scores are shown (default: none).",
            metavar="DIR",
            parser=expanded,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File to write (default: RUN.html).", metavar="FILE", parser=expanded),
    ] = None,
) -> None:
    """Write what a run shows as one HTML file that needs no network and no other file."""
    from hallutrace.store.reader import open_run
    from hallutrace.view.report import write_report
    from hallutrace.view.viewed_run import ViewedRun

    file = out or Path(f"{run.resolve().name}.html")
    write_report(ViewedRun(open_run(run), evaluation, detector), file)
    OUT.print(plain(f"{file} ({file.stat().st_size / 1e6:.1f} MB)"), highlight=False)
