"""A random order of graphs that reads a run a few shards at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from hallutrace.errors import InputError
from hallutrace.graphs.dataset import TraceGraphs


class ShardSampler(Sampler[int]):
    """All graphs of a dataset once, in an order that the seed decides, a few shards at a time.

    Shards come in random order, ``buffer`` of them together, and the graphs of those are mixed, so
    that no more shards are open than that. Each iteration is another epoch with another order.

    Args:
        graphs: the dataset.
        seed: of the order.
        buffer: shards that are mixed at a time.

    Attributes:
        epoch: of the next order, from 0; set it to go on where an earlier process stopped.

    Raises:
        InputError: a buffer below 1.

    Examples:
        >>> graphs = TraceGraphs(run, per="trace")
        >>> sampler = ShardSampler(graphs, seed=3)
        >>> sorted(sampler) == list(range(len(graphs)))
        True
    """

    def __init__(self, graphs: TraceGraphs, seed: int = 0, *, buffer: int = 4) -> None:
        if buffer < 1:
            raise InputError(f"Expected `buffer` >= 1, got {buffer}")
        self.epoch = 0
        self._seed = seed
        self._buffer = buffer
        self._graphs_of_trace = graphs.graphs_of_trace
        shard_of = {
            (str(key), int(sample)): shard
            for shard, record in enumerate(graphs.store.records)
            for key, sample in record.keys
        }
        keys = graphs.store.keys()
        self._shards = np.array([shard_of[keys[index]] for index in graphs.indices], np.int64)

    def __len__(self) -> int:
        return len(self._shards) * self._graphs_of_trace

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self._seed, self.epoch])
        self.epoch += 1
        shards = rng.permutation(np.unique(self._shards))
        for begin in range(0, len(shards), self._buffer):
            traces = np.flatnonzero(np.isin(self._shards, shards[begin : begin + self._buffer]))
            graphs = traces[:, None] * self._graphs_of_trace + np.arange(self._graphs_of_trace)
            yield from rng.permutation(graphs.reshape(-1)).tolist()
