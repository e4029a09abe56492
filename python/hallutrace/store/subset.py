"""Subsets of runs: traces that meet conditions, copied without decoding."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hallutrace._core import Shard, ShardWriter
from hallutrace.canonical_json import digest
from hallutrace.errors import (
    InputError,
)
from hallutrace.store.folder import CommitRecord, Manifest, Run
from hallutrace.store.label_carrying import carry_part
from hallutrace.store.label_files import read as read_labels
from hallutrace.store.merge_checks import check_planned
from hallutrace.store.new_run import as_storage_error, begin_run, claimed_shard
from hallutrace.store.reader import TraceStore, open_run
from hallutrace.store.trace import Trace
from hallutrace.text_measures import contains


def subset(
    run: str | Path,
    out: str | Path,
    *,
    ids: Iterable[str] | None = None,
    indices: Iterable[int] | None = None,
    label: str | None = None,
    where: Callable[[Trace], bool] | None = None,
    sample: int | None = None,
    seed: int = 0,
) -> TraceStore:
    """Copies the traces of a run that meet all given conditions into a new run, with their labels.

    Args:
        run: folder of the run.
        out: folder of the subset. It must not exist, or contain an unfinished subset with the same
            traces, which is continued.
        ids: question ids; all samples of these questions are taken.
        indices: indices of traces in the run, from 0.
        label: ``NAME=0`` (right) or ``NAME=1`` (hallucinated) by the labels NAME; or ``right`` or
            ``wrong``, whether the answer contains a reference, which needs no labels. Traces
            without a label, or without references, meet neither.
        where: predicate that is called with each trace that meets the other conditions.
        sample: number of traces that are drawn at random from those that meet all conditions.
        seed: of the random sample.

    Returns:
        The subset, in the order of the run.

    Raises:
        InputError: no trace meets all conditions, or the run lacks an id, an index or labels.
        DamagedError: the checksum of a trace is wrong, or a label file is invalid.

    Examples:
        >>> len(subset(run, "short", where=lambda trace: len(trace.answer_tokens) < 100))
        8
    """
    whole = open_run(run)
    chosen = _select(whole, ids, indices, label, where)
    if sample is not None and sample < len(chosen):
        chosen = sorted(random.Random(seed).sample(chosen, sample))
    if not chosen:
        raise InputError(f"Expected traces that meet all conditions, got none in {run} - relax one")
    write_labels = carry_part(whole, chosen)
    origin = {"of": whole.manifest.fingerprint, "traces": chosen}
    manifest = Manifest({**whole.manifest.identity, "subset": origin}, whole.manifest.facts)
    size = int(whole.manifest.identity["shard_size"])
    planned = [
        _part_record(whole, chosen[begin : begin + size], f"{number:05d}", manifest.fingerprint)
        for number, begin in enumerate(range(0, len(chosen), size))
    ]
    part = begin_run(Path(out), manifest)
    check_planned(part, planned, "subset")
    with as_storage_error(part):
        for begin, record in zip(range(0, len(chosen), size), planned, strict=True):
            if part.record(record.name) is not None:
                continue
            with claimed_shard(part, record.name) as held_claim:
                if part.record(record.name) is None:
                    found = part.take_published(record.name, record.fingerprint)
                    if found is None:
                        _copy(whole, chosen[begin : begin + size], part, record, held_claim.check)
                    elif (found.keys, found.indices) == (record.keys, record.indices):
                        part.commit(found)
                    else:
                        raise InputError(
                            f"Expected the finished shard {record.name} of {part.folder} to hold "
                            "what a new subset would, got other traces: the run has changed since "
                            "- subset into another folder, or delete this one first"
                        )
    copied = open_run(out)
    write_labels(copied)
    return copied


def _select(
    whole: TraceStore,
    ids: Iterable[str] | None,
    indices: Iterable[int] | None,
    label: str | None,
    where: Callable[[Trace], bool] | None,
) -> list[int]:
    chosen = range(len(whole)) if indices is None else sorted(set(indices))
    if chosen and (chosen[0] < 0 or chosen[-1] >= len(whole)):
        raise InputError(f"Expected indices in 0..{len(whole)}, got {chosen[0]} to {chosen[-1]}")
    has_label = None if label is None else _label_condition(whole, label)
    wanted = None if ids is None else set(ids)
    if wanted is not None:
        keys = whole.keys()
        missing = sorted(wanted - {id_ for id_, _ in keys})
        if missing:
            raise InputError(f"Expected ids of traces in {whole.folder}, got {missing[:3]}")
        chosen = [index for index in chosen if keys[index][0] in wanted]
    return [
        index
        for index in chosen
        if (has_label is None or has_label(index)) and (where is None or where(whole[index]))
    ]


def _label_condition(whole: TraceStore, label: str) -> Callable[[int], bool]:
    """A predicate of the index of a trace: whether the trace has this label."""
    name, equals, value = label.rpartition("=")
    if equals and value in ("0", "1"):
        labels, keys = read_labels(whole.folder, name), whole.keys()
        return lambda index: labels.get(keys[index]) == int(value)
    if label not in ("right", "wrong"):
        raise InputError(
            f"Expected `label` to be right, wrong, NAME=0 or NAME=1, got {label!r} - the names are "
            f"{', '.join(whole.labels()) or 'none yet: make some with `hallutrace label`'}"
        )

    def has_label(index: int) -> bool:
        trace = whole[index]
        is_right = contains(trace.answer, trace.references)
        return bool(trace.references) and is_right == (label == "right")

    return has_label


def _part_record(
    whole: TraceStore, chosen: Sequence[int], name: str, fingerprint: str
) -> CommitRecord:
    """The record of a shard of a subset, without the fields that need its bytes."""
    keys = whole.keys()
    ids = [list(keys[index]) for index in chosen]
    return CommitRecord(
        name=name,
        first=-1,
        questions=len({id_ for id_, _ in ids}),
        digest="",
        keys=ids,
        indices=[whole.index_of(index) for index in chosen],
        fingerprint=fingerprint,
        counts={"traces": len(chosen), "failures": 0},
        environment=whole.records[0].environment,
    )


def _copy(
    whole: TraceStore,
    chosen: Sequence[int],
    part: Run,
    record: CommitRecord,
    check: Callable[[], object],
) -> None:
    """Copies traces into a new shard, and commits it; continues an unfinished one."""
    identity = whole.manifest.identity
    hidden: Any = identity["hidden"]["dtype"]
    # With another hash of the traces, the writer discards an unfinished shard and starts again.
    traces_hash = digest([record.keys, record.indices]).hex()[:16]
    writer = ShardWriter(
        part.folder,
        record.name,
        f"{record.fingerprint}/{record.name}/{traces_hash}",
        len(chosen),
        record.description(),
        edge_weight=identity["sparsification"]["edge_dtype"],
        hidden=hidden,
    )
    done = len(writer)
    counts = {**record.counts, "judged": 0, "right": 0, "answer_tokens": 0}
    for number, index in enumerate(chosen):
        trace = whole[index]
        if number >= done:
            shard: Shard = trace.shard
            writer.append_from(shard, trace.position, number)
            check()
            writer.end_batch("")
        counts["answer_tokens"] += len(trace.logprob)
        counts["judged"] += bool(trace.references)
        counts["right"] += contains(trace.answer, trace.references)
    check()
    size, checksum = writer.finish(counts, record.indices, [])
    check()
    part.commit(replace(record, size=size, checksum=checksum, counts=counts))
    writer.forget()
