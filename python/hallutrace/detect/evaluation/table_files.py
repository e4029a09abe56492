"""The files of an evaluation: a Markdown table, JSON with everything, a CSV of all scores."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from hallutrace import atomic_files
from hallutrace.atomic_files import storage_errors
from hallutrace.canonical_json import to_utf8
from hallutrace.detect.evaluation.bootstrap import Interval
from hallutrace.detect.evaluation.comparison import PairTest
from hallutrace.detect.evaluation.json_report import to_json
from hallutrace.detect.evaluation.protocol import Evaluation
from hallutrace.detect.evaluation.rows import TableRow
from hallutrace.detect.metrics import METRICS
from hallutrace.detect.registry import find
from hallutrace.escaping import csv_cell
from hallutrace.option_names import parameter

JSON_FILE, TABLE_FILE, SCORES_FILE = "evaluation.json", "table.md", "scores.csv"
FILES = (JSON_FILE, TABLE_FILE, SCORES_FILE)
_HEADINGS = {"auroc": "AUROC", "auprc": "AUPRC", "tpr5": "TPR at 5% FPR", "tpr10": "at 10% FPR"}


def write_report(evaluation: Evaluation, label: str, folder: Path) -> None:
    """Writes ``scores.csv``, ``table.md`` and, last, ``evaluation.json``, which marks the end.

    Args:
        evaluation: finished.
        label: name of the protocol.
        folder: made if it is not there.

    Raises:
        StorageError: the folder cannot be written.
    """
    content = json.dumps(to_json(evaluation, label), indent=1, ensure_ascii=False) + "\n"
    files = {
        SCORES_FILE: scores_csv(evaluation),
        TABLE_FILE: to_markdown(evaluation, label),
        JSON_FILE: content,
    }
    with storage_errors(f"write {folder}", f"choose another {parameter('folder', option='--out')}"):
        for name, text in files.items():
            atomic_files.write(folder / name, to_utf8(text))


# Table --------------------------------------------------------------------------------------------


def to_markdown(evaluation: Evaluation, label: str) -> str:
    """The table, and what one must know to read it."""
    percent = f"{100 * evaluation.options.level:g}%"
    heads = [f"{name} [{percent}]" for name in _HEADINGS.values()]
    columns = ["detector", *heads, "ECE", "p", "train s", "ms a trace", "folds x seeds"]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in evaluation.options.rows:
        lines.append("| " + " | ".join(_cells(evaluation, row, len(columns))) + " |")
    return "\n".join(
        [title(evaluation, label), "", *lines, "", "\n\n".join(remarks(evaluation)), ""]
    )


def table_cells(evaluation: Evaluation, row: TableRow) -> list[str] | None:
    """The cells of one row after its name; None where it has no figures."""
    label = row.label
    if label not in evaluation.scores:
        return None
    metrics, timing = evaluation.comparison.metrics[label], evaluation.timing[label]
    tests = {test.one: test for test in evaluation.comparison.against_control}
    p = p_text(tests[label].corrected) if label in tests else "-"
    return [
        *(interval_text(metrics.intervals[name]) for name in METRICS),
        _decimals(metrics.ece),
        p,
        _number(timing.fit_seconds),
        _number(timing.trace_ms),
        fits_text(evaluation, row),
    ]


def _cells(evaluation: Evaluation, row: TableRow, count: int) -> list[str]:
    name = f"{row.label} (control)" if row.is_control else row.label
    cells = table_cells(evaluation, row)
    if cells is not None:
        return [name, *cells]
    word = "not applicable" if row.label in evaluation.missing else "failed"
    return [name, word, *["-"] * (count - 2)]


def title(evaluation: Evaluation, label: str) -> str:
    """Which traces, and how many of them are hallucinated."""
    data = evaluation.data
    test = data.test_run
    hallucinated = int(test.labels.sum())
    lines = [
        f"{len(test):,} traces of {len(set(test.groups)):,} groups in {test.store.folder.name}, "
        f"labels `{label}`{_shuffled(evaluation)}: {hallucinated:,} hallucinated (base rate "
        f"{_decimals(hallucinated / len(test))})."
    ]
    if data.is_transfer:
        lines.append(
            f"Learnt from {len(data.train_run):,} traces in {data.train_run.store.folder.name}; "
            f"{data.shared_groups:,} groups are in both, and were kept apart."
        )
    return " ".join(lines)


def _shuffled(evaluation: Evaluation) -> str:
    seed = evaluation.options.shuffle_labels
    return "" if seed is None else f" shuffled with seed {seed}"


def remarks(evaluation: Evaluation) -> list[str]:
    """What one must know to read the table, a paragraph each."""
    comparison, options = evaluation.comparison, evaluation.options
    found = [
        "Means over folds (and seeds) of what is reached in each; "
        f"{100 * options.level:g}% intervals from {options.draws:,} bootstrap draws of "
        f"groups{_seeds(evaluation)}. ECE: after a Platt curve fitted on the validation part. "
        "Times: one thread; a fit, and a trace with its features."
    ]
    if comparison.best_control is not None:
        found.append(
            f"p: AUROC against the best control, {comparison.best_control}, two-sided, corrected "
            f"by Holm for {len(comparison.against_control)} tests."
        )
    found += [
        f"{test.one} against {test.other.removeprefix(test.one).strip()}: "
        f"{_signed(test)}, p {p_text(test.corrected)} (of {len(comparison.against_edges)})."
        for test in comparison.against_edges
    ]
    found += [f"{label}, not applicable: {why}" for label, why in evaluation.missing.items()]
    found += [f"{label}, failed: {one.reason}" for label, one in evaluation.failed.items()]
    return found


def _seeds(evaluation: Evaluation) -> str:
    """Whether intervals hold the chance of the seeds."""
    if any(len(one.scores) > 1 for one in evaluation.scores.values()):
        return ", and of seeds where a detector has several"
    rows = [row for row in evaluation.options.rows if row.label in evaluation.scores]
    is_seeded = any(find(row.name).seeded for row in rows)
    return "; seeds are held fixed" if is_seeded else ""


def interval_text(interval: Interval) -> str:
    """``.817 [.803, .831]``."""
    return f"{_decimals(interval.value)} [{_decimals(interval.low)}, {_decimals(interval.high)}]"


def p_text(p: float) -> str:
    """A p value, not below .0001."""
    return "<.0001" if p < 1e-4 else f"{p:.2g}".removeprefix("0")


def fits_text(evaluation: Evaluation, row: TableRow) -> str:
    """How many folds and seeds a row stands for."""
    seeds = evaluation.scores[row.label].seeds
    folds = len(evaluation.data.splits)
    different = len(set(seeds[0]))
    return f"{folds}, {different} seeds spread" if different > 1 else f"{folds} x {len(seeds)}"


def _number(value: float) -> str:
    """Two digits that count, nothing below .01."""
    if value < 0.01:
        return "<.01"
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}".removeprefix("0")


def _signed(test: PairTest) -> str:
    difference = test.difference
    return f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def _decimals(value: float) -> str:
    return f"{value:.3f}".removeprefix("0") if value < 1 else f"{value:.3f}"


# Scores -------------------------------------------------------------------------------------------


def scores_csv(evaluation: Evaluation) -> str:
    """Id, sample, label and fold of each test trace, and a column for each series of scores."""
    test = evaluation.data.test_run
    columns: dict[str, Any] = {}
    for label, row in evaluation.scores.items():
        for seeds, scores in zip(row.seeds, row.scores, strict=True):
            columns[f"{label} seed={seeds[0]}" if len(row.scores) > 1 else label] = scores
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["id", "sample", "label", "fold", *columns])
    folds = evaluation.data.fold_of
    for at, (id_, sample) in enumerate(test.keys):
        found = [repr(float(scores[at])) for scores in columns.values()]
        writer.writerow([csv_cell(id_), sample, int(test.labels[at]), int(folds[at]), *found])
    return out.getvalue()
