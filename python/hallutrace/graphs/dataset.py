"""The graphs of a run as a dataset, and the graph of one trace."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch.utils.data import Dataset

from hallutrace import labels as protocols
from hallutrace.errors import InputError
from hallutrace.graphs import build
from hallutrace.graphs.collate import import_geometric, to_list
from hallutrace.graphs.edges import Part
from hallutrace.graphs.order import Key, Traces, labelled, placed
from hallutrace.graphs.recipe import Plan, Recipe
from hallutrace.splits import FOLDS, PARTS
from hallutrace.splits import fold as fold_of
from hallutrace.store.reader import TraceStore, open_run
from hallutrace.store.trace import Trace

if TYPE_CHECKING:
    from torch_geometric.data import Data


def graph_of(trace: Trace, layer: int | Sequence[int] | None = None, **recipe: Any) -> Data:
    """The attention graph of a trace as PyTorch Geometric has it.

    Args:
        trace: of any run.
        layer: number of a layer for its graph; several, or None for all that were captured, for
            one graph with the edges of all of them.
        recipe: as for :class:`TraceGraphs`: ``features``, ``heads``, ``top_k``, ``min_weight``,
            ``window``, ``max_nodes``, ``edges``, ``seed``, ``reducer``.

    Returns:
        What :class:`TraceGraphs` tells, without ``y``.

    Raises:
        InputError: something that the trace does not have, or an option out of range.
        MissingExtraError: torch_geometric is not installed.
    """
    import_geometric()
    one = isinstance(layer, (int, np.integer))
    layers = (layer,) if one else layer
    chosen = _recipe(layers=layers, per="layer" if one else "trace", **recipe)
    plan = Plan.of(chosen, trace.manifest, f"trace {trace.id!r}")
    part = Part.of(trace, range(len(plan.layers)), plan)
    _warn_of(part, chosen.max_nodes)
    return to_list(build.build([part], plan, None))[0]


class TraceGraphs(Dataset[Any]):
    """Attention graphs of a run: a map-style dataset of ``torch_geometric.data.Data``.

    It works with PyTorch Geometric's ``DataLoader`` and, faster, with :class:`GraphLoader`.
    Traces are read when they are asked for; a few shards are open at a time. Reading a run far
    larger than memory in a shuffled order goes shard by shard with :class:`ShardSampler`, which
    GraphLoader uses (``DataLoader(graphs, sampler=ShardSampler(graphs, seed=0))``): a plain
    ``shuffle=True`` opens a shard for almost every trace.

    A graph has, for N tokens of which n became nodes:

    ================ ===============================================================================
    x                float32 [n, width]; :attr:`columns` says which feature is where
    edge_index       int64 [2, E], key -> query: row 0 is looked at, row 1 looks; ordered by layer,
                     head, query, key
    edge_attr        float32 [E, 1], weights
    edge_layer       int64 [E], number of the layer, where a graph has several (``per="trace"``)
    edge_head        int64 [E], where heads are kept apart
    answer_mask      bool [n], whether a node is an answer token
    y                int64 [1], 1 hallucinated, 0 right; only with ``labels``
    layer            number of the layer (``per="layer"``)
    trace_id, sample the trace's key
    group            what splits go by
    prompt_length    P, in tokens of the trace
    first_token      which token of the trace node 0 is
    cut_nodes        how many tokens ``max_nodes`` cut
    ================ ===============================================================================

    Args:
        run: folder of a run, or an open one.
        layers: numbers of layers; all that were captured unless given.
        per: ``layer`` for a graph of each layer, those of a trace after each other; ``trace`` for
            one graph with the edges of all layers, whose nodes have the features of all layers.
        features: names, in the order of columns: ``hidden``, ``marginals``, ``position``, ``role``,
            ``logprob``; :mod:`hallutrace.graphs.features` tells what each holds, and where zeros.
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
        places: places of traces in the store to take, in that order, instead of a split.
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
        places: int64 [traces], of its traces in the store.
        labels: int8 [traces], 1 hallucinated, 0 right; None without labels.
        layers: numbers of the layers.
        columns: a slice of ``x`` for each feature.

    Raises:
        InputError: something that the run does not have, or an option out of range.
        MissingExtraError: torch_geometric is not installed.
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
        places: ArrayLike | None = None,
        **recipe: Any,
    ) -> None:
        import_geometric()
        self.store = run if isinstance(run, TraceStore) else open_run(run)
        chosen = _recipe(layers=layers, per=per, features=features, seed=seed, **recipe)
        self._plan = Plan.of(chosen, self.store.manifest, str(self.store.folder))
        if split not in (None, *PARTS):
            raise InputError(f"Expected `split` to be {', '.join(PARTS)} or None, got {split!r}")
        if split is not None and places is not None:
            raise InputError("Expected `split` or `places`, got both - leave one out")
        self.places = placed(places, len(self.store))
        self.labels: NDArray[np.int8] | None = None
        if labels is not None:
            if isinstance(labels, str):
                labels = protocols.read(self.store.folder, labels)
            self.places, self.labels = labelled(self.store, self.places, labels)
        if split is not None:
            self._split(split, fold, folds, seed)
        self.layers = list(self._plan.layers)
        self.columns = dict(self._plan.columns)
        self._per_trace = len(self.layers) if per == "layer" else 1
        self._warned = False

    def __repr__(self) -> str:
        return (
            f"TraceGraphs({str(self.store.folder)!r}: {len(self):,} graphs of "
            f"{len(self.places):,} traces, {self.width} numbers a node)"
        )

    def __len__(self) -> int:
        return len(self.places) * self._per_trace

    def __getitem__(self, number: int) -> Data:
        return to_list(self.build([number]))[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[Data]:
        """Several graphs at once, which loaders ask for and which is faster."""
        return to_list(self.build(numbers))

    def __iter__(self) -> Iterator[Data]:
        for number in range(len(self)):
            yield self[number]

    @property
    def width(self) -> int:
        """Numbers of a node."""
        return self._plan.width

    @property
    def traces(self) -> Traces:
        """Its traces, each once, read lazily; what a reducer is fitted on."""
        return Traces(self.store, self.places)

    def trace_of(self, number: int) -> int:
        """Number of the trace, in :attr:`places`, that a graph is of."""
        return number // self._per_trace

    def build(self, numbers: Sequence[int]) -> build.Graphs:
        """Graphs as flat arrays, in the order of the numbers.

        Args:
            numbers: from 0; negative ones count from the last.

        Raises:
            IndexError: a number that is not there.
        """
        asked: list[tuple[int, list[int]]] = []  # traces, and layers of each
        for number in numbers:
            if not -len(self) <= number < len(self):
                raise IndexError(f"Expected a graph in 0..{len(self)}, got {number}")
            trace, at = divmod(int(number) % len(self), self._per_trace)
            if asked and asked[-1][0] == trace and asked[-1][1][-1] < at:
                asked[-1][1].append(at)
            else:
                asked.append((trace, [at]))
        every = range(len(self.layers))
        whole = self._plan.recipe.per == "trace"
        opened: dict[int, Trace] = {}
        parts = []
        for trace, some in asked:
            if trace not in opened:
                opened[trace] = self.store[int(self.places[trace])]
            parts.append(Part.of(opened[trace], every if whole else some, self._plan))
        self._warn(parts)
        labels = None if self.labels is None else [int(self.labels[trace]) for trace, _ in asked]
        return build.build(parts, self._plan, labels)

    def _split(self, split: str, fold: int, folds: int, seed: int) -> None:
        if self.labels is None and (known := self.store.labels()):
            warnings.warn(
                f"Expected `labels` with `split`, got none, and {self.store.folder} has labels "
                f"{', '.join(known)}: parts of an evaluation depend on them, so these are others - "
                "give the labels that you will evaluate with",
                stacklevel=3,
            )
        groups = [trace.group for trace in self.traces]
        chosen = getattr(fold_of(self.labels, groups, fold, folds, seed), split)
        self.places = self.places[chosen]
        self.labels = None if self.labels is None else self.labels[chosen]

    def _warn(self, parts: list[Part]) -> None:
        """Says once in each process that tokens are cut."""
        for part in parts:
            if part.cut and not self._warned:
                self._warned = True
                _warn_of(part, self._plan.recipe.max_nodes)


def _recipe(**chosen: Any) -> Recipe:
    """A recipe, with what is a sequence as a tuple."""
    known = Recipe.__dataclass_fields__
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise InputError(
            f"Expected options of graphs ({', '.join(known)}), got {', '.join(unknown)}"
        )
    for name in ("layers", "features"):
        if chosen.get(name) is not None:
            chosen[name] = tuple(chosen[name])
    return Recipe(**chosen)


def _warn_of(part: Part, max_nodes: int | None) -> None:
    if part.cut:
        answer = max(0, part.first - part.prompt)
        whom = f"{answer} of them of the answer" if answer else "the answer is whole"
        warnings.warn(
            f"max_nodes={max_nodes} cut the first {part.cut} tokens of {part.trace.id!r}; {whom}. "
            "`cut_nodes` of each graph counts them",
            stacklevel=3,
        )
