"""The graphs of a run as a dataset, and the graph of one trace."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch.utils.data import Dataset

from hallutrace.errors import InputError
from hallutrace.graphs.arrays import GraphArrays, make_graphs
from hallutrace.graphs.collate import import_geometric, to_list
from hallutrace.graphs.edges import TraceSlice
from hallutrace.graphs.layout import GraphLayout
from hallutrace.graphs.options import GraphOptions
from hallutrace.graphs.selection import Key, Traces, checked_indices, in_split, labelled
from hallutrace.splits import FOLDS
from hallutrace.store.reader import TraceStore, open_run
from hallutrace.store.trace import Trace

if TYPE_CHECKING:
    from torch_geometric.data import Data


def graph_of(trace: Trace, layer: int | Sequence[int] | None = None, **options: Any) -> Data:
    """The attention graph of a trace as PyTorch Geometric has it.

    Args:
        trace: of any run.
        layer: number of a layer, for its graph; several, or None for all that were captured, for
            one graph with the edges of all of them.
        options: as for :class:`TraceGraphs`: ``features``, ``heads``, ``top_k``, ``min_weight``,
            ``window``, ``max_nodes``, ``edges``, ``seed``, ``reducer``.

    Returns:
        The attributes that :class:`TraceGraphs` lists, without ``y``.

    Raises:
        InputError: something that the trace does not have, or an option out of range.
        MissingExtraError: torch_geometric is not installed.

    Examples:
        >>> trace = hallutrace.open(run)[0]
        >>> graph = graph_of(trace, 2, features=["role"])
        >>> list(graph.x.shape) == [len(trace.tokens), 2]
        True
        >>> graph.edge_index.shape[1] == len(trace.layer(2).weights)
        True
    """
    import_geometric()
    is_one = isinstance(layer, (int, np.integer))
    layers = (layer,) if is_one else layer
    chosen = GraphOptions.of(layers=layers, per="layer" if is_one else "trace", **options)
    layout = GraphLayout.of(chosen, trace.manifest, f"trace {trace.id!r}")
    one = TraceSlice.of(trace, range(len(layout.layers)), layout)
    _warn_of_cut(one, chosen.max_nodes)
    return to_list(make_graphs([one], layout))[0]


class TraceGraphs(Dataset[Any]):
    """Attention graphs of a run: a map-style dataset of ``torch_geometric.data.Data``.

    It works with PyTorch Geometric's ``DataLoader`` and, faster, with :class:`GraphLoader`.
    Traces are read when they are asked for; a few shards are open at a time. Reading a run far
    larger than memory in a shuffled order goes shard by shard with :class:`ShardSampler`, which
    GraphLoader uses (``DataLoader(graphs, sampler=ShardSampler(graphs, seed=0))``): a plain
    ``shuffle=True`` opens a shard for almost every trace.

    A graph has, for N tokens of which n became nodes:

    ================ ===============================================================================
    x                float32 [n, features]; :attr:`columns` has the columns of each feature
    edge_index       int64 [2, E], key -> query: row 0 is attended to, row 1 attends; ordered by
                     layer, head, query, key
    edge_attr        float32 [E, 1], attention weights
    edge_layer       int64 [E], number of the layer, where a graph has several (``per="trace"``)
    edge_head        int64 [E], where heads are kept apart
    answer_mask      bool [n], whether a node is an answer token
    y                int64 [1], 1 hallucinated, 0 right; only with ``labels``
    layer            number of the layer (``per="layer"``)
    trace_id, sample the trace's key
    group            the group that splits keep together
    prompt_length    P, in tokens of the trace
    first_token      index in the trace of the token that is node 0
    cut_nodes        how many tokens ``max_nodes`` cut
    ================ ===============================================================================

    Args:
        run: folder of a run, or an open one.
        layers: numbers of layers; all that were captured unless given.
        per: ``layer`` for a graph of each layer, those of a trace after each other; ``trace`` for
            one graph with the edges of all layers, whose nodes have the features of all layers.
        features: names, in the order of columns: ``hidden``, ``marginals``, ``position``, ``role``,
            ``logprob``; see :mod:`hallutrace.graphs.features`.
        labels: name of a labelling protocol of the run, or labels by (question id, sample). Traces
            without a label, or with None, are left out. None takes all traces, without ``y``.
        split: ``train``, ``validation`` or ``test``; None takes all. These are the parts of a fold
            of ``hallutrace evaluate`` with the same labels, ``--folds`` and ``--seed``, see
            :mod:`hallutrace.splits`: no group is in two of them, and they have about the same share
            of hallucinated answers. Without labels parts are others than those of any labels. The
            text of every trace is read for its group.
        seed: of the split, and of shuffled edges.
        fold: which of the folds, from 0.
        folds: how many there are: a test part is one of ``folds`` parts, and validation a fifth of
            the rest.
        indices: of the traces in the run to take, in that order, instead of a split.
        heads: None as the run kept them. Of a run that kept each head, ``mean`` and ``max`` combine
            them: an edge that a head did not keep counts as 0 there.
        top_k: keep the largest so many edges of each query (of each head where they are apart), as
            they are stored; ties, which rounding to float16 can make, go to the lower key.
        min_weight: keep edges of at least this weight, as stored.
        window: ``answer`` for answer tokens alone, or a number W for the last W tokens of the
            prompt and the answer; edges to other tokens are left out, after the rules above.
        max_nodes: keep the last so many tokens. Of the prompt its beginning is cut, and of the
            answer only if it is longer by itself. ``cut_nodes`` says how many in each graph, a
            warning that it happens, and ``GraphLoader.cut`` how often.
        edges: ``true``; ``shuffled``, where each query looks at as many other keys, drawn from
            those up to itself, decided by seed, trace and layer; ``none``.
        reducer: fitted :class:`HiddenReducer` of hidden states.

    Attributes:
        store: the run.
        indices: int64 [traces], of its traces in the run.
        labels: int8 [traces], 1 hallucinated, 0 right; None without labels.
        layers: numbers of the layers.
        columns: a slice of ``x`` for each feature.

    Raises:
        InputError: something that the run does not have, or an option out of range.
        MissingExtraError: torch_geometric is not installed.

    Examples:
        >>> graphs = TraceGraphs(run, layers=[0, 2], features=["position", "role"])
        >>> len(graphs), graphs.num_node_features  # of 8 traces
        (16, 4)
        >>> graphs.columns
        {'position': slice(0, 2, None), 'role': slice(2, 4, None)}
        >>> graphs[1].layer, graphs[1].edge_attr.dtype
        (2, torch.float32)
    """

    def __init__(
        self,
        run: str | PathLike[str] | TraceStore,
        *,
        layers: Sequence[int] | None = None,
        per: str = "layer",
        features: Sequence[str] = ("marginals", "position", "role", "logprob"),
        labels: str | Mapping[Key, int | None] | None = None,
        split: str | None = None,
        seed: int = 0,
        fold: int = 0,
        folds: int = FOLDS,
        indices: ArrayLike | None = None,
        **options: Any,
    ) -> None:
        import_geometric()
        self.store = run if isinstance(run, TraceStore) else open_run(run)
        chosen = GraphOptions.of(layers=layers, per=per, features=features, seed=seed, **options)
        self._layout = GraphLayout.of(chosen, self.store.manifest, str(self.store.folder))
        if split is not None and indices is not None:
            raise InputError("Expected `split` or `indices`, got both - leave one out")
        self.indices = checked_indices(indices, len(self.store))
        self.labels: NDArray[np.int8] | None = None
        if labels is not None:
            self.indices, self.labels = labelled(self.store, self.indices, labels)
        if split is not None:
            part = in_split(self.store, self.indices, self.labels, split, fold, folds, seed)
            self.indices = self.indices[part]
            self.labels = None if self.labels is None else self.labels[part]
        self.layers = list(self._layout.layers)
        self.columns = dict(self._layout.columns)
        self.graphs_of_trace = self._layout.graphs_of_trace
        self._has_warned = False

    def __repr__(self) -> str:
        return (
            f"TraceGraphs({str(self.store.folder)!r}: {len(self):,} graphs of "
            f"{len(self.indices):,} traces, {self.num_node_features} features a node)"
        )

    def __len__(self) -> int:
        return len(self.indices) * self.graphs_of_trace

    def __getitem__(self, number: int) -> Data:
        return to_list(self.arrays([number]))[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[Data]:
        """Several graphs at once, which loaders ask for and which is faster."""
        return to_list(self.arrays(numbers))

    def __iter__(self) -> Iterator[Data]:
        for number in range(len(self)):
            yield self[number]

    @property
    def num_node_features(self) -> int:
        """Columns of ``x``."""
        return self._layout.node_dim

    @property
    def traces(self) -> Traces:
        """Its traces, each once, read lazily; what a reducer is fitted on."""
        return Traces(self.store, self.indices)

    def arrays(self, numbers: Sequence[int]) -> GraphArrays:
        """Graphs as flat arrays, in the order of the numbers.

        Args:
            numbers: of graphs, from 0; negative ones count from the last.

        Raises:
            IndexError: a number out of range.
        """
        asked: list[tuple[int, list[int]]] = []  # traces, and layers of each
        for number in numbers:
            if not -len(self) <= number < len(self):
                raise IndexError(f"Expected a graph in 0..{len(self)}, got {number}")
            trace, layer = divmod(int(number) % len(self), self.graphs_of_trace)
            if asked and asked[-1][0] == trace and asked[-1][1][-1] < layer:
                asked[-1][1].append(layer)
            else:
                asked.append((trace, [layer]))
        is_whole = self._layout.options.per == "trace"
        every = range(len(self.layers))
        opened: dict[int, Trace] = {}
        slices = []
        for trace, layers in asked:
            if trace not in opened:
                opened[trace] = self.store[int(self.indices[trace])]
            one = TraceSlice.of(opened[trace], every if is_whole else layers, self._layout)
            if one.cut and not self._has_warned:  # once in each process
                self._has_warned = True
                _warn_of_cut(one, self._layout.options.max_nodes)
            slices.append(one)
        labels = None if self.labels is None else [int(self.labels[trace]) for trace, _ in asked]
        return make_graphs(slices, self._layout, labels)


def _warn_of_cut(one: TraceSlice, max_nodes: int | None) -> None:
    if one.cut:
        answer = max(0, one.first - one.prompt)
        whom = f"{answer} of them of the answer" if answer else "the answer is whole"
        warnings.warn(
            f"max_nodes={max_nodes} cut the first {one.cut} tokens of {one.trace.id!r}; {whom}. "
            "`cut_nodes` of each graph counts them",
            stacklevel=3,
        )
