"""How long layers and heads take: the statistics of a large run, and the grid in Chromium.

    python benches/view_layers.py [--traces 20000] [--layers 36] [--heads 32]

Statistics are those of one marginal, of values made up as those of a run that was read, in seconds
of the processor. A step in the browser is timed from the key or click until all is drawn, and the
frame after it, without waiting for the screen. Prints one line of JSON: medians.
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
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np

PYTHON_TESTS = Path(__file__).parents[1] / "tests" / "python"

MEASURE = """async () => {
  const frame = () => new Promise((resolve) => requestAnimationFrame(() => {
    const begin = performance.now(), channel = new MessageChannel();
    channel.port1.onmessage = () => resolve(performance.now() - begin);
    channel.port2.postMessage(null);
  }));
  const settled = async () => { while (document.querySelector("[aria-busy]")) await new Promise((go) => setTimeout(go, 0)); };
  const timed = async (act) => {
    await frame();
    const begin = performance.now();
    act();
    await settled();
    const handler = performance.now() - begin;
    return handler + await frame();
  };
  const press = (key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  document.querySelector("[data-cell='0']").focus();
  const moves = [], opened = [], drawn = [];
  for (let i = 0; i < 60; i++) moves.push(await timed(() => press(i % 2 ? "ArrowDown" : "ArrowRight")));
  for (let i = 0; i < 20; i++) {
    press("ArrowLeft");
    opened.push(await timed(() => press("Enter")));
  }
  const select = document.querySelector("[data-name='marginal'] select");
  for (let i = 0; i < 20; i++) {
    select.selectedIndex = (i + 1) % select.options.length;
    drawn.push(await timed(() => select.dispatchEvent(new Event("change"))));
  }
  return { moves, opened, drawn };
}"""  # noqa: E501


def main() -> None:
    """Measures both."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--traces", type=int, default=20_000)
    parser.add_argument("--layers", type=int, default=36)
    parser.add_argument("--heads", type=int, default=32)
    asked = parser.parse_args()
    sys.path.insert(0, str(PYTHON_TESTS))
    found = {
        **vars(asked),
        "load": os.getloadavg()[0],
        **statistics(asked.traces, asked.layers, asked.heads),
        **browser(asked.layers, asked.heads),
    }
    print(json.dumps(found))


def statistics(traces: int, layers: int, heads: int) -> dict[str, float]:
    """Seconds of the payloads of one marginal of a run that has been read, and memory for them."""
    from hallutrace.viewer.data import heads as of_heads
    from hallutrace.viewer.data import layers as data
    from hallutrace.viewer.data.head_quantities import QUANTITIES
    from hallutrace.viewer.data.head_tables import HeadTable

    rng = np.random.default_rng(0)
    values = rng.standard_normal((traces, layers, heads), np.float32)
    table = HeadTable(QUANTITIES["entropy"], values, np.ones(traces, np.bool_))
    labels = (rng.random(traces) < 0.4).astype(np.int8)
    viewed = _Viewed(table, labels, layers, heads)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds: dict[str, list[float]] = {"layers_s": [], "heads_s": []}
    with patch.object(data, "_groups", lambda _: np.arange(traces) // 2):
        for _ in range(3):
            for name, function in (
                ("layers_s", data.layers_data),
                ("heads_s", of_heads.heads_data),
            ):
                begin = time.process_time()
                function(viewed, label="contains")  # type: ignore[arg-type]
                seconds[name].append(time.process_time() - begin)
    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {name: round(median(each), 2) for name, each in seconds.items()} | {
        "table_MB": round(values.nbytes / 1e6),
        "more_MB": round(more / 1e3),
    }


class _Viewed:
    """As much of a viewed run as the payloads ask of it."""

    def __init__(self, table: Any, labels: Any, layers: int, heads: int) -> None:
        self.head_tables = self
        self.store = self
        self.manifest = self
        self.facts = {"captured_layers": list(range(layers))}
        self.key_texts = [f"q{number}" for number in range(len(labels))]
        self._table, self._labels, self._heads = table, labels, [heads] * layers

    def table(self, name: str) -> Any:
        return self._table

    def heads(self, _: Any) -> list[int]:
        return self._heads

    def label_values(self, name: str) -> Any:
        return self._labels


def browser(layers: int, heads: int) -> dict[str, float]:
    """Milliseconds of a step with an arrow key, of opening a head, and of another marginal."""
    import hallutrace
    from browsers import Opened, chromium
    from detect_runs import Made, causal_attention, write_run
    from hallutrace.viewer.data.layers import report_keys
    from hallutrace.viewer.page import page
    from hallutrace.viewer.providers import key_of, payload_of
    from hallutrace.viewer.viewed_run import ViewedRun

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        made = [
            Made(causal_attention((layers, heads, 10), rng), 6, number % 2) for number in range(60)
        ]
        viewed = ViewedRun(hallutrace.open(write_run(Path(folder) / "run", made)))
        keys = list(report_keys(viewed))
        payloads = [(key_of(name, given), payload_of(viewed, name, given)) for name, given in keys]
        file = Path(folder) / "page.html"
        file.write_text("".join(page({"title": "bench"}, payloads)), "utf-8")
        with chromium() as one:
            opened = Opened(one, file)
            found = opened.page.evaluate(MEASURE)
            opened.close()
    return {f"{name}_ms": round(median(times), 1) for name, times in found.items()}


if __name__ == "__main__":
    main()
