"""Reduces attention on a GPU with torch operations.

```text
for each block of rows [sequences, heads, rows, keys]:
    set padding and keys after the query to zero
    combine the heads in order                                      float32
    keep = weight > 0 and all rules hold                            of ties, the lower key
    edges = nonzero(keep); compute the marginals of the block
```

The semantics are those of ``_core.LayerReducer``; only edges and marginals leave the device. Edges
are bit-identical to the core's, except if the rounding of a parallel sum changes where ``top_mass``
is reached. Marginals have the same error bounds relative to float64.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hallutrace.choices import Heads
from hallutrace.errors import InputError

LEAST_NORMAL = 2.0**-126


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules for edges and marginals, with the arguments of ``_core.LayerReducer``."""

    top_k: int | None
    min_weight: float
    top_mass: float | None
    combine: Heads
    answer_edges: bool
    all_marginal_rows: bool


@dataclass(frozen=True, slots=True)
class DeviceReduction:
    """Edges and marginals of one layer and sequence: the fields of ``_core.LayerReduction``."""

    indptr: NDArray[np.int32]
    keys: NDArray[np.int32]
    weights: NDArray[np.float32]
    diagonal: NDArray[np.float32]
    received_mean: NDArray[np.float32]
    previous: NDArray[np.float32]
    entropy: NDArray[np.float32]
    square: NDArray[np.float32]
    mass: NDArray[np.float32]
    rough: NDArray[np.float32]
    log_diagonal: NDArray[np.float32]
    log_square: NDArray[np.float32]


@dataclass(slots=True)
class _BlockResults:
    """The results of all blocks of one sequence so far, on the device."""

    edges: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]] = field(
        default_factory=list
    )
    diagonal: list[torch.Tensor] = field(default_factory=list)
    previous: list[torch.Tensor] = field(default_factory=list)
    entropy: list[torch.Tensor] = field(default_factory=list)
    square: list[torch.Tensor] = field(default_factory=list)  # of all rows
    mass: list[torch.Tensor] = field(default_factory=list)
    rough: list[torch.Tensor] = field(default_factory=list)


