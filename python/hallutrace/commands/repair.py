"""`hallutrace repair`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from hallutrace.commands.common_options import AsJson, RunFolder
from hallutrace.commands.console import ERR, OUT, plain, print_json, styled


def run_repair(
    run: RunFolder,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what would be done; change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Rebuild lost commit records, and remove what killed processes left.

    A damaged shard stays as it is. Exit code 0 if nothing wrong is left, 1 if something could not
    be repaired.
    """
    from hallutrace.store.repair import repair

    findings = repair(run, dry_run=dry_run)
    verb = "to repair" if dry_run else "repaired"
    found = []
    with ERR.status("checking every byte", spinner="line"):  # silent where it is not a terminal
        for finding in findings:
            found.append(finding)
            if not as_json:
                mark = ("left", "red") if finding.is_left else (verb, "green")
                name = f"{plain(finding.name)}: " if finding.name else ""
                text = f"{plain(finding.problem)} - {plain(finding.action)}"
                OUT.print(styled(mark, "  ", (name, "bold"), text))
    left = sum(finding.is_left for finding in found)
    if as_json:
        print_json(
            {
                "run": str(run),
                "dry_run": dry_run,
                "repaired": [_row(one) for one in found if not one.is_left],
                "left": [_row(one) for one in found if one.is_left],
            }
        )
    else:
        summary = f"{len(found) - left} {verb}, {left} cannot be repaired"
        text = summary if found else "nothing is wrong (every byte checked)"
        OUT.print(f"{plain(str(run))}: {text}")
    if left:
        raise SystemExit(1)


def _row(finding: object) -> dict[str, str]:
    row: dict[str, str] = asdict(finding)  # type: ignore[call-overload]
    row.pop("is_left")
    return row
