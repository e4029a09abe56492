"""Linear layers of few rows: the way decoding takes, beside the usual product.

    python benches/few_rows.py

One line of JSON for each number of rows: for each weight [out, in], how many times as long the
usual product takes, from minima of calls that take turns; and whether both gave the same bits.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import torch

from hallutrace.model import cpu_linear

WEIGHTS = ((1024, 1024), (3072, 1024), (1024, 3072), (151_936, 1024))
ROWS = (cpu_linear.FEWEST_ROWS, 40, cpu_linear.MOST_ROWS)
CALLS = 20


def main() -> None:
    """Prints the lines."""
    torch.manual_seed(0)
    layers = [torch.nn.Linear(inputs, outputs, bias=False) for outputs, inputs in WEIGHTS]
    for rows in ROWS:
        times, same = {}, True
        for layer in layers:
            inputs = torch.randn(rows, layer.in_features)
            with torch.inference_mode():
                usual, faster = least(
                    lambda x=inputs, y=layer: y(x),
                    lambda x=inputs, y=layer: cpu_linear.linear(y, x),
                    CALLS if layer.out_features < 100_000 else CALLS // 4,
                )
                same &= torch.equal(layer(inputs), cpu_linear.linear(layer, inputs))
            times[f"{layer.out_features} x {layer.in_features}"] = round(usual / faster, 2)
        print(json.dumps({"rows": rows, "times as long": times, "same bits": same}), flush=True)


def least(
    usual: Callable[[], object], faster: Callable[[], object], calls: int
) -> tuple[float, float]:
    """Least seconds of two functions that take turns."""
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(calls):
        for function, seconds in zip((usual, faster), taken, strict=True):
            began = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - began)
    return min(taken[0]), min(taken[1])


if __name__ == "__main__":
    main()
