"""Sparsifies attention arrays and computes their marginals.

The module does not import torch itself: a caller that passes a tensor has already imported it.
"""

from __future__ import annotations

import numbers
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt

from hallutrace import _core
from hallutrace.attention.edges import EdgeList, Marginals
from hallutrace.choices import Heads
from hallutrace.errors import InputError

if TYPE_CHECKING:
    from typing import TypeAlias

    import torch

    Attention: TypeAlias = npt.NDArray[Any] | torch.Tensor


def sparsify(
    attention: Attention,
    *,
    top_k: int | None = None,
    min_weight: float = 0.0,
    top_mass: float | None = None,
    heads: Heads = "mean",
    causal: bool = True,
    first_query: int | None = None,
) -> EdgeList:
    """Sparsifies an attention matrix into a graph.

    The rules apply to each row separately. A weight is kept if it meets all the given rules; a zero
    weight is never kept. The result does not depend on the number of threads.

    Args:
        attention: float32, float16 or bfloat16, [heads, queries, keys] or [queries, keys], a numpy
            array or a torch tensor on the CPU; weights must be finite and not negative. It is read
            without a copy if the stride over keys is 1 and no stride is negative, else copied
            once. No other thread may write to it during the call.
        top_k: keep the k largest weights of a row; ties go to the lower key.
        min_weight: keep weights >= this, rounded to float32.
        top_mass: keep the fewest largest weights whose sum is at least this fraction of the row's
            mass, in (0, 1].
        heads: "mean" or "max" combine the heads before the rules apply, "each" keeps every head.
        causal: query row i is at key position i + first_query and attends to no later key; weights
            on later keys are not read.
        first_query: key position of query row 0; default keys - queries, so that the queries are
            the last positions.

    Returns:
        Edges ordered by head, query, key.

    Raises:
        InputError: the array, a weight or an argument is not as described above.

    Source: ours.

    Examples:
        >>> import numpy as np
        >>> attention = np.float32([[[1, 0, 0], [0.25, 0.75, 0], [0.5, 0.25, 0.25]]])
        >>> sparsify(attention, min_weight=0.5).keys.tolist()
        [0, 1, 0]
    """
    array, bfloat16 = borrow(attention)
    indptr, keys, weights, retained, shape, first = _core.sparsify(
        array,
        bfloat16,
        top_k=_top_k(top_k),
        min_weight=_number("min_weight", "finite in float32 and >= 0", min_weight, "0.0"),
        top_mass=None
        if top_mass is None
        else _number("top_mass", "in (0, 1] or None", top_mass, "None"),
        heads=_heads(heads),
        causal=_causal(causal),
        first_query=_first_query(first_query),
    )
    return EdgeList(indptr, keys, weights, shape, first, retained)


def marginals(
    attention: Attention,
    *,
    segments: Sequence[int] = (),
    causal: bool = True,
    first_query: int | None = None,
) -> Marginals:
    """Exact statistics of an attention matrix per head, from all weights.

    Args:
        attention: as for :func:`sparsify`.
        segments: non-decreasing key positions at which each segment after the first begins; k
            positions make k + 1 segments, two equal positions an empty segment.
        causal: as for :func:`sparsify`.
        first_query: as for :func:`sparsify`.

    Returns:
        float32 arrays, within 1e-6 + 1e-5 * abs(x) of the float64 result x.

    Raises:
        InputError: the array, a weight or an argument is not as described above.

    Source: ours.

    Examples:
        >>> import numpy as np
        >>> marginals(np.float32([[1, 0], [0.5, 0.5]])).entropy.round(3)
        array([[0.   , 0.693]], dtype=float32)
    """
    array, bfloat16 = borrow(attention)
    arrays = _core.marginals(
        array,
        bfloat16,
        segments=_segments(segments, array.shape[-1] if array.ndim else 0),
        causal=_causal(causal),
        first_query=_first_query(first_query),
    )
    return Marginals(*arrays)


