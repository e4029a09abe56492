"""What an evaluation says, in a few sentences: whether anything is better than the controls."""

from __future__ import annotations

from hallutrace.viewer.evaluations.content import EvaluationContent, Interval, PairTest, Row


def verdicts(content: EvaluationContent) -> list[str]:
    """Sentences on the best detector against the best control, and on the edges of graph models.

    Args:
        content: of the evaluation.

    Returns:
        At least one sentence; numbers with their intervals, p after Holm.
    """
    found = []
    if content.protocol.shuffle_labels is not None:
        found.append(
            "Labels were shuffled before this evaluation: it checks the protocol, and every AUROC "
            "should be 0.5."
        )
    found.append(_on_best(content))
    graphs = [row.label for row in content.done if _edge_tests(content, row.label)]
    found += [_on_edges(content, label) for label in graphs]
    return found


def _on_best(content: EvaluationContent) -> str:
    rows = [row for row in content.done if not row.is_control and row.edges_control_of is None]
    best = max(rows, key=_auroc, default=None)
    control = next((row for row in content.done if row.label == content.best_control), None)
    if best is None and control is None:
        return "No detector has figures; the table says why."
    if best is None or control is None:
        (only,) = (row for row in (best, control) if row is not None)
        kind = "control" if only is control else "detector"
        return f"The best {kind}, {only.label}, has an AUROC of {interval_text(only.auroc)}."
    begin = (
        f"{best.label} has the largest AUROC of the detectors, {interval_text(best.auroc)}; the "
        f"best control, {control.label}, has {interval_text(control.auroc)}"
    )
    test = next((one for one in content.against_control if one.one == best.label), None)
    if test is None:
        return f"{begin}."
    return f"{begin}. {_meaning(content, test)}"


def _meaning(content: EvaluationContent, test: PairTest) -> str:
    """A sentence with the difference, and whether it is one."""
    count = len(content.against_control)
    figures = f"{difference_text(test)}, p {p_text(test.p_corrected)} after Holm for {count} tests"
    if not _is_found(content, test):
        return (
            f"That is no difference that these {content.run.counts.traces:,} traces can show "
            f"({figures})."
        )
    word = "better" if test.value > 0 else "worse"
    return f"It is {word} than the control ({figures})."


def _on_edges(content: EvaluationContent, label: str) -> str:
    tests = _edge_tests(content, label)
    parts = [
        f"{difference_text(one)} against {one.other.removeprefix(label).strip()}, "
        f"p {p_text(one.p_corrected)}"
        for one in tests
    ]
    is_better = [_is_found(content, one) and one.value > 0 for one in tests]
    if all(is_better):
        end = "the edges of attention add something"
    elif any(is_better):
        end = "the edges add something against one control and not against the other"
    else:
        end = "this does not show that the edges of attention add anything"
    return f"{label}, AUROC with its edges less AUROC without: {'; '.join(parts)}: {end}."


def _edge_tests(content: EvaluationContent, label: str) -> list[PairTest]:
    return [one for one in content.against_edges if one.one == label]


def _is_found(content: EvaluationContent, test: PairTest) -> bool:
    return test.p_corrected < 1 - content.protocol.bootstrap.level


def _auroc(row: Row) -> float:
    return row.auroc.value if row.auroc is not None else 0.0


def interval_text(interval: Interval | None) -> str:
    """A figure with its interval.

    Examples:
        >>> interval_text(Interval(value=0.81234, low=0.79, high=0.83))
        '0.812 [0.790, 0.830]'
    """
    if interval is None:
        return "-"
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def difference_text(interval: Interval) -> str:
    """A difference with its interval.

    Examples:
        >>> difference_text(Interval(value=0.012, low=-0.01, high=0.034))
        '+0.012 [-0.010, +0.034]'
    """
    return f"{interval.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def p_text(p: float) -> str:
    """A p value, not below 0.0001.

    Examples:
        >>> p_text(0.00002), p_text(0.031), p_text(1.0)
        ('<0.0001', '0.031', '1')
    """
    return "<0.0001" if p < 1e-4 else f"{p:.2g}"