class DeviceReducer:
    """Reduces the attention of one layer of a right-padded batch, block by block of query rows.

    Args:
        heads: number of heads of the layer.
        sequences: number of tokens N, number of prompt tokens P, and segment boundaries of each.
        rules: which edges and marginals are kept.

    Examples:
        >>> rules = Rules(1, 0.0, None, "mean", answer_edges=False, all_marginal_rows=True)
        >>> reducer = DeviceReducer(1, [(2, 1, [1])], rules)
        >>> reducer.push(torch.tensor([[[[1.0, 0.0], [0.25, 0.75]]]]), first_query=0)
        >>> reduction = reducer.finish()[0]
        >>> reduction.keys, reduction.weights
        (array([0, 1], dtype=int32), array([1.  , 0.75], dtype=float32))
    """

    def __init__(
        self, heads: int, sequences: Sequence[tuple[int, int, Sequence[int]]], rules: Rules
    ) -> None:
        self._heads = heads
        self._sequences = sequences
        self._rules = rules
        self._results = [_BlockResults() for _ in sequences]
        self._received: list[torch.Tensor] = []

    def push(self, attention: torch.Tensor, first_query: int) -> None:
        """Adds the next block of query rows.

        Args:
            attention: [sequences, heads, rows, keys], any floating dtype, any device. Row r is
                token first_query + r; padding and keys after the query are ignored.
            first_query: the token of row 0.

        Raises:
            InputError: a weight is negative or not finite, or a sum of squares overflows float32.
        """
        for sequence, (tokens, _, _) in enumerate(self._sequences):
            rows = min(attention.shape[2], tokens - first_query)
            if rows > 0:
                seen = first_query + rows
                block = _causal(attention[sequence, :, :rows, :seen], first_query)
                self._check(block, sequence, first_query)
                self._reduce(sequence, block, first_query)

    def finish(self) -> list[DeviceReduction]:
        """One reduction per sequence, on the CPU."""
        return [self._finish(sequence) for sequence in range(len(self._sequences))]

    def _check(self, block: torch.Tensor, sequence: int, first_query: int) -> None:
        bad = ~((block >= 0) & (block < torch.inf))
        if bool(bad.any()):
            head, row, key = (int(index) for index in bad.nonzero()[0])
            raise InputError(
                f"Expected finite weights >= 0, got {float(block[head, row, key])} at sequence "
                f"{sequence}, head {head}, query {first_query + row}, key {key} - "
                "pass attention after softmax; mask or drop broken rows first"
            )

    def _reduce(self, sequence: int, block: torch.Tensor, first_query: int) -> None:
        """Adds edges and marginals of a block [heads, rows, keys] of one sequence."""
        tokens, prompt, boundaries = self._sequences[sequence]
        results, rows = self._results[sequence], block.shape[1]
        results.square.append(self._squares(block, sequence, first_query))
        answer = max(prompt - 1 - first_query, 0)  # first row of the block that is an answer row
        first = answer if self._rules.answer_edges else 0
        if first < rows:
            combined = _combine(block[:, first:], self._rules.combine)
            keep = _kept(combined, self._rules)
            graph, row, key = keep.nonzero(as_tuple=True)
            results.edges.append((graph, row + first_query + first, key, combined[keep]))
        diagonal = torch.diagonal(block, first_query, 1, 2)
        results.diagonal.append(diagonal)
        self._add_received(sequence, block, first_query, min(rows, tokens - 1 - first_query))
        first = 0 if self._rules.all_marginal_rows else answer
        if first < rows:
            previous = torch.diagonal(block, first_query - 1, 1, 2) if first_query else None
            if previous is None:  # the first token has no previous key
                previous = torch.nn.functional.pad(torch.diagonal(block, -1, 1, 2), (1, 0))
            results.previous.append(previous[:, first:rows])
            detail = block[:, first:]
            results.entropy.append(torch.special.entr(detail).sum(-1))
            bounds = itertools.pairwise([0, *boundaries, tokens])
            segments = [detail[..., begin:end] for begin, end in bounds]
            results.mass.append(torch.stack([weights.sum(-1) for weights in segments], dim=-1))
            results.rough.append(torch.stack([_rough(weights) for weights in segments], dim=-1))

    def _squares(self, block: torch.Tensor, sequence: int, first_query: int) -> torch.Tensor:
        """Sums of the squared weights of each row, [heads, rows]."""
        squares = block.square().sum(-1)
        bad = squares.isinf()
        if bool(bad.any()):
            head, row = (int(index) for index in bad.nonzero()[0])
            query = first_query + row
            raise InputError(
                "Expected sums of rows and columns that float32 holds, got more than "
                f"3.4028235e38 at sequence {sequence}, head {head}, query {query}, key {query} - "
                "pass attention after softmax"
            )
        return squares

    def _add_received(
        self, sequence: int, block: torch.Tensor, first_query: int, rows: int
    ) -> None:
        """Adds the weights that earlier tokens receive from the given rows, without row N - 1."""
        if len(self._received) == sequence:
            tokens = self._sequences[sequence][0]
            self._received.append(block.new_zeros((self._heads, tokens), dtype=torch.float64))
        if rows > 0:
            below = torch.tril(block[:, :rows], first_query - 1).sum(1)
            self._received[sequence][:, : below.shape[1]] += below

    def _finish(self, sequence: int) -> DeviceReduction:
        tokens, prompt, _ = self._sequences[sequence]
        results = self._results[sequence]
        graph, query, key, weights = (
            _concatenated(column, 0) for column in zip(*results.edges, strict=True)
        )
        graphs = self._heads if self._rules.combine == "each" else 1
        if len(results.edges) > 1 and graphs > 1:  # from block order to graph order
            order = np.argsort(graph, kind="stable")
            graph, query, key, weights = (column[order] for column in (graph, query, key, weights))
        counts = np.bincount(graph * tokens + query, minlength=graphs * tokens)
        indptr = np.zeros((graphs, tokens + 1), np.int32)
        np.cumsum(counts.reshape(graphs, tokens), axis=1, out=indptr[:, 1:])
        diagonal, square = _concatenated(results.diagonal, 1), _concatenated(results.square, 1)
        detail = slice(0 if self._rules.all_marginal_rows else prompt - 1, None)
        num_queries = np.maximum(tokens - 2 - np.arange(tokens), 1)
        received = self._received[sequence].cpu().numpy() / num_queries
        return DeviceReduction(
            indptr=indptr,
            keys=key.astype(np.int32),
            weights=weights,
            diagonal=diagonal,
            received_mean=received.astype(np.float32),
            previous=_concatenated(results.previous, 1),
            entropy=_concatenated(results.entropy, 1),
            square=square[:, detail],
            mass=_concatenated(results.mass, 1),
            rough=_concatenated(results.rough, 1),
            log_diagonal=_mean_logs(diagonal, prompt),
            log_square=_mean_logs(square, prompt),
        )


