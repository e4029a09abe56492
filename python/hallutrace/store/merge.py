"""Merges and subsets of runs; shards are linked and traces copied without decoding."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hallutrace._core import Shard, ShardWriter, publish
from hallutrace.canonical_json import digest
from hallutrace.errors import (
    HallutraceError,
    IdentityError,
    InputError,
    StorageError,
)
from hallutrace.store.claims import UNKNOWN_COUNT, Claim, Holder, claim
from hallutrace.store.folder import CommitRecord, Manifest, Run
from hallutrace.store.label_carrying import carry_merged, carry_part
from hallutrace.store.label_files import read as read_labels
from hallutrace.store.merge_checks import check_mergeable, check_planned, check_unique
from hallutrace.store.reader import ShardTraces, TraceStore, open_run
from hallutrace.store.trace import Trace
from hallutrace.text_measures import contains


def merge(
    runs: Sequence[str | Path], out: str | Path, *, force_differing: Iterable[str] = ()
) -> TraceStore:
    r"""Merges runs that differ only in their questions into a new run.

    Shards are hard-linked, or copied if the file system has no links. The runs are not changed.
    Labels that all runs have with equal parameters are copied; other labels are not.

    Args:
        runs: folders of the runs, in the order of their traces in the new run.
        out: folder of the new run. It must not exist, or contain an unfinished merge of the same
            runs, which is continued.
        force_differing: names of fields of the identity that may differ, such as ``batch_size``.

    Returns:
        The merged run.

    Raises:
        InputError: fewer than two runs; two runs with the same question and sample; or ``out`` has
            shards that differ from those of a new merge, because a run has changed since.
        IdentityError: the runs differ in another field, which the message names.
        DamagedError: the size of a shard differs from its commit record.
        StorageError: the file system refused.

    Example:
        >>> for name in ("one", "two"):
        ...     _ = Path(f"{name}.csv").write_text(f"question\nWho is {name}?\n")
        ...     _ = hallutrace.extract(hallutrace.ExtractConfig(questions=f"{name}.csv", out=name))
        >>> len(merge(["one", "two"], "both"))
        2
    """
    stores = [open_run(run) for run in runs]
    if len(stores) < 2:
        raise InputError(f"Expected at least two runs to merge, got {len(stores)}")
    check_mergeable(stores, set(force_differing))
    check_unique(stores)
    write_labels = carry_merged(stores)
    first = stores[0].manifest
    identity = {
        **{name: value for name, value in first.identity.items() if name != "subset"},
        "source": {"kind": "merge", "of": [store.manifest.fingerprint for store in stores]},
    }
    manifest = Manifest(identity, first.facts)
    planned = list(_merged_records(stores, manifest.fingerprint))
    run = _begin(Path(out), manifest)
    check_planned(run, [record for _, record in planned], "merge")
    with _as_storage_error(run):
        for traces, record in planned:
            if run.record(record.name) is not None:
                continue
            with _claimed(run, record.name):
                if run.record(record.name) is None:
                    _adopt(traces().path, run, record)
    merged = open_run(out)
    write_labels(merged)
    return merged


def _merged_records(
    stores: Sequence[TraceStore], fingerprint: str
) -> Iterator[tuple[Callable[[], ShardTraces], CommitRecord]]:
    """For each shard of a merge: a function that opens its source, and its new commit record."""
    number = offset = 0
    for store in stores:
        for index, record in enumerate(store.records):
            new = replace(
                record,
                name=f"{number:05d}",
                fingerprint=fingerprint,
                indices=[row + offset for row in record.indices],
            )
            yield partial(store.shard, index), new
            number += 1
        offset += 1 + max((row for record in store.records for row in record.indices), default=-1)


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

    Example:
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
    part = _begin(Path(out), manifest)
    check_planned(part, planned, "subset")
    with _as_storage_error(part):
        for begin, record in zip(range(0, len(chosen), size), planned, strict=True):
            if part.record(record.name) is not None:
                continue
            with _claimed(part, record.name) as held_claim:
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


@contextmanager
def _claimed(run: Run, name: str) -> Iterator[Claim]:
    """Holds a claim, so that no other process writes the shard at the same time."""
    claimed = claim(run.partial, name, UNKNOWN_COUNT)
    if isinstance(claimed, Holder):
        raise InputError(
            f"Expected to write the shard {name} of {run.folder}, got process {claimed.pid} on "
            f"{claimed.host} at it - let it end, then run the same command again"
        )
    with claimed:
        yield claimed
        claimed.done = run.record(name) is not None


@contextmanager
def _as_storage_error(run: Run) -> Iterator[None]:
    """Raises errors of the file system as StorageError."""
    try:
        yield
    except OSError as error:
        if isinstance(error, HallutraceError):
            raise
        raise StorageError(
            f"Expected to write the run {run.folder}, got: {error.strerror or error} - fix that; "
            "the same command goes on with it"
        ) from None


def _begin(out: Path, manifest: Manifest) -> Run:
    """Creates the new run, or opens an unfinished one with the same manifest."""
    run = Run(out)
    run.check_ours()
    if not run.exists():
        run.begin(manifest)
    run.manifest().check_same(manifest, out)
    if run.manifest().facts != manifest.facts:
        raise IdentityError(
            f"Expected a run of the same model facts in {out}, got others - choose another --out"
        )
    run.make_folders()
    return run


def _adopt(path: Path, run: Run, record: CommitRecord) -> None:
    """Commits a link to a shard of another run, or a copy of it."""
    scratch = run.partial / f"{record.name}.safetensors"
    scratch.unlink(missing_ok=True)
    run.shard_path(record.name).unlink(missing_ok=True)  # not committed: its process was killed
    try:
        os.link(path, scratch)
    except OSError:
        shutil.copyfile(path, scratch)
        with scratch.open("rb+") as file:
            os.fsync(file.fileno())
    publish(scratch, run.shard_path(record.name))
    run.commit(record)


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
