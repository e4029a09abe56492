"""Names of the tensors of a trace in the file format, see ``rust/shard/schema.rs``."""

from __future__ import annotations

MARGINALS = (
    "log_diagonal",
    "log_square",
    "diagonal",
    "received_mean",
    "previous",
    "entropy",
    "mass",
    "square",
    "rough",
)
"""Exact summaries of the attention of each head, without ``marginals.`` before their names."""

FLOATS = (
    "logprob",
    "token_entropy",
    "logsumexp",
    "alternatives.logprob",
    *(f"marginals.{name}" for name in MARGINALS),
    "marginals.value_norm",
    "edges.weight",
    "hidden",
    "hidden.scale",
)
"""Tensors of floating-point numbers; ``hidden`` may also be of integers, beside its scale."""

INTEGERS = (
    "tokens",
    "alternatives.token",
    "edges.offset",
    "edges.indptr",
    "edges.key",
    "meta",
)
"""Tensors of integers, and of the bytes of ``meta``."""
