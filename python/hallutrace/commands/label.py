"""`hallutrace label`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table
from rich.text import Text

from hallutrace.commands.common_options import AsJson, Plugins, RunFolder, choices, completes
from hallutrace.commands.console import (
    ERR,
    OUT,
    cell,
    command,
    decimal,
    followed,
    percent,
    plain,
    print_json,
    styled,
)
from hallutrace.errors import InputError
from hallutrace.label_protocols import JUDGES
from hallutrace.labels.registry import PROTOCOLS
from hallutrace.normalization import DEFAULT, NORMALIZATIONS
from hallutrace.paths import expanded

if TYPE_CHECKING:
    from hallutrace.labels import Agreement, LabelSummary
    from hallutrace.labels.agreement import Disputed

WORDS = {1: "hallucinated", 0: "right", None: "-"}
SHOWN = 1000  # characters of a text of an example


def run_label(
    run: RunFolder,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="With --agreement: names of the labels to compare (default: all).", metavar="NAME"
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="Compare answers with their references, and take the best score of them: exact, "
            "contains (as whole words), f1 (of words), rouge-l (longest common subsequence of "
            "words); or the name of a protocol that --plugin registers.",
            metavar="PROTOCOL",
            autocompletion=completes(lambda: [*JUDGES, *PROTOCOLS.names()]),
        ),
    ] = None,
    given: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Take the labels of a person or a judge from a .jsonl, .json, .csv, .tsv or "
            ".parquet file with the columns id, label (1, true, hallucinated; 0, false, right; "
            "null), and optionally sample and score.",
            metavar="FILE",
            parser=expanded,
        ),
    ] = None,
    agreement: Annotated[
        bool, typer.Option("--agreement", help="Compare the labels that the run has.")
    ] = False,
    normalize: Annotated[
        str | None,
        typer.Option(
            help="With --by: how texts are made comparable. unicode (default) knows scripts "
            "without spaces, typographic marks, full-width forms and accents; triviaqa is the rule "
            "of TriviaQA's evaluation script, whose labels are named PROTOCOL-triviaqa.",
            **choices(*NORMALIZATIONS),
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of the labels (default: the protocol, or the name of the file).",
            metavar="NAME",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Least score, from 0 to 1, of a right answer (default: f1 .5, rouge-l .3).",
            metavar="SCORE",
        ),
    ] = None,
    drop: Annotated[
        str | None,
        typer.Option(
            help="Range of scores that count as neither right nor hallucinated (default: none).",
            metavar="LOW:HIGH",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace other labels of the same name.")
    ] = False,
    plugins: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Label answers as hallucinated (1) or right (0), or compare labels with --agreement.

    A run can have any number of labels, in labels/NAME.jsonl. The same command again labels the
    traces that were added to the run.
    """
    from hallutrace import labels

    modes = {"--by": by, "--from": given, "--agreement": agreement or None}
    mode = _only_mode(run, [option for option, value in modes.items() if value is not None])
    _check_unused(
        mode,
        {
            "NAME": bool(names) and not agreement,
            "--normalize": normalize is not None and by is None,
            "--threshold": threshold is not None and by is None,
            "--drop": drop is not None and by is None,
            "--name": name is not None and agreement,
            "--overwrite": overwrite and agreement,
        },
    )
    if agreement:
        _show_agreement(labels.agreement(run, names or []), as_json)
        return
    if given is not None:
        summary = labels.label_from(run, given, name=name, overwrite=overwrite)
    else:
        summary = labels.label(
            run,
            by or "",
            normalize=normalize or DEFAULT,
            name=name,
            threshold=threshold,
            drop=_range(drop),
            overwrite=overwrite,
            follow=_follow if ERR.is_terminal else None,
        )
    if as_json:
        print_json(summary.to_json())
    else:
        OUT.print(_summary_text(summary, given is not None))


def _only_mode(run: Path, modes: list[str]) -> str:
    """The one option that says what to do.

    Raises:
        InputError: none of them, or several.
    """
    if len(modes) != 1:
        raise InputError(
            f"Expected one of --by, --from and --agreement, got {' and '.join(modes) or 'none'}"
            f" - begin with `{command('hallutrace', 'label', run, '--by', 'contains')}`"
        )
    return modes[0]


