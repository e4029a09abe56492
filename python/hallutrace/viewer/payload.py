"""Data on their way to the page: JSON whose numpy arrays travel as typed arrays.

A payload is, after gzip, little endian:

    u32  bytes of the JSON that follows
    JSON in which an array is {"$array": [type, shape, offset]}
    zeros, up to a multiple of 8 bytes
    the arrays, each at its offset (counted from here), each at a multiple of 8 bytes

Types are ``f2 f4 f8 i1 i2 i4 u1 u2 u4`` and ``b1``, as numpy names them. Numbers that are no number
(NaN, infinities) are null in JSON, and stay what they are in arrays.
"""

from __future__ import annotations

import gzip
import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ARRAY = "$array"
_TYPES = frozenset({"f2", "f4", "f8", "i1", "i2", "i4", "u1", "u2", "u4", "b1"})
_ALIGNMENT = 8


def pack(value: Any) -> bytes:
    """A payload, compressed; the same value always gives the same bytes.

    Args:
        value: of dictionaries with text as keys, sequences, text, numbers, booleans, None and numpy
            arrays. 64-bit integers travel as 32-bit ones.

    Raises:
        TypeError: something else is in it.
        OverflowError: an array of integers that 32 bits cannot hold.

    Examples:
        >>> unpack(pack({"x": np.arange(3, dtype=np.int64), "y": float("nan")}))
        {'x': array([0, 1, 2], dtype=int32), 'y': None}
    """
    arrays: list[bytes] = []
    offset = 0

    def stored(array: NDArray[Any]) -> dict[str, Any]:
        nonlocal offset
        narrowed = _narrowed(array)
        data = narrowed.tobytes()
        padded = data + bytes(-len(data) % _ALIGNMENT)
        place = {_ARRAY: [narrowed.dtype.str[1:], list(narrowed.shape), offset]}
        arrays.append(padded)
        offset += len(padded)
        return place

    plain = _plain(value, stored)
    text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    header = text.encode("utf-8", "replace")
    start = 4 + len(header)
    whole = b"".join([struct.pack("<I", len(header)), header, bytes(-start % _ALIGNMENT), *arrays])
    return gzip.compress(whole, compresslevel=6, mtime=0)


def unpack(payload: bytes) -> Any:
    """What :func:`pack` was given, with arrays narrowed as they travelled.

    Args:
        payload: as :func:`pack` returned it.

    Examples:
        >>> unpack(pack([1, "a", None]))
        [1, 'a', None]
    """
    whole = gzip.decompress(payload)
    (length,) = struct.unpack_from("<I", whole)
    start = 4 + length + (-(4 + length) % _ALIGNMENT)

    def array(value: dict[str, Any]) -> Any:
        if _ARRAY not in value:
            return value
        name, shape, offset = value[_ARRAY]
        return np.frombuffer(whole, np.dtype(f"<{name}"), math.prod(shape), start + offset).reshape(
            shape
        )

    return json.loads(whole[4 : 4 + length], object_hook=array)


def _plain(value: Any, stored: Any) -> Any:
    """JSON-able, with each array handed to ``stored``."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, np.ndarray):
        return stored(value)
    if isinstance(value, np.generic):
        return _plain(value.item(), stored)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(one, stored) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one, stored) for one in value]
    raise TypeError(f"Expected what JSON or an array can hold, got {type(value).__name__}")


def _narrowed(array: NDArray[Any]) -> NDArray[Any]:
    """Little endian, contiguous, of a type that a page reads."""
    if array.dtype in (np.int64, np.uint64):
        narrow = array.astype(np.int32 if array.dtype == np.int64 else np.uint32)
        if not np.array_equal(narrow, array):
            raise OverflowError("Expected integers of 32 bits, got larger ones")
        array = narrow
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)
    name = array.dtype.newbyteorder("<").str[1:]
    if name not in _TYPES:
        raise TypeError(f"Expected an array of {', '.join(sorted(_TYPES))}, got {array.dtype}")
    return little
