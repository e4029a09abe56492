"""A report as Markdown: what one would say of a run in five minutes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hallutrace.errors import DamagedError, NotInRunError
from hallutrace.escaping import visible
from hallutrace.viewer.data.detectors import detectors_data
from hallutrace.viewer.data.errors import errors_data
from hallutrace.viewer.data.run import run_data
from hallutrace.viewer.report.content import Report

WORST = 20  # traces that are told
PRIORITIES = {1: "high", 2: "medium", 3: "low"}
TEXT = 120  # characters of a text in a table
_MARKS = frozenset("\\`*_[]|$~")  # that mean something within a line of Markdown
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}  # some dialects escape these by no backslash


def to_markdown(report: Report) -> Iterator[bytes]:
    """The summary, in pieces.

    Args:
        report: of a run.

    Returns:
        Sections on the run, its labels, the detectors, errors and the worst traces. A section that
        the run has no data for says so in one sentence, with the command that gives them.

    Examples:
        >>> from hallutrace.viewer.viewed_run import ViewedRun
        >>> text = b"".join(to_markdown(Report(ViewedRun(hallutrace.open(run))))).decode()
        >>> text.splitlines()[0], "## Worst traces" in text
        ('# run', True)
    """
    yield f"# {_cell(report.viewed.store.folder.resolve().name)}\n".encode()
    sections: dict[str, Callable[[Report], list[str]]] = {
        "Run": _run,
        "Labels": _labels,
        "Detectors": _detectors,
        "Errors": _errors,
        "Worst traces": _worst,
    }
    for title, section in sections.items():
        try:
            lines = section(report)
        except (NotInRunError, DamagedError) as error:
            lines = [_cell(str(error), 600)]
        yield "\n".join(["", f"## {title}", "", *lines, ""]).encode("utf-8", "replace")


def _run(report: Report) -> list[str]:
    run = run_data(report.viewed)
    rows = [
        ("model", run["identity"]["model"]["name"]),
        ("traces", f"{run['traces']:,}"),
        ("failures", f"{run['failures']['total']:,}"),
        ("bytes", f"{run['bytes']:,}"),
        ("bytes a trace", f"{run['bytes'] / max(run['traces'], 1):,.0f}"),
    ]
    return _table(["", ""], rows)


def _labels(report: Report) -> list[str]:
    counts = run_data(report.viewed)["label_counts"]
    if not counts:
        report.viewed.label(None)  # raises, and says what gives labels
    columns = ["protocol", "hallucinated", "right", "neither", "share hallucinated"]
    return _table(columns, [_label_row(name, found) for name, found in counts.items()])


def _label_row(name: str, found: dict[str, Any]) -> tuple[str, ...]:
    if "problem" in found:
        return name, found["problem"], "", "", ""
    decided = found["hallucinated"] + found["right"]
    neither = found["dropped"] + found["unjudged"] + found["unlabelled"]
    share = f"{100 * found['hallucinated'] / decided:.1f}%" if decided else "-"
    return name, *(f"{one:,}" for one in (found["hallucinated"], found["right"], neither)), share


def _detectors(report: Report) -> list[str]:
    found = detectors_data(report.viewed)
    level = f"{100 * found['about']['level']:g}%"
    columns = ["detector", f"AUROC [{level}]", f"AUPRC [{level}]", "TPR at 5% FPR", "ECE"]
    rows = [_detector_row(row) for row in found["rows"]]
    return [*(_cell(one, 600) for one in found["verdicts"]), "", *_table(columns, rows)]


def _detector_row(row: dict[str, Any]) -> tuple[str, ...]:
    if row["status"] != "done":
        return row["label"], f"{row['status']}: {row['reason']}", "", "", ""
    figures = (_interval(row[name]) for name in ("auroc", "auprc", "tpr5"))
    return row["label"], *figures, f"{row['ece']:.3f}"


def _errors(report: Report) -> list[str]:
    found = errors_data(report.viewed)
    told = [
        f"- {PRIORITIES[one['priority']]}: {_cell(one['text'], 600)}"
        for one in found["suggestions"]
    ]
    return told or ["Nothing stands out in any part of the run."]


def _worst(report: Report) -> list[str]:
    listed = report.traces(report.worst()[:WORST])
    label = report.viewed.label(None) if report.viewed.labels else None
    labels = listed["labels"][label].tolist() if label else [-1] * len(listed["key"])
    names = {1: "hallucinated", 0: "right", -1: "-"}
    rows = [
        (key, question, answer, names[mark], f"{logprob:.3f}")
        for key, question, answer, mark, logprob in zip(
            listed["key"],
            listed["question"],
            listed["answer"],
            labels,
            listed["mean_logprob"].tolist(),
            strict=True,
        )
    ]
    columns = ["trace", "question", "answer", "label", "mean log-probability"]
    return [f"Those {report.how_chosen()}.", "", *_table(columns, rows)]


def _interval(figure: dict[str, float]) -> str:
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def _table(columns: list[str], rows: Sequence[tuple[str, ...]]) -> list[str]:
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    return lines + [f"| {' | '.join(map(_cell, row))} |" for row in rows]


def _cell(text: str, limit: int = TEXT) -> str:
    """Text of a run that is only text in Markdown, on one line."""
    shown = visible(text[: 2 * limit]).replace("\n", " ")
    shown = shown if len(shown) <= limit else f"{shown[: limit - 1]}…"
    return "".join(f"\\{one}" if one in _MARKS else _ENTITIES.get(one, one) for one in shown)
