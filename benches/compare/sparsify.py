"""hallutrace beside torch, in one process: top-8, a share of the mass, and everything in one pass.

python benches/compare/sparsify.py [--json] [--threads 2] [--sizes 112 512 2048] [--seconds 1.0]
                                   [--sets avx2 plain] [--rows softmax flat ...] [--turn 20]

Every figure is the best of runs that alternate between all that are compared, which other work on
the machine disturbs least. Ratios are torch's time over ours; "read" is torch's plain sum of as
many weights as the causal half has, the least that any reduction must read, and "of read" its time
over ours. Rows that are flat, sorted, striped or full of ties are measured in float32 with the
fastest instruction set; the small call is `[32, 64, 64]`, through Python. A turn is calls
for at least `--turn` ms, so that all find small data in the cache, and the cores free: after a call
torch's threads hold theirs for some 5 ms, waiting for the next (``GOMP_SPINCOUNT``), which would
count against whoever comes after torch. With `--turn 0` it is one call, as in a program that calls
one after the other.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

HEADS = 32
SMALL = 64
DTYPES = ("float32", "float16", "bfloat16")
MOST_SORTED = 512
"""Tokens up to which torch sorts all rows in a time that one waits for."""
ROWS = ("softmax", "flat", "sorted", "striped", "ties")


class Turns(NamedTuple):
    """How long functions take turns, and how long a turn is at least."""

    seconds: float
    milliseconds: float


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--json", action="store_true", help="print one line of JSON")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--sizes", type=int, nargs="+", default=[112, 512, 2048])
    arguments.add_argument("--seconds", type=float, default=1.0, help="for each row of the table")
    arguments.add_argument("--turn", type=float, default=20.0, help="ms of a function at a time")
    arguments.add_argument("--sets", nargs="+", help="instruction sets; all of the machine")
    arguments.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    options = arguments.parse_args()
    # Before the core makes its threads.
    os.environ["RAYON_NUM_THREADS"] = str(options.threads)
    import torch

    from hallutrace import _core

    torch.set_num_threads(options.threads)
    turns = Turns(options.seconds, options.turn)
    sets = options.sets or _core.instruction_sets()
    rows = [
        row
        for kind in options.rows
        for tokens in options.sizes
        for dtype in (DTYPES if kind == "softmax" else DTYPES[:1])
        for row in measure(kind, tokens, dtype, sets, turns)
    ]
    rows += measure_small(sets, turns)
    if options.json:
        print(json.dumps({"heads": HEADS, "threads": options.threads, "rows": rows}))
        return
    print(f"{HEADS} heads, causal, {options.threads} threads, times in ms")
    names = list(rows[0])
    widths = [max(len(name), *(len(cell(row[name])) for row in rows)) for name in names]
    for line in [names, *([cell(row[name]) for name in names] for row in rows)]:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))


def measure(
    kind: str, tokens: int, dtype: str, sets: list[str], turns: Turns
) -> list[dict[str, Any]]:
    """Rows of the table for attention of one kind, size and dtype."""
    import torch

    from hallutrace.attention.sparsify import sparsify

    weights = attention(kind, tokens).to(getattr(torch, dtype))
    tasks: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "top-8 each": (
            lambda: sparsify(weights, top_k=8, heads="each"),
            lambda: torch.topk(weights, min(8, tokens)),
        )
    }
    if kind == "softmax":
        tasks["all in one"] = (lambda: all_in_one(weights), lambda: torch_all(weights))
        if tokens <= MOST_SORTED:
            tasks["mass .9 each"] = (
                lambda: sparsify(weights, top_mass=0.9, heads="each"),
                lambda: torch_mass(weights, 0.9),
            )
    else:
        sets = sets[:1]
    rows = []
    for task, (ours, torchs) in tasks.items():
        functions = [torchs, lambda: read(weights), *(on_set(name, ours) for name in sets)]
        other, plain, *own = best(functions, turns)
        rows += [
            line(kind, tokens, task, dtype, name, taken, other, plain)
            for name, taken in zip(sets, own, strict=True)
        ]
    return rows


def measure_small(sets: list[str], turns: Turns) -> list[dict[str, Any]]:
    """A call as question answering makes it."""
    import torch

    from hallutrace.attention.sparsify import sparsify

    weights = attention("softmax", SMALL)
    functions: list[Callable[[], object]] = [lambda: torch.topk(weights, 8), lambda: read(weights)]
    for name in sets:
        functions.append(on_set(name, lambda: sparsify(weights, top_k=8, heads="each")))
    other, plain, *own = best(functions, turns)
    return [
        line("softmax", SMALL, "top-8 each", "float32", name, taken, other, plain)
        for name, taken in zip(sets, own, strict=True)
    ]


def on_set(name: str, run: Callable[[], object]) -> Callable[[], object]:
    """A function that runs on an instruction set."""
    from hallutrace import _core

    def forced() -> object:
        _core._use_instruction_set(name)
        return run()

    return forced


def line(
    kind: str, tokens: int, task: str, dtype: str, name: str, own: float, other: float, plain: float
) -> dict[str, Any]:
    """One row of the table."""
    return {
        "rows": kind, "tokens": tokens, "task": task, "dtype": dtype, "set": name,
        "hallutrace": own, "torch": other, "ratio": other / own, "read": plain,
        "of read": plain / own,
    }  # fmt: skip


def attention(kind: str, tokens: int) -> Any:
    """[heads, tokens, tokens] float32, causal: softmax rows, or rows made to mislead."""
    import torch

    shape = (HEADS, tokens, tokens)
    ahead = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
    generator = torch.Generator().manual_seed(0)
    keys = torch.arange(tokens)
    if kind == "softmax":
        logits = 2 * torch.randn(shape, generator=generator)
        return logits.masked_fill_(ahead, float("-inf")).softmax(-1)
    row = {
        "flat": torch.ones(tokens),
        "sorted": 1.0 + keys,
        "striped": torch.where(keys % 16 == 3, 0.5, 1e-3),
        "ties": torch.randint(1, 5, (tokens,), generator=generator).float(),
    }[kind]
    weights = (row / row.sum()).expand(shape).clone()
    return weights.masked_fill_(ahead, 0.0)


def read(weights: Any) -> Any:
    """A sum of half of the weights."""
    return weights[: HEADS // 2].sum()


def all_in_one(weights: Any) -> object:
    """Head mean, top-16 and all marginals, in one pass."""
    from hallutrace import _core
    from hallutrace.attention.sparsify import borrow

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


def torch_mass(weights: Any, share: float) -> object:
    """The keys that hold a share of each row's mass, by torch, as one would write it."""
    import torch

    ordered = weights.float().sort(dim=-1, descending=True, stable=True)
    sums = ordered.values.cumsum(-1, dtype=torch.float64)
    return ordered, (sums < share * sums[..., -1:]).sum(-1) + 1


def best(functions: list[Callable[[], object]], turns: Turns) -> list[float]:
    """Best times in ms of functions that take turns."""
    times: list[list[float]] = [[] for _ in functions]
    end = time.perf_counter() + turns.seconds
    while len(times[0]) < 6 or time.perf_counter() < end:
        for function, taken in zip(functions, times, strict=True):
            turn = 0.0
            while turn == 0.0 or turn < turns.milliseconds:
                begin = time.perf_counter()
                function()
                taken.append(1e3 * (time.perf_counter() - begin))
                turn += taken[-1]
    return [min(taken) for taken in times]


def cell(value: Any) -> str:
    """A value as the table shows it."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
