"""The traces of one shard, checked against its commit record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, overload

from hallutrace._core import Shard
from hallutrace.errors import DamagedError
from hallutrace.store.folder import CommitRecord, Manifest, Run
from hallutrace.store.trace import Trace

Verify = Literal["first", "always", "never"]


class ShardTraces(Sequence[Trace]):
    """The traces of one shard, in the order of the source.

    Args:
        run: folder of the run.
        record: commit record of the shard.
        manifest: of the run.
        verify: when data is checked, see :func:`hallutrace.open`.

    Attributes:
        record: commit record of the shard.
        path: of the file.

    Raises:
        DamagedError: the file is missing, or differs from its commit record.
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
        # The file has the traces in the order of their batches; sort them by row in the source.
        keys = self._shard.keys()
        self._positions = sorted(range(len(keys)), key=lambda position: keys[position][0])
        if len(keys) != len(record.keys):
            raise DamagedError(
                f"Expected {len(record.keys)} traces in {path}, as its commit record says, got "
                f"{len(keys)} - restore it from a copy"
            )
        # A shard file of the same size may have been swapped for this one.
        for position, expected in zip(self._positions, record.keys, strict=True):
            found = list(keys[position][1:])
            if found != expected:
                raise DamagedError(
                    f"Expected the trace {expected} in {path}, as its commit record says, "
                    f"got {found} - restore it from a copy"
                )

    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, which: int) -> Trace: ...
    @overload
    def __getitem__(self, which: slice) -> list[Trace]: ...
    def __getitem__(self, which: int | slice) -> Trace | list[Trace]:
        if isinstance(which, slice):
            return [self[index] for index in range(*which.indices(len(self)))]
        origin = (self.path, self._verify)
        return Trace(self._shard, self._positions[which], self._manifest, origin)

    def __reduce__(self) -> tuple[Any, ...]:
        return ShardTraces, (self._run, self.record, self._manifest, self._verify)

    def verify(self) -> None:
        """Checks all checksums and all values of the shard.

        Raises:
            DamagedError: the shard is damaged; the message names the first error.
        """
        self._shard.verify()
