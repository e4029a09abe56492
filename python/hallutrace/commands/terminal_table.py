"""The table that `hallutrace evaluate` prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from hallutrace.commands.console import OUT, cell, duration, plain, styled

if TYPE_CHECKING:
    from hallutrace.detect.evaluation import Evaluation

WIDE = 110  # columns of a terminal that has space for the whole table

# Whether a column is shown on narrow terminals too; the files have all of them.
_COLUMNS = {
    "detector": True,
    "AUROC [{level}]": True,
    "AUPRC": True,
    "TPR at 5% FPR": True,
    "at 10%": False,
    "ECE": True,
    "p": True,
    "train s": False,
    "ms a trace": False,
    "folds x seeds": False,
}


def show_evaluation(evaluation: Evaluation, label: str, folder: Path, seconds: float) -> None:
    """Prints the table, what one must know to read it, and where the files are.

    Args:
        evaluation: finished.
        label: name of the labels.
        folder: of the report.
        seconds: that the command took.
    """
    from hallutrace.detect.evaluation import FILES, JSON_FILE, remarks

    OUT.print(_table(evaluation, label))
    OUT.print("Controls are bold.")
    for text in remarks(evaluation):
        OUT.print(cell(text, 1000))
    OUT.print(f"{plain(str(folder))}: {', '.join(FILES)} ({duration(seconds)})")
    if evaluation.failed:
        OUT.print(f"{JSON_FILE} tells where they failed; the same command tries them again.")


def _table(evaluation: Evaluation, label: str) -> Table:
    from hallutrace.detect.evaluation import table_cells, title

    options = evaluation.options
    is_wide = OUT.width >= WIDE
    table = Table(title=cell(title(evaluation, label), 1000), title_justify="left", box=box.SIMPLE)
    for name, is_shown in _COLUMNS.items():
        if is_shown or is_wide:
            heading = name.format(level=f"{100 * options.level:g}%")
            table.add_column(heading, no_wrap=name.startswith("AUROC"))
    for row in options.rows:
        head = styled((cell(row.label), "bold" if row.is_control else ""))
        cells = table_cells(evaluation, row)
        if cells is None:
            table.add_row(head, "not applicable" if row.label in evaluation.missing else "failed")
            continue
        short = [cells[0], *(text.split(" ")[0] for text in cells[1:4]), *cells[4:]]
        shown = zip(short, list(_COLUMNS.values())[1:], strict=True)
        table.add_row(head, *(plain(text) for text, is_shown in shown if is_shown or is_wide))
    return table
