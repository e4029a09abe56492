"""Batches of graphs as PyTorch Geometric has them, made in worker processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from hallutrace.errors import InputError
from hallutrace.graphs.arrays import GraphArrays
from hallutrace.graphs.collate import to_batch
from hallutrace.graphs.dataset import TraceGraphs
from hallutrace.graphs.sampler import ShardSampler
from hallutrace.graphs.shared_memory import Buffers, Packed

if TYPE_CHECKING:
    from torch_geometric.data import Batch


class GraphLoader(DataLoader[Any]):
    """Batches of a dataset's graphs, as PyTorch Geometric's ``DataLoader`` gives them, and faster.

    Shuffled, each epoch has another order, which depends on the seed alone: not on the number of
    workers, nor on torch's global generator. Memory does not grow with the run.

    Args:
        graphs: the dataset.
        batch_size: graphs in a batch.
        shuffle: mix the graphs, a few shards at a time; otherwise they come in the run's order.
        seed: of the order.
        workers: processes that make batches; 0 makes them in this one.
        buffer: shards that are mixed at a time.
        options: others of ``torch.utils.data.DataLoader``: ``drop_last``, ``prefetch_factor``,
            ``persistent_workers``, ``timeout``, ``multiprocessing_context``, ``worker_init_fn``.

    Attributes:
        cut: graphs and nodes that ``max_nodes`` has cut in the batches given so far.

    Raises:
        InputError: ``batch_size`` or ``buffer`` below 1, or ``workers`` below 0.

    Examples:
        >>> loader = GraphLoader(TraceGraphs(run, per="trace"), batch_size=4, shuffle=True, seed=1)
        >>> batch = next(iter(loader))
        >>> batch.num_graphs, batch.x.shape[0] == batch.ptr[-1]
        (4, tensor(True))
    """

    def __init__(
        self,
        graphs: TraceGraphs,
        batch_size: int = 64,
        *,
        shuffle: bool = False,
        seed: int = 0,
        workers: int = 0,
        buffer: int = 4,
        **options: Any,
    ) -> None:
        if batch_size < 1 or workers < 0:
            raise InputError(
                f"Expected batch_size >= 1 and workers >= 0, got {batch_size} and {workers}"
            )
        self.order = ShardSampler(graphs, seed, buffer=buffer) if shuffle else None
        self.cut = {"graphs": 0, "nodes": 0}
        under_way = options.get("prefetch_factor") or 2  # torch's own default
        super().__init__(
            _Batches(graphs, buffers=under_way + 2),
            batch_size,
            sampler=self.order,
            num_workers=workers,
            collate_fn=_unchanged,
            generator=torch.Generator().manual_seed(seed),
            **options,
        )

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        # Kept, so that a buffer that a worker sends again is not mapped again.
        mapped: dict[tuple[int, int], torch.Tensor] = {}
        for batch in super().__iter__():
            if isinstance(batch, Packed):
                mapped[batch.slot] = batch.memory
                graphs = batch.unpack()
            else:
                graphs = batch
            cut = graphs.of_graphs["cut_nodes"]
            self.cut["graphs"] += int((cut > 0).sum())
            self.cut["nodes"] += int(cut.sum())
            yield to_batch(graphs)


class _Batches(Dataset[Any]):
    """Gives a batch for a list of numbers; packed where it goes to another process."""

    def __init__(self, graphs: TraceGraphs, buffers: int) -> None:
        self._graphs = graphs
        self._count = buffers
        self._buffers: Buffers | None = None

    def __len__(self) -> int:
        return len(self._graphs)

    def __getitems__(self, numbers: Sequence[int]) -> GraphArrays | Packed:
        graphs = self._graphs.arrays(numbers)
        worker = get_worker_info()
        if worker is None:
            return graphs
        if self._buffers is None:
            self._buffers = Buffers(worker.id, self._count)
        return self._buffers.pack(graphs)


def _unchanged(batch: Any) -> Any:
    return batch
