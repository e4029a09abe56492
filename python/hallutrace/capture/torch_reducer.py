"""The reductions of the core in torch operations, for attention that lies on a GPU.

```text
for each block of rows [sequences, heads, rows, keys]:
    what no query sees, and padding, becomes zero
    combine heads in their order                                    float32
    keep = weight > 0 and every rule                                ties to the lower key
    edges = nonzero(keep); marginals of the same block
```

The semantics are those of ``_core.LayerReducer``, which tests hold it against; nothing of the size
heads x tokens² leaves the device. Edges have the same bits, but where ``top_mass`` ends within the
rounding of a parallel sum; marginals are within the same bounds of float64.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hallutrace.errors import InputError

LEAST_NORMAL = 2.0**-126


@dataclass(frozen=True, slots=True)
class Rules:
    """What is kept of a layer, as for ``_core.LayerReducer``."""

    top_k: int | None
    min_weight: float
    top_mass: float | None
    combine: str
    answer_edges: bool
    all_marginal_rows: bool


@dataclass(frozen=True, slots=True)
class DeviceReduction:
    """What a layer of one sequence comes to; the fields of ``_core.LayerReduction``."""

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
class _Parts:
    """What the blocks so far gave of one sequence, on the device."""

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
    """One layer of one batch of right-padded sequences, given block by block of query rows.

    Args:
        heads: heads of the layer.
        sequences: tokens N, prompt tokens P and segment boundaries of each.
        rules: what is kept.
    """

    def __init__(
        self, heads: int, sequences: Sequence[tuple[int, int, Sequence[int]]], rules: Rules
    ) -> None:
        self._heads = heads
        self._sequences = sequences
        self._rules = rules
        self._parts = [_Parts() for _ in sequences]
        self._received: list[torch.Tensor] = []

    def push(self, attention: torch.Tensor, first_query: int) -> None:
        """Takes the block of rows that follows.

        Args:
            attention: [sequences, heads, rows, keys], any floating dtype, any device. Row r is
                token first_query + r; padding and keys after a row's own are not read.
            first_query: the token of row 0.

        Raises:
            InputError: a weight that is negative or not finite, or whose square is not.
        """
        for at, (tokens, _, _) in enumerate(self._sequences):
            rows = min(attention.shape[2], tokens - first_query)
            if rows > 0:
                seen = first_query + rows
                block = _lower(attention[at, :, :rows, :seen], first_query)
                self._check(block, at, first_query)
                self._take(at, block, first_query)

    def finish(self) -> list[DeviceReduction]:
        """One reduction per sequence, on the CPU."""
        return [self._finish(at) for at in range(len(self._sequences))]

    def _check(self, block: torch.Tensor, sequence: int, first_query: int) -> None:
        bad = ~((block >= 0) & (block < torch.inf))
        if bool(bad.any()):
            head, row, key = (int(place) for place in bad.nonzero()[0])
            raise InputError(
                f"Expected finite weights >= 0, got {float(block[head, row, key])} at sequence "
                f"{sequence}, head {head}, query {first_query + row}, key {key} - "
                "pass attention after softmax; mask or drop broken rows first"
            )

    def _take(self, at: int, block: torch.Tensor, first_query: int) -> None:
        """Edges and marginals of a block [heads, rows, keys] of one sequence."""
        tokens, prompt, boundaries = self._sequences[at]
        parts, rows = self._parts[at], block.shape[1]
        parts.square.append(self._squares(block, at, first_query))
        answer = max(prompt - 1 - first_query, 0)  # first row of the block that is an answer row
        first = answer if self._rules.answer_edges else 0
        if first < rows:
            combined = _combine(block[:, first:], self._rules.combine)
            keep = _kept(combined, self._rules)
            graph, row, key = keep.nonzero(as_tuple=True)
            parts.edges.append((graph, row + first_query + first, key, combined[keep]))
        diagonal = torch.diagonal(block, first_query, 1, 2)
        parts.diagonal.append(diagonal)
        self._receive(at, block, first_query, min(rows, tokens - 1 - first_query))
        first = 0 if self._rules.all_marginal_rows else answer
        if first < rows:
            previous = torch.diagonal(block, first_query - 1, 1, 2) if first_query else None
            if previous is None:  # row 0 of the text has no key before it
                previous = torch.nn.functional.pad(torch.diagonal(block, -1, 1, 2), (1, 0))
            parts.previous.append(previous[:, first:rows])
            detail = block[:, first:]
            parts.entropy.append(torch.special.entr(detail).sum(-1))
            bounds = itertools.pairwise([0, *boundaries, tokens])
            segments = [detail[..., begin:end] for begin, end in bounds]
            parts.mass.append(torch.stack([weights.sum(-1) for weights in segments], dim=-1))
            parts.rough.append(torch.stack([_rough(weights) for weights in segments], dim=-1))

    def _squares(self, block: torch.Tensor, sequence: int, first_query: int) -> torch.Tensor:
        """Sums of the squared weights of each row, [heads, rows]."""
        squares = block.square().sum(-1)
        bad = squares.isinf()
        if bool(bad.any()):
            head, row = (int(place) for place in bad.nonzero()[0])
            query = first_query + row
            raise InputError(
                "Expected sums of rows and columns that float32 holds, got more than "
                f"3.4028235e38 at sequence {sequence}, head {head}, query {query}, key {query} - "
                "pass attention after softmax"
            )
        return squares

    def _receive(self, at: int, block: torch.Tensor, first_query: int, rows: int) -> None:
        """Adds what rows up to N - 2 give to the tokens before them."""
        if len(self._received) == at:
            tokens = self._sequences[at][0]
            self._received.append(block.new_zeros((self._heads, tokens), dtype=torch.float64))
        if rows > 0:
            below = torch.tril(block[:, :rows], first_query - 1).sum(1)
            self._received[at][:, : below.shape[1]] += below

    def _finish(self, at: int) -> DeviceReduction:
        tokens, prompt, _ = self._sequences[at]
        parts = self._parts[at]
        graph, query, key, weights = (
            _joined(column, 0) for column in zip(*parts.edges, strict=True)
        )
        graphs = self._heads if self._rules.combine == "each" else 1
        if len(parts.edges) > 1 and graphs > 1:  # blocks came row by row, graphs go one by one
            order = np.argsort(graph, kind="stable")
            graph, query, key, weights = (column[order] for column in (graph, query, key, weights))
        counts = np.bincount(graph * tokens + query, minlength=graphs * tokens)
        indptr = np.zeros((graphs, tokens + 1), np.int32)
        np.cumsum(counts.reshape(graphs, tokens), axis=1, out=indptr[:, 1:])
        diagonal, square = _joined(parts.diagonal, 1), _joined(parts.square, 1)
        detail = slice(0 if self._rules.all_marginal_rows else prompt - 1, None)
        givers = np.maximum(tokens - 2 - np.arange(tokens), 1)
        received = self._received[at].cpu().numpy() / givers
        return DeviceReduction(
            indptr=indptr,
            keys=key.astype(np.int32),
            weights=weights,
            diagonal=diagonal,
            received_mean=received.astype(np.float32),
            previous=_joined(parts.previous, 1),
            entropy=_joined(parts.entropy, 1),
            square=square[:, detail],
            mass=_joined(parts.mass, 1),
            rough=_joined(parts.rough, 1),
            log_diagonal=_mean_logs(diagonal, prompt),
            log_square=_mean_logs(square, prompt),
        )


def _mean_logs(values: NDArray[np.float32], prompt: int) -> NDArray[np.float32]:
    """Mean ln(max(x, 2^-126)) of values [heads, N] over the prompt and over the answer."""
    logs = np.log(np.maximum(values.astype(np.float64), LEAST_NORMAL))
    means = np.stack([logs[:, :prompt].mean(1), logs[:, prompt:].mean(1)], axis=1)
    return means.astype(np.float32)


def _rough(weights: torch.Tensor) -> torch.Tensor:
    """Norm of the second differences of [heads, rows, keys] along the keys, zeros around them."""
    padded = torch.nn.functional.pad(weights, (2, 2))
    differences = (padded[..., :-2] + padded[..., 2:]) - 2 * padded[..., 1:-1]
    return differences.square().sum(-1).sqrt()


def _lower(block: torch.Tensor, first_query: int) -> torch.Tensor:
    """Float32 weights [heads, rows, keys]; 0 at keys after a row's own, whatever stood there."""
    rows, keys = block.shape[1:]
    own = torch.arange(first_query, first_query + rows, device=block.device)[:, None]
    seen = torch.arange(keys, device=block.device) <= own
    # Adding 0.0 turns -0.0 into 0.0.
    return torch.where(seen, block.float(), 0.0) + 0.0


