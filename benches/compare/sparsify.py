"""hallutrace beside torch, in one process: top-8 of each head, and everything in one pass.

python benches/compare/sparsify.py [--json] [--threads 2] [--sizes 112 512 2048] [--seconds 1.0]

Every figure is the best of runs that alternate between the two, which other work on the machine
disturbs least. Ratios are torch's time over ours; "read" is torch's plain sum of as many weights as
the causal half has, the least that any reduction must read.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Any

HEADS = 32
DTYPES = ("float32", "float16", "bfloat16")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--sizes", type=int, nargs="+", default=[112, 512, 2048])
    arguments.add_argument("--seconds", type=float, default=1.0, help="for each pair measured")
    options = arguments.parse_args()
    # Before the core makes its threads.
    os.environ["RAYON_NUM_THREADS"] = str(options.threads)
    rows = [
        row for tokens in options.sizes for row in measure(tokens, options.threads, options.seconds)
    ]
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    print(f"{HEADS} heads, causal, {options.threads} threads, times in ms")
    names = list(rows[0])
    widths = [max(len(name), *(len(cell(row[name])) for row in rows)) for name in names]
    for line in [names, *([cell(row[name]) for name in names] for row in rows)]:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))


def measure(tokens: int, threads: int, seconds: float) -> list[dict[str, Any]]:
    """Both tasks, in all dtypes, on attention of so many tokens."""
    import torch

    from hallutrace.reductions import sparsify

    torch.set_num_threads(threads)
    weights = attention(tokens)
    rows = []
    for dtype in DTYPES:
        given = weights.to(getattr(torch, dtype))
        plain = best_pair(lambda given=given: read(given), None, seconds / 4)[0]
        tasks: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "top-8 each": (
                lambda given=given: sparsify(given, top_k=8, heads="each"),
                lambda given=given: torch.topk(given, min(8, tokens)),
            ),
            "all in one": (
                lambda given=given: all_in_one(given),
                lambda given=given: torch_all(given),
            ),
        }
        for task, (ours, torchs) in tasks.items():
            own, other = best_pair(ours, torchs, seconds)
            rows.append({
                "tokens": tokens, "task": task, "dtype": dtype, "hallutrace": own,
                "torch": other, "ratio": other / own, "read": plain,
            })  # fmt: skip
    return rows


def attention(tokens: int) -> Any:
    """[heads, tokens, tokens] of causal softmax over normal logits, float32."""
    import torch

    logits = 2 * torch.randn(
        HEADS, tokens, tokens, generator=torch.Generator().manual_seed(0), dtype=torch.float32
    )
    ahead = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
    return logits.masked_fill_(ahead, float("-inf")).softmax(-1)


def read(weights: Any) -> Any:
    """A sum of half of the weights."""
    return weights[: HEADS // 2].sum()


def all_in_one(weights: Any) -> object:
    """Head mean, top-16 and all marginals, in one pass."""
    from hallutrace import _core
    from hallutrace.reductions import borrow

    tokens = weights.shape[-1]
    reducer = _core.LayerReducer(
        HEADS, [(tokens, tokens // 2, [1, tokens // 2])],
        top_k=16, min_weight=0.0, top_mass=None, combine="mean",
        answer_edges=False, all_marginal_rows=True,
    )  # fmt: skip
    reducer.push(*borrow(weights[None]), 0)
    return reducer.finish()


def torch_all(weights: Any) -> object:
    """The same by torch, as one would write it."""
    import torch

    tokens = weights.shape[-1]
    weights = weights.float()
    edges = torch.topk(weights.mean(0), min(16, tokens))
    diagonal = weights.diagonal(dim1=1, dim2=2)
    previous = weights.diagonal(offset=-1, dim1=1, dim2=2)
    received = weights[:, :-1].sum(1) - diagonal
    entropy = torch.special.entr(weights).sum(-1)
    prompt = tokens // 2
    mass = torch.stack([
        weights[..., :1].sum(-1), weights[..., 1:prompt].sum(-1), weights[..., prompt:].sum(-1)
    ])  # fmt: skip
    return edges, diagonal, previous, received, entropy, mass


def best_pair(
    one: Callable[[], object], other: Callable[[], object] | None, seconds: float
) -> tuple[float, float]:
    """Best times in ms of two functions that take turns."""
    functions = [one] if other is None else [one, other]
    times: list[list[float]] = [[] for _ in functions]
    end = time.perf_counter() + seconds
    while len(times[0]) < 6 or time.perf_counter() < end:
        for function, taken in zip(functions, times, strict=True):
            begin = time.perf_counter()
            function()
            taken.append(1e3 * (time.perf_counter() - begin))
    return min(times[0]), min(times[-1])


def cell(value: Any) -> str:
    """A value as the table shows it."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
