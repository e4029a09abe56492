"""Where to look next: sentences with a number in each, the most pressing first.

They are chosen, not tested: a part of a run is named where it holds more errors than chance would
put there by two standard deviations of the hypergeometric distribution, one part of each family.
What is tested and corrected says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace.option_names import parameter

MOST = 12
_LEAST_ERRORS = 5
_EXCESS = 2.0  # standard deviations
_PARTS_EACH = 3  # parts of a run that one kind of suggestion names
_FEW = 100  # answers of a class, below which intervals of AUROC are about .1 wide
_LEVEL = 0.05  # of a test, after Holm's correction
_SHARES_OF_PRIORITY = (1 / 3, 1 / 8)


@dataclass(frozen=True)
class Findings:
    """What suggestions are made of.

    Attributes:
        labels: int8 [judged], 1 hallucinated, 0 right.
        figures: of :func:`hallutrace.viewer.slices.figures.slice_figures`.
        members: bool [parts, judged], the traces of each row of the figures.
        ended_by_length: bool [judged].
        detector: its label; None without an evaluation.
        alarms: by label of the detector, bool [judged]; empty without an evaluation.
        alarm_share: share of right answers that may raise an alarm.
        controls: AUROC (``label``, ``value``, ``low``, ``high``) of the controls that read text
            alone.
    """

    labels: NDArray[np.int8]
    figures: Mapping[str, Any]
    members: NDArray[np.bool_]
    ended_by_length: NDArray[np.bool_]
    detector: str | None
    alarms: Mapping[str, NDArray[np.bool_]]
    alarm_share: float
    controls: Sequence[Mapping[str, Any]]

    @property
    def errors(self) -> dict[str, NDArray[np.bool_]]:
        """``misses`` and ``false alarms`` of the detector, bool [judged] each."""
        if self.detector is None:
            return {}
        alarm = self.alarms[self.detector]
        return {"misses": (self.labels == 1) & ~alarm, "false alarms": (self.labels == 0) & alarm}


@dataclass(frozen=True)
class Suggestion:
    """One sentence.

    Attributes:
        text: the sentence.
        share: of the errors, or of the hallucinated answers, that it is about.
        part: row of the figures that it is about; None if it is about no part.
    """

    text: str
    share: float
    part: int | None = None

    @property
    def priority(self) -> int:
        """1 for a third of the errors and more, 2 for an eighth and more, else 3."""
        return 1 + sum(self.share < least for least in _SHARES_OF_PRIORITY)


def suggestions(found: Findings) -> list[dict[str, Any]]:
    """At most 12 suggestions.

    Args:
        found: figures and errors.

    Returns:
        ``text``, ``priority`` (1 to 3) and ``part`` of each, in the order of priority and share.
    """
    made = [
        *_errors_in_parts(found),
        *_other_detector(found),
        *_weak_parts(found),
        *_hallucinated_parts(found),
        *_ends_by_length(found),
        *_text_controls(found),
        *_few_answers(found),
    ]
    made.sort(key=lambda one: (one.priority, -one.share))
    return [{"text": one.text, "priority": one.priority, "part": one.part} for one in made[:MOST]]


def _errors_in_parts(found: Findings) -> Iterator[Suggestion]:
    """Parts that hold more misses, or more false alarms, than their share of the class."""
    for kind, errors in found.errors.items():
        label = 1 if kind == "misses" else 0
        of_class = found.labels == label
        total, size = int(errors.sum()), int(of_class.sum())
        excess = [
            _excess(int((errors & members).sum()), int((of_class & members).sum()), total, size)
            for members in found.members
        ]
        for part in _best_of_families(found, excess, _EXCESS):
            inside = errors & found.members[part]
            count = int(inside.sum())
            if count < _LEAST_ERRORS:
                continue
            among = (of_class & found.members[part]).sum() / size
            noun = "hallucinated" if label else "right"
            text = (
                f"{count:,} of {total:,} {kind} ({_percent(count / total)}) are traces "
                f"{found.figures['clause'][part]}, as are {_percent(among)} of the {noun} answers"
            )
            other = _catches(found, inside) if label else None
            if other:
                text += f"; {other[0]} catches {other[1]:,} of them"
            yield Suggestion(f"{text}.", count / total, part)


def _excess(errors: int, of_class: int, total: int, size: int) -> float:
    """Errors in a part beyond those expected, in standard deviations (hypergeometric)."""
    share = of_class / size if size else 0.0
    variance = total * share * (1 - share) * (size - total) / max(size - 1, 1)
    return (errors - total * share) / math.sqrt(variance) if variance > 0 else 0.0


def _best_of_families(found: Findings, values: Sequence[float], least: float) -> list[int]:
    """Rows of the largest values, one of each family, at most three."""
    order = np.argsort(-np.asarray(values), kind="stable").tolist() if len(values) else []
    chosen: dict[int, int] = {}
    for row in order:
        if values[row] >= least:
            chosen.setdefault(int(found.figures["family"][row]), row)
    return [*chosen.values()][:_PARTS_EACH]


def _catches(found: Findings, misses: NDArray[np.bool_]) -> tuple[str, int] | None:
    """The other detector that raises an alarm for most of these misses, if for a quarter."""
    counts = {
        label: int((alarm & misses).sum())
        for label, alarm in found.alarms.items()
        if label != found.detector and " edges=" not in label
    }
    best = max(counts, key=lambda label: counts[label], default=None)
    if best is None or counts[best] < misses.sum() / 4:
        return None
    return best, counts[best]


def _other_detector(found: Findings) -> Iterator[Suggestion]:
    """How many of all misses the best other detector catches."""
    misses = found.errors.get("misses")
    if misses is None or misses.sum() < _LEAST_ERRORS:
        return
    if other := _catches(found, misses):
        label, count = other
        yield Suggestion(
            f"{label} catches {count:,} of the {int(misses.sum()):,} misses of {found.detector}, "
            f"with as few false alarms: a score of both may find more.",
            count / int(misses.sum()),
        )


def _weak_parts(found: Findings) -> Iterator[Suggestion]:
    """Parts within which the detector separates less than on all traces, corrected by Holm."""
    figures, whole = found.figures, found.figures["all"]
    p = np.nan_to_num(figures["auroc_p"], nan=1.0)
    below = np.where(p < _LEVEL, whole["auroc"] - np.nan_to_num(figures["auroc"], nan=1.0), -1.0)
    for part in _best_of_families(found, below.tolist(), 1e-9):
        yield Suggestion(
            f"Within the {figures['traces'][part]:,} traces {figures['clause'][part]}, "
            f"{found.detector} reaches AUROC {_interval(figures, 'auroc', part)}, against "
            f"{_decimals(whole['auroc'])} on all (p {_p(p[part])} after Holm).",
            float(figures["traces"][part] / whole["traces"]),
            part,
        )


def _hallucinated_parts(found: Findings) -> Iterator[Suggestion]:
    """Parts with a larger share of hallucinated answers, corrected by Holm."""
    figures, whole = found.figures, found.figures["all"]
    p = np.nan_to_num(figures["share_p"], nan=1.0)
    more = figures["hallucinated"] - figures["traces"] * whole["share"]
    wrong = np.where((p < _LEVEL) & (figures["share"] > whole["share"]), more, -1.0)
    for part in _best_of_families(found, wrong.tolist(), 1e-9):
        count, traces = int(figures["hallucinated"][part]), int(figures["traces"][part])
        yield Suggestion(
            f"Of the {traces:,} traces {figures['clause'][part]}, {count:,} "
            f"({_percent(count / traces)}) are hallucinated, against {_percent(whole['share'])} of "
            f"all (p {_p(p[part])} after Holm).",
            float(more[part] / whole["hallucinated"]),
            part,
        )


def _ends_by_length(found: Findings) -> Iterator[Suggestion]:
    """Answers that were cut."""
    wrong = found.labels == 1
    count, total = int((wrong & found.ended_by_length).sum()), int(wrong.sum())
    if count >= _LEAST_ERRORS:
        yield Suggestion(
            f"{count:,} of {total:,} hallucinated answers ended by length: a longer "
            f"{parameter('max_new_tokens')} shows whether they are wrong, or were only cut.",
            count / total,
        )


def _text_controls(found: Findings) -> Iterator[Suggestion]:
    """Controls that read text alone and are above chance."""
    reached = found.figures["all"]["auroc"]
    for control in found.controls:
        if control["low"] > 0.5 and reached > 0.5:
            part = min((control["value"] - 0.5) / (reached - 0.5), 1.0)
            yield Suggestion(
                f"{control['label']} alone reaches AUROC {_decimals(control['value'])}: "
                f"{_percent(part)} of what {found.detector} reaches above chance.",
                part,
            )


def _few_answers(found: Findings) -> Iterator[Suggestion]:
    """Too few of a class."""
    counts = {"hallucinated": found.labels == 1, "right": found.labels == 0}
    for noun, mask in counts.items():
        if mask.sum() < _FEW:
            yield Suggestion(
                f"Only {int(mask.sum()):,} labelled answers are {noun}: intervals are wide until "
                "there are some hundred.",
                1 - float(mask.sum()) / _FEW,
            )


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"


def _decimals(value: float) -> str:
    return f"{value:.3f}"


def _interval(figures: Mapping[str, Any], name: str, row: int) -> str:
    value, low, high = (figures[f"{name}{end}"][row] for end in ("", "_low", "_high"))
    return f"{_decimals(value)} [{_decimals(low)}, {_decimals(high)}]"


def _p(p: float) -> str:
    return "below 0.0001" if p < 1e-4 else f"{p:.2g}"
