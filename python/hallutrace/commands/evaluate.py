"""`hallutrace evaluate`."""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from hallutrace.commands.live_fits import LiveFits
from hallutrace.commands.text import (
    ERR,
    OUT,
    cell,
    duration,
    plain,
    print_json,
    same_command,
    styled,
)
from hallutrace.cpu_threads import available_cpus
from hallutrace.errors import InputError
from hallutrace.store.reader import open_run

if TYPE_CHECKING:
    from hallutrace.detect.evaluation import Evaluation, Material, Plan

MOST_PROCESSES = 8
FITS = "fits"
WIDE = 110  # columns of a terminal that has place for the whole table

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


@dataclass(frozen=True)
class Asked:
    """The command line; fields are named as its options."""

    run: Path | None
    train_on: Path | None
    test_on: Path | None
    detectors: str
    label: str
    folds: int
    seeds: int | None
    seeds_on: str
    quick: bool
    out: Path | None
    limit: int | None
    jobs: int | None
    seed: int
    level: float
    draws: int
    shuffle_labels: int | None
    overwrite: bool
    as_json: bool

    def runs(self) -> tuple[Path, Path]:
        """The run that is learnt from, and the one that is tested on.

        Raises:
            InputError: neither one run, nor both of a transfer.
        """
        if self.run is not None and self.train_on is None and self.test_on is None:
            return self.run, self.run
        if self.run is None and self.train_on is not None and self.test_on is not None:
            return self.train_on, self.test_on
        given = {"RUN": self.run, "--train-on": self.train_on, "--test-on": self.test_on}
        there = [name for name, value in given.items() if value is not None]
        raise InputError(
            f"Expected RUN, or --train-on with --test-on, got {', '.join(there) or 'none'} - "
            "begin with `hallutrace evaluate runs/demo --label contains`"
        )

    def folder(self) -> Path:
        """Where the report goes."""
        if self.out is not None:
            return self.out
        learn, test = self.runs()
        names = [test.resolve().name, self.label]
        if learn != test:
            names.insert(0, f"{learn.resolve().name}-to")
        return Path("evaluations") / "-".join([*names, *(["quick"] if self.quick else [])])


def run_evaluate(asked: Asked) -> None:
    """`hallutrace evaluate`."""
    from hallutrace.detect.evaluation import (
        evaluate,
        inapplicable,
        to_json,
        write_report,
    )

    asked.runs()
    plan, folder = _plan(asked), asked.folder()
    _check_out(folder, asked.overwrite)
    material = _material(asked)
    inapplicable(plan.rows, material)
    if asked.overwrite:
        _clear(folder)
    processes = asked.jobs or _processes()
    began = time.monotonic()
    try:
        with LiveFits() as observer:
            evaluation = evaluate(
                material, plan, folder / FITS, processes=processes, observer=observer
            )
    except KeyboardInterrupt:
        ERR.print(
            styled(
                "\nStopped. Fits that were finished are kept.\nTo go on: ",
                (same_command(), "bold"),
            )
        )
        raise SystemExit(130) from None
    write_report(evaluation, asked.label, folder)
    if asked.as_json:
        print_json(to_json(evaluation, asked.label))
    else:
        _show(evaluation, asked, folder, time.monotonic() - began)
    if any(row.is_asked and row.label in evaluation.failed for row in plan.rows):
        raise SystemExit(1)


def _show(evaluation: Evaluation, asked: Asked, folder: Path, seconds: float) -> None:
    from hallutrace.detect.evaluation import JSON_FILE

    OUT.print(_shown(evaluation, asked.label, evaluation.plan))
    _show_remarks(evaluation)
    files = f"{JSON_FILE}, table.md, scores.csv"
    OUT.print(f"{plain(str(folder))}: {files} ({duration(seconds)})")
    if evaluation.failed:
        OUT.print(f"Where they failed is in {JSON_FILE}; the same command tries them again.")


