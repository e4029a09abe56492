"""Reads a run as a sequence of traces in the order of the source; shards are opened lazily."""

from __future__ import annotations

import random
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from operator import index as as_index
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, SupportsIndex, get_args, overload

from hallutrace.errors import DamagedError, InputError
from hallutrace.notebook_display import ShownInNotebooks
from hallutrace.store.folder import CommitRecord, Run
from hallutrace.store.shard_traces import ShardTraces, Verify
from hallutrace.store.trace import Trace

if TYPE_CHECKING:
    import pandas
    import pyarrow

# Shards that are memory-mapped at a time. Each costs address space, and about 2 KB a trace for the
# header.
OPEN_SHARDS = 8


def open_run(run: str | PathLike[str], *, verify: Verify = "first") -> TraceStore:
    """Opens a run for reading.

    Args:
        run: folder that ``hallutrace extract`` wrote; the extraction may still be running.
        verify: when checksums and values are checked: the first time that a tensor is read
            (``first``), each time (``always``), or ``never``. Headers and sizes are always checked.

    Returns:
        The traces of all shards that are committed now.

    Raises:
        InputError: another value of ``verify``.
        NotARunError: the folder has no run.
        DamagedError: the manifest or a commit record is invalid.

    Examples:
        >>> len(hallutrace.open(run))
        8
    """
    if verify not in get_args(Verify):
        raise InputError(f"Expected `verify` to be first, always or never, got {verify!r}")
    return TraceStore(Path(run), verify)


