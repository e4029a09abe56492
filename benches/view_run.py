"""How long the views of the run and of its errors take for a large run: data, sizes, first paint.

    python benches/view_run.py [--traces 20000] [--run FOLDER]

The run is made up, with hidden states of the answer, groups of one to three traces and an
evaluation of six detectors; --run keeps it for another call. Times of data are those of the
provider and of packing, the first after opening the run. Times of the page are from the start of
the navigation until the view is drawn, median of five. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

PYTHON_TESTS = Path(__file__).parents[1] / "tests" / "python"
PAYLOADS = ("run", "distributions", "traces", "errors")
OPENED = "html[data-ready]:not(:has([aria-busy])) main section"


def main() -> None:
    """Makes the run unless it is there, and measures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--traces", type=int, default=20_000)
    parser.add_argument("--run", type=Path, help="where the run is kept, or lies already")
    options = parser.parse_args()
    sys.path.insert(0, str(PYTHON_TESTS))
    with tempfile.TemporaryDirectory() as folder:
        run = options.run or Path(folder) / "run"
        if not run.exists():
            make(run, options.traces)
        found: dict[str, Any] = {"traces": options.traces}
        found |= measure_data(run, Path(folder) / "page.html")
        found |= measure_page(Path(folder) / "page.html")
    found["load"] = [round(one, 1) for one in os.getloadavg()]
    print(json.dumps(found))


def make(run: Path, traces: int) -> None:
    """Writes the run and, beside it, its evaluation."""
    from detect_runs import Made, causal_attention, write_run
    from evaluations import write_made_up

    rng = np.random.default_rng(0)
    words = ("What", "Who", "When", "Where", "Which", "How", "In", "Does")
    attention = {size: causal_attention((2, 2, size), rng) for size in range(9, 20)}
    labels = rng.random(traces) < 0.35
    made = []
    for number, label in enumerate(labels.tolist()):
        answer = int(rng.integers(1, 12))
        made.append(
            Made(
                attention[8 + answer],
                8,
                int(label),
                question=f"{words[number % 8]} is it that question {number} asks about?",
                group=f"g{number - number % int(rng.integers(1, 4))}",
                logprob=-rng.exponential(1.0 + label, answer),
                token_entropy=rng.exponential(1.0 + label, answer),
                hidden=(rng.normal(size=(2, answer + 1, 128)) + label).astype(np.float32),
                eos=number % 10 > 0,
            )
        )
    write_run(run, made, states="answer")
    names = ("length", "question-only", "perplexity", "a", "b", "c")
    scores = {name: rng.normal(size=traces) + at * 0.3 * labels for at, name in enumerate(names)}
    write_made_up(run.with_name(f"{run.name}-evaluation"), run, scores)


def measure_data(run: Path, page: Path) -> dict[str, Any]:
    """Seconds and bytes of each payload; the page of all of them is written."""
    import hallutrace
    from hallutrace.viewer import page as pages
    from hallutrace.viewer.providers import payload_of
    from hallutrace.viewer.viewed_run import ViewedRun

    begin = time.perf_counter()
    viewed = ViewedRun(hallutrace.open(run), run.with_name(f"{run.name}-evaluation"))
    found: dict[str, Any] = {"open, s": round(time.perf_counter() - begin, 2)}
    payloads = []
    for name in PAYLOADS:
        begin = time.perf_counter()
        payloads.append((name, payload_of(viewed, name, {})))
        found[f"{name}, s"] = round(time.perf_counter() - begin, 2)
        found[f"{name}, kB"] = round(len(payloads[-1][1]) / 1000)
    begin = time.perf_counter()
    payload_of(viewed, "errors", {"detector": "b"})
    found["errors of another detector, s"] = round(time.perf_counter() - begin, 2)
    found["peak, MB"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)
    page.write_text("".join(pages.page({"title": "bench", "served": False}, payloads)), "utf-8")
    return found


def measure_page(page: Path) -> dict[str, float]:
    """Milliseconds until each view is drawn, and until a change of the list's filter is."""
    from browsers import chromium

    times: dict[str, list[float]] = {}
    with chromium() as browser:
        for _ in range(5):
            tab = browser.new_page()
            for view in ("run", "errors"):
                tab.goto("about:blank")
                tab.goto(f"{page.resolve().as_uri()}#view={view}")
                tab.wait_for_selector(OPENED)
                times.setdefault(f"{view}, drawn, ms", []).append(tab.evaluate("performance.now()"))
                paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
                times.setdefault(f"{view}, first paint, ms", []).append(tab.evaluate(paint))
            tab.goto(f"{page.resolve().as_uri()}#view=run")
            tab.wait_for_selector(OPENED)
            change = """() => { const begin = performance.now();
              const search = document.querySelector("input[type=search]");
              search.value = "17"; search.dispatchEvent(new Event("input"));
              return performance.now() - begin; }"""
            times.setdefault("filter of the list, ms", []).append(tab.evaluate(change))
            tab.close()
    return {name: round(float(np.median(one)), 1) for name, one in times.items()}


if __name__ == "__main__":
    main()
