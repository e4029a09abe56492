"""`hallutrace verify`."""

from __future__ import annotations

from typing import Annotated

import typer

from hallutrace.commands.common_options import AsJson, RunFolder
from hallutrace.commands.console import OUT, followed, plain, print_json, styled


def run_verify(
    run: RunFolder,
    fast: Annotated[
        bool,
        typer.Option(
            "--fast", help="Check headers and sizes only, instead of checksums and all data."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check every byte of a run.

    Exit code 0 if the run is whole, 1 if a shard is damaged.
    """
    from hallutrace.store.verify import verify_run

    total = len(list((run / "shards").glob("*.json")))
    found = list(followed(verify_run(run, fast), "verifying", total))
    damaged = [finding for finding in found if finding.damage]
    if as_json:
        print_json(
            [{"shard": one.name, "traces": one.traces, "damage": one.damage} for one in found]
        )
    else:
        for finding in damaged:
            OUT.print(styled((plain(finding.name), "bold"), f": {plain(finding.damage or '')}"))
        traces = sum(finding.traces for finding in found if not finding.damage)
        checked = "headers and sizes" if fast else "every byte"
        OUT.print(
            f"{plain(str(run))}: {len(found) - len(damaged)} shards with {traces:,} traces are "
            f"whole ({checked} checked), {len(damaged)} are damaged"
        )
    if damaged:
        raise SystemExit(1)
