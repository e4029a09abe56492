"""Peak memory of writing and reading made-up traces: flat in their number, linear in tokens.

    python benches/memory.py                                       # 200, 2,000, 20,000 traces
    python benches/memory.py --tokens 256 512 1024 2048 4096 --traces 50 --shard 50

Prints one line of JSON a row.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ANSWER, LAYERS, HEADS, WIDTH = 12, 4, 8, 64
TOP_K = 16  # edges of a row


def main() -> None:
    """Measures each combination in processes of their own."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--traces", type=int, nargs="+", default=[200, 2_000, 20_000])
    parser.add_argument("--shard", type=int, nargs="+", default=[50, 5_000])
    parser.add_argument("--tokens", type=int, nargs="+", default=[48], help="of a trace")
    parser.add_argument("--child", choices=["write", "read"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        peak = Peak()
        if options.child == "write":
            write(options.folder, options.traces[0], options.shard[0], options.tokens[0])
        else:
            read(options.folder)
        print(peak.now())
        return
    for tokens, traces, shard in itertools.product(options.tokens, options.traces, options.shard):
        with tempfile.TemporaryDirectory() as folder:
            peaks = [child(task, folder, traces, shard, tokens) for task in ("write", "read")]
            size = sum(path.stat().st_size for path in Path(folder, "shards").iterdir())
        row = {
            "traces": traces,
            "a shard": shard,
            "tokens": tokens,
            "MB at the peak, writing": round(peaks[0], 1),
            "MB at the peak, reading": round(peaks[1], 1),
            "MB of a header": round(min(shard, traces) * 2560 / 1e6, 1),
            "MB of a trace": round(size / traces / 1e6, 4),
        }
        print(json.dumps(row), flush=True)


def child(task: str, folder: str, traces: int, shard: int, tokens: int) -> float:
    """Peak resident memory in MB of a process that does one thing."""
    command = [sys.executable, __file__, "--child", task, "--folder", folder]
    command += ["--traces", str(traces), "--shard", str(shard), "--tokens", str(tokens)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


class Peak:
    """The most anonymous memory, in MB, sampled: mapped files come and go as the system likes."""

    def __init__(self) -> None:
        self._peak = 0.0
        threading.Thread(target=self._sample, daemon=True).start()

    def _sample(self) -> None:
        while True:
            self.now()
            time.sleep(0.002)

    def now(self) -> float:
        """Takes a sample, and gives the most so far."""
        status = Path("/proc/self/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        self._peak = max(self._peak, int(fields["RssAnon"].split()[0]) / 1000)
        return self._peak


def made_up(tokens: int) -> dict[str, Any]:
    """The arrays of a trace, every token looking at itself and what is before it."""
    import numpy as np

    random = np.random.default_rng(0)
    rows = ANSWER + 1
    counts = np.minimum(np.arange(tokens) + 1, TOP_K)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    keys = np.concatenate(
        [np.arange(row + 1 - count, row + 1) for row, count in enumerate(counts)]
    ).astype(np.int32)

    def unit(*shape: int) -> Any:
        return random.random(shape, np.float32)

    return {
        "tokens": np.arange(tokens, dtype=np.int32),
        "logprob": -unit(ANSWER),
        "token_entropy": unit(ANSWER),
        "edges.offset": np.arange(LAYERS + 1, dtype=np.int64) * len(keys),
        "edges.indptr": np.tile(indptr, (LAYERS, 1)),
        "edges.key": np.tile(keys, LAYERS),
        "edges.weight": unit(LAYERS * len(keys)),
        "marginals.log_diagonal": unit(LAYERS, HEADS, 2),
        "marginals.log_square": unit(LAYERS, HEADS, 2),
        "marginals.diagonal": unit(LAYERS, HEADS, tokens),
        "marginals.received_mean": unit(LAYERS, HEADS, tokens),
        "marginals.previous": unit(LAYERS, HEADS, rows),
        "marginals.entropy": unit(LAYERS, HEADS, rows),
        "marginals.mass": unit(LAYERS, HEADS, rows, 3),
        "marginals.square": unit(LAYERS, HEADS, rows),
        "marginals.rough": unit(LAYERS, HEADS, rows, 3),
        "marginals.value_norm": unit(LAYERS, HEADS, tokens),
        "hidden": unit(LAYERS, rows, WIDTH),
    }


def write(folder: Path, traces: int, shard: int, tokens: int) -> None:
    """Shards of made-up traces, 50 a batch."""
    import numpy as np

    from hallutrace._core import ShardWriter
    from hallutrace.store.folder import CommitRecord

    for name in ("partial", "shards"):
        (folder / name).mkdir()
    arrays = made_up(tokens)
    for number, begin in enumerate(range(0, traces, shard)):
        count = min(shard, traces - begin)
        record = CommitRecord(f"{number:05d}", begin, count, "", "f" * 16, {})
        about = record.description()
        writer = ShardWriter(folder, record.name, "made up", count, about)
        for at in range(count):
            meta = json.dumps({"id": str(begin + at), "sample": 0}).encode()
            arrays["meta"] = np.frombuffer(meta, np.uint8)
            writer.append(at, str(begin + at), 0, arrays)
            if at % 50 == 49:
                writer.end_batch("")
        writer.finish({"traces": count}, range(begin, begin + count), [])
        writer.forget()


def read(folder: Path) -> None:
    """Every tensor of every trace, a shard open at a time."""
    from hallutrace._core import Shard

    for path in sorted((folder / "shards").iterdir()):
        opened = Shard(path)
        for position in range(len(opened)):
            for name in ("edges.key", "hidden", "marginals.mass", "meta"):
                opened.tensor(position, name)


if __name__ == "__main__":
    main()
