"""The base of detectors over attention graphs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from hallutrace.detect.examples import Examples
from hallutrace.detect.nets.detector import NetDetector, arrays_of, load_arrays
from hallutrace.detect.nets.graph_batches import (
    READ_AT_ONCE,
    GraphBatch,
    GraphTable,
    layer_by_layer,
    read_compact,
)
from hallutrace.detect.options import Count, Layers
from hallutrace.detect.trace_needs import Needs
from hallutrace.errors import InputError
from hallutrace.graphs.layout import GraphLayout
from hallutrace.graphs.options import GraphOptions
from hallutrace.graphs.reducer import HiddenReducer
from hallutrace.store.folder import Manifest
from hallutrace.store.reader import TraceStore
from hallutrace.store.trace import Trace

Feature = Literal["hidden", "marginals", "position", "role", "logprob"]

_GRAPH_OPTIONS = (
    "features", "layers", "heads", "top_k", "min_weight", "window", "max_nodes", "edges"
)  # fmt: skip


class GraphDetector(NetDetector):
    """A network over the attention graphs of a trace."""

    class Options(NetDetector.Options):
        """Of the graphs and the training; see :class:`hallutrace.graphs.TraceGraphs`."""

        epochs: Count = Field(30, description="most epochs")
        patience: Count = Field(6, description="epochs without a better validation before it ends")
        learning_rate: float = Field(3e-3, gt=0, description="of AdamW, at the beginning")
        features: tuple[Feature, ...] = Field(
            ("marginals", "position", "role", "logprob"),
            min_length=1,
            strict=False,
            description="what a node has, see hallutrace.graphs.TraceGraphs",
        )
        hidden_components: Count | None = Field(
            32,
            description="principal components of the training part's hidden states; none for the "
            "states themselves",
        )
        layers: Layers | None = Field(
            None, description="layers whose attention is taken; all captured unless given"
        )
        heads: Literal["each", "mean", "max"] | None = Field(
            None, description="how heads are combined; as the run kept them unless given"
        )
        top_k: Count | None = Field(8, description="largest weights of each row that become edges")
        min_weight: float = Field(0.0, ge=0, description="least weight that becomes an edge")
        window: Annotated[int, Field(ge=0)] | Literal["answer"] | None = Field(
            None,
            description="nodes: the answer and so many of the prompt's last tokens; answer for the "
            "answer alone",
        )
        max_nodes: Count | None = Field(None, description="most nodes; the first tokens are cut")
        edges: Literal["true", "shuffled", "none"] = Field(
            "true", description="shuffled and none are controls"
        )
        memory_mib: Count = Field(
            2048,
            description="MiB that graphs of the training part may take, and as much again for "
            "those of the validation part; beyond it they are read for each batch",
        )

    is_graph = True
    per: ClassVar[str] = "trace"
    options: Options
    _fitted_options: GraphOptions | None = None
    _shape: dict[str, int] | None = None

    @property
    def needs(self) -> Needs:
        """What nodes and edges are made of; values that a run keeps of fewer tokens are zeros."""
        options = self.options
        marginals = ("diagonal", "received_mean", "previous", "entropy", "mass")
        return Needs(
            hidden=("all",) if "hidden" in options.features else (),
            hidden_layers=options.layers,
            marginals=marginals if "marginals" in options.features else (),
            all_rows=True,
            layers=options.layers,
            edges=options.top_k or "all",
            heads=options.heads == "each",
            takes_less=True,
        )

    def check(self, store: TraceStore) -> None:
        """Refuses a run without what the graphs are made of."""
        super().check(store)
        GraphLayout.of(self.graph_options(), store.manifest, str(store.folder))

    def graph_options(self) -> GraphOptions:
        """The options of its graphs, before hidden states are reduced."""
        chosen = {name: getattr(self.options, name) for name in _GRAPH_OPTIONS}
        return GraphOptions.of(per=self.per, seed=self.seed, **chosen)

    # Graphs -----------------------------------------------------------------------------------

    def prepare(self, train: Examples) -> Any:
        """Fits the reducer of hidden states on the training part, and makes a new network."""
        manifest, where = train.store.manifest, str(train.store.folder)
        layout = GraphLayout.of(self.graph_options(), manifest, where)
        options = replace(layout.options, layers=layout.layers)
        columns = self.options.hidden_components
        if "hidden" in options.features and columns is not None:
            reducer = HiddenReducer(min(columns, manifest.facts["hidden_size"]), seed=self.seed)
            options = replace(options, reducer=reducer.fit(train, list(layout.layers)))
        self._fitted_options = options
        self._shape = _shape(GraphLayout.of(options, manifest, where))
        return self.make_net(self._shape)

    def table(self, examples: Examples) -> GraphTable:
        """Graphs of a selection, within the cap of memory."""
        return GraphTable(examples, self._layout(examples.store.manifest), self._cap)

    def batch(self, traces: Sequence[Trace]) -> GraphBatch:
        """Graphs of some traces of a run; those of the first layer of all, then of others."""
        layout = self._layout(traces[0].manifest)
        return layer_by_layer(read_compact(traces, layout), layout.graphs_of_trace)

    @property
    def _cap(self) -> int:
        return self.options.memory_mib * 2**20

    def _layout(self, manifest: Manifest) -> GraphLayout:
        """The layout of a run's graphs, which must have the shape that was fitted on."""
        if self._fitted_options is None:
            raise InputError(f"Expected a fitted `{self.name}`, got a new one - call fit first")
        layout = GraphLayout.of(self._fitted_options, manifest, "the trace")
        if _shape(layout) != self._shape:
            raise InputError(
                f"Expected graphs as `{self.name}` was fitted on ({self._shape}), got "
                f"{_shape(layout)} - take traces of the same model and extraction"
            )
        return layout

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
            for traces in self.chunks(examples):
                found.append(self.risk(self.batch(traces)))
        return np.concatenate(found)

    def chunks(self, examples: Examples) -> Iterator[list[Trace]]:
        """All traces in order, as many at a time as are read at once."""
        for begin in range(0, len(examples), READ_AT_ONCE):
            yield list(examples[begin : begin + READ_AT_ONCE])

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
        assert self._fitted_options is not None  # as there is a network
        reducer, reducer_facts = self._fitted_options.reducer, None
        if isinstance(reducer, HiddenReducer):
            reducer_arrays, reducer_facts = reducer.state()
            arrays |= {f"reducer.{name}": array for name, array in reducer_arrays.items()}
        layers = list(self._fitted_options.layers or ())
        return arrays, {"layers": layers, "shape": self._shape, "reducer": reducer_facts}

    def restore(self, arrays: dict[str, NDArray[Any]], facts: dict[str, Any]) -> None:
        """Takes them back."""
        layers = tuple(int(layer) for layer in facts["layers"])
        options = replace(self.graph_options(), layers=layers)
        if facts["reducer"] is not None:
            parts = {
                name.removeprefix("reducer."): array
                for name, array in arrays.items()
                if name.startswith("reducer.")
            }
            options = replace(options, reducer=HiddenReducer.from_state(parts, facts["reducer"]))
        self._fitted_options = options
        self._shape = {name: int(facts["shape"][name]) for name in _SHAPE}
        net = self.make_net(self._shape)
        load_arrays(net, arrays, "net")
        self._net = net

    @abstractmethod
    def make_net(self, shape: dict[str, int]) -> nn.Module:
        """A new network for graphs of a shape, see :data:`_SHAPE`."""


_SHAPE = ("node_dim", "edge_dim", "layers")
"""Features of a node, weights of an edge, layers of the model."""


def _shape(layout: GraphLayout) -> dict[str, int]:
    return {
        "node_dim": layout.node_dim,
        "edge_dim": layout.edge_dim,
        "layers": len(layout.layers),
    }
