"""Statistics of a run, of each of its shards, and of the differences between shards."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace.store.reader import TraceStore
from hallutrace.store.shard_traces import ShardTraces
from hallutrace.store.trace import Trace
from hallutrace.text_measures import contains

ATTENTION_SAMPLE = 2000  # upper bound of traces whose edges are read, unless `read_all`


@dataclass(slots=True)
class Figures:
    """Sums over traces. Memory grows with the number of distinct lengths, not of traces.

    Attributes:
        traces: number of traces.
        judged: traces whose question has references.
        right: those of them whose answer contains a reference.
        logprob: sum of the log-probabilities of all answer tokens, nats.
        answer_tokens: number of answer tokens.
        prompts: number of traces by length of the prompt, tokens.
        answers: number of traces by length of the answer, tokens.
        reasons: number of traces by finish reason.
        sampled: traces whose attention was read.
        retained: sum over these of the mean retained mass of the answer rows, float64 [layers].
        entropy: sum over these of the mean entropy of the rows, nats, float64 [layers].
    """

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
        """Adds one trace, with its attention if ``attention``."""
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
            retained = [np.nanmean(_known_retained(trace, layer)) for layer in trace.layers]
            entropy = trace.marginals.entropy.mean(axis=(1, 2), dtype=np.float64)
            self.sampled += 1
            self.retained = _add(self.retained, np.asarray(retained))
            self.entropy = _add(self.entropy, entropy)

    def merge(self, other: Figures) -> None:
        """Adds the sums over other traces."""
        for name in ("traces", "judged", "right", "logprob", "answer_tokens", "sampled"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.prompts += other.prompts
        self.answers += other.answers
        self.reasons += other.reasons
        if other.retained is not None and other.entropy is not None:
            self.retained = _add(self.retained, other.retained)
            self.entropy = _add(self.entropy, other.entropy)

    def to_json(self) -> dict[str, Any]:
        """Means and counts by name, as JSON values."""
        found: dict[str, Any] = {
            "traces": self.traces,
            "right_share": self.right / self.judged if self.judged else None,
            "mean_logprob": self.logprob / self.answer_tokens if self.answer_tokens else None,
            "prompt_tokens": _length_statistics(self.prompts),
            "answer_tokens": _length_statistics(self.answers),
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
    """Computes statistics of a run.

    Args:
        store: the run.
        shard: index of the only shard to read, from 0; None for all.
        read_all: read the attention of every trace instead of at most about ``ATTENTION_SAMPLE``
            evenly spaced ones.

    Returns:
        JSON values: ``run`` (statistics of all traces read, and :meth:`TraceStore.info`),
        ``shards`` (a list) and ``between_shards`` (minimum, maximum and standard deviation of the
        means of the shards).

    Raises:
        InputError: no such shard.
        DamagedError: a shard is missing or damaged.

    Examples:
        >>> inspect_run(hallutrace.open(run))["run"]["traces"]
        8
    """
    step = 1 if read_all else max(1, math.ceil(len(store) / ATTENTION_SAMPLE))
    chosen = store.shards() if shard is None else [store.shard(shard)]
    total = Figures()
    shards = []
    for traces in chosen:
        figures = _figures(traces, step)
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


def _figures(traces: ShardTraces, step: int) -> Figures:
    figures = Figures()
    for index, trace in enumerate(traces):
        figures.add(trace, attention=index % step == 0)
    return figures


def _between(shards: list[dict[str, Any]]) -> dict[str, Any]:
    """Minimum, maximum and standard deviation over the shards of their means."""
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
    """The edges with the largest weights in the answer rows of a layer.

    Edges to the token itself and to the first token are left out, because they have most of the
    mass in any trace.

    Args:
        trace: of a run.
        layer: number in the model, from 0.
        count: number of edges.

    Returns:
        Key, query and weight of each edge, the largest weight first.

    Raises:
        InputError: the attention of this layer was not captured.

    Examples:
        >>> len(strongest_edges(hallutrace.open(run)[0], layer=0, count=3))
        3
    """
    edges = trace.layer(layer)
    queries = edges.queries
    wanted = (queries >= trace.prompt_length - 1) & (edges.keys != queries) & (edges.keys != 0)
    indices = np.flatnonzero(wanted)
    strongest = indices[np.argsort(-edges.weights[indices], kind="stable")[:count]]
    return [(int(edges.keys[i]), int(queries[i]), float(edges.weights[i])) for i in strongest]


def _known_retained(trace: Trace, layer: int) -> NDArray[np.float32]:
    """Retained share of mass of the rows where it is known; [NaN] if it is known for no row."""
    retained = trace.layer(layer).retained
    known = retained[~np.isnan(retained)]
    return known if known.size else np.full(1, np.nan, np.float32)


def _add(sums: NDArray[np.float64] | None, more: NDArray[np.float64]) -> NDArray[np.float64]:
    return more.copy() if sums is None else sums + more


def _mean(values: Iterable[float | None] | None) -> float | None:
    known = [value for value in values or [] if value is not None]
    return sum(known) / len(known) if known else None


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _length_statistics(lengths: Counter[int]) -> dict[str, float] | None:
    """Minimum, lower median, mean and maximum of the lengths; None without lengths."""
    count = sum(lengths.values())
    if not count:
        return None
    cumulative, median = 0, 0
    for length in sorted(lengths):
        cumulative += lengths[length]
        if 2 * cumulative >= count:
            median = length
            break
    mean = sum(length * traces for length, traces in lengths.items()) / count
    return {"least": min(lengths), "median": median, "mean": mean, "greatest": max(lengths)}
