"""Traces a second of one extraction alone, and of two side by side on the same cores.

    python benches/side_by_side.py                        # the small model, as users meet it
    python benches/side_by_side.py --spins 300 2000 300000
    python benches/side_by_side.py --workers              # two workers of one run instead

``--spins`` sets ``GOMP_SPINCOUNT`` for the processes, to compare other values with the one that
hallutrace sets. Turns alternate, and medians are printed, because machines are noisy.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path


def start(out: Path, questions: str, spins: str | None, more: list[str]) -> subprocess.Popen[str]:
    """Starts an extraction as a process of its own."""
    command = [sys.executable, "-m", "hallutrace", "extract", "--questions", questions]
    command += ["--out", str(out), "--json", *more]
    environment = dict(os.environ)
    if spins is not None:
        environment["GOMP_SPINCOUNT"] = spins
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def rate(process: subprocess.Popen[str]) -> float:
    """Traces a second that an extraction reached, imports and loading left out."""
    summary = json.loads(process.communicate()[0])
    return float(summary["new_traces"] / summary["seconds"])


def main() -> None:
    """Prints a line for each setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spins", nargs="+", default=[None], help="values of GOMP_SPINCOUNT")
    parser.add_argument("--questions", default="demo:1000")
    parser.add_argument("--workers", action="store_true", help="two workers of one run")
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    alone: dict[str | None, list[float]] = {spins: [] for spins in arguments.spins}
    beside: dict[str | None, list[float]] = {spins: [] for spins in arguments.spins}
    for turn in range(arguments.turns):
        for spins in arguments.spins:
            out = folder / f"{spins}-{turn}"
            alone[spins].append(rate(start(out / "alone", arguments.questions, spins, [])))
            processes = []
            for at in range(2):
                more = ["--worker", f"{at}/2", "--shard-size", "50"] if arguments.workers else []
                name = "shared" if arguments.workers else f"beside-{at}"
                processes.append(start(out / name, arguments.questions, spins, more))
            beside[spins] += [rate(process) for process in processes]
            shutil.rmtree(out)
    for spins in arguments.spins:
        one, two = statistics.median(alone[spins]), statistics.median(beside[spins])
        print(
            f"GOMP_SPINCOUNT {spins or 'as hallutrace sets it'}: alone {one:.0f} traces a second, "
            f"each of two {two:.0f} ({two / one:.0%}; least {min(beside[spins]):.0f})"
        )


if __name__ == "__main__":
    main()
