"""Graphs on their way from a worker process to the process that consumes them.

torch sends every tensor of a batch in shared memory of its own, made for it and given back after
it. Getting that memory from the system costs several times what filling it does (measured: 5 ms
against .2 ms for 5 MB). So a worker keeps a few buffers and fills them in turn, each with all
arrays of a batch; the receiver copies a batch out before it is given on.

A buffer is free again when its turn comes: a worker has at most ``prefetch_factor`` batches under
way, and one more that the receiver is copying.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hallutrace.graphs.arrays import GraphArrays

_ALIGNMENT = 64
# A buffer that is too small is replaced by one so much larger than needed.
_SPARE = 1.25


@dataclass(frozen=True)
class Packed:
    """Graphs in shared memory.

    Attributes:
        memory: uint8 [bytes], shared.
        slot: number of the worker and of its buffer.
        layout: group, name, dtype, shape and first byte of each array.
        texts: of the graphs.
        size: bytes that are used.
    """

    memory: torch.Tensor
    slot: tuple[int, int]
    layout: list[tuple[str, str, str, tuple[int, ...], int]]
    texts: dict[str, list[str]]
    size: int

    def unpack(self) -> GraphArrays:
        """The graphs, copied out."""
        memory = self.memory.numpy()[: self.size].copy()
        held: dict[str, dict[str, NDArray[Any]]] = {"of_nodes": {}, "of_edges": {}, "of_graphs": {}}
        ends: dict[str, NDArray[Any]] = {}
        for group, name, dtype, shape, begin in self.layout:
            held.get(group, ends)[name] = _view(memory, dtype, shape, begin)
        return GraphArrays(texts=self.texts, node_ends=ends["node"], edge_ends=ends["edge"], **held)


class Buffers:
    """The buffers of shared memory of one worker.

    Args:
        worker: its number.
        count: buffers; two more than the batches it may have under way.
    """

    def __init__(self, worker: int, count: int) -> None:
        self._worker = worker
        self._buffers = [torch.empty(0, dtype=torch.uint8)] * count
        self._turn = 0

    def pack(self, graphs: GraphArrays) -> Packed:
        """Puts graphs into the next buffer."""
        arrays = [
            *(("of_nodes", name, array) for name, array in graphs.of_nodes.items()),
            *(("of_edges", name, array) for name, array in graphs.of_edges.items()),
            *(("of_graphs", name, array) for name, array in graphs.of_graphs.items()),
            ("ends", "node", graphs.node_ends),
            ("ends", "edge", graphs.edge_ends),
        ]
        layout, size = [], 0
        for group, name, array in arrays:
            layout.append((group, name, array.dtype.str, array.shape, size))
            size += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
        self._turn = (self._turn + 1) % len(self._buffers)
        if len(self._buffers[self._turn]) < size:
            larger = torch.empty(int(size * _SPARE), dtype=torch.uint8)
            self._buffers[self._turn] = larger.share_memory_()  # type: ignore[no-untyped-call]
        buffer = self._buffers[self._turn]
        memory = buffer.numpy()
        for (_, _, dtype, shape, begin), (_, _, array) in zip(layout, arrays, strict=True):
            _view(memory, dtype, shape, begin)[...] = array
        return Packed(buffer, (self._worker, self._turn), layout, graphs.texts, size)


def _view(
    memory: NDArray[np.uint8], dtype: str, shape: tuple[int, ...], begin: int
) -> NDArray[Any]:
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    return memory[begin : begin + size].view(dtype).reshape(shape)
