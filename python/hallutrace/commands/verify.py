"""`hallutrace verify`."""

from __future__ import annotations

import json
from pathlib import Path

from hallutrace.commands.text import ERR, OUT, plain


def run_verify(run: Path, fast: bool, as_json: bool) -> None:
    """`hallutrace verify`."""
    from rich.progress import track

    from hallutrace.verification import verify_run

    findings = verify_run(run, fast)
    if ERR.is_terminal:
        total = len(list((run / "shards").glob("*.json")))
        findings = iter(track(findings, "verifying", total, console=ERR, transient=True))
    found = list(findings)
    damaged = [finding for finding in found if finding.damage]
    if as_json:
        content = [{"shard": one.name, "traces": one.traces, "damage": one.damage} for one in found]
        print(json.dumps(content, ensure_ascii=False))
    else:
        for finding in damaged:
            OUT.print(f"[bold]{finding.name}[/bold]: {plain(finding.damage or '')}")
        traces = sum(finding.traces for finding in found if not finding.damage)
        checked = "headers and sizes" if fast else "every byte"
        OUT.print(
            f"{run}: {len(found) - len(damaged)} shards with {traces:,} traces are whole "
            f"({checked} checked), {len(damaged)} are damaged",
            highlight=False,
        )
    if damaged:
        raise SystemExit(1)
