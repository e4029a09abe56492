"""The marginals of a trace, read from its shard as float32."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class StoredTensors(Protocol):
    """What marginals are read from: a trace."""

    def stored(self, name: str) -> NDArray[Any]:
        """An array as it lies in the shard, by its name in the format."""


class StoredMarginals:
    """Marginals of the attention of a trace, float32, for all captured layers in order.

    H is the largest number of heads of a layer; layers with fewer heads are padded with zeros. N is
    the number of tokens, R the number of rows (queries): the answer rows P-1..N-1, or all N if the
    run stored them.

    Args:
        trace: of a run.

    Examples:
        >>> trace = hallutrace.open(run)[0]
        >>> layers, heads, tokens = trace.marginals.diagonal.shape
        >>> tokens == len(trace.tokens)
        True
    """

    def __init__(self, trace: StoredTensors) -> None:
        self._trace = trace

    @property
    def log_diagonal(self) -> NDArray[np.float32]:
        """Mean of ln(max(diagonal, 2^-126)) over prompt and over answer rows, [layers, H, 2]."""
        return self._as_float32("log_diagonal")

    @property
    def log_square(self) -> NDArray[np.float32]:
        """Mean of ln(max(square, 2^-126)) over prompt and over answer rows, [layers, H, 2]."""
        return self._as_float32("log_square")

    @property
    def diagonal(self) -> NDArray[np.float32]:
        """Attention weight of each token on itself, [layers, H, N]."""
        return self._as_float32("diagonal")

    @property
    def received_mean(self) -> NDArray[np.float32]:
        """Mean weight of later rows on each token, without the last row, [layers, H, N]."""
        return self._as_float32("received_mean")

    @property
    def previous(self) -> NDArray[np.float32]:
        """Attention weight of each row on the token before its own, [layers, H, R]."""
        return self._as_float32("previous")

    @property
    def entropy(self) -> NDArray[np.float32]:
        """Entropy of each row, nats, [layers, H, R]."""
        return self._as_float32("entropy")

    @property
    def mass(self) -> NDArray[np.float32]:
        """Sum of the weights of each row on each segment of the keys, [layers, H, R, segments]."""
        return self._as_float32("mass")

    @property
    def square(self) -> NDArray[np.float32]:
        """Sum of the squared weights of each row (Head Entropy), [layers, H, R]."""
        return self._as_float32("square")

    @property
    def rough(self) -> NDArray[np.float32]:
        """L2 norm of the second differences along the keys of a segment, [layers, H, R, segments].

        Each segment is padded with zeros, see :class:`hallutrace.Marginals`.
        """
        return self._as_float32("rough")

    @property
    def value_norm(self) -> NDArray[np.float32]:
        """L2 norm of the value vector of each token, [layers, value heads, N]."""
        return self._as_float32("value_norm")

    def _as_float32(self, name: str) -> NDArray[np.float32]:
        stored = self._trace.stored(f"marginals.{name}")
        converted: NDArray[np.float32] = stored.astype(np.float32, copy=False)
        return converted
