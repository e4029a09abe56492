"""Reading a run: a sequence of traces in the source's order, opened lazily."""

from __future__ import annotations

import random
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from operator import index as as_index
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, get_args, overload

from hallutrace._core import Shard
from hallutrace.errors import DamagedError, InputError
from hallutrace.store.folder import CommitRecord, Manifest, Run
from hallutrace.store.trace import Trace

if TYPE_CHECKING:
    import pandas
    import pyarrow

OPEN_SHARDS = (
    8  # mapped at a time; a mapping costs address space, and its header about 2 KB a trace
)


Verify = Literal["first", "always", "never"]


def open_run(run: str | PathLike[str], *, verify: Verify = "first") -> TraceStore:
    """Opens a run for reading.

    Args:
        run: folder that ``hallutrace extract`` wrote; it may still be growing.
        verify: when checksums and the rules of the data are checked: the first time something is
            read, always, or never. Headers and sizes are checked in any case.

    Returns:
        The traces of all shards that are committed now.

    Raises:
        NotARunError: no run in that folder.
        DamagedError: a manifest or commit record that cannot be trusted.

    Example:
        >>> len(hallutrace.open(run))
        8
    """
    if verify not in get_args(Verify):
        raise InputError(f"Expected `verify` to be first, always or never, got {verify!r}")
    return TraceStore(Path(run), verify)


class TraceStore(Sequence[Trace]):
    """The traces of a run, in the source's order, retried ones in their place.

    ``store[17]`` is the eighteenth trace, ``store["id"]`` sample 0 of a question,
    ``store["id", 2]`` another sample, ``store[10:20]`` a list. Memory does not grow while
    iterating. A store may be used by several threads, and pickled to other processes, which open
    the run anew.

    Args:
        folder: of the run.
        verify: when data is checked.

    Example:
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
        # (index in the source, sample, shard, place in its commit record)
        self._order = sorted(
            (index, int(key[1]), shard, place)
            for shard, record in enumerate(self._records)
            for place, (index, key) in enumerate(zip(record.indices, record.keys, strict=True))
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
        for at in range(len(self)):
            yield self._at(at)

    def __contains__(self, which: object) -> bool:
        """Whether the run has a trace: itself, or its question id, or that with a sample."""
        if isinstance(which, Trace):
            at = self._keys().get((which.id, which.sample))
            return at is not None and which.manifest == self.manifest
        key = (which, 0) if isinstance(which, str) else which
        return isinstance(key, tuple) and key in self._keys()

    @overload
    def __getitem__(self, which: int | str | tuple[str, int]) -> Trace: ...
    @overload
    def __getitem__(self, which: slice) -> list[Trace]: ...
    def __getitem__(self, which: int | str | tuple[str, int] | slice) -> Trace | list[Trace]:
        if isinstance(which, slice):
            return [self._at(at) for at in range(*which.indices(len(self)))]
        if isinstance(which, (int, SupportsIndex)):  # numpy's integers too; int is the fast way
            which = as_index(which)
            if not -len(self) <= which < len(self):
                raise IndexError(f"Expected a trace in 0..{len(self)}, got {which}")
            return self._at(which % len(self))
        key = (which, 0) if isinstance(which, str) else which
        at = self._keys().get(key)
        if at is None:
            raise KeyError(
                f"no trace of question {key[0]!r}, sample {key[1]}, in {self._run.folder}"
            )
        return self._at(at)

    def shards(self) -> Iterator[ShardTraces]:
        """The shards in the order of their names, one at a time."""
        for number in range(len(self._records)):
            yield self.shard(number)

    def shard(self, number: int) -> ShardTraces:
        """The traces of one shard.

        Args:
            number: place among the committed shards, from 0.

        Raises:
            InputError: no such shard.
            DamagedError: its file is missing or not what its commit record says.
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
            self._open[number] = traces  # the last one used is the last to go
        return traces

    def shuffled(
        self, seed: int, *, buffer: int = 4, worker: int = 0, workers: int = 1
    ) -> Iterator[Trace]:
        """All traces once, in an order that the seed decides.

        Shards come in random order, ``buffer`` of them at a time, and the traces of those are
        mixed: random enough for training, while the disk is read shard by shard.

        Args:
            seed: another one each epoch gives another order.
            buffer: shards that are mixed at a time.
            worker: which of several readers this is, from 0.
            workers: how many readers share the run; each gets shards of its own.

        Raises:
            InputError: numbers that do not fit each other.
        """
        if buffer < 1 or not 0 <= worker < workers:
            raise InputError(
                "Expected buffer >= 1 and 0 <= worker < workers, got "
                f"buffer {buffer}, worker {worker} of {workers}"
            )
        dice = random.Random(seed)
        shards = list(range(len(self._records)))
        dice.shuffle(shards)
        mine = shards[worker::workers]
        for begin in range(0, len(mine), buffer):
            places = [
                (shard, place)
                for shard in mine[begin : begin + buffer]
                for place in range(len(self._records[shard].keys))
            ]
            dice.shuffle(places)
            for shard, place in places:
                yield self.shard(shard)[place]

    def info(self) -> dict[str, Any]:
        """What the run is, from its manifest and commit records alone."""
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
        """Names of the labelling protocols that the run has labels of."""
        found = (path.stem for path in (self._run.folder / "labels").glob("*.jsonl"))
        return sorted(name for name in found if not name.startswith("."))

    def to_arrow(self) -> pyarrow.Table:
        """The run as a table of Apache Arrow: a row a trace, in the source's order.

        Returns:
            Questions, answers, labels (each protocol a column) and scalars; the columns and their
            types stand in :mod:`hallutrace.store.tables`. All text of the run is in memory.

        Raises:
            MissingExtraError: pyarrow is not installed.
            DamagedError: a trace or labels that cannot be trusted.
        """
        from hallutrace.store.tables import to_arrow

        return to_arrow(self, self.folder)

    def to_pandas(self) -> pandas.DataFrame:
        """The table of :meth:`to_arrow` as a data frame of pandas.

        Returns:
            A row a trace; labels are nullable integers (``Int8``), references arrays of text.

        Raises:
            MissingExtraError: pandas or pyarrow is not installed.
            DamagedError: a trace or labels that cannot be trusted.

        Example:
            >>> frame = hallutrace.open(run).to_pandas()
            >>> frame[["question", "label.contains", "mean_logprob"]].shape
            (8, 3)
        """
        from hallutrace.store.tables import to_pandas

        return to_pandas(self, self.folder)

    @property
    def folder(self) -> Path:
        """Where the run lies."""
        return self._run.folder

    def keys(self) -> list[tuple[str, int]]:
        """Question id and sample of each trace, in order."""
        return [
            (str(self._records[shard].keys[place][0]), sample)
            for _, sample, shard, place in self._order
        ]

    def index_of(self, at: int) -> int:
        """Row in the source of the trace at a place of this store."""
        return self._order[at][0]

    @property
    def records(self) -> list[CommitRecord]:
        """The commit records, in the order of the shards."""
        return list(self._records)

    def _keys(self) -> dict[tuple[str, int], int]:
        if self._by_key is None:
            self._by_key = {key: at for at, key in enumerate(self.keys())}
        return self._by_key

    def _at(self, at: int) -> Trace:
        _, _, shard, place = self._order[at]
        return self.shard(shard)[place]


