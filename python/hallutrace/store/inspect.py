"""What is in a run: figures of the whole, of each shard, and between shards."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace.store.reader import ShardTraces, TraceStore
from hallutrace.store.trace import Trace
from hallutrace.text_measures import contains

ATTENTION_SAMPLE = 2000  # traces whose edges are read, unless all are asked for


@dataclass(slots=True)
class Figures:
    """Sums over traces; memory does not grow with their number, but for the lengths that occur."""

    traces: int = 0
    judged: int = 0
    right: int = 0
    logprob: float = 0.0
    answer_tokens: int = 0
    prompts: Counter[int] = field(default_factory=Counter)
    answers: Counter[int] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    sampled: int = 0
    retained: NDArray[np.float64] | None = None
    entropy: NDArray[np.float64] | None = None

    def add(self, trace: Trace, attention: bool) -> None:
        """Counts one trace; reads its edges and entropies if ``attention``."""
        self.traces += 1
        references = trace.references
        if references:
            self.judged += 1
            self.right += contains(trace.answer, references)
        logprob = trace.logprob
        self.logprob += float(logprob.sum(dtype=np.float64))
        self.answer_tokens += len(logprob)
        self.prompts[trace.prompt_length] += 1
        self.answers[len(logprob)] += 1
        self.reasons[trace.finish_reason] += 1
        if attention:
            retained = [np.nanmean(_answer_rows(trace, layer)) for layer in trace.layers]
            entropy = trace.marginals.entropy.mean(axis=(1, 2), dtype=np.float64)
            self.sampled += 1
            self.retained = _plus(self.retained, np.asarray(retained))
            self.entropy = _plus(self.entropy, entropy)

    def merge(self, other: Figures) -> None:
        """Adds the figures of other traces."""
        for name in ("traces", "judged", "right", "logprob", "answer_tokens", "sampled"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.prompts += other.prompts
        self.answers += other.answers
        self.reasons += other.reasons
        if other.retained is not None and other.entropy is not None:
            self.retained = _plus(self.retained, other.retained)
            self.entropy = _plus(self.entropy, other.entropy)

    def to_json(self) -> dict[str, Any]:
        """The figures by name."""
        found: dict[str, Any] = {
            "traces": self.traces,
            "right_share": self.right / self.judged if self.judged else None,
            "mean_logprob": self.logprob / self.answer_tokens if self.answer_tokens else None,
            "prompt_tokens": _spread(self.prompts),
            "answer_tokens": _spread(self.answers),
            "finish_reasons": dict(self.reasons),
            "attention_traces": self.sampled,
        }
        if self.retained is not None and self.entropy is not None:
            found["retained_by_layer"] = [_number(x) for x in self.retained / self.sampled]
            found["entropy_by_layer"] = [_number(x) for x in self.entropy / self.sampled]
        return found


def inspect_run(
    store: TraceStore, shard: int | None = None, read_all: bool = False
) -> dict[str, Any]:
    """Figures of a run.

    Args:
        store: the run.
        shard: only this one; None for all.
        read_all: read the attention of every trace instead of a spread-out sample.

    Returns:
        ``run`` (figures of all traces read, and what the manifest says), ``shards`` (a list) and
        ``between_shards`` (least, greatest and standard deviation of the shards' means), as JSON.

    Raises:
        InputError: no such shard.
        DamagedError: a shard that cannot be trusted.
    """
    every = 1 if read_all else max(1, math.ceil(len(store) / ATTENTION_SAMPLE))
    chosen = store.shards() if shard is None else [store.shard(shard)]
    total = Figures()
    shards = []
    for traces in chosen:
        figures = _figures(traces, every)
        total.merge(figures)
        record = traces.record
        shards.append(
            {
                "name": record.name,
                "questions": record.questions,
                "failures": record.counts["failures"],
                "bytes": record.size,
                "bytes_per_trace": record.size / len(traces) if len(traces) else None,
                **figures.to_json(),
            }
        )
    run = {**store.info(), **total.to_json()}
    return {"run": run, "shards": shards, "between_shards": _between(shards)}


def _figures(traces: ShardTraces, every: int) -> Figures:
    figures = Figures()
    for at, trace in enumerate(traces):
        figures.add(trace, attention=at % every == 0)
    return figures


def _between(shards: list[dict[str, Any]]) -> dict[str, Any]:
    """How much shards differ from each other."""
    found = {}
    means = {
        "right_share": [shard["right_share"] for shard in shards],
        "mean_logprob": [shard["mean_logprob"] for shard in shards],
        "bytes_per_trace": [shard["bytes_per_trace"] for shard in shards],
        "mean_prompt_tokens": [(shard["prompt_tokens"] or {}).get("mean") for shard in shards],
        "mean_answer_tokens": [(shard["answer_tokens"] or {}).get("mean") for shard in shards],
        "retained": [_mean(shard.get("retained_by_layer")) for shard in shards],
        "entropy": [_mean(shard.get("entropy_by_layer")) for shard in shards],
    }
    for name, values in means.items():
        known = [value for value in values if value is not None]
        if known:
            found[name] = {
                "least": min(known),
                "greatest": max(known),
                "deviation": float(np.std(known)),
            }
    return found


def strongest_edges(trace: Trace, layer: int, count: int) -> list[tuple[int, int, float]]:
    """The heaviest edges of the answer rows of a layer: key, query, weight.

    Edges from a token to itself and to the first token, which draw most of the mass anywhere, are
    left out.
    """
    edges = trace.layer(layer)
    queries = edges.queries
    wanted = (queries >= trace.prompt_length - 1) & (edges.keys != queries) & (edges.keys != 0)
    places = np.flatnonzero(wanted)
    heaviest = places[np.argsort(-edges.weights[places], kind="stable")[:count]]
    return [(int(edges.keys[at]), int(queries[at]), float(edges.weights[at])) for at in heaviest]


def _answer_rows(trace: Trace, layer: int) -> NDArray[np.float32]:
    """Share of mass retained in the rows where it is known; NaN alone where it is nowhere."""
    retained = trace.layer(layer).retained
    known = retained[~np.isnan(retained)]
    return known if known.size else np.full(1, np.nan, np.float32)


def _plus(sums: NDArray[np.float64] | None, more: NDArray[np.float64]) -> NDArray[np.float64]:
    return more.copy() if sums is None else sums + more


def _mean(values: Iterable[float | None] | None) -> float | None:
    known = [value for value in values or [] if value is not None]
    return sum(known) / len(known) if known else None


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _spread(lengths: Counter[int]) -> dict[str, float] | None:
    """Least, median, mean and greatest of the lengths that occurred."""
    count = sum(lengths.values())
    if not count:
        return None
    passed, median = 0, 0
    for length in sorted(lengths):
        passed += lengths[length]
        if 2 * passed >= count:
            median = length
            break
    mean = sum(length * times for length, times in lengths.items()) / count
    return {"least": min(lengths), "median": median, "mean": mean, "greatest": max(lengths)}
