"""Runs every bench and appends what it printed to ``record/bench.jsonl``, with the machine.

python benches/all.py                    # all; half an hour on two cores
python benches/all.py sparsify replay    # some
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RECORD = HERE / "record" / "bench.jsonl"
PACKAGES = ("hallutrace", "torch", "transformers", "numpy", "torch_geometric")
BENCHES: dict[str, list[str]] = {
    "sparsify": ["compare/sparsify.py"],
    "shards": ["compare/shards.py"],
    "graphs": ["compare/graphs.py"],
    "features": ["features.py"],
    "few-rows": ["few_rows.py"],
    "startup": ["startup.py"],
    "replay": ["replay.py"],
    "replay-memory": ["replay.py", "--case", "2048", "--memory"],
    "replay-memory-8192": ["replay.py", "--case", "8192-deep", "--memory"],
    "memory-traces": ["memory.py"],
    "memory-tokens": [
        *("memory.py", "--traces", "50", "--shard", "50"),
        *("--tokens", "256", "512", "1024", "2048", "4096"),
    ],
    "whole-run-demo": ["whole_run.py", "--model", "demo"],
    "whole-run-0.6b": ["whole_run.py"],
    "whole-job": ["compare/whole_job.py"],
}


def machine() -> dict[str, Any]:
    """Processor, cores and memory."""
    processor = platform.processor() or platform.machine()
    flags: set[str] = set()
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                processor = value.strip()
            if name.strip() == "flags":
                flags = set(value.split())
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "avx2": "avx2" in flags,
        "avx512": {"avx512f", "avx512bw", "avx512vl"} <= flags,
        "system": platform.system(),
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Of what is measured and measured against."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    """Runs the benches that are named, or all."""
    asked = sys.argv[1:] or list(BENCHES)
    unknown = set(asked) - set(BENCHES)
    if unknown:
        raise SystemExit(f"Expected some of {', '.join(BENCHES)}, got {', '.join(sorted(unknown))}")
    RECORD.parent.mkdir(exist_ok=True)
    for name in asked:
        script, *options = BENCHES[name]
        print(f"== {name}", flush=True)
        command = [sys.executable, str(HERE / script), *options]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        print(done.stdout, flush=True)
        if done.returncode:
            raise SystemExit(f"{name} failed")
        row = {
            "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
            "bench": name,
            "command": " ".join(["python", f"benches/{script}", *options]),
            "machine": machine(),
            "versions": versions(),
            "figures": [_parsed(line) for line in done.stdout.splitlines() if line.strip()],
        }
        with RECORD.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def _parsed(line: str) -> Any:
    """A line of JSON as what it says, any other as it stands."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return line


if __name__ == "__main__":
    main()
