"""Opening and reading a shard, beside the official reader, torch.save and pickle on the same data.

python benches/compare/shards.py [--traces 500]

The data is a shard of the small model's traces. "open" opens the file and reads one small tensor,
best of several; torch.load and pickle have to read everything for that. "random" is one layer's
edges of a trace anywhere, checksums checked the first time and then not again.
"""

from __future__ import annotations

import argparse
import pickle
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--traces", type=int, default=500)
    traces = parser.parse_args().traces
    with tempfile.TemporaryDirectory() as folder:
        for name, seconds, unit in measure(Path(folder), traces):
            print(f"{name:44} {seconds:10.3f} {unit}")


def measure(folder: Path, traces: int) -> list[tuple[str, float, str]]:
    """All figures: name, number, unit."""
    import torch
    from safetensors import safe_open

    import hallutrace
    from hallutrace._core import Shard

    hallutrace.extract(hallutrace.ExtractConfig(questions=f"demo:{traces}", out=folder / "run"))
    path = folder / "run" / "shards" / "00000.safetensors"
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in list(file.keys())}
    torch.save(tensors, folder / "torch")
    (folder / "pickle").write_bytes(pickle.dumps({k: v.numpy() for k, v in tensors.items()}))

    def official() -> Any:
        with safe_open(path, framework="pt") as file:
            return file.get_tensor("00000.tokens")

    store = hallutrace.open(folder / "run")
    dice = random.Random(0)
    order = [dice.randrange(len(store)) for _ in range(5000)]

    def read_random() -> None:
        for at in order:
            store[at].layer(2)

    def iterate() -> None:
        for trace in store:
            for name in ("hidden", "edges.key", "edges.weight", "marginals.mass"):
                trace.stored(name)

    return [
        (f"tensors in the shard ({path.stat().st_size / 1e6:.1f} MB)", len(tensors), ""),
        ("open, hallutrace", 1000 * best(lambda: Shard(path).tensor(0, "tokens")), "ms"),
        ("open, safetensors.safe_open", 1000 * best(official), "ms"),
        ("open, torch.load", 1000 * best(lambda: torch.load(folder / "torch")), "ms"),
        ("open, pickle", 1000 * best(lambda: pickle.loads((folder / "pickle").read_bytes())), "ms"),
        ("random trace, one layer's edges", len(order) / best(read_random), "traces a second"),
        ("iterate, arrays in place", len(store) / best(iterate), "traces a second"),
    ]


def best(act: Callable[[], Any], times: int = 7) -> float:
    """Seconds of the fastest of several calls, the first of which warms up."""
    act()
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        act()
        taken.append(time.perf_counter() - began)
    return min(taken)


if __name__ == "__main__":
    main()