def borrow(attention: object) -> tuple[npt.NDArray[Any], bool]:
    """Converts attention to an array that the core can read, without a copy if possible.

    Args:
        attention: a numpy array or a torch tensor on the CPU, with any number of axes.

    Returns:
        A float32, float16 or uint16 array, and whether it is uint16 with the bits of bfloat16.

    Raises:
        InputError: another type of object, another dtype, or a tensor not on the CPU.

    Examples:
        >>> import numpy as np
        >>> weights = np.ones((2, 2), np.float32)
        >>> array, is_bfloat16 = borrow(weights)
        >>> array is weights, is_bfloat16
        (True, False)
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(attention, torch.Tensor):
        array, bfloat16 = _borrow_tensor(attention)
    elif isinstance(attention, np.ma.MaskedArray):
        _refuse("attention", "without a mask", "a masked array", "pass attention.filled(0.0)")
    elif isinstance(attention, np.ndarray):
        array, bfloat16 = _borrow_array(attention)
    else:
        kind = type(attention).__name__
        _refuse("attention", "a numpy array or a torch tensor", kind, "pass numpy.asarray(...)")
    return (array if _is_readable(array) else _copy(array)), bfloat16


def _borrow_tensor(tensor: torch.Tensor) -> tuple[npt.NDArray[Any], bool]:
    import torch

    if tensor.device.type != "cpu":
        _refuse("attention", "on the CPU", f"on {tensor.device}", "pass attention.cpu()")
    if tensor.layout != torch.strided:
        _refuse("attention", "dense", str(tensor.layout), "pass attention.to_dense()")
    tensor = tensor.detach().resolve_neg()  # torch may negate a view lazily
    if tensor.dtype == torch.bfloat16:
        # numpy has no bfloat16: the same bits as uint16, without a copy.
        return tensor.view(torch.uint16).numpy(), True
    if tensor.dtype not in (torch.float32, torch.float16):
        name = str(tensor.dtype).removeprefix("torch.")
        _refuse_dtype(name, tensor.shape, "pass attention.float()")
    return tensor.numpy(), False


def _borrow_array(array: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], bool]:
    if array.dtype.name == "bfloat16":  # dtype of the package ml_dtypes
        return array.view(np.uint16), True
    if array.dtype.char not in "fe":  # float32 and float16, of either byte order
        _refuse_dtype(array.dtype.name, array.shape, 'pass attention.astype("float32")')
    return array, False


def _is_readable(array: npt.NDArray[Any]) -> bool:
    """Whether the core can read an array without a copy."""
    flags = array.flags
    if not (array.dtype.isnative and flags.aligned):
        return False
    if flags.c_contiguous or array.size == 0:
        return True
    size = array.itemsize
    axes = [axis for axis in zip(array.shape, array.strides, strict=True) if axis[0] > 1]
    has_whole_strides = all(stride >= 0 and stride % size == 0 for _, stride in axes)
    return has_whole_strides and (array.shape[-1] <= 1 or array.strides[-1] == size)


def _copy(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A native-endian, aligned, C-contiguous copy."""
    return np.array(array, dtype=array.dtype.newbyteorder("="), order="C", subok=False)


def _top_k(top_k: object) -> int | None:
    if top_k is None:
        return None
    if type(top_k) is int and 1 <= top_k < 2**31:
        return top_k
    if not _is_integer(top_k) or int(top_k) < 1:  # type: ignore[call-overload]
        _refuse("top_k", "an integer >= 1 or None", top_k, "pass None to leave the rule out")
    # The core takes an int32; no row has that many keys.
    return min(int(top_k), 2**31)  # type: ignore[call-overload, no-any-return]


def _number(name: str, expected: str, value: object, default: str) -> float:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        _refuse(name, expected, repr(value), f"pass {default} to leave the rule out")
    return float(value)


def _heads(heads: object) -> str:
    if not isinstance(heads, str):
        _refuse("heads", '"mean", "max" or "each"', repr(heads), "pass one of the three")
    return heads


def _causal(causal: object) -> bool:
    if not isinstance(causal, (bool, np.bool_)):
        _refuse("causal", "True or False", repr(causal), "pass one of the two")
    return bool(causal)


def _first_query(first_query: object) -> int | None:
    if first_query is None:
        return None
    if not _is_integer(first_query) or abs(int(first_query)) > 2**62:  # type: ignore[call-overload]
        expected = "an integer below 2**62 or None"
        _refuse("first_query", expected, repr(first_query), "pass the key position of query row 0")
    return int(first_query)  # type: ignore[call-overload, no-any-return]


def _segments(segments: Sequence[int], keys: int) -> list[int]:
    positions = list(segments)
    if not all(_is_integer(position) and 0 <= position <= keys for position in positions):
        expected = f"increasing key positions in 0..={keys}"
        fix = "pass where each segment after the first begins"
        _refuse("segments", expected, positions, fix)
    return [int(position) for position in positions]


def _is_integer(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _refuse_dtype(dtype: str, shape: Sequence[int], fix: str) -> NoReturn:
    _refuse("attention", "float32, float16 or bfloat16", f"{dtype} {list(shape)}", fix)


def _refuse(name: str, expected: str, got: object, fix: str) -> NoReturn:
    raise InputError(f"Expected `{name}` {expected}, got {got} - {fix}")
