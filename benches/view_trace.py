"""How long the view of one trace takes in Chromium: a step of the layer, and hovering a token.

    python benches/view_trace.py [--tokens 2048] [--answer 64] [--layers 36] [--heads 32]

A time is that of the handler, until all is drawn, and of the frame after it (style, layout, paint),
without waiting for the screen. The first step to a layer unpacks its edges, so each layer is new.
CPU times hold on a busy machine too; they count an idle frame besides. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

TOP_K = 16
PYTHON_TESTS = Path(__file__).parents[1] / "tests" / "python"

MEASURE = """async (kind) => {
  const frame = () => new Promise((resolve) => requestAnimationFrame(() => {
    const begin = performance.now(), channel = new MessageChannel();
    channel.port1.onmessage = () => resolve(performance.now() - begin);
    channel.port2.postMessage(null);
  }));
  const told = document.querySelector(".row-told");
  const drawn = () => new Promise((resolve) => {
    const seen = () => { observer.disconnect(); resolve(performance.now()); };
    const observer = new MutationObserver(seen);
    observer.observe(told, { childList: true });
  });
  const sliders = [...document.querySelectorAll("input[type=range]")];
  const move = (name, value) => {
    const slider = sliders.find((one) => one.parentNode.textContent.startsWith(name));
    slider.value = value;
    slider.dispatchEvent(new Event("input", { bubbles: true }));
  };
  const tokens = [...document.querySelectorAll(".token")];
  const acts = {
    step: { count: Number(sliders[0].max), act: (i) => move("Layer", i + 1) },
    hover: { count: 200, act: (i) => tokens[(i * 37 + 11) % tokens.length]
      .dispatchEvent(new PointerEvent("pointerover", { bubbles: true })) },
    keep: { count: 40, act: (i) => move("Keep", 99 - i) },
  };
  const times = [];
  for (let i = 0; i < acts[kind].count; i++) {
    await frame();
    const done = drawn(), begin = performance.now();
    acts[kind].act(i);
    const handler = (await done) - begin;
    times.push(handler + await frame());
  }
  return times;
}"""
KINDS = {"step": "a step of the layer", "hover": "hovering a token", "keep": "a step of the p%"}


def main() -> None:
    """Writes a run of one made-up trace, its page, and measures it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--answer", type=int, default=64)
    parser.add_argument("--layers", type=int, default=36)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--page", type=Path, help="where the page is kept")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        write(run, options)
        page = options.page or Path(folder) / "page.html"
        write_page(run, page)
        found, size = measure(page), page.stat().st_size
    row: dict[str, Any] = {name: getattr(options, name) for name in ("tokens", "layers", "heads")}
    row["MB of the page"] = round(size / 1e6, 1)
    for name, (times, cpu) in found.items():
        row[f"{name}: median ms"] = round(float(np.median(times)), 1)
        row[f"{name}: 95% ms"] = round(float(np.percentile(times, 95)), 1)
        row[f"{name}: CPU ms of the main thread"] = round(cpu, 1)
    row["load"] = [round(one, 1) for one in os.getloadavg()]
    print(json.dumps(row))


