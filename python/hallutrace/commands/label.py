"""`hallutrace label`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Column, Table
from rich.text import Text

from hallutrace.commands.text import (
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
from hallutrace.normalization import DEFAULT

if TYPE_CHECKING:
    from hallutrace.labels import Agreement, LabelSummary
    from hallutrace.labels.agreement import Disputed

WORDS = {1: "hallucinated", 0: "right", None: "-"}
SHOWN = 1000  # characters of a text of an example


@dataclass(frozen=True)
class Asked:
    """The command line; fields are named as its options, ``given`` is ``--from``."""

    run: Path
    names: list[str]
    by: str | None
    given: Path | None
    agreement: bool
    normalize: str | None
    name: str | None
    threshold: float | None
    drop: str | None
    overwrite: bool
    as_json: bool

    def check(self) -> None:
        """Refuses options that do not go together.

        Raises:
            InputError: naming them.
        """
        modes = {"--by": self.by, "--from": self.given, "--agreement": self.agreement or None}
        there = [option for option, value in modes.items() if value is not None]
        if len(there) != 1:
            raise InputError(
                f"Expected one of --by, --from and --agreement, got {' and '.join(there) or 'none'}"
                f" - begin with `{command('hallutrace', 'label', self.run, '--by', 'contains')}`"
            )
        extra = {
            "NAME": self.names and not self.agreement,
            "--normalize": self.normalize is not None and self.by is None,
            "--threshold": self.threshold is not None and self.by is None,
            "--drop": self.drop is not None and self.by is None,
            "--name": self.name is not None and self.agreement,
            "--overwrite": self.overwrite and self.agreement,
        }
        if unfit := [option for option, is_unfit in extra.items() if is_unfit]:
            raise InputError(
                f"Expected options that go with {there[0]}, got {', '.join(unfit)} - leave it out"
            )


def run_label(asked: Asked) -> None:
    """`hallutrace label`."""
    from hallutrace import labels

    asked.check()
    if asked.agreement:
        _show_agreement(labels.agreement(asked.run, asked.names), asked.as_json)
        return
    if asked.given is not None:
        summary = labels.label_from(
            asked.run, asked.given, name=asked.name, overwrite=asked.overwrite
        )
    else:
        summary = labels.label(
            asked.run,
            asked.by or "",
            normalize=asked.normalize or DEFAULT,
            name=asked.name,
            threshold=asked.threshold,
            drop=_range(asked.drop),
            overwrite=asked.overwrite,
            follow=_follow if ERR.is_terminal else None,
        )
    if asked.as_json:
        print_json(summary.to_json())
    else:
        OUT.print(_summary_text(summary, asked.given is not None))


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
