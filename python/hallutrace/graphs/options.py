"""The options of graphs, checked as far as they do not depend on a run."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hallutrace.errors import InputError

FEATURES = ("hidden", "marginals", "position", "role", "logprob")
"""Names of node features."""


class Reducer(Protocol):
    """Reduces hidden states to fewer columns; see :class:`hallutrace.graphs.HiddenReducer`."""

    @property
    def layers(self) -> list[int]:
        """Layers that it was fitted on."""

    @property
    def columns(self) -> int:
        """Numbers that a hidden state is reduced to."""

    def transform(self, layer: int, states: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 [rows, hidden size] to [rows, columns]."""


@dataclass(frozen=True)
class GraphOptions:
    """How graphs are made of traces; :class:`hallutrace.graphs.TraceGraphs` describes each option.

    Raises:
        InputError: a choice that does not exist, or a number out of range.
    """

    layers: tuple[int, ...] | None = None
    per: str = "layer"
    features: tuple[str, ...] = ("marginals", "position", "role", "logprob")
    heads: str | None = None
    top_k: int | None = None
    min_weight: float = 0.0
    window: int | str | None = None
    max_nodes: int | None = None
    edges: str = "true"
    seed: int = 0
    reducer: Reducer | None = None

    def __post_init__(self) -> None:
        _require_choice("per", self.per, ("layer", "trace"))
        _require_choice("edges", self.edges, ("true", "shuffled", "none"))
        if self.heads is not None:
            _require_choice("heads", self.heads, ("each", "mean", "max"))
        unknown = [name for name in self.features if name not in FEATURES]
        if unknown or len(set(self.features)) < len(self.features):
            raise InputError(
                f"Expected `features` among {', '.join(FEATURES)}, each once, got "
                f"{', '.join(map(str, self.features))}"
            )
        if isinstance(self.window, str) and self.window != "answer":
            raise InputError(
                f"Expected `window` to be answer, None or a number of tokens, got {self.window!r}"
            )
        _require_whole("window", 0 if self.window == "answer" else self.window, 0)
        _require_whole("top_k", self.top_k, 1)
        _require_whole("max_nodes", self.max_nodes, 1)
        if not (math.isfinite(self.min_weight) and self.min_weight >= 0):
            raise InputError(f"Expected `min_weight` >= 0 and finite, got {self.min_weight}")
        if self.reducer is not None and "hidden" not in self.features:
            raise InputError(
                "Expected `hidden` among the features for a reducer of hidden states, got "
                f"{', '.join(self.features) or 'none'} - add it, or leave out the reducer"
            )

    @classmethod
    def of(cls, **options: Any) -> GraphOptions:
        """Options by name; sequences may be lists.

        Raises:
            InputError: an unknown name, and as above.
        """
        known = [field.name for field in fields(cls)]
        unknown = [name for name in options if name not in known]
        if unknown:
            raise InputError(
                f"Expected options of graphs ({', '.join(known)}), got {', '.join(unknown)}"
            )
        for name in ("layers", "features"):
            if options.get(name) is not None:
                options[name] = tuple(options[name])
        return cls(**options)


def _require_choice(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        listed = f"{', '.join(known[:-1])} or {known[-1]}"
        raise InputError(f"Expected `{name}` to be {listed}, got {value!r}")


def _require_whole(name: str, value: object, least: int) -> None:
    is_whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if value is not None and not (is_whole and value >= least):  # type: ignore[operator]
        raise InputError(f"Expected `{name}` a whole number >= {least}, or None, got {value!r}")
