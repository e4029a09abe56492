"""`hallutrace merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hallutrace.commands.common_options import NewRun
from hallutrace.commands.console import OUT, plain
from hallutrace.paths import expanded


def run_merge(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of runs; their traces follow each other in this order.",
            metavar="RUN...",
            parser=expanded,
        ),
    ],
    out: NewRun,
    force_differing: Annotated[
        list[str] | None,
        typer.Option(
            help="A setting in which the runs may differ, such as batch_size; may be given several "
            "times (default: none).",
            metavar="FIELD",
        ),
    ] = None,
) -> None:
    """Make one run of several that differ only in their questions.

    Shards are linked, not copied, where the file system allows it.
    """
    from hallutrace.store.merge import merge
    from hallutrace.store.reader import open_run

    merged = merge(runs, out, force_differing=force_differing or [])
    OUT.print(plain(str(merged)))
    there = {name for run in runs for name in open_run(run).labels()}
    if left := sorted(there - set(merged.labels())):
        OUT.print(
            f"  labels left out, as not all runs have them, made in the same way: "
            f"{plain(', '.join(left))}"
        )
