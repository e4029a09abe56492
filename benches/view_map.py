"""How long the map takes in a real Chromium: first picture, and a step of the zoom.

    python benches/view_map.py [--points 100000] [--repeats 15]

Prints medians in milliseconds, and beside them the CPU time of the page's thread, which other
programs on the machine do not change. The first picture counts from asking for the view, payloads
still packed in the page, until its pixels are set; a step from the turn of the wheel until then, so
that it includes the wait for the next frame.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "python"))

from browsers import Opened, chromium
from hallutrace.viewer.page import page
from hallutrace.viewer.payload import pack
from hallutrace.viewer.providers import key_of

FIRST = """async () => {
  const { EmbeddedSource } = hallutrace["source.js"];
  const view = hallutrace["registry.js"].allViews().find((one) => one.id === "map");
  const main = document.getElementById("view");
  main.replaceChildren();
  const begin = performance.now();
  main.append(await view.render({ source: new EmbeddedSource() }));
  while (!main.querySelector("[data-drawn]")) await new Promise(requestAnimationFrame);
  return performance.now() - begin;
}"""

STEP = """async (delta) => {
  const element = document.querySelector(".scatter"), box = element.getBoundingClientRect();
  const before = element.dataset.drawn, begin = performance.now();
  element.dispatchEvent(new WheelEvent("wheel", { deltaY: delta, cancelable: true,
    clientX: box.left + box.width * 0.45, clientY: box.top + box.height * 0.5 }));
  while (element.dataset.drawn === before) {
    await new Promise((ready) => setTimeout(ready, 0));
    if (performance.now() - begin > 2000) return null;
  }
  return performance.now() - begin;
}"""


def write_page(file: Path, points: int) -> None:
    """A page with a made-up map: twenty clusters with different shares of hallucinated answers."""
    rng = np.random.default_rng(0)
    centres, shares = rng.normal(size=(20, 2)) * 4, rng.random(20)
    cluster = rng.integers(0, 20, points)
    places = centres[cluster] + rng.normal(size=(points, 2))
    low, high = places.min(axis=0), places.max(axis=0)
    x, y = np.round((places - low) / (high - low) * 65535).astype(np.uint16).T
    label = (rng.random(points) < shares[cluster]).astype(np.int8)
    numbers = rng.normal(size=points).astype(np.float32)
    counts = np.arange(points, dtype=np.uint32)
    chosen = {"method": "umap", "layer": 20, "token": "last_answer", "seed": 0}
    facts = {"traces": points, "missing": None, "layers": [20], "tokens": ["last_answer"]}
    payloads = {
        key_of("projections"): {
            **facts, "layer": 20, "token": "last_answer", "stored": [chosen], "pca": False,
            "command": "hallutrace project", "labels": {"contains": label},
        },
        key_of("map", {name: str(value) for name, value in chosen.items()}): {
            **chosen, "x": x, "y": y,
            "range": [low[0], high[0], low[1], high[1]], "explained": None,
            "preservation": {"share": 0.4, "chance": 0.005, "k": 10, "traces": 2000},
            "parameters": {"neighbours": 15}, "versions": {"numpy": np.__version__}, "stored": True,
        },
        key_of("traces"): {
            "total": points, "position": counts, "key": [f"q{at}" for at in range(points)],
            "question": [f"Who was it, number {at}?" for at in range(points)],
            "answer": ["it was they"] * points, "group": counts, "groups": points,
            "sample": counts * 0, "index": counts, "prompt_tokens": counts % 90,
            "answer_tokens": counts % 30, "mean_logprob": numbers, "min_logprob": numbers,
            "mean_entropy": numbers, "finish_reason": (counts % 2).astype(np.uint8),
            "finish_reasons": ["eos", "length"], "labels": {"contains": label},
            "scores": {"linear-probe": numbers}, "damaged": [],
        },
    }  # fmt: skip
    packed = [(key, pack(value)) for key, value in payloads.items()]
    file.write_text("".join(page({"title": "bench"}, packed)), "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        file = Path(folder) / "map.html"
        write_page(file, options.points)
        opened = Opened(browser, file, viewport={"width": 1280, "height": 900})
        timed = Timed(opened.page)
        first = [timed.run(FIRST) for _ in range(options.repeats)]
        turns = [-90] * 12 + [90] * 12
        steps = [timed.run(STEP, one) for one in turns * max(1, options.repeats // 5)]
        opened.close()
    print(f"{options.points:,} points; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
    tell("first picture", first)
    tell("zoom step", steps)


class Timed:
    """Runs scripts in a page; wall and CPU time of each, ms."""

    def __init__(self, page: Any) -> None:
        self._page = page
        self._session = page.context.new_cdp_session(page)
        self._session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def _cpu(self) -> float:
        metrics = self._session.send("Performance.getMetrics")["metrics"]
        return float(next(one["value"] for one in metrics if one["name"] == "TaskDuration"))

    def run(self, script: str, argument: object = None) -> tuple[float | None, float]:
        """What the script says it took, and the CPU time that the page's thread took."""
        before = self._cpu()
        wall = self._page.evaluate(script, argument)
        return wall, 1000 * (self._cpu() - before)


def tell(what: str, times: list[tuple[float | None, float]]) -> None:
    """Prints a line; a step that changed nothing (at the limit of the zoom) does not count."""
    done = [(wall, cpu) for wall, cpu in times if wall is not None]
    walls, cpus = [wall for wall, _ in done], [cpu for _, cpu in done]
    print(
        f"{what}: median {statistics.median(walls):.0f} ms, most {max(walls):.0f} ms, "
        f"CPU median {statistics.median(cpus):.0f} ms, of {len(done)}"
    )


if __name__ == "__main__":
    main()