class TraceStore(ShownInNotebooks, Sequence[Trace]):
    """The traces of a run, sorted by row in the source and sample, including retried questions.

    ``store[17]`` is the eighteenth trace, ``store["id"]`` sample 0 of a question,
    ``store["id", 2]`` another sample, ``store[10:20]`` a list. Memory does not grow during
    iteration. Several threads may use a store. A pickled store opens the run again in the process
    that unpickles it.

    Args:
        folder: of the run.
        verify: when data is checked, see :func:`open_run`.

    Examples:
        >>> store = hallutrace.open(run)
        >>> store[0].question == store[store[0].id].question
        True
        >>> store.labels()
        ['contains']
    """

    def __init__(self, folder: Path, verify: Verify = "first") -> None:
        self._run = Run(folder)
        self._verify: Verify = verify
        self._lock = threading.Lock()
        self.manifest = self._run.manifest()
        self._records = self._run.records()
        self._run.check_ours_alone(self._records, self.manifest.fingerprint)
        # (row in the source, sample, index of the shard, index in its commit record)
        self._order = sorted(
            (row, int(key[1]), shard, index)
            for shard, record in enumerate(self._records)
            for index, (row, key) in enumerate(zip(record.indices, record.keys, strict=True))
        )
        if len({tuple(key) for record in self._records for key in record.keys}) != len(self._order):
            raise DamagedError(
                f"Expected each question and sample once in {folder}, got some that come twice - "
                f"`hallutrace verify {folder}` names them; make the run anew of what it was made of"
            )
        self._by_key: dict[tuple[str, int], int] | None = None
        self._open: OrderedDict[int, ShardTraces] = OrderedDict()

    def __repr__(self) -> str:
        model = self.manifest.identity["model"]["name"]
        return f"TraceStore({str(self._run.folder)!r}: {len(self):,} traces of {model})"

    def __reduce__(self) -> tuple[type[TraceStore], tuple[Path, Verify]]:
        return TraceStore, (self._run.folder, self._verify)

    def __enter__(self) -> TraceStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.clear()

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Trace]:
        for index in range(len(self)):
            yield self._at(index)

    def __contains__(self, which: object) -> bool:
        """Whether the run has a trace, given the trace, its question id, or id and sample."""
        if isinstance(which, Trace):
            return which.manifest == self.manifest and (which.id, which.sample) in self._keys()
        key = (which, 0) if isinstance(which, str) else which
        return isinstance(key, tuple) and key in self._keys()

    @overload
    def __getitem__(self, which: int | str | tuple[str, int]) -> Trace: ...
    @overload
    def __getitem__(self, which: slice) -> list[Trace]: ...
    def __getitem__(self, which: int | str | tuple[str, int] | slice) -> Trace | list[Trace]:
        if isinstance(which, slice):
            return [self._at(index) for index in range(*which.indices(len(self)))]
        if isinstance(
            which, (int, SupportsIndex)
        ):  # SupportsIndex for numpy's integers; int first, as it is faster
            which = as_index(which)
            if not -len(self) <= which < len(self):
                raise IndexError(f"Expected a trace in 0..{len(self)}, got {which}")
            return self._at(which % len(self))
        key = (which, 0) if isinstance(which, str) else which
        index = self._keys().get(key)
        if index is None:
            raise KeyError(
                f"no trace of question {key[0]!r}, sample {key[1]}, in {self._run.folder}"
            )
        return self._at(index)

    def shards(self) -> Iterator[ShardTraces]:
        """The shards, sorted by name; each is opened when it is yielded."""
        for number in range(len(self._records)):
            yield self.shard(number)

    def shard(self, number: int) -> ShardTraces:
        """The traces of one shard.

        Args:
            number: index among the committed shards, from 0.

        Raises:
            InputError: no such shard.
            DamagedError: the file is missing, or differs from its commit record.
        """
        if not 0 <= number < len(self._records):
            raise InputError(f"Expected a shard in 0..{len(self._records)}, got {number}")
        with self._lock:
            traces = self._open.pop(number, None)
            if traces is None:
                record = self._records[number]
                traces = ShardTraces(self._run, record, self.manifest, self._verify)
                if len(self._open) >= OPEN_SHARDS:
                    self._open.popitem(last=False)
            self._open[number] = (
                traces  # at the end, so that the least recently used is closed first
            )
        return traces

    def shuffled(
        self, seed: int, *, buffer: int = 4, worker: int = 0, workers: int = 1
    ) -> Iterator[Trace]:
        """Yields each trace once, in random order.

        The shards are shuffled, and then the traces within each group of ``buffer`` shards. This is
        random enough for training, and only ``buffer`` shards are read at a time.

        Args:
            seed: of the order; use another one for each epoch.
            buffer: number of shards whose traces are shuffled together.
            worker: index of this reader, from 0.
            workers: number of readers that share the run; each reads different shards.

        Yields:
            The traces of this reader's shards.

        Raises:
            InputError: ``buffer`` below 1, or ``worker`` not in ``0..workers``.

        Examples:
            >>> len(list(hallutrace.open(run).shuffled(seed=0)))
            8
        """
        if buffer < 1 or not 0 <= worker < workers:
            raise InputError(
                "Expected buffer >= 1 and 0 <= worker < workers, got "
                f"buffer {buffer}, worker {worker} of {workers}"
            )
        rng = random.Random(seed)
        shards = list(range(len(self._records)))
        rng.shuffle(shards)
        own_shards = shards[worker::workers]
        for begin in range(0, len(own_shards), buffer):
            group = [
                (shard, index)
                for shard in own_shards[begin : begin + buffer]
                for index in range(len(self._records[shard].keys))
            ]
            rng.shuffle(group)
            for shard, index in group:
                yield self.shard(shard)[index]

    def info(self) -> dict[str, Any]:
        """Description of the run from its manifest and commit records, without reading shards.

        Returns:
            ``folder``, ``traces``, ``shards``, ``bytes``, ``counts`` (sums over the shards),
            ``identity`` and ``facts`` (of the manifest).

        Examples:
            >>> hallutrace.open(run).info()["traces"]
            8
        """
        counts: dict[str, int] = {}
        for record in self._records:
            for name, count in record.counts.items():
                counts[name] = counts.get(name, 0) + count
        return {
            "folder": str(self._run.folder),
            "traces": len(self),
            "shards": len(self._records),
            "bytes": sum(record.size for record in self._records),
            "counts": counts,
            "identity": self.manifest.identity,
            "facts": self.manifest.facts,
        }

    def labels(self) -> list[str]:
        """Sorted names of the labelling protocols that the run has labels of."""
        found = (path.stem for path in (self._run.folder / "labels").glob("*.jsonl"))
        return sorted(name for name in found if not name.startswith("."))

    def to_arrow(self) -> pyarrow.Table:
        """Loads the run into an Apache Arrow table with one row per trace, in the order of the run.

        Returns:
            Questions, answers, labels (one column per protocol) and scalars, see
            :mod:`hallutrace.store.tables` for columns and types. All text of the run is in memory.

        Raises:
            MissingExtraError: pyarrow is not installed.
            DamagedError: a trace or a label file is damaged.
        """
        from hallutrace.store.tables import to_arrow

        return to_arrow(self, self.folder)

    def to_pandas(self) -> pandas.DataFrame:
        """Loads the table of :meth:`to_arrow` as a pandas data frame.

        Returns:
            One row per trace; labels are nullable integers (``Int8``), references arrays of text.

        Raises:
            MissingExtraError: pandas or pyarrow is not installed.
            DamagedError: a trace or a label file is damaged.

        Examples:
            >>> frame = hallutrace.open(run).to_pandas()
            >>> frame[["question", "label.contains", "mean_logprob"]].shape
            (8, 3)
        """
        from hallutrace.store.tables import to_pandas

        return to_pandas(self, self.folder)

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self._run.folder

    def keys(self) -> list[tuple[str, int]]:
        """Question id and sample of each trace, in order."""
        return [
            (str(self._records[shard].keys[index][0]), sample)
            for _, sample, shard, index in self._order
        ]

    def index_of(self, index: int) -> int:
        """Row in the source, from 0, of the trace with this index in the run."""
        return self._order[index][0]

    @property
    def records(self) -> list[CommitRecord]:
        """The commit records, in the order of the shards."""
        return list(self._records)

    def _keys(self) -> dict[tuple[str, int], int]:
        if self._by_key is None:
            self._by_key = {key: index for index, key in enumerate(self.keys())}
        return self._by_key

    def _at(self, index: int) -> Trace:
        _, _, shard, index_in_shard = self._order[index]
        return self.shard(shard)[index_in_shard]
