"""When a score means right: the judge, its threshold, and the range that is neither."""

from __future__ import annotations

import math

from hallutrace.errors import InputError
from hallutrace.label_protocols import JUDGES, Judge, find_judge
from hallutrace.labels.registry import PROTOCOLS, TraceProtocol
from hallutrace.normalization import DEFAULT
from hallutrace.option_names import parameter


def judge_of(by: str | Judge, normalize: str) -> tuple[Judge | TraceProtocol, str]:
    """The judge, and the default name of its labels.

    Raises:
        InputError: no such protocol or normalisation, or a normalisation for a judge of one's own.

    Examples:
        >>> judge, name = judge_of("f1", "triviaqa")
        >>> judge.name, name
        ('f1', 'f1-triviaqa')
    """
    if isinstance(by, str) and by not in PROTOCOLS.names():
        found = find_judge(by, normalize)
        return found, found.label_name
    judge = PROTOCOLS.find(by) if isinstance(by, str) else by
    if normalize != DEFAULT:
        raise InputError(
            f"Expected `normalize` with a protocol of hallutrace, got {normalize!r} with the judge "
            f"`{judge.name}` - let the judge normalise"
        )
    return judge, judge.name


def check_threshold(
    judge: Judge | TraceProtocol, threshold: float | None, drop: tuple[float, float] | None
) -> float:
    """The threshold, that of the judge unless one is given.

    Raises:
        InputError: a threshold or a range that this judge cannot have.

    Examples:
        >>> check_threshold(JUDGES["f1"], None, drop=(0.4, 0.6))
        0.5
    """
    if not judge.is_graded and (threshold is not None or drop is not None):
        graded = ", ".join(name for name, one in JUDGES.items() if one.is_graded)
        raise InputError(
            f"Expected {parameter('threshold')} and {parameter('drop')} with graded scores "
            f"({graded}), got `{judge.name}`, whose scores are 1 and 0 - leave them out"
        )
    limit = float(judge.threshold if threshold is None else threshold)
    if not 0 < limit <= 1:
        raise InputError(
            f"Expected 0 < threshold <= 1, the least score of a right answer, got {limit:g} - "
            f"change {parameter('threshold')}"
        )
    if drop is not None:
        low, high = drop
        if not (math.isfinite(low) and math.isfinite(high) and 0 <= low <= limit <= high <= 1):
            raise InputError(
                "Expected 0 <= LOW <= threshold <= HIGH <= 1 of scores to drop, got "
                f"{low:g}:{high:g} with the threshold {limit:g} - change {parameter('drop')} or "
                f"{parameter('threshold')}"
            )
    return limit