def _combine(block: torch.Tensor, how: str) -> torch.Tensor:
    """[heads, rows, keys] to [graphs, rows, keys]."""
    if how == "each":
        return block
    if how == "max":
        return block.amax(0, keepdim=True)
    total = block[0].clone()
    for head in block[1:]:
        total += head
    # A divisor that is a number would become a multiplication on a GPU, with other last bits.
    return (total / torch.full((1,), float(len(block)), device=block.device))[None]


def _kept(weights: torch.Tensor, rules: Rules) -> torch.Tensor:
    """Which weights [graphs, rows, keys] become edges."""
    keep = (weights > 0) & (weights >= float(np.float32(rules.min_weight)))
    if rules.top_k is not None and rules.top_k < weights.shape[-1]:
        least = weights.topk(rules.top_k, dim=-1).values[..., -1:]
        above = weights > least
        ties = weights == least
        room = rules.top_k - above.sum(-1, keepdim=True)
        keep &= above | ties & (ties.cumsum(-1) <= room)
    if rules.top_mass is not None and rules.top_mass < 1.0:
        ordered, keys = weights.sort(dim=-1, descending=True, stable=True)
        sums = ordered.cumsum(-1, dtype=torch.float64)
        before = torch.nn.functional.pad(sums[..., :-1], (1, 0))
        needed = before < rules.top_mass * sums[..., -1:]
        keep &= torch.zeros_like(keep).scatter(-1, keys, needed)
    return keep


def _joined(parts: Iterable[torch.Tensor], axis: int) -> NDArray[Any]:
    """The parts of all blocks as one array on the CPU."""
    joined: NDArray[Any] = torch.cat(list(parts), dim=axis).cpu().numpy()
    return joined