def _mean_logs(values: NDArray[np.float32], prompt: int) -> NDArray[np.float32]:
    """Mean ln(max(x, 2^-126)) of values [heads, N] over the prompt and over the answer."""
    logs = np.log(np.maximum(values.astype(np.float64), LEAST_NORMAL))
    means = np.stack([logs[:, :prompt].mean(1), logs[:, prompt:].mean(1)], axis=1)
    return means.astype(np.float32)


def _rough(weights: torch.Tensor) -> torch.Tensor:
    """Norm of the second differences along the keys of [heads, rows, keys], zero-padded."""
    padded = torch.nn.functional.pad(weights, (2, 2))
    differences = (padded[..., :-2] + padded[..., 2:]) - 2 * padded[..., 1:-1]
    return differences.square().sum(-1).sqrt()


def _causal(block: torch.Tensor, first_query: int) -> torch.Tensor:
    """Weights [heads, rows, keys] as float32, with 0 at keys after the query."""
    rows, keys = block.shape[1:]
    queries = torch.arange(first_query, first_query + rows, device=block.device)[:, None]
    seen = torch.arange(keys, device=block.device) <= queries
    # Adding 0.0 turns -0.0 into 0.0.
    return torch.where(seen, block.float(), 0.0) + 0.0


def _combine(block: torch.Tensor, how: str) -> torch.Tensor:
    """Combines heads: [heads, rows, keys] to [graphs, rows, keys]."""
    if how == "each":
        return block
    if how == "max":
        return block.amax(0, keepdim=True)
    total = block[0].clone()
    for head in block[1:]:
        total += head
    # On a GPU, dividing by a Python number multiplies by its reciprocal, with other last bits.
    return (total / torch.full((1,), float(len(block)), device=block.device))[None]


def _kept(weights: torch.Tensor, rules: Rules) -> torch.Tensor:
    """Mask of the weights [graphs, rows, keys] that become edges."""
    keep = (weights > 0) & (weights >= float(np.float32(rules.min_weight)))
    if rules.top_k is not None and rules.top_k < weights.shape[-1]:
        threshold = weights.topk(rules.top_k, dim=-1).values[..., -1:]
        above = weights > threshold
        ties = weights == threshold
        ties_to_keep = rules.top_k - above.sum(-1, keepdim=True)
        keep &= above | ties & (ties.cumsum(-1) <= ties_to_keep)
    if rules.top_mass is not None and rules.top_mass < 1.0:
        ordered, keys = weights.sort(dim=-1, descending=True, stable=True)
        sums = ordered.cumsum(-1, dtype=torch.float64)
        before = torch.nn.functional.pad(sums[..., :-1], (1, 0))
        needed = before < rules.top_mass * sums[..., -1:]
        keep &= torch.zeros_like(keep).scatter(-1, keys, needed)
    return keep


def _concatenated(parts: Iterable[torch.Tensor], axis: int) -> NDArray[Any]:
    """Concatenates tensors of all blocks to one array on the CPU."""
    array: NDArray[Any] = torch.cat(list(parts), dim=axis).cpu().numpy()
    return array
