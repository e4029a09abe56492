"""The tensors of one trace as they lie in a shard; unpickling opens the shard again."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hallutrace._core import Shard
from hallutrace.errors import InputError
from hallutrace.store.folder import Manifest

# NumPy types of the types in a shard. NumPy has no bfloat16: its bits are read as uint16.
_DTYPES: dict[str, np.dtype[Any]] = {
    "I64": np.dtype("<i8"),
    "F32": np.dtype("<f4"),
    "I32": np.dtype("<i4"),
    "U32": np.dtype("<u4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "U16": np.dtype("<u2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
}


class TraceTensors:
    """The tensors of one trace, by their names in the file format.

    Args:
        shard: the open shard.
        position: index of the trace in the shard file, from 0.
        manifest: of the run.
        origin: path of the shard and ``verify``, with which a process that unpickles the trace
            opens the shard again; None for a trace that cannot be pickled.
    """

    def __init__(
        self,
        shard: Shard,
        position: int,
        manifest: Manifest,
        origin: tuple[Path, str] | None = None,
    ) -> None:
        self.shard = shard
        self.position = position
        self._manifest = manifest
        self._origin = origin

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles path and position; the process that unpickles the trace opens the shard again."""
        if self._origin is None:
            raise InputError(
                "Expected a trace of an open run to pickle, got one of a shard alone or in memory "
                "- take it from hallutrace.open(run)"
            )
        path, verify = self._origin
        return _reopened, (type(self), path.absolute(), verify, self.position, self._manifest)

    def _typed(self, name: str) -> tuple[str, NDArray[Any]]:
        found = self.shard.tensor(self.position, name)
        if found is None:
            raise InputError(f"Expected a trace with `{name}`, got one without")
        dtype, shape, raw = found
        array: NDArray[Any] = raw.view(_DTYPES[dtype]).reshape(shape)
        return dtype, array

    def stored(self, name: str) -> NDArray[Any]:
        """A tensor by its name in the file format, as a view of the file without conversion.

        Args:
            name: such as ``logprob`` or ``marginals.mass``; bfloat16 is returned as uint16.

        Raises:
            InputError: the trace has no such tensor.
            DamagedError: a checksum is wrong.

        Examples:
            >>> hallutrace.open(run)[0].stored("logprob").dtype
            dtype('float32')
        """
        return self._typed(name)[1]


Kind = TypeVar("Kind", bound=TraceTensors)


def _reopened(kind: type[Kind], path: Path, verify: str, position: int, manifest: Manifest) -> Kind:
    """Unpickles a trace."""
    shard = _open_shard(path, verify, path.stat().st_mtime_ns if path.exists() else 0)
    return kind(shard, position, manifest, (path, verify))


@lru_cache(maxsize=8)
def _open_shard(path: Path, verify: str, changed: int) -> Shard:
    """Opens a shard once for all unpickled traces of it; ``changed`` is the file's mtime, ns."""
    return Shard(path, verify=verify)
