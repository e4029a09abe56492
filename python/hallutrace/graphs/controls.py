"""Shuffled edges: a control for graph models.

Each query keeps its number of keys and its weights. The keys are drawn anew, without repeats, from
those that the query may see, and the weights are dealt to them in a random order: in the order of
keys, they would still tell whether an early or a late key had a large weight. What a model then
learns is in its nodes and in these counts and weights, not in which token attends to which.

Source: ours.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)

# Rows that keep more than this share of their keys are drawn by ranking all of them.
_DENSE = 4


def seed_of(seed: int, trace_id: str, sample: int) -> int:
    """64 bits for one trace, the same wherever and in whatever batch it is read."""
    digest = hashlib.blake2b(f"{seed}/{sample}/{trace_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def shuffled_keys(
    counts: NDArray[np.int64], choices: NDArray[np.int64], seeds: Bits
) -> NDArray[np.int64]:
    """Draws distinct keys for each row, all sets of them equally likely.

    Args:
        counts: int64 [rows], keys to draw; at most ``choices``.
        choices: int64 [rows], keys to draw from: 0 .. choices - 1.
        seeds: uint64 [rows], which decide the draw.

    Returns:
        int64 [sum of counts], increasing within each row.

    Examples:
        >>> counts, choices = np.array([2, 3]), np.array([2, 3])
        >>> shuffled_keys(counts, choices, np.array([5, 6], np.uint64))
        array([0, 1, 0, 1, 2])
    """
    keys = np.empty(int(counts.sum()), np.int64)
    dense = choices <= _DENSE * counts
    row = np.repeat(np.arange(len(counts)), counts)
    of_dense = dense[row]
    keys[of_dense] = _ranked(counts[dense], choices[dense], seeds[dense])
    keys[~of_dense] = _redrawn(counts[~dense], choices[~dense], seeds[~dense])
    return keys


def shuffled_order(counts: NDArray[np.int64], seeds: Bits) -> NDArray[np.int64]:
    """Draws an order of the edges of each row.

    Args:
        counts: int64 [rows], edges of each row.
        seeds: uint64 [rows], which decide the draw.

    Returns:
        int64 [sum of counts], numbers of edges: those of the first row, in random order, and so on.
    """
    row = np.repeat(np.arange(len(counts)), counts)
    slot = np.arange(len(row)) - (np.cumsum(counts) - counts)[row]
    # Other bits than those that keys are drawn by, which would tie the two draws together.
    bits = _mixed(_mixed(seeds[row]) + slot.astype(np.uint64) * _GOLDEN)
    order: NDArray[np.int64] = np.lexsort((bits, row))
    return order


def _ranked(
    counts: NDArray[np.int64], choices: NDArray[np.int64], seeds: Bits
) -> NDArray[np.int64]:
    """The first of each row's keys in the order of their random numbers."""
    row = np.repeat(np.arange(len(choices)), choices)
    begins = np.cumsum(choices) - choices
    key = np.arange(len(row)) - begins[row]
    order = np.lexsort((_mixed(seeds[row] + key.astype(np.uint64) * _GOLDEN), row))
    chosen = np.sort(order[key < counts[row]])  # `key` is also the rank in the order
    drawn: NDArray[np.int64] = key[chosen]
    return drawn


def _redrawn(
    counts: NDArray[np.int64], choices: NDArray[np.int64], seeds: Bits
) -> NDArray[np.int64]:
    """Draws all keys at once and again those that are there already.

    Which of two equal draws goes is decided by their slots, never by the key: keys can be renamed
    without changing anything, so no set of them is likelier than another.
    """
    row = np.repeat(np.arange(len(counts)), counts)
    slot = (np.arange(len(row)) - (np.cumsum(counts) - counts)[row]).astype(np.uint64)
    base = seeds[row] + slot * _GOLDEN
    keys = np.empty(len(row), np.int64)
    waiting = np.ones(len(row), bool)
    attempt = np.uint64(0)
    while waiting.any():
        bits = _mixed(base[waiting] ^ _mixed(np.atleast_1d(attempt)))
        # 32 bits scaled: the bias is below choices / 2^32.
        scaled = (bits >> np.uint64(32)) * choices[row[waiting]].astype(np.uint64)
        keys[waiting] = (scaled >> np.uint64(32)).astype(np.int64)
        order = np.lexsort((waiting, keys, row))  # those that stayed come first
        same = (np.diff(row[order]) == 0) & (np.diff(keys[order]) == 0)
        waiting = np.zeros(len(row), bool)
        waiting[order[1:][same]] = True
        attempt += np.uint64(1)
    ordered: NDArray[np.int64] = keys[np.lexsort((keys, row))]
    return ordered


def row_seeds(trace_seeds: Bits, layer: NDArray[np.int64], row: NDArray[np.int64]) -> Bits:
    """Seeds of rows, uint64 [rows], from the trace's seed, the layer and the row in the layer."""
    number = (layer.astype(np.uint64) << np.uint64(40)) + row.astype(np.uint64)
    return _mixed(trace_seeds ^ _mixed(number))


def _mixed(bits: Bits) -> Bits:
    """Random-looking bits of each number.

    Source: splitmix64; Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators".
    """
    bits = np.add(bits, _GOLDEN)
    bits = (bits ^ (bits >> np.uint64(30))) * _FIRST
    bits = (bits ^ (bits >> np.uint64(27))) * _SECOND
    mixed: Bits = bits ^ (bits >> np.uint64(31))
    return mixed
