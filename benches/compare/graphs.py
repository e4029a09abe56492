"""Graphs a second from a run, beside files of torch.save and dense pickles of the same answers.

python benches/compare/graphs.py [--run RUN] [--traces 1000] [--workers 2] [--rounds 5]

The run is the small model's unless one is named. "torch.save" is a file a graph, loaded by a
dataset and PyTorch Geometric's DataLoader; the graphs are equal to those of the run, which is
checked. "dense pickles" is a pickle a trace with float16 attention and hidden states, from which
edges are taken by torch.topk, as one did before; their attention is made of the run's edges, and
node features lie in them ready.
Orders are shuffled, all loaders have the same batches and workers, and each has been through all
of its data once before it is timed. Loaders take turns, a round each; figures are of their best
rounds, and ratios of pairs of neighbours: medians.
"""

from __future__ import annotations

import argparse
import json
import pickle
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

import hallutrace
from hallutrace.graphs import GraphLoader, ShardSampler, TraceGraphs

FEATURES = {
    "without hidden states": ("marginals", "position", "role", "logprob"),
    "with hidden states": ("hidden", "marginals", "position", "role", "logprob"),
}
TOP_K = 16
BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--run", type=Path, help="folder of a run that keeps hidden states")
    parser.add_argument("--traces", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message=".*torch.jit.script.*")
    with tempfile.TemporaryDirectory() as folder:
        run = options.run or Path(folder) / "run"
        if options.run is None:
            questions = f"demo:{min(options.traces, 3700)}"
            hallutrace.extract(hallutrace.ExtractConfig(questions=questions, out=run))
        for per in ("layer", "trace"):
            for name, features in FEATURES.items():
                with tempfile.TemporaryDirectory(dir=folder) as files:
                    made = measure(run, Path(files), per, features, options)
                print(json.dumps({"graph": f"a {per}", "nodes": name, **made}), flush=True)


def measure(
    run: Path, folder: Path, per: str, features: tuple[str, ...], options: argparse.Namespace
) -> dict[str, Any]:
    """All loaders on one kind of graphs."""
    from torch_geometric.loader import DataLoader

    store = hallutrace.open(run)
    indices = np.arange(min(options.traces, len(store)))
    graphs = TraceGraphs(store, per=per, features=features, indices=indices, top_k=TOP_K)
    saved, dense = Saved(graphs, folder / "saved"), Dense(graphs, folder / "dense")
    check(graphs, saved, dense)
    common = {"num_workers": options.workers, "persistent_workers": options.workers > 0}
    loaders: dict[str, Iterable[Any]] = {
        "GraphLoader": GraphLoader(
            graphs, BATCH, shuffle=True, workers=options.workers,
            persistent_workers=options.workers > 0,
        ),
        "PyG loader on the run": DataLoader(
            graphs, BATCH, sampler=ShardSampler(graphs), **common
        ),
        "torch.save": DataLoader(saved, BATCH, shuffle=True, **common),
        "dense pickles": DataLoader(dense, BATCH, shuffle=True, **common),
    }  # fmt: skip
    for loader in loaders.values():
        go_through(loader)
    seconds: dict[str, list[float]] = {name: [] for name in loaders}
    for _ in range(options.rounds):
        for name, loader in loaders.items():
            seconds[name].append(go_through(loader))
    ours = seconds["GraphLoader"]
    record: dict[str, Any] = {
        "graphs": len(graphs),
        "workers": options.workers,
        "graphs a second": {name: round(len(graphs) / min(s)) for name, s in seconds.items()},
    }
    for name in ("torch.save", "dense pickles"):
        pairs = [other / own for other, own in zip(seconds[name], ours, strict=True)]
        record[f"times {name}"] = round(statistics.median(pairs), 2)
    return record


def go_through(loader: Iterable[Any]) -> float:
    """Seconds of one epoch."""
    began = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - began


class Saved(Dataset[Any]):
    """A file of torch.save for each graph."""

    def __init__(self, graphs: TraceGraphs, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._count = len(graphs)
        for number, graph in enumerate(graphs):
            # Views of larger arrays would be saved whole.
            torch.save(graph.clone(), folder / f"{number}.pt")

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Any:
        return torch.load(self._folder / f"{number}.pt", weights_only=False)


class Dense(Dataset[Any]):
    """A pickle for each trace: attention and hidden states of all tokens, and node features.

    Of the features, hidden states are those of all tokens, and the others are kept as they are,
    for nobody made them from the dense matrices on the way; this is in favour of the pickles.
    """

    def __init__(self, graphs: TraceGraphs, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._count, self._layers = len(graphs), len(graphs.layers)
        self._per_trace = graphs.graphs_of_trace
        for number, trace in enumerate(graphs.traces):
            heads = trace.marginals.diagonal.shape[1]
            mean = np.stack([trace.layer(layer).to_dense()[0] for layer in graphs.layers])
            width = trace.hidden(graphs.layers[0]).shape[1]
            content = {
                "attention": np.repeat(mean[:, None], heads, axis=1).astype(np.float16),
                "hidden": np.zeros((self._layers, len(trace.tokens), width), np.float16),
                "x": [graphs[number * self._per_trace + at].x.numpy().copy()
                      for at in range(self._per_trace)],
                "id": trace.id, "prompt_length": trace.prompt_length,
            }  # fmt: skip
            (folder / f"{number}.pickle").write_bytes(pickle.dumps(content, protocol=5))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Any:
        from torch_geometric.data import Data

        trace, at = divmod(number, self._per_trace)
        content = pickle.loads((self._folder / f"{trace}.pickle").read_bytes())
        layers = [at] if self._per_trace > 1 else range(self._layers)
        edges = [top(content["attention"][layer]) for layer in layers]
        return Data(
            x=torch.from_numpy(content["x"][at]),
            edge_index=torch.cat([index for index, _ in edges], dim=1),
            edge_attr=torch.cat([weight for _, weight in edges])[:, None],
            trace_id=content["id"],
            prompt_length=content["prompt_length"],
        )


def top(attention: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest edges of each query of the mean over heads [heads, tokens, tokens]."""
    mean = torch.from_numpy(attention).float().mean(dim=0)
    weights, keys = mean.topk(min(TOP_K, len(mean)), dim=1)
    keys, order = keys.sort(dim=1)
    weights = weights.gather(1, order)
    queries = torch.arange(len(mean))[:, None].expand_as(keys)
    kept = weights > 0
    return torch.stack([keys[kept], queries[kept]]), weights[kept]


def check(graphs: TraceGraphs, saved: Saved, dense: Dense) -> None:
    """That what is compared is the same."""
    same: Callable[[Any, Any], bool] = torch.equal
    for number in range(0, len(graphs), max(1, len(graphs) // 50)):
        one = graphs[number]
        for name, value in saved[number]:
            equal = same(value, one[name]) if torch.is_tensor(value) else value == one[name]
            assert equal, (number, name)
        assert abs(dense[number].num_edges - one.num_edges) <= 2  # weights rounded to zero


if __name__ == "__main__":
    main()
