"""The traces of a run whose hidden state points most nearly where that of another one points."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace.detect.base import Detector
from hallutrace.detect.features import hidden_vector, hidden_vectors
from hallutrace.detect.options import HiddenVector
from hallutrace.errors import NotInRunError
from hallutrace.store.trace import Trace
from hallutrace.viewer.viewed_run import ViewedRun

TOKEN: HiddenVector = "last_answer"
KEPT_BYTES = 64_000_000  # of the vectors of one layer; those of larger runs are read each time
BLOCK = 512  # traces read at a time
LONGEST = 300  # characters of a question or an answer


class Neighbors:
    """Finds neighbours by exact cosine; keeps the vectors of one layer of one run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: tuple[ViewedRun, int, NDArray[np.float32]] | None = None

    def nearest(
        self, viewed: ViewedRun, trace: Trace, layer: int | None = None, count: int = 8
    ) -> dict[str, Any]:
        """The nearest traces of a run.

        Args:
            viewed: the run.
            trace: a trace of the same model, of this run or not.
            layer: whose states are compared; None for the middle one of those that are kept.
            count: how many.

        Returns:
            ``layer``, ``label`` (name of the protocol, None without labels), ``traces`` (compared)
            and ``nearest``: ``key``, ``question``, ``answer``, ``cosine`` and ``label`` (1, 0 or
            None) of each, the nearest first.

        Raises:
            NotInRunError: the run has no hidden states, or none of that layer.

        Examples:
            >>> from hallutrace.viewer.viewed_run import ViewedRun
            >>> viewed = ViewedRun(hallutrace.open(run))
            >>> found = Neighbors().nearest(viewed, viewed.store[0], count=3)
            >>> len(found["nearest"]), found["traces"]
            (3, 8)
        """
        layer = layer_of(viewed, layer)
        vector = hidden_vector(trace, layer, TOKEN)
        cosines = self._cosines(viewed, layer, vector)
        if trace in viewed.store:
            cosines[viewed.store.keys().index((trace.id, trace.sample))] = -np.inf
        order = np.argsort(-cosines, kind="stable")[:count]
        chosen = [int(at) for at in order if np.isfinite(cosines[at])]
        label = viewed.label(None) if viewed.labels else None
        values = viewed.label_values(label) if label is not None else None
        found = []
        for at in chosen:
            near = viewed.store[at]
            value = None if values is None or values[at] < 0 else int(values[at])
            found.append(
                {
                    "key": viewed.key_texts[at],
                    "question": near.question[:LONGEST],
                    "answer": near.answer[:LONGEST],
                    "cosine": float(cosines[at]),
                    "label": value,
                }
            )
        return {"layer": layer, "label": label, "traces": len(cosines), "nearest": found}

    def _cosines(
        self, viewed: ViewedRun, layer: int, vector: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """Cosine of each trace of the run, float64 [traces]."""
        with self._lock:
            kept = self._kept
        if kept is not None and kept[0] is viewed and kept[1] == layer:
            return cosines(kept[2], vector)
        count, is_kept = len(viewed.store), len(viewed.store) * vector.nbytes <= KEPT_BYTES
        parts, blocks = [], []
        for begin in range(0, count, BLOCK):
            end = min(begin + BLOCK, count)
            traces = (viewed.store[at] for at in range(begin, end))
            block = hidden_vectors(traces, layer, TOKEN)
            parts.append(cosines(block, vector))
            if is_kept:
                blocks.append(block)
        if blocks:
            with self._lock:
                self._kept = viewed, layer, np.concatenate(blocks)
        return np.concatenate(parts) if parts else np.zeros(0)


def cosines(matrix: NDArray[np.float32], vector: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cosine of each row and a vector, float64 [rows]; 0 where one of them is zero.

    Args:
        matrix: float32 [rows, size].
        vector: float32 [size].

    Examples:
        >>> cosines(np.float32([[2, 0], [0, 1], [0, 0]]), np.float32([1, 0])).tolist()
        [1.0, 0.0, 0.0]
    """
    wide = vector.astype(np.float64)
    products = matrix.astype(np.float64) @ wide
    norms = np.linalg.norm(matrix.astype(np.float64), axis=1) * np.linalg.norm(wide)
    found: NDArray[np.float64] = np.divide(
        products, norms, out=np.zeros_like(products), where=norms > 0
    )
    return found


def layer_of(viewed: ViewedRun, layer: int | None) -> int:
    """The layer to compare: the one that is asked for, else the middle one.

    Raises:
        NotInRunError: the run has no hidden states, or none of that layer.
    """
    kept = list(viewed.store.manifest.identity["hidden"]["layers"])
    if viewed.store.manifest.identity["hidden"]["states"] == "none" or not kept:
        raise NotInRunError(
            "Expected a run with hidden states, got one without - `hallutrace extract "
            "--hidden-states pooled` keeps those that neighbours need"
        )
    if layer is None:
        return int(kept[len(kept) // 2])
    if layer not in kept:
        raise NotInRunError(f"Expected a layer with hidden states ({kept}), got {layer}")
    return layer


def layer_read_by(detector: Detector | None) -> int | None:
    """The layer whose hidden state a detector reads; None where that is not one layer."""
    layer = getattr(detector, "layer", None)
    return layer if isinstance(layer, int) else None
