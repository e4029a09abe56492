"""Sparse attention graphs and exact marginals, as arrays.

An edge points from key to query, in the direction in which information flows: from the attended
token to the attending token.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hallutrace.errors import InputError, MissingExtraError
from hallutrace.notebook_display import ShownInNotebooks

if TYPE_CHECKING:
    import networkx
    import scipy.sparse
    import torch

# Weights are clamped to this, the smallest normal float32, before the logarithm.
LEAST_LOGGED = np.float32(2.0**-126)


@dataclass(frozen=True, repr=False, eq=False)
class EdgeList(ShownInNotebooks):
    """The edges of one attention matrix, ordered by head, query, key.

    Attributes:
        indptr: int64 [heads * queries + 1], CSR row pointers: with ``row = head * queries + query``
            the edges of a row have the indices ``indptr[row]`` to ``indptr[row + 1]``, exclusive.
        keys: int32 [edges], position of the attended token, increasing within a row.
        weights: float32 [edges], positive.
        shape: (heads, queries, keys); heads is 1 if the heads were combined.
        first_query: key position of query row 0.
        retained: float32 [heads, queries], fraction of the attention mass of each row that its
            edges hold, in [0, 1]; 1 for a row without mass, NaN if unknown.

    Raises:
        InputError: an array has the wrong dtype, or the shapes do not match.

    Source: ours.

    Examples:
        >>> import numpy as np
        >>> edges = hallutrace.sparsify(np.float32([[1, 0], [0.25, 0.75]]), top_k=1)
        >>> edges.queries.tolist(), edges.keys.tolist(), edges.weights.tolist()
        ([0, 1], [0, 1], [1.0, 0.75])
    """

    indptr: npt.NDArray[np.int64]
    keys: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]
    shape: tuple[int, int, int]
    first_query: int
    retained: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        heads, queries, _ = self.shape
        edges = len(self.keys)
        _check("indptr", self.indptr, np.int64, (heads * queries + 1,))
        _check("keys", self.keys, np.int32, (edges,))
        _check("weights", self.weights, np.float32, (edges,))
        _check("retained", self.retained, np.float32, (heads, queries))
        begin, end = int(self.indptr[0]), int(self.indptr[-1])
        if (begin, end) != (0, edges):
            raise InputError(
                f"Expected `indptr` from 0 to {edges}, the number of edges, got {begin} to {end} - "
                "pass the arrays of one matrix"
            )

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def queries(self) -> npt.NDArray[np.int64]:
        """Key position of the attending token of each edge, int64 [edges]."""
        heads, queries, _ = self.shape
        positions = np.arange(self.first_query, self.first_query + queries, dtype=np.int64)
        return np.repeat(np.tile(positions, heads), np.diff(self.indptr))

    @property
    def heads(self) -> npt.NDArray[np.int64]:
        """Head of each edge, int64 [edges]; all 0 if the heads were combined."""
        heads, queries, _ = self.shape
        return np.repeat(np.arange(heads, dtype=np.int64), np.diff(self.indptr[:: max(queries, 1)]))

    def head(self, head: int) -> EdgeList:
        """The edges of one head, as an edge list of shape (1, queries, keys).

        Args:
            head: index from 0; negative indices count from the last head.

        Raises:
            InputError: no such head.

        Examples:
            >>> import numpy as np
            >>> edges = hallutrace.sparsify(np.ones((2, 2, 2), np.float32), heads="each")
            >>> edges.head(-1).shape, edges.head(-1).keys.tolist()
            ((1, 2, 2), [0, 0, 1])
        """
        heads, queries, keys = self.shape
        if not -heads <= head < heads:
            raise InputError(f"Expected a head in 0..{heads}, got {head} - see `shape`")
        row = head % heads * queries
        indptr = self.indptr[row : row + queries + 1]
        edges = slice(int(indptr[0]), int(indptr[-1]))
        return EdgeList(
            indptr=indptr - indptr[0],
            keys=self.keys[edges],
            weights=self.weights[edges],
            shape=(1, queries, keys),
            first_query=self.first_query,
            retained=self.retained[head][None],
        )

    def to_torch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The graph in the format of PyTorch Geometric.

        Returns:
            ``edge_index`` int64 [2, edges], row 0 the keys and row 1 the queries, and
            ``edge_weight`` float32 [edges]; both are copies. The edges of all heads are in one
            graph, ordered by head: ``torch.from_numpy(edges.heads)`` is the head of each edge,
            ``edges.head(h).to_torch()`` the graph of one head.

        Examples:
            >>> import numpy as np
            >>> edges = hallutrace.sparsify(np.float32([[1, 0], [0.25, 0.75]]), top_k=1)
            >>> edge_index, edge_weight = edges.to_torch()
            >>> edge_index.tolist(), edge_weight.tolist()
            ([[0, 1], [0, 1]], [1.0, 0.75])
        """
        import torch

        edge_index = np.stack([self.keys.astype(np.int64), self.queries])
        return torch.from_numpy(edge_index), torch.from_numpy(self.weights.copy())

    def to_scipy(self) -> scipy.sparse.csr_array:
        """The matrix as ``scipy.sparse.csr_array`` [queries, keys], float32; row i is query row i.

        Raises:
            InputError: several heads; select one with ``edges.head(h)``.
            MissingExtraError: scipy is not installed.
        """
        heads, queries, keys = self.shape
        if heads != 1:
            raise InputError(
                f"Expected edges of one head, got {heads} heads - pass edges.head(h).to_scipy()"
            )
        sparse = _import("scipy.sparse", "to_scipy()")
        return sparse.csr_array((self.weights, self.keys, self.indptr), shape=(queries, keys))

    def to_networkx(self) -> networkx.DiGraph[int] | networkx.MultiDiGraph[int]:
        """The graph with a node for each key position and edges from key to query.

        Returns:
            A ``DiGraph`` whose edges have the attribute ``weight``; with several heads a
            ``MultiDiGraph`` whose edges also have the attribute ``head``.

        Raises:
            MissingExtraError: networkx is not installed.
        """
        networkx = _import("networkx", "to_networkx()")
        has_heads = self.shape[0] != 1
        graph = networkx.MultiDiGraph() if has_heads else networkx.DiGraph()
        graph.add_nodes_from(range(self.shape[2]))
        nodes = zip(self.keys.tolist(), self.queries.tolist(), strict=True)
        attributes = [{"weight": weight} for weight in self.weights.tolist()]
        if has_heads:
            for attribute, head in zip(attributes, self.heads.tolist(), strict=True):
                attribute["head"] = head
        graph.add_edges_from(
            (key, query, attribute)
            for (key, query), attribute in zip(nodes, attributes, strict=True)
        )
        return graph

    def to_dense(self) -> npt.NDArray[np.float32]:
        """The dense matrix, float32 [heads, queries, keys], 0 for every dropped weight.

        Examples:
            >>> import numpy as np
            >>> hallutrace.sparsify(np.float32([[1, 0], [0.25, 0.75]]), top_k=1).to_dense().tolist()
            [[[1.0, 0.0], [0.0, 0.75]]]
        """
        heads, queries, keys = self.shape
        dense = np.zeros((heads * queries, keys), dtype=np.float32)
        dense[np.repeat(np.arange(heads * queries), np.diff(self.indptr)), self.keys] = self.weights
        return dense.reshape(self.shape)

    def __repr__(self) -> str:
        heads, queries, keys = self.shape
        rows = heads * queries
        known = self.retained[~np.isnan(self.retained)]
        retained = f"{known.mean(dtype=np.float64):.1%}" if known.size else "an unknown share"
        lines = [
            f"EdgeList of {len(self):,} edges: {heads} x {queries} queries on {keys} keys, "
            f"first query at {self.first_query}",
            f"  {len(self) / max(rows, 1):.1f} edges and {retained} of the mass per query",
        ]
        if len(self):
            lines.append(f"  heaviest key -> query: {self._heaviest(5)}")
        return "\n".join(lines)

    def _heaviest(self, count: int) -> str:
        """The ``count`` edges of largest weight, formatted for ``repr``."""
        order = np.argsort(-self.weights, kind="stable")[:count]
        queries, heads = self.queries, self.heads
        has_heads = self.shape[0] != 1
        return ", ".join(
            f"{self.keys[edge]} -> {queries[edge]} ({self.weights[edge]:.3f}"
            + (f", head {heads[edge]})" if has_heads else ")")
            for edge in order.tolist()
        )


