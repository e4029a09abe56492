"""How quick the explorer is, and how much memory it takes: a large run, and a folder of many runs.

    python benches/view_explore.py [--traces 20000] [--runs 200] [--growing 20] [--seconds 20]

Runs are made up: traces of 40 tokens, 4 layers and 8 heads in shards of 500; the runs that grow get
a batch of 16 traces in their journal each second. The server is a process of its own, and the page
is opened in Chromium with nothing cached. Memory is what is the server's own (USS). Prints a line
of JSON for each part.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "python"))
SHARD = 500
READY = "html[data-ready]"


def main() -> None:
    """Measures both."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default in (("traces", 20_000), ("runs", 200), ("growing", 20), ("seconds", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(large_run(Path(folder) / "large", options.traces)), flush=True)
        print(json.dumps(many_runs(Path(folder) / "many", options)), flush=True)


def large_run(folder: Path, traces: int) -> dict[str, Any]:
    """First page, traces opened, and memory, of one large run."""
    make_run(folder / "run", traces)
    with served(folder) as (address, server):
        pages = [opened(address, "main dl, main figure") for _ in range(3)]
        settle(server)
        run = httpx.get(address).text.split('"id": "')[1].split('"')[0]
        before, times = memory(server), []
        rng = random.Random(0)
        with httpx.Client(base_url=address) as client:
            for _ in range(2000):
                key = f"q{rng.randrange(traces)}"
                began = time.perf_counter()
                answer = client.get(f"data/{run}/trace", params={"trace": key})
                times.append(time.perf_counter() - began)
                answer.raise_for_status()
        seen = opened(f"{address}#view=trace&trace=q{traces // 2}", "main .token")
        return {
            "bench": "explore large run",
            "traces": traces,
            "first_page_s": pages,
            "trace_payload_ms": quantiles(1000 * np.array(times)),
            "trace_page_s": seen,
            "memory_mb": [before, memory(server)],
        }


