"""Attention graphs of a run for PyTorch Geometric: one a layer, or one a trace with all layers.

:class:`TraceGraphs` is a dataset of them, :func:`graph_of` makes one of one trace, and
:class:`GraphLoader` batches them faster than PyTorch Geometric's own loader, which works as well.

Files, in the order of imports: ``options`` (what is asked for), ``layout`` (what that comes to on
a run), ``controls`` (shuffled edges), ``edges``, ``features`` (columns of nodes), ``arrays`` (many
graphs as flat arrays), ``collate`` (those as ``Data`` and ``Batch``), ``reducer`` (hidden states),
``selection`` (which traces), ``dataset``, ``sampler``, ``shared_memory`` and ``loader``.
"""

from hallutrace.graphs.dataset import TraceGraphs, graph_of
from hallutrace.graphs.loader import GraphLoader
from hallutrace.graphs.options import FEATURES
from hallutrace.graphs.reducer import HiddenReducer
from hallutrace.graphs.sampler import ShardSampler

__all__ = ["FEATURES", "GraphLoader", "HiddenReducer", "ShardSampler", "TraceGraphs", "graph_of"]
