"""Reading a run: a sequence of traces in the source's order, opened lazily."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from operator import index as as_index
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, SupportsIndex, overload

from hallutrace._core import Shard
from hallutrace.errors import DamagedError, InputError
from hallutrace.run import CommitRecord, Run
from hallutrace.trace import Trace

OPEN_SHARDS = (
    8  # mapped at a time; a mapping costs address space, and its header about 2 KB a trace
)


def open_run(run: str | PathLike[str]) -> TraceStore:
    """Opens a run for reading.

    Args:
        run: folder that ``hallutrace extract`` wrote; it may still be growing.

    Returns:
        The traces of all shards that are committed now.

    Raises:
        NotARunError: no run in that folder.
        DamagedError: a manifest or commit record that cannot be trusted.
    """
    return TraceStore(Path(run))


class TraceStore(Sequence[Trace]):
    """The traces of a run, in the source's order, retried ones in their place.

    ``store[17]`` is the eighteenth trace, ``store["id"]`` sample 0 of a question,
    ``store["id", 2]`` another sample, ``store[10:20]`` a list. Memory does not grow while
    iterating.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._run = Run(folder)
        self.manifest = self._run.manifest()
        self._records = self._run.records()
        for record in self._records:
            if record.fingerprint != self.manifest.fingerprint:
                raise DamagedError(
                    f"Expected shards of the run {self.manifest.fingerprint}, got "
                    f"{record.fingerprint} in shard {record.name} of {folder} - "
                    "it belongs to another run"
                )
        # (index in the source, sample, shard, place in its commit record)
        self._order = sorted(
            (index, int(key[1]), shard, place)
            for shard, record in enumerate(self._records)
            for place, (index, key) in enumerate(zip(record.indices, record.keys, strict=True))
        )
        self._by_key: dict[tuple[str, int], int] | None = None
        self._open: OrderedDict[int, ShardTraces] = OrderedDict()

    def __repr__(self) -> str:
        model = self.manifest.identity["model"]["name"]
        return f"TraceStore({str(self._run.folder)!r}: {len(self):,} traces of {model})"

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

    @overload
    def __getitem__(self, which: int | str | tuple[str, int]) -> Trace: ...
    @overload
    def __getitem__(self, which: slice) -> list[Trace]: ...
    def __getitem__(self, which: int | str | tuple[str, int] | slice) -> Trace | list[Trace]:
        if isinstance(which, slice):
            return [self._at(at) for at in range(*which.indices(len(self)))]
        if isinstance(which, SupportsIndex):  # numpy's integers too
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
        if number not in self._open:
            self._open[number] = ShardTraces(self._run, self._records[number], self.manifest)
            if len(self._open) > OPEN_SHARDS:
                self._open.popitem(last=False)
        self._open.move_to_end(number)
        return self._open[number]

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
        return sorted(path.stem for path in (self._run.folder / "labels").glob("*.jsonl"))

    @property
    def records(self) -> list[CommitRecord]:
        """The commit records, in the order of the shards."""
        return list(self._records)

    def _keys(self) -> dict[tuple[str, int], int]:
        if self._by_key is None:
            self._by_key = {
                (str(self._records[shard].keys[place][0]), sample): at
                for at, (_, sample, shard, place) in enumerate(self._order)
            }
        return self._by_key

    def _at(self, at: int) -> Trace:
        _, _, shard, place = self._order[at]
        return self.shard(shard)[place]


class ShardTraces(Sequence[Trace]):
    """The traces of one shard, in the source's order.

    Raises:
        DamagedError: the file is missing or not what its commit record says.
    """

    def __init__(self, run: Run, record: CommitRecord, manifest: Any) -> None:
        self.record = record
        self._manifest = manifest
        path = run.shard_path(record.name)
        if not path.is_file():
            raise DamagedError(
                f"Expected the shard {path}, got no such file beside its commit record - "
                "restore it from a copy, or delete the record and extract again"
            )
        self._shard = Shard(path)
        if self._shard.bytes != record.size:
            raise DamagedError(
                f"Expected {record.size} bytes in {path}, as its commit record says, got "
                f"{self._shard.bytes} - restore it from a copy"
            )
        # The file's traces lie in the order of their batches; numbers are in the source's.
        in_file = sorted(
            (number, position) for position, (number, _, _) in enumerate(self._shard.keys())
        )
        self._positions = [position for _, position in in_file]
        if len(self._positions) != len(record.keys):
            raise DamagedError(
                f"Expected {len(record.keys)} traces in {path}, as its commit record says, got "
                f"{len(self._positions)} - restore it from a copy"
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
        return Trace(self._shard, self._positions[place], self._manifest)

    def verify(self) -> None:
        """Checks every checksum and every rule of the data.

        Raises:
            DamagedError: naming the first thing that is wrong.
        """
        self._shard.verify()