def many_runs(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """First page and updates of a folder of runs, some of which grow."""
    from hallutrace.store.claims import claim

    for number in range(options.runs):
        make_records(folder / f"run-{number:03d}", 1000)
    growing = [folder / f"run-{number:03d}" for number in range(options.growing)]
    claims = [claim(run / "partial", "00002", SHARD) for run in growing]
    stopped = threading.Event()
    thread = threading.Thread(target=grow, args=(growing, stopped))
    with served(folder) as (address, server):
        for one in claims:
            one.__enter__()
        thread.start()
        try:
            pages = [opened(f"{address}#view=runs", ".rows [role=row]") for _ in range(3)]
            updates = listened(address, options.seconds)
            used = memory(server)
        finally:
            stopped.set()
            thread.join()
            for one in claims:
                one.__exit__(None, None, None)
    return {
        "bench": "explore many runs",
        "runs": options.runs,
        "growing": options.growing,
        "first_page_s": pages,
        "update_bytes": quantiles(np.array(updates)),
        "memory_mb": used,
    }


def make_run(folder: Path, traces: int) -> None:
    """A run of made-up traces that differ in their ids alone."""
    from detect_runs import Made, arrays_of, causal_attention, write_run
    from hallutrace.canonical_json import canonical
    from hallutrace.extraction.trace_arrays import HiddenChoice
    from hallutrace.store.folder import Run
    from made_shards import begin_shard, finish_shard

    rng = np.random.default_rng(0)
    made = Made(causal_attention((4, 8, 40), rng), prompt=24)
    write_run(folder, [made])
    (folder / "shards" / "00000.json").unlink()
    (folder / "shards" / "00000.safetensors").unlink()
    arrays = arrays_of(made, 0, HiddenChoice("none", [], "float32"), all_rows=False)
    meta = json.loads(arrays["meta"].tobytes())
    run, fingerprint = Run(folder), Run(folder).manifest().fingerprint
    for first in range(0, traces, SHARD):
        name, count = f"{first // SHARD:05d}", min(SHARD, traces - first)
        writer, record = begin_shard(folder, name, count, fingerprint)
        ids = [f"q{first + number}" for number in range(count)]
        for number, id_ in enumerate(ids):
            own = {**meta, "id": id_, "group": id_, "index": first + number}
            arrays["meta"] = np.frombuffer(canonical(own), np.uint8)
            writer.append(number, id_, 0, arrays)
        run.commit(replace(finish_shard(writer, record, ids, first), first=first))
        writer.forget()
    rows = [{"id": f"q{at}", "sample": 0, "label": at % 3, "score": None} for at in range(traces)]
    lines = "".join(json.dumps({**row, "label": int(row["label"] == 0)}) + "\n" for row in rows)
    (folder / "labels" / "contains.jsonl").write_text(lines)


def make_records(folder: Path, traces: int) -> None:
    """The manifest and the commit records of a run, without shards."""
    from hallutrace.store.folder import CommitRecord, Manifest, Run

    identity = {"model": {"name": "made-up"}, "seed": int(folder.name[-3:])}
    run, manifest = Run(folder), Manifest(identity, {"layers": 4})
    run.begin(manifest)
    for first in range(0, traces, SHARD):
        ids = [[f"q{first + at}", 0] for at in range(SHARD)]
        record = CommitRecord(
            name=f"{first // SHARD:05d}",
            first=first,
            questions=SHARD,
            digest="0" * 32,
            fingerprint=manifest.fingerprint,
            environment={},
            keys=ids,
            indices=list(range(first, first + SHARD)),
            size=1_000_000,
            checksum="0" * 16,
            counts={"traces": SHARD},
        )
        run.commit(record)
    (folder / "labels" / "contains.jsonl").write_text("")


def grow(runs: list[Path], stopped: threading.Event) -> None:
    """Appends a batch to the journal of each run, each second."""
    trace = {"id": "q", "tensors": [[0] * 12] * 30}
    while not stopped.wait(1.0):
        line = json.dumps({"data": 1_000_000, "note": "", "traces": [trace] * 16})
        for run in runs:
            with (run / "partial" / "00002.journal").open("a") as file:
                file.write(f"{'0' * 16} {line}\n")


class served:  # noqa: N801
    """The explorer as a process: its address, and the process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> tuple[str, psutil.Process]:
        import explorers

        self._context = explorers.served(self._folder)
        address = self._context.__enter__()
        children = psutil.Process().children()
        return address, max(children, key=lambda one: one.create_time())

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(None, None, None)


def opened(address: str, selector: str) -> float:
    """Seconds until something of a page is shown, in a new browser context."""
    from browsers import chromium

    with chromium() as browser:
        page = browser.new_context().new_page()
        page.goto("about:blank")
        began = time.perf_counter()
        page.goto(address)
        page.wait_for_selector(selector, timeout=60_000)
        return round(time.perf_counter() - began, 3)


def settle(process: psutil.Process) -> None:
    """Waits until the server has computed what pages asked for: figures of all traces."""
    while process.cpu_percent(2.0) > 5:
        pass


def listened(address: str, seconds: float) -> list[int]:
    """Bytes of the updates of each second."""
    sizes: dict[int, int] = {}
    began = time.monotonic()
    with httpx.stream("GET", f"{address}events", timeout=60) as stream:
        for chunk in stream.iter_raw():
            at = int(time.monotonic() - began)
            if at > seconds:
                break
            sizes[at] = sizes.get(at, 0) + len(chunk)
    return [size for at, size in sorted(sizes.items()) if at > 1]  # the first are the whole


def memory(process: psutil.Process) -> float:
    """MB that are the process's own."""
    return round(process.memory_full_info().uss / 1e6, 1)


def quantiles(values: Any) -> dict[str, float]:
    """Median, 95th percentile and largest."""
    shares = {"median": 0.5, "p95": 0.95, "largest": 1.0}
    return {name: round(float(np.quantile(values, share)), 2) for name, share in shares.items()}


if __name__ == "__main__":
    main()
