"""What graphs are asked for, and what that comes to on one run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hallutrace.errors import InputError
from hallutrace.store.folder import Manifest

FEATURES = ("hidden", "marginals", "position", "role", "logprob")
"""Names of node features."""

# Columns of `mass` for each head: first token, prompt but for the context, context, answer.
MASSES = 4
# diagonal, received_mean, previous, entropy
PLAIN_MARGINALS = 4


class Reducer(Protocol):
    """Makes hidden states narrow; see :class:`hallutrace.graphs.HiddenReducer`."""

    @property
    def layers(self) -> list[int]:
        """Layers that it was fitted on."""

    @property
    def columns(self) -> int:
        """Numbers that it gives for a hidden state."""

    def transform(self, layer: int, states: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 [rows, width] to [rows, columns]."""


@dataclass(frozen=True)
class Recipe:
    """How graphs are made of traces; see :class:`hallutrace.graphs.TraceGraphs` for each.

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
        _choice("per", self.per, ("layer", "trace"))
        _choice("edges", self.edges, ("true", "shuffled", "none"))
        if self.heads is not None:
            _choice("heads", self.heads, ("each", "mean", "max"))
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
        _least("window", 0 if self.window == "answer" else self.window, 0)
        _least("top_k", self.top_k, 1)
        _least("max_nodes", self.max_nodes, 1)
        if not (math.isfinite(self.min_weight) and self.min_weight >= 0):
            raise InputError(f"Expected `min_weight` >= 0 and finite, got {self.min_weight}")
        if self.reducer is not None and "hidden" not in self.features:
            raise InputError(
                "Expected `hidden` among the features for a reducer of hidden states, got "
                f"{', '.join(self.features) or 'none'} - add it, or leave out the reducer"
            )


@dataclass(frozen=True)
class Plan:
    """A recipe on one run.

    Attributes:
        recipe: what was asked.
        layers: numbers of the layers.
        places: int64, of those among the captured layers.
        captured: how many layers the run captured.
        heads: most heads of a captured layer; marginals are padded to so many.
        heads_of: heads of each of ``layers``, int64.
        combine: ``mean`` or ``max`` if heads are still to be combined, else None.
        several: whether graphs have the edges of several heads.
        columns: where each feature stands in a node's row; those of layers repeat layer by layer
            where a graph has all of them.
    """

    recipe: Recipe
    layers: tuple[int, ...]
    places: NDArray[np.int64]
    captured: int
    heads: int
    heads_of: NDArray[np.int64]
    combine: str | None
    several: bool
    columns: dict[str, slice]

    @property
    def width(self) -> int:
        """Numbers of a node."""
        return max((columns.stop for columns in self.columns.values()), default=0)

    @classmethod
    def of(cls, recipe: Recipe, manifest: Manifest, where: str) -> Plan:
        """The recipe on a run.

        Args:
            recipe: what is asked.
            manifest: of the run.
            where: the run, for messages.

        Raises:
            InputError: the run lacks what is asked for.
        """
        facts, identity = manifest.facts, manifest.identity
        captured: list[int] = list(facts["captured_layers"])
        layers = tuple(captured) if recipe.layers is None else recipe.layers
        strange = [layer for layer in layers if layer not in captured]
        if strange or not layers or len(set(layers)) < len(layers):
            raise InputError(
                f"Expected layers with captured attention ({_listed(captured)}), each once, got "
                f"{_listed(layers)} of {where}"
            )
        combine = _combination(recipe.heads, identity["sparsification"]["heads"], where)
        stored_each = identity["sparsification"]["heads"] == "each"
        places = [captured.index(layer) for layer in layers]
        if "hidden" in recipe.features:
            _check_hidden(recipe, layers, identity["hidden"], where)
        return cls(
            recipe=recipe,
            layers=layers,
            places=np.array(places, np.int64),
            captured=len(captured),
            heads=max(facts["heads"]),
            heads_of=np.array([facts["heads"][place] for place in places], np.int64),
            combine=combine,
            several=stored_each and combine is None,
            columns=_columns(recipe, len(layers), max(facts["heads"]), facts["hidden_size"]),
        )


def _columns(recipe: Recipe, layers: int, heads: int, hidden_size: int) -> dict[str, slice]:
    """Where each feature stands."""
    states = hidden_size if recipe.reducer is None else recipe.reducer.columns
    repeats = 1 if recipe.per == "layer" else layers
    widths = {
        "hidden": (states + 1) * repeats,
        "marginals": (heads * (PLAIN_MARGINALS + MASSES) + 1) * repeats,
        "position": 2,
        "role": 2,
        "logprob": 3,
    }
    columns, begin = {}, 0
    for name in recipe.features:
        columns[name] = slice(begin, begin + widths[name])
        begin += widths[name]
    return columns


def _combination(asked: str | None, kept: str, where: str) -> str | None:
    """How heads are still to be combined."""
    if asked in (None, kept):
        return None
    if kept != "each":
        raise InputError(
            f"Expected `heads` None or {kept}, as the run combined them, got {asked!r} for {where} "
            "- extract it again with --heads each to choose afterwards"
        )
    return asked


def _check_hidden(
    recipe: Recipe, layers: tuple[int, ...], hidden: dict[str, Any], where: str
) -> None:
    """Refuses `hidden` where the run, or the reducer, lacks the states."""
    if hidden["states"] == "none":
        raise InputError(
            f"Expected a run with hidden states for the feature `hidden`, got {where} without - "
            "extract it again with --hidden-states answer, or leave the feature out"
        )
    if not set(layers) <= set(hidden["layers"]):
        raise InputError(
            f"Expected layers with hidden states ({_listed(hidden['layers'])}) for the feature "
            f"`hidden`, got {_listed(layers)} of {where} - name those layers"
        )
    if recipe.reducer is not None and not set(layers) <= set(recipe.reducer.layers):
        raise InputError(
            f"Expected layers that the reducer was fitted on "
            f"({_listed(recipe.reducer.layers) or 'none'}), got {_listed(layers)} - fit it first"
        )


def _choice(name: str, got: object, known: tuple[str, ...]) -> None:
    if got not in known:
        listed = f"{', '.join(known[:-1])} or {known[-1]}"
        raise InputError(f"Expected `{name}` to be {listed}, got {got!r}")


def _least(name: str, got: object, least: int) -> None:
    whole = isinstance(got, (int, np.integer)) and not isinstance(got, bool)
    if got is not None and not (whole and got >= least):  # type: ignore[operator]
        raise InputError(f"Expected `{name}` a whole number >= {least}, or None, got {got!r}")


def _listed(numbers: Any) -> str:
    return ", ".join(map(str, numbers))