@dataclass(frozen=True, eq=False)
class Marginals:
    """Exact statistics of an attention matrix per head, from all weights; all float32.

    Query row i is at key position p = i + first_query.

    Attributes:
        diagonal: [heads, queries], weight on key p, 0 if there is no such key.
        previous: [heads, queries], weight on key p - 1, 0 if there is no such key.
        received: [heads, keys], sum of each column over the rows at later positions.
        entropy: [heads, queries], Shannon entropy in nats.
        square: [heads, queries], sum of the squared weights of the row. Its negative logarithm is
            the Rényi entropy of order 2.
        mass: [heads, queries, segments], sum of the weights on each segment of the keys.
        rough: [heads, queries, segments], norm of the second difference of the weights of a
            segment: sqrt(sum over j = -1..n of (w[j-1] - 2 w[j] + w[j+1])**2), where w[0..n) are
            the weights on the keys of the segment up to position p, and w is 0 outside them. It is
            sqrt(6) * w for a segment with one such key, of weight w, and 0 for one without.

    Source: ours, except ``square``, from Head Entropy (arXiv 2602.13699), and ``rough``, the norm
    of the row after the filter [1, -2, 1], from frequency-aware detection (arXiv 2602.18145). That
    paper takes the norm over the context and over the new tokens, padded with zeros; here it is
    taken over each segment. The detectors that read the other statistics cite their sources.

    Examples:
        >>> import numpy as np
        >>> found = hallutrace.marginals(np.float32([[1, 0], [0.25, 0.75]]))
        >>> found.diagonal.tolist(), found.received.tolist()
        ([[1.0, 0.75]], [[0.25, 0.0]])
        >>> found.square.tolist()
        [[1.0, 0.625]]
    """

    diagonal: npt.NDArray[np.float32]
    previous: npt.NDArray[np.float32]
    received: npt.NDArray[np.float32]
    entropy: npt.NDArray[np.float32]
    square: npt.NDArray[np.float32]
    mass: npt.NDArray[np.float32]
    rough: npt.NDArray[np.float32]

    @property
    def log_diagonal(self) -> npt.NDArray[np.float32]:
        """ln(max(diagonal, 2^-126)), [heads, queries]; its mean over rows is LLM-Check's score."""
        logs: npt.NDArray[np.float32] = np.log(np.maximum(self.diagonal, LEAST_LOGGED))
        return logs

    @property
    def log_square(self) -> npt.NDArray[np.float32]:
        """ln(max(square, 2^-126)), [heads, queries]; Head Entropy is minus its mean over rows."""
        logs: npt.NDArray[np.float32] = np.log(np.maximum(self.square, LEAST_LOGGED))
        return logs


def _check(
    name: str, array: npt.NDArray[Any], dtype: type[np.generic], shape: tuple[int, ...]
) -> None:
    """Raises :class:`InputError` unless an array has this dtype and shape."""
    if array.dtype != dtype or array.shape != shape:
        raise InputError(
            f"Expected `{name}` {np.dtype(dtype).name} {list(shape)}, got {array.dtype.name} "
            f"{list(array.shape)} - pass the arrays of one matrix"
        )


def _import(module: str, purpose: str) -> Any:
    """Imports an optional package of the extra ``graphs``."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError.of(module.partition(".")[0], "graphs", purpose) from error
