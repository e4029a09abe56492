"""Hidden states reduced by principal components of the training part, or a random projection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace.errors import InputError
from hallutrace.graphs.features import hidden_rows
from hallutrace.option_names import parameter
from hallutrace.store.trace import Trace

# Memory for the sums of one pass; layers that do not fit take further passes.
_SUMS_BYTES = 512 * 2**20
# Rows that are gathered before they are multiplied.
_ROWS = 1024


class HiddenReducer:
    """Reduces hidden states of each layer to a few columns.

    ``pca`` subtracts the mean of the traces it is fitted on and projects on their principal
    components, exactly: sums of products are gathered in float64, in memory that does not grow
    with the traces. Fit it on the training part alone. ``random`` projects on normal directions,
    the same for all layers, drawn by the seed with variance 1 / columns.

    Args:
        columns: numbers to keep of each hidden state.
        kind: ``pca`` or ``random``.
        seed: of the random directions.

    Attributes:
        columns: as given.
        kind: as given.
        seed: as given.
        explained: share of the variance that is kept, of each layer; empty for ``random``.

    Raises:
        InputError: another kind, or fewer than one column.

    Examples:
        >>> from hallutrace.graphs import TraceGraphs
        >>> traces = TraceGraphs(run).traces
        >>> reducer = HiddenReducer(4).fit(traces, layers=[0, 2])
        >>> states = traces[0].hidden(2)
        >>> reducer.transform(2, states).shape == (len(states), 4)
        True
        >>> graphs = TraceGraphs(run, layers=[0, 2], features=["hidden"], reducer=reducer)
        >>> graphs[0].x.shape[1]  # and a column that says where there are states
        5

    Source: PCA, Pearson 1901; random projection, Johnson and Lindenstrauss 1984.
    """

    def __init__(self, columns: int, kind: str = "pca", seed: int = 0) -> None:
        if kind not in ("pca", "random"):
            raise InputError(f"Expected `kind` to be pca or random, got {kind!r}")
        if columns < 1:
            raise InputError(f"Expected `columns` >= 1, got {columns}")
        self.columns = columns
        self.kind = kind
        self.seed = seed
        self.explained: list[float] = []
        self._index_of_layer: dict[int, int] = {}
        # [layers, hidden size] and [layers, hidden size, columns]; random ones are of all layers
        self._means: NDArray[np.float32] = np.zeros((0, 0), np.float32)
        self._axes: NDArray[np.float32] = np.zeros((0, 0, 0), np.float32)

    @property
    def layers(self) -> list[int]:
        """Layers that it was fitted on, in order."""
        return list(self._index_of_layer)

    def fit(self, traces: Sequence[Trace], layers: Sequence[int] | None = None) -> HiddenReducer:
        """Fits it on traces; the states are read that belong to a token.

        Args:
            traces: of the training part, such as ``TraceGraphs(..., split="train").traces``. They
                are read once, or more often where layers are many and wide.
            layers: numbers of layers; all that are kept unless given.

        Returns:
            Itself.

        Raises:
            InputError: no traces, a layer without hidden states, or fewer states, or numbers in a
                state, than columns.
        """
        if not len(traces):
            raise InputError("Expected traces to fit a reducer on, got none")
        first = traces[0]
        chosen = first.hidden_layers if layers is None else list(layers)
        if not chosen:
            raise InputError(
                "Expected traces with hidden states for a reducer, got some without - extract "
                f"them again with {parameter('hidden_states', 'answer')}"
            )
        size = first.hidden(chosen[0]).shape[1]
        if self.columns > size:
            raise InputError(
                f"Expected at most {size} columns, the size of the states, got {self.columns}"
            )
        if self.kind == "random":
            rng = np.random.default_rng(self.seed)
            means = np.zeros((1, size))
            axes = rng.standard_normal((1, size, self.columns)) / np.sqrt(self.columns)
        else:
            means, axes = self._principal(traces, chosen, size)
        self._set(means, axes, chosen)
        return self

    def transform(self, layer: int, states: NDArray[np.float32]) -> NDArray[np.float32]:
        """Reduces states of one layer.

        Args:
            layer: number in the model.
            states: float32 [rows, hidden size].

        Returns:
            float32 [rows, columns].

        Raises:
            InputError: a layer that it was not fitted on.
        """
        if layer not in self._index_of_layer:
            known = ", ".join(map(str, self.layers)) or "none"
            raise InputError(
                f"Expected a layer that the reducer was fitted on ({known}), got {layer} - "
                "fit it first"
            )
        index = self._index_of_layer[layer]
        reduced: NDArray[np.float32] = (states - self._means[index]) @ self._axes[index]
        return reduced

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """What was fitted: arrays by name, and JSON-able facts; for :meth:`from_state`."""
        arrays = {"mean": self._means, "axes": self._axes}
        facts = {
            "columns": self.columns,
            "kind": self.kind,
            "seed": self.seed,
            "layers": self.layers,
            "explained": self.explained,
        }
        return arrays, facts

    @classmethod
    def from_state(cls, arrays: dict[str, NDArray[Any]], facts: dict[str, Any]) -> HiddenReducer:
        """A reducer from what :meth:`state` gave.

        Raises:
            KeyError: an array or fact is missing.
            InputError: arrays whose shapes do not agree with the facts.
        """
        reducer = cls(facts["columns"], facts["kind"], facts["seed"])
        layers = [int(layer) for layer in facts["layers"]]
        means, axes = arrays["mean"], arrays["axes"]
        count = len(layers) if reducer.kind == "pca" else min(1, len(layers))
        if means.shape[:1] != (count,) or axes.shape != (
            count, means.shape[-1], reducer.columns if count else 0
        ):  # fmt: skip
            raise InputError(
                f"Expected a mean and axes of {count} layers and {reducer.columns} columns, got "
                f"{list(means.shape)} and {list(axes.shape)}"
            )
        reducer._set(means, axes, layers)
        reducer.explained = [float(share) for share in facts["explained"]]
        return reducer

    def _set(self, means: NDArray[Any], axes: NDArray[Any], layers: list[int]) -> None:
        self._means, self._axes = means.astype(np.float32), axes.astype(np.float32)
        is_pca = self.kind == "pca"
        self._index_of_layer = {layer: at if is_pca else 0 for at, layer in enumerate(layers)}

    def _principal(
        self, traces: Sequence[Trace], layers: list[int], size: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Means [layers, hidden size] and axes [layers, hidden size, columns]."""
        means = np.zeros((len(layers), size))
        axes = np.zeros((len(layers), size, self.columns))
        self.explained = []
        at_once = max(1, _SUMS_BYTES // (8 * size**2))
        for begin in range(0, len(layers), at_once):
            sums = _sums(traces, layers[begin : begin + at_once], size)
            for index, (count, total, products) in enumerate(sums, begin):
                if count < self.columns:
                    raise InputError(
                        f"Expected at least {self.columns} hidden states for as many columns, "
                        f"got {count} - take more traces, or fewer columns"
                    )
                means[index] = total / count
                covariance = products / count - np.outer(means[index], means[index])
                variances, directions = np.linalg.eigh(covariance)
                largest = directions[:, ::-1][:, : self.columns]
                # A direction and its opposite are the same component; take the one whose
                # largest entry is positive, so that equal data give equal columns.
                strongest = np.abs(largest).argmax(axis=0)
                signs = np.where(largest[strongest, np.arange(self.columns)] < 0, -1.0, 1.0)
                axes[index] = largest * signs
                kept, whole = variances[::-1][: self.columns].sum(), np.trace(covariance)
                self.explained.append(float(kept / whole) if whole > 0 else 1.0)
        return means, axes


def _sums(
    traces: Sequence[Trace], layers: list[int], size: int
) -> list[tuple[int, NDArray[np.float64], NDArray[np.float64]]]:
    """Of each layer: number of states, their sum [size], and sum of their products [size, size]."""
    count = 0
    totals = np.zeros((len(layers), size))
    products = np.zeros((len(layers), size, size))
    reading = iter(traces)
    while block := list(_block(reading, layers)):
        count += sum(len(of_trace[0]) for of_trace in block)
        for at in range(len(layers)):
            states = np.concatenate([of_trace[at] for of_trace in block]).astype(np.float64)
            totals[at] += states.sum(axis=0)
            products[at] += states.T @ states
    return [(count, totals[at], products[at]) for at in range(len(layers))]


def _block(reading: Iterator[Trace], layers: list[int]) -> Iterator[list[NDArray[np.float32]]]:
    """States of each layer of some traces: about the rows that are multiplied at once."""
    rows = 0
    for trace in reading:
        of_trace = [hidden_rows(trace, layer, 0)[1] for layer in layers]
        rows += len(of_trace[0])
        yield of_trace
        if rows >= _ROWS:
            return