class ShardTraces(Sequence[Trace]):
    """The traces of one shard, in the source's order.

    Raises:
        DamagedError: the file is missing or not what its commit record says.
    """

    def __init__(
        self, run: Run, record: CommitRecord, manifest: Manifest, verify: Verify = "first"
    ) -> None:
        self.record = record
        self.path = path = run.shard_path(record.name)
        self._manifest, self._run, self._verify = manifest, run, verify
        if not path.is_file():
            raise DamagedError(
                f"Expected the shard {path}, got no such file beside its commit record - "
                "restore it from a copy, or delete the record and extract again"
            )
        self._shard = Shard(path, verify=verify)
        if self._shard.bytes != record.size:
            raise DamagedError(
                f"Expected {record.size} bytes in {path}, as its commit record says, got "
                f"{self._shard.bytes} - restore it from a copy"
            )
        # The file's traces lie in the order of their batches; numbers are in the source's.
        keys = self._shard.keys()
        self._positions = sorted(range(len(keys)), key=lambda position: keys[position][0])
        if len(keys) != len(record.keys):
            raise DamagedError(
                f"Expected {len(record.keys)} traces in {path}, as its commit record says, got "
                f"{len(keys)} - restore it from a copy"
            )
        # Another shard of the same size would give the traces of other questions.
        for position, told in zip(self._positions, record.keys, strict=True):
            held = list(keys[position][1:])
            if held != told:
                raise DamagedError(
                    f"Expected the trace {told} in {path}, as its commit record says, got {held} - "
                    "restore it from a copy"
                )

    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, place: int) -> Trace: ...
    @overload
    def __getitem__(self, place: slice) -> list[Trace]: ...
    def __getitem__(self, place: int | slice) -> Trace | list[Trace]:
        if isinstance(place, slice):
            return [self[at] for at in range(*place.indices(len(self)))]
        origin = (self.path, self._verify)
        return Trace(self._shard, self._positions[place], self._manifest, origin)

    def __reduce__(self) -> tuple[Any, ...]:
        return ShardTraces, (self._run, self.record, self._manifest, self._verify)

    def verify(self) -> None:
        """Checks every checksum and every rule of the data.

        Raises:
            DamagedError: naming the first thing that is wrong.
        """
        self._shard.verify()
