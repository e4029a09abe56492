"""What detectors over attention graphs share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hallutrace.detect.examples import Examples
from hallutrace.detect.nets.batching import (
    PIECE,
    GraphBatch,
    GraphTable,
    channels,
    graphs_of_trace,
    piece_of,
    whole,
)
from hallutrace.detect.nets.detector import NetDetector, arrays_of, take_back
from hallutrace.errors import InputError
from hallutrace.graphs.recipe import Plan, Recipe
from hallutrace.graphs.reduce import HiddenReducer
from hallutrace.store.folder import Manifest
from hallutrace.store.reader import TraceStore
from hallutrace.store.trace import Trace

GRAPHS: dict[str, Any] = {
    "features": ["marginals", "position", "role", "logprob"],
    "hidden_columns": 32,
    "layers": None,
    "heads": None,
    "top_k": 8,
    "min_weight": 0.0,
    "window": None,
    "max_nodes": None,
    "edges": "true",
    "memory": 2048,
}
"""Options of graphs, and what they are unless given; see :class:`GraphDetector`."""

_RECIPE = ("heads", "top_k", "min_weight", "window", "max_nodes", "edges")


class GraphDetector(NetDetector):
    """A network over the attention graphs of a trace.

    Options that all of them have: ``features``, ``layers``, ``heads``, ``top_k``, ``min_weight``,
    ``window``, ``max_nodes`` and ``edges``, as :class:`hallutrace.graphs.TraceGraphs` has them
    (``edges="shuffled"`` and ``"none"`` are the controls); ``hidden_columns``, to how many columns
    hidden states are reduced, by a PCA fitted on the training part alone, None for the states
    themselves; ``memory``, MiB that graphs of the training part may take, and as much again for
    those of the validation part: beyond it they are read from the run for each batch.
    """

    is_graph: ClassVar[bool] = True
    per: ClassVar[str] = "trace"
    defaults: ClassVar[Mapping[str, Any]] = {
        **NetDetector.defaults,
        **GRAPHS,
        "epochs": 30,
        "patience": 6,
        "learning_rate": 3e-3,
    }
    _fitted: Recipe | None = None
    _shape: dict[str, int] | None = None

    def check_options(self) -> None:
        """Refuses a recipe of graphs that means nothing."""
        super().check_options()
        columns = self.options["hidden_columns"]
        good = columns is None or (type(columns) is int and columns >= 1)
        self.require_option("hidden_columns", good, "an integer >= 1 or None")
        for name in ("features", "layers"):
            value = self.options[name]
            good = isinstance(value, (list, tuple)) or (name == "layers" and value is None)
            self.require_option(name, good, "a list")
        self.require_option("features", len(self.options["features"]) > 0, "a list of at least one")
        self.require_whole("memory")
        self.recipe()

    def check(self, store: TraceStore) -> None:
        """Refuses a run without what the graphs are made of."""
        super().check(store)
        Plan.of(self.recipe(), store.manifest, str(store.folder))

    def recipe(self) -> Recipe:
        """What graphs are asked for, hidden states not reduced."""
        layers = self.options["layers"]
        return Recipe(
            layers=None if layers is None else tuple(layers),
            per=self.per,
            features=tuple(self.options["features"]),
            seed=self.seed,
            **{name: self.options[name] for name in _RECIPE},
        )

    # Graphs -----------------------------------------------------------------------------------

    def prepare(self, train: Examples) -> Plan:
        """Fits what graphs need of the training part; gives what they are made of."""
        manifest, where = train.store.manifest, str(train.store.folder)
        plan = Plan.of(self.recipe(), manifest, where)
        recipe = replace(plan.recipe, layers=plan.layers)
        columns = self.options["hidden_columns"]
        if "hidden" in recipe.features and columns is not None:
            reducer = HiddenReducer(min(columns, manifest.facts["hidden_size"]), seed=self.seed)
            recipe = replace(recipe, reducer=reducer.fit(train, list(plan.layers)))
        plan = Plan.of(recipe, manifest, where)
        self._fitted, self._shape = recipe, _shape(plan)
        return plan

    def table(self, examples: Examples) -> GraphTable:
        """Graphs of a selection, within the cap of memory."""
        return GraphTable(examples, self._plan(examples.store.manifest), self._cap)

    def batch(self, traces: Sequence[Trace]) -> GraphBatch:
        """Graphs of some traces of a run; those of the first layer of all, then of others."""
        plan = self._plan(traces[0].manifest)
        return whole(piece_of(traces, plan), graphs_of_trace(plan))

    @property
    def _cap(self) -> int:
        return int(self.options["memory"]) * 2**20

    def _plan(self, manifest: Manifest) -> Plan:
        """What graphs of a run are made of, which must be as those it was fitted on."""
        if self._fitted is None:
            raise InputError(f"Expected a fitted `{self.name}`, got a new one - call fit first")
        plan = Plan.of(self._fitted, manifest, "the trace")
        if _shape(plan) != self._shape:
            raise InputError(
                f"Expected graphs as `{self.name}` was fitted on ({self._shape}), got "
                f"{_shape(plan)} - take traces of the same model and extraction"
            )
        return plan

    # Scores -----------------------------------------------------------------------------------

    @abstractmethod
    def risk(self, batch: GraphBatch) -> NDArray[np.float64]:
        """Scores of the traces of a batch, float64 [traces]."""

    def score(self, trace: Trace) -> float:
        """How likely a trace is hallucinated."""
        with torch.no_grad():
            return float(self.risk(self.batch([trace]))[0])

    def scores(self, examples: Examples) -> NDArray[np.float64]:
        """The same of several, float64 [examples], a few at a time."""
        found = [np.zeros(0)]
        with torch.no_grad():
            for traces in self.pieces(examples):
                found.append(self.risk(self.batch(traces)))
        return np.concatenate(found)

    def pieces(self, examples: Examples) -> Iterator[list[Trace]]:
        """All traces in order, as many at a time as are read at once."""
        for begin in range(0, len(examples), PIECE):
            yield list(examples[begin : begin + PIECE])

    def padded(self, found: NDArray[np.float64], trace: Trace) -> NDArray[np.float64]:
        """Scores of the answer tokens that became nodes, for all of them, float64 [A].

        Tokens that ``max_nodes`` cut get the lowest score of the others.
        """
        missing = len(trace.answer_tokens) - len(found)
        return np.concatenate([np.full(missing, found.min()), found]) if missing else found

    # State ------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Weights, the reducer of hidden states, and what graphs are made of."""
        arrays = arrays_of(self.net, "net")
        assert self._fitted is not None  # as there is a network
        reducer = self._fitted.reducer
        of_reducer = None
        if isinstance(reducer, HiddenReducer):
            reduced, of_reducer = reducer.state()
            arrays |= {f"reducer.{name}": array for name, array in reduced.items()}
        layers = list(self._fitted.layers or ())
        return arrays, {"layers": layers, "shape": self._shape, "reducer": of_reducer}

    def restore(self, arrays: dict[str, NDArray[Any]], facts: dict[str, Any]) -> None:
        """Takes them back."""
        recipe = replace(self.recipe(), layers=tuple(int(layer) for layer in facts["layers"]))
        if facts["reducer"] is not None:
            begin = "reducer."
            of_reducer = {
                name.removeprefix(begin): array
                for name, array in arrays.items()
                if name.startswith(begin)
            }
            recipe = replace(recipe, reducer=HiddenReducer.from_state(of_reducer, facts["reducer"]))
        self._fitted = recipe
        self._shape = {name: int(facts["shape"][name]) for name in _SHAPE}
        net = self.make_net(self._shape)
        take_back(net, arrays, "net")
        self._net = net

    @abstractmethod
    def make_net(self, shape: dict[str, int]) -> nn.Module:
        """A new network for graphs of that shape, see :data:`_SHAPE`."""


_SHAPE = ("width", "channels", "layers")
"""Features of a node, weights of an edge, layers."""


def _shape(plan: Plan) -> dict[str, int]:
    return dict(zip(_SHAPE, (plan.width, channels(plan), len(plan.layers)), strict=True))
