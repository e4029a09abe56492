"""What the options of graphs come to on one run: layers, heads, columns of the node features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace.errors import InputError
from hallutrace.graphs.options import GraphOptions
from hallutrace.listed_names import listed
from hallutrace.option_names import parameter
from hallutrace.store.folder import Manifest

# Columns of a head: diagonal, received_mean, previous, entropy; mass on the first token, on the
# rest of the prompt but for the context, on the context, on the answer.
MARGINALS_OF_A_HEAD = 8


@dataclass(frozen=True)
class GraphLayout:
    """Graphs of one run.

    Attributes:
        options: as they were given.
        layers: numbers of the layers in the model.
        stored_index: int64 [layers], index of each among the captured layers.
        captured: how many layers the run captured.
        heads: the most heads of a captured layer; marginals of others are padded to as many.
        heads_of_layer: int64 [layers], heads of each.
        combine: ``mean`` or ``max`` if the heads of the run are to be combined, else None.
        keeps_heads: whether a graph has the edges of several heads.
        columns: a slice of the columns of ``x`` for each feature. Those of a layer are repeated
            layer by layer where a graph has all layers.
    """

    options: GraphOptions
    layers: tuple[int, ...]
    stored_index: NDArray[np.int64]
    captured: int
    heads: int
    heads_of_layer: NDArray[np.int64]
    combine: str | None
    keeps_heads: bool
    columns: dict[str, slice]

    @property
    def node_dim(self) -> int:
        """Features of a node."""
        return max((columns.stop for columns in self.columns.values()), default=0)

    @property
    def graphs_of_trace(self) -> int:
        """Graphs that are made of a trace."""
        return len(self.layers) if self.options.per == "layer" else 1

    @property
    def edge_dim(self) -> int:
        """Weights between two nodes: of each head that is kept apart, in each layer of a graph."""
        heads = self.heads if self.keeps_heads else 1
        return heads * (len(self.layers) if self.options.per == "trace" else 1)

    @classmethod
    def of(cls, options: GraphOptions, manifest: Manifest, where: str) -> GraphLayout:
        """The layout of a run's graphs.

        Args:
            options: of the graphs.
            manifest: of the run.
            where: the run, for messages.

        Raises:
            InputError: the run lacks what is asked for.
        """
        facts, identity = manifest.facts, manifest.identity
        captured: list[int] = list(facts["captured_layers"])
        layers = tuple(captured) if options.layers is None else options.layers
        unknown = [layer for layer in layers if layer not in captured]
        if unknown or not layers or len(set(layers)) < len(layers):
            raise InputError(
                f"Expected layers with captured attention ({listed(captured)}), each once, got "
                f"{listed(layers)} of {where}"
            )
        stored_heads = identity["sparsification"]["heads"]
        combine = _combination(options.heads, stored_heads, where)
        if "hidden" in options.features:
            _check_hidden(options, layers, identity["hidden"], where)
        stored_index = np.array([captured.index(layer) for layer in layers], np.int64)
        heads = max(facts["heads"])
        return cls(
            options=options,
            layers=layers,
            stored_index=stored_index,
            captured=len(captured),
            heads=heads,
            heads_of_layer=np.array(facts["heads"], np.int64)[stored_index],
            combine=combine,
            keeps_heads=stored_heads == "each" and combine is None,
            columns=_columns(options, len(layers), heads, facts["hidden_size"]),
        )


def _columns(options: GraphOptions, layers: int, heads: int, hidden_size: int) -> dict[str, slice]:
    states = hidden_size if options.reducer is None else options.reducer.columns
    repeats = 1 if options.per == "layer" else layers
    counts = {
        "hidden": (states + 1) * repeats,
        "marginals": (heads * MARGINALS_OF_A_HEAD + 1) * repeats,
        "position": 2,
        "role": 2,
        "logprob": 3,
    }
    columns, begin = {}, 0
    for name in options.features:
        columns[name] = slice(begin, begin + counts[name])
        begin += counts[name]
    return columns


def _combination(asked: str | None, stored: str, where: str) -> str | None:
    """How the heads of the run are to be combined."""
    if asked in (None, stored):
        return None
    if stored != "each":
        raise InputError(
            f"Expected `heads` None or {stored}, as the run combined them, got {asked!r} for "
            f"{where} - extract it again with {parameter('heads', 'each')} to choose afterwards"
        )
    return asked


def _check_hidden(
    options: GraphOptions, layers: tuple[int, ...], hidden: dict[str, Any], where: str
) -> None:
    """Refuses `hidden` where the run, or the reducer, lacks the states."""
    if hidden["states"] == "none":
        raise InputError(
            f"Expected a run with hidden states for the feature `hidden`, got {where} without - "
            f"extract it again with {parameter('hidden_states', 'answer')}, or leave the feature "
            "out"
        )
    if not set(layers) <= set(hidden["layers"]):
        raise InputError(
            f"Expected layers with hidden states ({listed(hidden['layers'])}) for the feature "
            f"`hidden`, got {listed(layers)} of {where} - name those layers"
        )
    if options.reducer is not None and not set(layers) <= set(options.reducer.layers):
        raise InputError(
            f"Expected layers that the reducer was fitted on "
            f"({listed(options.reducer.layers) or 'none'}), got {listed(layers)} - fit it first"
        )