def measure(page: Path) -> dict[str, tuple[list[float], float]]:
    """Milliseconds of each action, and the mean CPU time of the page's main thread for one."""
    sys.path.insert(0, str(PYTHON_TESTS))
    from browsers import Opened, chromium

    found = {}
    with chromium() as browser:
        opened = Opened(browser, page, viewport={"width": 1280, "height": 900})
        opened.show(view="trace", trace_color="received")
        opened.page.wait_for_selector(".row-told strong")
        opened.page.wait_for_timeout(500)
        session = opened.page.context.new_cdp_session(opened.page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        for kind, name in KINDS.items():
            before = busy(session)
            times = opened.page.evaluate(MEASURE, kind)
            found[name] = times, 1e3 * (busy(session) - before) / len(times)
        opened.close()
    return found


def busy(session: Any) -> float:
    """CPU seconds of the main thread so far."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return next(float(one["value"]) for one in metrics if one["name"] == "TaskDuration")


def write_page(run: Path, out: Path) -> None:
    """A page that carries the trace with all its edges and two marginals of all heads."""
    import hallutrace
    from hallutrace.viewer.data.trace_parts import trace_parts
    from hallutrace.viewer.page import page
    from hallutrace.viewer.providers import key_of, payload_of
    from hallutrace.viewer.viewed_run import ViewedRun

    viewed = ViewedRun(hallutrace.open(run))
    key = viewed.key_texts[0]
    parts = list(trace_parts(viewed, key))
    parts += [("token_heads", {"trace": key, "marginal": one}) for one in ("entropy", "received")]
    payloads = [(key_of(name, at), payload_of(viewed, name, at)) for name, at in parts]
    out.write_text("".join(page({"title": "bench", "served": False}, payloads)), "utf-8")


def write(run: Path, options: argparse.Namespace) -> None:
    """A run of one trace with random edges, through the writer of an extraction."""
    from hallutrace._core import ShardWriter
    from hallutrace.store.folder import CommitRecord, Manifest, Run

    facts = {
        "captured_layers": list(range(options.layers)),
        "heads": [options.heads] * options.layers,
        "value_heads": [options.heads] * options.layers,
        "layers": options.layers,
        "hidden_size": 0,
    }
    identity = {
        "model": {"name": "demo"},
        "hidden": {"states": "none", "layers": [], "dtype": "float32"},
        "sparsification": {"heads": "mean", "top_k": TOP_K, "min_weight": 0.0, "top_mass": None},
    }
    folder, manifest = Run(run), Manifest(identity, facts)
    folder.begin(manifest)
    for name in ("partial", "shards"):
        (run / name).mkdir(exist_ok=True)
    record = CommitRecord("00000", 0, 1, "0" * 32, manifest.fingerprint, {})
    writer = ShardWriter(run, "00000", "bench", 1, record.description())
    writer.append(0, "q0", 0, made_up(options))
    writer.end_batch("")
    size, checksum = writer.finish({"traces": 1}, [0], [])
    folder.commit(CommitRecord(
        "00000", 0, 1, "0" * 32, manifest.fingerprint, {}, counts={"traces": 1}, indices=[0],
        keys=[["q0", 0]], size=size, checksum=checksum,
    ))  # fmt: skip
    writer.forget()


def made_up(options: argparse.Namespace) -> dict[str, Any]:
    """The arrays of a trace: rows that sum to 1, of which random edges kept .9."""
    from hallutrace.canonical_json import canonical

    random = np.random.default_rng(0)
    tokens, answer = options.tokens, options.answer
    layers, heads, rows = options.layers, options.heads, options.answer + 1

    def unit(*shape: int) -> Any:
        return random.random(shape, np.float32)

    counts = np.minimum(np.arange(tokens) + 1, TOP_K)
    keys, weights = [], []
    for _ in range(layers):
        for row, count in enumerate(counts):
            keys.append(np.sort(random.choice(row + 1, count, replace=False)))
            share = random.random(count) ** 4 + 1e-3
            weights.append(0.9 * share / share.sum())
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    meta = {
        "id": "q0", "sample": 0, "group": "q0", "index": 0, "question": "made up?",
        "context": None, "prompt": "made up?", "answer": "made up", "references": ["it"],
        "prompt_length": tokens - answer, "segments": [1, tokens - answer],
        "finish_reason": "length", "hidden": None,
    }  # fmt: skip
    alternatives = np.tile(np.arange(10, dtype=np.int32), (answer, 1))
    return {
        "meta": np.frombuffer(canonical(meta), np.uint8),
        "tokens": random.integers(3, 900, tokens).astype(np.int32),
        "logprob": -unit(answer),
        "token_entropy": unit(answer),
        "logsumexp": unit(answer),
        "alternatives.token": alternatives,
        "alternatives.logprob": -np.sort(unit(answer, 10), axis=1),
        "edges.offset": np.arange(layers + 1, dtype=np.int64) * int(indptr[-1]),
        "edges.indptr": np.tile(indptr, (layers, 1)),
        "edges.key": np.concatenate(keys).astype(np.int32),
        "edges.weight": np.concatenate(weights).astype(np.float32),
        "marginals.log_diagonal": unit(layers, heads, 2),
        "marginals.log_square": unit(layers, heads, 2),
        "marginals.diagonal": unit(layers, heads, tokens),
        "marginals.received_mean": unit(layers, heads, tokens),
        "marginals.previous": unit(layers, heads, rows),
        "marginals.entropy": unit(layers, heads, rows),
        "marginals.mass": np.full((layers, heads, rows, 3), 1 / 3, np.float32),
        "marginals.square": unit(layers, heads, rows),
        "marginals.rough": unit(layers, heads, rows, 3),
        "marginals.value_norm": unit(layers, heads, tokens),
    }


if __name__ == "__main__":
    main()
