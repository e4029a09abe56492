"""`hallutrace repair`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from hallutrace.commands.text import ERR, OUT, plain, print_json, styled


def run_repair(run: Path, dry_run: bool, questions: str | None, as_json: bool) -> None:
    """`hallutrace repair`."""
    from hallutrace.retry import Retry
    from hallutrace.store.repair import repair

    retry = Retry(lambda text: ERR.print(plain(text)))
    findings = repair(run, dry_run=dry_run, questions=questions, retry=retry)
    verb = "to repair" if dry_run else "repaired"
    found = []
    with ERR.status(
        "checking every byte", spinner="line"
    ):  # says nothing where it is not a terminal
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
        told = summary if found else "nothing is wrong (every byte checked)"
        OUT.print(f"{plain(str(run))}: {told}")
    if left:
        raise SystemExit(1)


def _row(finding: object) -> dict[str, str]:
    row: dict[str, str] = asdict(finding)  # type: ignore[call-overload]
    row.pop("is_left")
    return row
