"""What `sparsify`, `marginals` and the reducer mean, in as few lines of numpy as they take.

Also the attention that hypothesis draws for them: rows of every nasty kind.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

DTYPES = ("float32", "float16", "bfloat16")
KINDS = (
    "softmax", "peaked", "equal", "rising", "falling", "subnormal", "one-hot", "ties", "zeros",
    "wide", "large", "stairs",
)  # fmt: skip


def combine(attention, heads):
    """[heads, queries, keys] float32 to [graphs, queries, keys]."""
    if heads == "each":
        return attention
    if heads == "max":
        return attention.max(axis=0, keepdims=True)
    total = attention[0]
    for head in attention[1:]:
        total = total + head
    return (total / np.float32(len(attention)))[None]


def keep(row, top_k, min_weight, top_mass):
    """The keys kept of one row."""
    order = np.argsort(-row, kind="stable")
    kept = (row[order] > 0) & (row[order] >= np.float32(min_weight))
    kept[top_k:] = kept[top_k:] & (top_k is None)
    if top_mass not in (None, 1.0) and len(row):
        cumulative = np.cumsum(row[order], dtype=np.float64)
        kept[np.argmax(cumulative >= top_mass * cumulative[-1]) + 1 :] = False
    return np.sort(order[kept])


def edges(attention, *, top_k, min_weight, top_mass, heads, causal, first_query):
    """indptr, keys, weights, retained in float64."""
    keys, weights, indptr, retained = [], [], [0], []
    for rows in combine(attention, heads):
        for query, whole in enumerate(rows):
            row = whole[: first_query + query + 1] if causal else whole
            kept = keep(row, top_k, min_weight, top_mass)
            keys.extend(kept)
            weights.extend(row[kept])
            indptr.append(len(keys))
            mass = row.sum(dtype=np.float64)
            retained.append(row[kept].sum(dtype=np.float64) / mass if mass > 0 else 1.0)
    return indptr, np.array(keys, np.int32), np.array(weights, np.float32), np.array(retained)


def marginals(attention, *, segments, causal, first_query):
    """diagonal, previous, received, entropy, square, mass, rough in float64."""
    _, queries, keys = attention.shape
    weights = attention.astype(np.float64)
    positions = first_query + np.arange(queries)[:, None]
    if causal:
        weights = np.where(np.arange(keys) <= positions, weights, 0.0)
    at = np.arange(keys) == positions
    before = np.arange(keys) == positions - 1
    logs = np.log(np.where(weights > 0, weights, 1.0))
    bounds = itertools.pairwise([0, *segments, keys])
    parts = [weights[..., begin:end] for begin, end in bounds]
    return (
        (weights * at).sum(-1),
        (weights * before).sum(-1),
        (weights * (np.arange(keys) < positions)).sum(1),
        -(weights * logs).sum(-1),
        (weights**2).sum(-1),
        np.stack([part.sum(-1) for part in parts], axis=-1),
        np.stack([rough(part) for part in parts], axis=-1),
    )


def rough(weights):
    """Norm of the second differences along the last axis, zeros before and after."""
    padded = np.pad(weights, [(0, 0)] * (weights.ndim - 1) + [(2, 2)])
    return np.sqrt((np.diff(padded, n=2) ** 2).sum(-1))


def assert_close(actual, wanted):
    """Within 1e-6 + 1e-5 * abs(x), and float32."""
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=1e-6)


def rows(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> Any:
    """float32 rows of one kind along the last axis."""
    keys = shape[-1]
    noise = rng.random(shape, dtype=np.float32)
    if kind in ("softmax", "peaked"):
        logits = rng.normal(size=shape) * (2 if kind == "softmax" else 12)
        made = np.exp(logits - logits.max(axis=-1, keepdims=True, initial=0.0))
        made = made / np.maximum(made.sum(axis=-1, keepdims=True), 1e-30)
    elif kind == "equal":
        made = np.full(shape, 1 / max(keys, 1))
    elif kind in ("rising", "falling"):
        made = np.sort(noise / max(keys, 1), axis=-1)[..., :: 1 if kind == "rising" else -1]
    elif kind == "subnormal":
        made = noise * np.float32(1e-38)
    elif kind == "one-hot":
        made = np.arange(keys) == rng.integers(0, max(keys, 1), shape[:-1])[..., None]
    elif kind == "ties":
        made = rng.integers(0, 4, shape) / 16
    elif kind == "stairs":
        made = np.sort(rng.integers(0, max(keys // 5, 2), shape), axis=-1) / 1024
    elif kind == "wide":
        made = 10.0 ** rng.uniform(-30, 0, shape)
    elif kind == "large":
        made = noise * 3
    else:
        made = np.zeros(shape)
    made = np.asarray(made, dtype=np.float32)
    return np.where((made == 0) & (noise < 0.5), np.float32(-0.0), made)


def store(weights, dtype: str):
    """An array or tensor of a dtype, and its exact values in float32."""
    if dtype == "bfloat16":
        tensor = torch.from_numpy(weights).to(torch.bfloat16)
        return tensor, tensor.float().numpy()
    stored = weights.astype(dtype)
    return stored, stored.astype(np.float32)


@dataclass
class Case:
    """A drawn matrix: as given to the library, and its float32 values for the oracle."""

    given: Any
    values: Any
    causal: bool
    first_query: int | None
    position: int


@st.composite
def cases(draw, most_keys: int = 150):
    """Matrices of all dtypes and kinds of rows; what is never read holds garbage."""
    heads = draw(st.integers(1, 4))
    keys = draw(st.integers(1, most_keys))
    queries = draw(st.integers(1, min(keys, 12)))
    causal = draw(st.booleans())
    largest = keys - queries if causal else keys + 3
    first_query = draw(st.none() | st.integers(0, largest))
    position = keys - queries if first_query is None else first_query
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=queries, max_size=queries))
    weights = np.stack([rows(kind, (heads, keys), rng) for kind in kinds], axis=1)
    given, values = store(weights, draw(st.sampled_from(DTYPES)))
    if causal:
        unread = np.arange(keys) > position + np.arange(queries)[:, None]
        given[:, torch.from_numpy(unread) if torch.is_tensor(given) else unread] = draw(
            st.sampled_from([float("nan"), float("inf"), -1.0])
        )
    return Case(given, values, causal, first_query, position)


def rules():
    """Any combination of rules."""
    return st.fixed_dictionaries({
        "top_k": st.none() | st.integers(1, 20) | st.integers(1, 200),
        "min_weight": st.just(0.0) | st.sampled_from([0.25, 1e-3, 1e-40, 1 / 16, 1e-60]),
        "top_mass": st.none() | st.floats(1e-6, 1.0) | st.sampled_from([0.5, 0.75, 1.0]),
    })  # fmt: skip