def _processes() -> int:
    """One a core; on a GPU, which they share, no more than two."""
    torch = sys.modules.get("torch")
    most = 2 if torch is not None and torch.cuda.is_available() else MOST_PROCESSES
    return min(available_cpus(), most)


def _plan(asked: Asked) -> Plan:
    from hallutrace.detect.evaluation import Plan, table_rows

    return Plan(
        rows=table_rows(asked.detectors, asked.quick),
        folds=asked.folds,
        seeds=asked.seeds if asked.seeds is not None else (1 if asked.quick else 3),
        seeds_on=asked.seeds_on,  # type: ignore[arg-type]  # refused there if it is another
        split_seed=asked.seed,
        draws=asked.draws,
        level=asked.level,
        shuffle_labels=asked.shuffle_labels,
    )


def _material(asked: Asked) -> Material:
    from hallutrace.detect import load_examples
    from hallutrace.detect.evaluation import Material, shuffled

    learn, test = asked.runs()
    runs = [learn] if learn == test else [learn, test]
    found = [load_examples(open_run(run), asked.label, limit=asked.limit) for run in runs]
    if asked.shuffle_labels is not None:
        found = shuffled(found, asked.shuffle_labels)
    if len(found) == 1:
        return Material.of(found[0], asked.folds, asked.seed)
    return Material.transfer(found[0], found[1], asked.folds, asked.seed)


def _check_out(folder: Path, overwrite: bool) -> None:
    """Refuses a folder that holds a finished evaluation, or anything else.

    Raises:
        InputError: naming what is there.
    """
    from hallutrace.detect.evaluation import FILES, JSON_FILE

    if folder.exists() and not folder.is_dir():
        raise InputError(f"Expected a folder, got the file {folder} - choose another --out")
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    others = sorted(name for name in there - {FITS, *FILES} if not name.endswith(".partial"))
    if others:
        raise InputError(
            f"Expected a new folder, or one of an evaluation, got {folder} with {others[0]} - "
            "choose another --out"
        )
    if JSON_FILE in there and not overwrite and not _has_failures(folder / JSON_FILE):
        raise InputError(
            f"Expected no finished evaluation, got one in {folder} - choose another --out, or "
            "start over with --overwrite"
        )


def _has_failures(path: Path) -> bool:
    """Whether a finished evaluation has rows that failed, which may be tried again."""
    try:
        rows = json.loads(path.read_bytes())["detectors"]
        return any(row["status"] == "failed" for row in rows)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _clear(folder: Path) -> None:
    from hallutrace.detect.evaluation import FILES

    shutil.rmtree(folder / FITS, ignore_errors=True)
    for name in FILES:
        (folder / name).unlink(missing_ok=True)


def _shown(evaluation: Evaluation, label: str, plan: Plan) -> Table:
    from hallutrace.detect.evaluation import table_cells, title

    is_wide = OUT.width >= WIDE
    table = Table(title=cell(title(evaluation, label), 1000), title_justify="left", box=box.SIMPLE)
    for name, is_shown in _COLUMNS.items():
        if is_shown or is_wide:
            heading = name.format(level=f"{100 * plan.level:g}%")
            table.add_column(heading, no_wrap=name.startswith("AUROC"))
    for row in plan.rows:
        head = styled((cell(row.label), "bold" if row.is_control else ""))
        cells = table_cells(evaluation, row)
        if cells is None:
            table.add_row(head, "not applicable" if row.label in evaluation.missing else "failed")
            continue
        short = [cells[0], *(text.split(" ")[0] for text in cells[1:4]), *cells[4:]]
        shown = zip(short, list(_COLUMNS.values())[1:], strict=True)
        table.add_row(head, *(plain(text) for text, is_shown in shown if is_shown or is_wide))
    return table


def _show_remarks(evaluation: Evaluation) -> None:
    from hallutrace.detect.evaluation import remarks

    OUT.print("Controls are bold.")
    for text in remarks(evaluation):
        OUT.print(cell(text, 1000))
