"""The report of a large run: seconds, memory, bytes, and until the page is drawn in Chromium.

    python benches/view_report.py [--traces 20000] [--run FOLDER]

The run and its evaluation are those of view_run.py; --run keeps them for another call. Memory is
that of the process that writes the report, without the pages of mapped files: its peak less what
it has with the run open, sampled every 20 ms.
Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import view_run

DRAWN = "html[data-ready]:not(:has([aria-busy])) main section"


def main() -> None:
    """Makes the run unless it is there, and measures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--traces", type=int, default=20_000)
    parser.add_argument("--run", type=Path, help="where the run is kept, or lies already")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        print(json.dumps(write(options.run, options.write)))
        return
    sys.path.insert(0, str(view_run.PYTHON_TESTS))
    with tempfile.TemporaryDirectory() as folder:
        run, page = options.run or Path(folder) / "run", Path(folder) / "page.html"
        if not run.exists():
            view_run.make(run, options.traces)
        command = [sys.executable, __file__, "--run", str(run), "--write", str(page)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        found |= opened(page)
    found["load"] = [round(one, 1) for one in os.getloadavg()]
    print(json.dumps(found))


def write(run: Path, page: Path) -> dict[str, Any]:
    """Writes the report in this process, and tells what it took."""
    import hallutrace
    from hallutrace.viewer.report.report import write_report
    from hallutrace.viewer.viewed_run import ViewedRun

    viewed = ViewedRun(hallutrace.open(run), run.with_name(f"{run.name}-evaluation"))
    before, samples, ended = own_memory(), [0], threading.Event()

    def sample() -> None:
        while not ended.wait(0.02):
            samples.append(own_memory())

    thread = threading.Thread(target=sample)
    thread.start()
    began, cpu = time.perf_counter(), time.process_time()
    notes = write_report(viewed, page)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    ended.set()
    thread.join()
    return {
        "traces": len(viewed.store),
        "write_s": round(seconds, 2),
        "cpu_s": round(cpu, 2),
        "more_memory_mb": round((max(samples) - before) / 1e6),
        "page_mb": round(page.stat().st_size / 1e6, 2),
        "notes": notes,
    }


def own_memory() -> int:
    """Bytes of this process that are no pages of files."""
    memory = psutil.Process().memory_info()
    return int(memory.rss - memory.shared)


def opened(page: Path) -> dict[str, Any]:
    """Seconds from the start of the navigation until the first view is drawn, median of five."""
    from browsers import chromium

    with chromium() as browser:
        seconds, painted = [], []
        for _ in range(5):
            tab = browser.new_page()
            began = time.perf_counter()
            tab.goto(page.resolve().as_uri())
            tab.wait_for_selector(DRAWN)
            seconds.append(time.perf_counter() - began)
            painted.append(
                tab.evaluate(
                    "() => performance.getEntriesByName('first-contentful-paint')[0].startTime"
                )
            )
            tab.close()
    return {
        "drawn_s": round(sorted(seconds)[2], 2),
        "first_paint_s": round(sorted(painted)[2] / 1000, 2),
    }


if __name__ == "__main__":
    main()
