"""Attention graphs of a run for PyTorch Geometric: one a layer, or one a trace with all layers.

:class:`TraceGraphs` is a dataset of them, :func:`graph_of` makes one of one trace, and
:class:`GraphLoader` batches them faster than PyTorch Geometric's own loader, which works as well.

Rooms: ``recipe`` (what is asked for, checked against a run), ``edges`` (rows of edges of many
graphs), ``controls`` (edges without what they say), ``features`` (columns of nodes), ``build``
(many graphs as a few arrays), ``collate`` (those as ``Data`` and ``Batch``), ``reduce`` (hidden
states made narrow), ``order`` (which traces, and when), ``dataset``, ``transport`` (between
processes) and ``loader``. Imports flow in that order.
"""

from hallutrace.graphs.dataset import TraceGraphs, graph_of
from hallutrace.graphs.loader import GraphLoader
from hallutrace.graphs.recipe import FEATURES
from hallutrace.graphs.reduce import HiddenReducer
from hallutrace.graphs.sampler import ShardSampler

__all__ = ["FEATURES", "GraphLoader", "HiddenReducer", "ShardSampler", "TraceGraphs", "graph_of"]
