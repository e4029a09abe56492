"""Shards of made-up traces, written as an extraction writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hallutrace._core import ShardWriter
from hallutrace.capture.token_scores import TokenScores
from hallutrace.store.folder import CommitRecord


def begin_shard(
    run: Path, name: str, traces: int, fingerprint: str = "f" * 16, **types: Any
) -> tuple[ShardWriter, CommitRecord]:
    """A writer in a run, and what is known of its shard."""
    for folder in ("partial", "shards"):
        (run / folder).mkdir(exist_ok=True)
    record = CommitRecord(name, 0, traces, "0" * 32, fingerprint, {})
    writer = ShardWriter(run, name, "made-up", traces, record.description(), **types)
    return writer, record


def finish_shard(
    writer: ShardWriter, record: CommitRecord, ids: Sequence[str], first: int = 0
) -> CommitRecord:
    """Publishes the shard of these questions, one trace each; its record."""
    counts, indices = {"traces": len(ids)}, list(range(first, first + len(ids)))
    writer.end_batch("")
    size, checksum = writer.finish(counts, indices, [])
    keys = [[id_, 0] for id_ in ids]
    return replace(record, counts=counts, indices=indices, keys=keys, size=size, checksum=checksum)


def made_up_scores(logprob: np.ndarray, entropy: np.ndarray, alternatives: int = 0) -> TokenScores:
    """Scores of answer tokens, of which each is the likeliest in its place."""
    tokens = np.tile(np.arange(alternatives, dtype=np.int32), (len(logprob), 1))
    logprobs = np.repeat(logprob[:, None], alternatives, axis=1)
    return TokenScores(logprob, entropy, np.ones_like(logprob), tokens, logprobs)
