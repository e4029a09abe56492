"""`hallutrace extract`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from hallutrace.commands.common_options import AsJson, Plugins
from hallutrace.commands.config_options import ConfigFile, Preset, config_of, config_options
from hallutrace.commands.console import (
    ERR,
    OUT,
    bytes_text,
    cell,
    command,
    plain,
    print_json,
    stopping,
    styled,
)
from hallutrace.commands.progress_display import ExtractionDisplay
from hallutrace.escaping import python_literal

if TYPE_CHECKING:
    from hallutrace.extraction.summary import Summary

SYNCING = 0.03  # share of the time beyond which waiting for the disk is worth a line
SHOWN = 20  # failures in the table of what still fails


@config_options
def run_extract(
    preset: Preset = None,
    config_file: ConfigFile = None,
    plugins: Plugins = None,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Ask a model questions and keep a trace of each answer.

    Without options: the small model in the package on 400 of its own questions, into runs/demo.

    The same command again goes on where it stopped. --limit may grow; any other difference is
    refused.
    """
    config = config_of(preset, config_file, options)
    ERR.print(f"Loading torch, transformers and the model {plain(config.model)} ...")
    from hallutrace.commands.library_warnings import quiet_libraries
    from hallutrace.extraction.pipeline import extract

    quiet_libraries(is_small=config.model == "demo")
    kept = "Committed shards are safe; the one in progress continues after its last synced batch."
    with stopping(kept), ExtractionDisplay(ERR) as reporter:
        summary = extract(config, reporter)
    if as_json:
        print_json({**asdict(summary), "folder": str(summary.folder)})
        return
    if config.retry_failed:
        _show_failing(summary)
    OUT.print(_summary_text(summary))


def _show_failing(summary: Summary) -> None:
    """What still fails after it was tried again."""
    if not summary.failing:
        OUT.print("Nothing fails any more.")
        return
    table = Table("id", "sample", "stage", "attempts", "reason")
    for one in summary.failing[:SHOWN]:
        sample = "" if one.sample is None else str(one.sample)
        id_ = "-" if one.id is None else cell(one.id)
        table.add_row(id_, sample, one.stage, str(one.attempts), cell(one.error))
    OUT.print(table)
    more = len(summary.failing) - SHOWN
    more_text = f", {more:,} of them not shown" if more > 0 else ""
    OUT.print(f"{len(summary.failing):,} still fail{more_text}")


def _summary_text(summary: Summary) -> Text:
    right = "" if summary.right is None else f"{100 * summary.right:.1f}% contain a right answer"
    rate = ""
    if summary.new_traces:
        rate = f"{summary.new_traces / max(summary.seconds, 1e-9):.1f} traces a second"
    merged = f"{summary.merged:,} identical questions merged" if summary.merged else ""
    failures = f"{summary.failures:,} failures"
    if summary.failures:
        failures += f" (see {plain(str(summary.folder / 'failures.jsonl'))})"
    size = summary.bytes / max(summary.traces, 1)
    syncing = ""
    if summary.syncing_share > SYNCING:
        syncing = f"{100 * summary.syncing_share:.0f}% of the time spent waiting for the disk"
    rate = rate or "nothing left to do"
    parts = [failures, merged, right, f"{bytes_text(size)} a trace", rate, syncing]
    folder = summary.folder
    # A program in single quotes, and the path within it in double quotes, can be read.
    code = f"import hallutrace; print(hallutrace.open({python_literal(str(folder))})[0].layer(0))"
    label = [("label", folder, "--by", "contains")] if right else []
    proposed = [("inspect", folder, "--trace", "0"), *label, ("report", folder)]
    following = "\n  ".join(command("hallutrace", *words) for words in proposed)
    return styled(
        (f"{summary.traces:,} traces", "bold"),
        " in ",
        (plain(str(folder)), "bold"),
        f" ({bytes_text(summary.bytes)}), {summary.new_traces:,} of them new\n"
        f"  {', '.join(part for part in parts if part)}\n"
        "Next:\n"
        f"  {following}\n"
        f"  {command('python', '-c', code)}",
    )