def _check_unused(mode: str, unused: dict[str, bool]) -> None:
    """Refuses options that have no effect.

    Args:
        mode: the option that says what to do.
        unused: by option, whether it was given without effect.

    Raises:
        InputError: naming them.
    """
    if found := [option for option, is_unused in unused.items() if is_unused]:
        raise InputError(
            f"Expected options that go with {mode}, got {', '.join(found)} - leave it out"
        )


def _follow(traces: Iterator[Any], total: int) -> Iterable[Any]:
    return followed(traces, "labelling", total)


def _range(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    low, colon, high = text.partition(":")
    try:
        if not colon:
            raise ValueError
        return float(low), float(high)
    except ValueError:
        raise InputError(
            f"Expected two scores such as .2:.4, got {text!r} - change --drop"
        ) from None


def _summary_text(summary: LabelSummary, is_given: bool) -> str:
    decided = summary.hallucinated + summary.right
    share = percent(summary.hallucinated / decided if decided else None)
    lines = [
        f"{plain(str(summary.path))}: {summary.hallucinated:,} hallucinated, "
        f"{summary.right:,} right ({share} hallucinated)"
    ]
    if summary.dropped:
        between = summary.parameters.get("drop")
        why = f"scores of {between[0]:g} to {between[1]:g}" if between else "null in the file"
        lines.append(f"  {summary.dropped:,} dropped, label null: {why}")
    if summary.unjudged and is_given:
        lines.append(f"  {summary.unjudged:,} without a label in the file: null")
    elif summary.unjudged:
        others = summary.unjudged - summary.without_references
        lines.append(
            f"  {summary.unjudged:,} not judged, label null: {summary.without_references:,} "
            f"without references, {others:,} whose references are empty after normalisation"
        )
    if not summary.is_changed:
        lines.append("  nothing new: these labels were there already")
    elif summary.new < summary.traces:
        lines.append(f"  {summary.new:,} of {summary.traces:,} traces were added")
    return "\n".join(lines)


def _show_agreement(found: Agreement, as_json: bool) -> None:
    if as_json:
        print_json(found.to_json())
        return
    shares = Table(
        Column("labels", overflow="fold"),
        "hallucinated",
        "right",
        "share",
        "dropped",
        "not judged",
        "no row",
    )
    for name, counts in found.counts.items():
        decided = counts["hallucinated"] + counts["right"]
        shares.add_row(
            cell(name),
            f"{counts['hallucinated']:,}",
            f"{counts['right']:,}",
            percent(counts["hallucinated"] / decided if decided else None),
            *(f"{counts[kind]:,}" for kind in ("dropped", "unjudged", "unlabelled")),
        )
    OUT.print(shares)
    names = (Column(name, overflow="fold") for name in ("labels", "and"))
    pairs = Table(*names, "both decided", "disagree", "share", "Cohen's kappa")
    for pair in found.pairs:
        pairs.add_row(
            *map(cell, pair.names),
            f"{pair.traces:,}",
            f"{pair.disagreements:,}",
            percent(pair.disagreements / pair.traces if pair.traces else None),
            decimal(pair.kappa),
        )
    OUT.print(pairs)
    if found.disputed:
        OUT.print(
            f"{found.disputed:,} of {found.traces:,} traces on which they disagree; "
            f"{len(found.examples)} of those on which most pairs do:"
        )
    for one in found.examples:
        OUT.print(_example_text(one))


def _example_text(one: Disputed) -> Text:
    labels = ", ".join(
        f"{name} {WORDS[label]}"
        + ("" if (score := one.scores[name]) is None else f" ({score:.2f})")
        for name, label in one.labels.items()
    )
    return styled(
        (cell(one.id), "bold"),
        f", sample {one.sample}: {cell(one.question, SHOWN)}\n"
        f"  answer      {cell(one.answer, SHOWN)}\n"
        f"  references  {cell(', '.join(one.references) or 'none', SHOWN)}\n"
        f"  {plain(labels)}",
    )
