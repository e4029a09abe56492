"""Features of LapEigvals, and of the other linear detectors, from a run of made-up traces.

python benches/features.py [--traces 1000] [--layers 36] [--heads 32] [--tokens 52] [--answer 12]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

NAMES = ("lapeigvals", "attneigvals", "sinkprobe", "lookback-lens")
REPEATS = 5  # after the first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--traces", type=int, default=1000)
    parser.add_argument("--layers", type=int, default=36)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=52)
    parser.add_argument("--answer", type=int, default=12)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), options)
        shape = f"{options.layers} x {options.heads} x {options.tokens}"
        print(f"{options.traces} traces of {shape}; seconds, page cache warm")
        print("detector        first, checksums  best of 5  a trace (ms)")
        for name in NAMES:
            first, best = measure(Path(folder), name)
            each = 1e3 * best / options.traces
            print(f"{name:15} {first:16.2f} {best:10.2f} {each:13.2f}")


def measure(folder: Path, name: str) -> tuple[float, float]:
    """Seconds of the first reading of a store, which checks checksums, and of later ones."""
    import hallutrace
    from hallutrace.detect import Examples, make

    store = hallutrace.open(folder)
    labels = np.zeros(len(store), np.int8)
    times = []
    for _ in range(REPEATS + 1):
        detector: Any = make(name)
        examples = Examples(store, np.arange(len(store)), labels)  # with a cache of its own
        begin = time.perf_counter()
        features = examples.features(detector.feature_name(), detector.feature)
        times.append(time.perf_counter() - begin)
        assert len(features) == len(store)
    return times[0], min(times[1:])


def write(folder: Path, options: argparse.Namespace) -> None:
    """A run of one shard of 500 after the other, through the writer of an extraction."""
    from hallutrace._core import ShardWriter
    from hallutrace.store.folder import CommitRecord, Manifest, Run

    layers, heads = options.layers, options.heads
    identity = {"model": {"name": "made-up"}, "hidden": {"states": "none"}}
    facts = {"captured_layers": list(range(layers)), "heads": [heads] * layers}
    run, manifest = Run(folder), Manifest(identity, facts)
    run.begin(manifest)
    for shard, first in enumerate(range(0, options.traces, 500)):
        name, numbers = f"{shard:05d}", range(first, min(first + 500, options.traces))
        record = CommitRecord(name, first, len(numbers), "", manifest.fingerprint, {})
        about = record.description()
        writer = ShardWriter(folder, name, "made up", len(numbers), about)
        for place, number in enumerate(numbers):
            writer.append(place, str(number), 0, made_up(number, options))
        writer.end_batch("")
        keys: list[list[Any]] = [[str(number), 0] for number in numbers]
        counts, indices = {"traces": len(keys)}, list(numbers)
        size, checksum = writer.finish(counts, indices, [])
        record = replace(
            record, keys=keys, indices=indices, counts=counts, size=size, checksum=checksum
        )
        run.commit(record)
        writer.forget()


def made_up(number: int, options: argparse.Namespace) -> dict[str, Any]:
    """The arrays of a trace; every token looks at itself."""
    from hallutrace.canonical_json import canonical

    random = np.random.default_rng(number)
    layers, heads, tokens, answer = (
        options.layers, options.heads, options.tokens, options.answer,
    )  # fmt: skip
    rows = answer + 1

    def unit(*shape: int) -> Any:
        return random.random(shape, np.float32)

    prompt, text = tokens - answer, str(number)
    meta = {
        "id": text, "sample": 0, "group": text, "index": number, "question": text, "context": None,
        "prompt": text, "answer": text, "references": [text], "prompt_length": prompt,
        "segments": [1, prompt], "finish_reason": "eos", "hidden": None,
    }  # fmt: skip
    return {
        "tokens": np.arange(tokens, dtype=np.int32),
        "logprob": -unit(answer),
        "token_entropy": unit(answer),
        "edges.offset": np.arange(layers + 1, dtype=np.int64) * tokens,
        "edges.indptr": np.tile(np.arange(tokens + 1, dtype=np.int32), (layers, 1)),
        "edges.key": np.tile(np.arange(tokens, dtype=np.int32), layers),
        "edges.weight": unit(layers * tokens),
        "marginals.log_diagonal": -unit(layers, heads, 2),
        "marginals.log_square": -unit(layers, heads, 2),
        "marginals.diagonal": unit(layers, heads, tokens),
        "marginals.received_mean": unit(layers, heads, tokens),
        "marginals.previous": unit(layers, heads, rows),
        "marginals.entropy": unit(layers, heads, rows),
        "marginals.mass": unit(layers, heads, rows, 3),
        "marginals.square": unit(layers, heads, rows),
        "marginals.rough": unit(layers, heads, rows, 3),
        "marginals.value_norm": unit(layers, heads, tokens),
        "meta": np.frombuffer(canonical(meta), np.uint8),
    }


if __name__ == "__main__":
    main()
