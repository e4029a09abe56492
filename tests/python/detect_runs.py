"""Runs of made-up traces, reduced, assembled and written by what an extraction uses.

Nothing in them comes from a model, so a signal can be planted where a detector should see it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from hallutrace import _core
from hallutrace.canonical_json import canonical
from hallutrace.capture.replay import Replayed
from hallutrace.extraction import trace_arrays
from hallutrace.store.folder import Manifest, Run
from made_shards import begin_shard, finish_shard, made_up_scores

PER_SHARD = 10_000
RULES: dict[str, Any] = {"top_k": 4, "min_weight": 0.0, "top_mass": None, "combine": "mean"}


@dataclass
class Made:
    """One trace: attention float32 [layers, heads, N, N], and what else a replay gives."""

    attention: np.ndarray
    prompt: int
    label: int | None = 0
    question: str = "who was it?"
    group: str = ""
    logprob: np.ndarray | None = None
    token_entropy: np.ndarray | None = None
    hidden: np.ndarray | None = None  # [layers, A + 1, width]
    eos: bool = True
    segments: list[int] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return int(self.attention.shape[-1])


def causal_attention(
    shape: tuple[int, int, int], rng: np.random.Generator, sharpness: float = 1.0
) -> np.ndarray:
    """Softmax of random logits over keys that are not later, float32 [layers, heads, N, N]."""
    layers, heads, tokens = shape
    logits = rng.normal(size=(layers, heads, tokens, tokens)) * sharpness
    logits[:, :, ~np.tri(tokens, dtype=bool)] = -np.inf
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (weights / weights.sum(axis=-1, keepdims=True)).astype(np.float32)


def reduce_layers(made: Made, all_rows: bool = False, heads: str = "mean") -> list[Any]:
    """What the core reduces each layer to, float32, before anything is stored."""
    reductions = []
    for layer in made.attention:
        reducer = _core.LayerReducer(
            len(layer),
            [(made.tokens, made.prompt, made.segments or [1, made.prompt])],
            answer_edges=False,
            all_marginal_rows=all_rows,
            **{**RULES, "combine": heads},
        )
        reducer.push(np.ascontiguousarray(layer[None]), False, 0)
        reductions += reducer.finish()
    return reductions


def stacked(reductions: Sequence[Any], name: str) -> np.ndarray:
    """One marginal of all layers, float32 [layers, heads, ...]."""
    return np.stack([getattr(reduction, name) for reduction in reductions])


def write_run(
    folder: Path,
    traces: Sequence[Made],
    *,
    states: str = "none",
    all_rows: bool = False,
    label: str = "contains",
    combine: str = "mean",
) -> Path:
    """Writes a run with labels, of one shard unless it is large; ``combine``: of its heads."""
    layers, heads = traces[0].attention.shape[:2]
    numbers = list(range(layers))
    hidden = trace_arrays.HiddenChoice(states, numbers if states != "none" else [], "float32")
    identity = {
        "model": {"name": "made-up"},
        "hidden": {"states": states, "layers": hidden.layers, "dtype": "float32"},
        "sparsification": {"heads": combine},
    }
    width = 0 if traces[0].hidden is None else traces[0].hidden.shape[-1]
    facts = {
        "captured_layers": numbers,
        "heads": [heads] * layers,
        "layers": layers,
        "hidden_size": width,
    }
    run, manifest = Run(folder), Manifest(identity, facts)
    run.begin(manifest)
    fingerprint = manifest.fingerprint
    for shard, first in enumerate(range(0, len(traces), PER_SHARD)):
        part = traces[first : first + PER_SHARD]
        name = f"{shard:05}"
        writer, record = begin_shard(folder, name, len(part), fingerprint, hidden="float32")
        ids = [f"q{number}" for number in range(first, first + len(part))]
        for number, made in enumerate(part):
            arrays = arrays_of(made, first + number, hidden, all_rows, combine)
            writer.append(number, ids[number], 0, arrays)
        run.commit(finish_shard(writer, record, ids, first))
        writer.forget()
    rows = [
        {"id": f"q{number}", "sample": 0, "label": made.label, "score": None}
        for number, made in enumerate(traces)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "labels" / f"{label}.jsonl").write_text(lines, encoding="utf-8")
    return folder


def arrays_of(
    made: Made, number: int, hidden: trace_arrays.HiddenChoice, all_rows: bool, heads: str = "mean"
) -> dict[str, np.ndarray]:
    """The tensors of a trace, `meta` too."""
    answer = made.tokens - made.prompt
    states = made.hidden
    replayed = Replayed(
        layers=reduce_layers(made, all_rows, heads),
        value_norms=[np.ones((1, made.tokens), np.float32)] * len(made.attention),
        scores=made_up_scores(
            filled(made.logprob, answer, -1.0), filled(made.token_entropy, answer, 1.0)
        ),
        hidden=None if states is None else torch.from_numpy(states.astype(np.float32)),
    )
    # Runs of others may hold what extraction refuses: numbers that are not finite.
    with patch.object(trace_arrays, "_check_finite"):
        arrays = trace_arrays.arrays_of(replayed, list(range(made.tokens)), made.eos, hidden)
    kept: Any = trace_arrays.POOLED
    if hidden.states == "answer":
        kept = [made.prompt - 1, made.tokens]
    meta = {
        "id": f"q{number}",
        "sample": 0,
        "group": made.group or f"q{number}",
        "index": number,
        "question": made.question,
        "context": None,
        "prompt": made.question,
        "answer": "it",
        "references": ["it"],
        "prompt_length": made.prompt,
        "segments": made.segments or [1, made.prompt],
        "finish_reason": "eos" if made.eos else "length",
        "hidden": None if hidden.states == "none" else {"layers": hidden.layers, "tokens": kept},
    }
    arrays["meta"] = np.frombuffer(canonical(meta), np.uint8)
    return arrays


def filled(values: np.ndarray | None, count: int, default: float) -> np.ndarray:
    if values is None:
        return np.full(count, default, np.float32)
    return values.astype(np.float32)


def plain_auroc(scores: Any, labels: Any) -> float:
    """Share of pairs of a hallucinated and a right answer in the right order, ties half."""
    scores, labels = np.asarray(scores), np.asarray(labels)
    risky, safe = scores[labels == 1], scores[labels == 0]
    above = (risky[:, None] > safe).mean()
    return float(above + (risky[:, None] == safe).mean() / 2)
