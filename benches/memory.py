"""Peak memory of writing and reading made-up traces: flat in their number, but for the header.

python benches/memory.py [--traces 200 20000] [--shard 50 5000]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

TOKENS, ANSWER, LAYERS, HEADS, WIDTH = 48, 12, 4, 8, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--traces", type=int, nargs="+", default=[200, 20_000])
    parser.add_argument("--shard", type=int, nargs="+", default=[50, 5_000])
    parser.add_argument("--child", choices=["write", "read"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        act = {"write": write, "read": read}[options.child]
        peak = Peak()
        act(options.folder, options.traces[0], options.shard[0])
        print(peak.now())
        return
    print("traces  a shard  peak writing (MB)  peak reading (MB)  header of a shard (MB)")
    for traces in options.traces:
        for shard in options.shard:
            with tempfile.TemporaryDirectory() as folder:
                peaks = [child(task, folder, traces, shard) for task in ("write", "read")]
            header = min(shard, traces) * 2560 / 1e6
            print(f"{traces:6}  {shard:7}  {peaks[0]:17.1f}  {peaks[1]:17.1f}  {header:22.1f}")


def child(task: str, folder: str, traces: int, shard: int) -> float:
    """Peak resident memory in MB of a process that does one thing."""
    command = [sys.executable, __file__, "--child", task, "--folder", folder]
    command += ["--traces", str(traces), "--shard", str(shard)]
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


def made_up() -> dict[str, Any]:
    """The arrays of a trace, every token looking at itself."""
    import numpy as np

    random = np.random.default_rng(0)
    rows = ANSWER + 1

    def unit(*shape: int) -> Any:
        return random.random(shape, np.float32)

    return {
        "tokens": np.arange(TOKENS, dtype=np.int32),
        "logprob": unit(ANSWER),
        "token_entropy": unit(ANSWER),
        "edges.offset": np.arange(LAYERS + 1, dtype=np.int64) * TOKENS,
        "edges.indptr": np.tile(np.arange(TOKENS + 1, dtype=np.int32), (LAYERS, 1)),
        "edges.key": np.tile(np.arange(TOKENS, dtype=np.int32), LAYERS),
        "edges.weight": unit(LAYERS * TOKENS),
        "marginals.log_diagonal": unit(LAYERS, HEADS, 2),
        "marginals.diagonal": unit(LAYERS, HEADS, TOKENS),
        "marginals.received_mean": unit(LAYERS, HEADS, TOKENS),
        "marginals.previous": unit(LAYERS, HEADS, rows),
        "marginals.entropy": unit(LAYERS, HEADS, rows),
        "marginals.mass": unit(LAYERS, HEADS, rows, 3),
        "marginals.value_norm": unit(LAYERS, HEADS, TOKENS),
        "hidden": unit(LAYERS, rows, WIDTH),
    }


def write(folder: Path, traces: int, shard: int) -> None:
    """Shards of made-up traces, 50 a batch."""
    import json

    import numpy as np

    from hallutrace._core import ShardWriter

    for name in ("partial", "shards"):
        (folder / name).mkdir()
    arrays = made_up()
    for number, begin in enumerate(range(0, traces, shard)):
        count = min(shard, traces - begin)
        writer = ShardWriter(folder, f"{number:05d}", "made up", count)
        for at in range(count):
            meta = json.dumps({"id": str(begin + at), "sample": 0}).encode()
            arrays["meta"] = np.frombuffer(meta, np.uint8)
            writer.append(at, str(begin + at), 0, arrays)
            if at % 50 == 49:
                writer.end_batch("")
        writer.finish()
        writer.forget()


def read(folder: Path, traces: int, shard: int) -> None:
    """Every tensor of every trace, a shard open at a time."""
    from hallutrace._core import Shard

    for path in sorted((folder / "shards").iterdir()):
        opened = Shard(path)
        for position in range(len(opened)):
            for name in ("edges.key", "hidden", "marginals.mass", "meta"):
                opened.tensor(position, name)


if __name__ == "__main__":
    main()
