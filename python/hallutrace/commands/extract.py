"""`hallutrace extract`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hallutrace.commands.text import ERR, OUT, bytes_text, quiet_libraries
from hallutrace.options import config_of
from hallutrace.progress import Live


def run_extract(preset: str | None, config_file: Path | None, options: dict[str, Any]) -> None:
    """`hallutrace extract`."""
    config = config_of(preset, config_file, options)
    ERR.print(f"Loading torch, transformers and the model {config.model} ...", highlight=False)
    from hallutrace.extraction import Summary, extract

    quiet_libraries(is_small=config.model == "demo")
    summary: Summary
    try:
        with Live(ERR) as reporter:
            summary = extract(config, reporter)
    except KeyboardInterrupt:
        ERR.print(
            "\nStopped. Committed shards are safe; the one in progress will be done again.\n"
            f"To go on: [bold]{_same_command()}[/bold]",
            highlight=False,
        )
        raise SystemExit(130) from None
    OUT.print(_summary_text(summary), highlight=False, soft_wrap=True)


def _summary_text(summary: Any) -> str:
    right = "" if summary.right is None else f"{100 * summary.right:.1f}% contain a right answer"
    rate = ""
    if summary.new_traces:
        rate = f"{summary.new_traces / max(summary.seconds, 1e-9):.1f} traces a second"
    merged = f"{summary.merged:,} identical questions merged" if summary.merged else ""
    failures = f"{summary.failures:,} failures"
    if summary.failures:
        failures += f" (see {summary.folder / 'failures.jsonl'})"
    size = summary.bytes / max(summary.traces, 1)
    parts = [failures, merged, right, f"{bytes_text(size)} a trace", rate or "nothing left to do"]
    folder = summary.folder
    return "\n".join(
        [
            f"[bold]{summary.traces:,} traces[/bold] in [bold]{folder}[/bold] "
            f"({bytes_text(summary.bytes)}), {summary.new_traces:,} of them new",
            "  " + ", ".join(part for part in parts if part),
            "Next:",
            f"  hallutrace inspect {folder}",
            f"  hallutrace inspect {folder} --trace 0",
            f"  python -c \"import hallutrace; print(hallutrace.open('{folder}')[0].layer(0))\"",
        ]
    )


def _same_command() -> str:
    return " ".join(["hallutrace", *sys.argv[1:]])
