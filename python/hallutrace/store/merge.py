"""New runs out of old ones, by linking or copying bytes, never by decoding."""

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
    r"""One run out of several that differ in nothing but their questions.

    Shards are linked where the file system can, and copied elsewhere; the runs stay as they are.
    Labels that all of them have, made in the same way, go along; the others do not.

    Args:
        runs: folders, in the order their traces are to have.
        out: folder of the new run; it must not exist, or be a merge of the same runs, which is gone
            on with where it holds nothing else than what a new one would begin with.
        force_differing: fields of the identity that may differ, such as ``batch_size``.

    Returns:
        The merged run.

    Raises:
        InputError: fewer than two runs, or a question and sample that two of them hold; or a merge
            in ``out`` that a source has outgrown, other than at its end.
        IdentityError: runs that differ in another field; it is named.
        DamagedError: a shard whose size is not what its commit record says.
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
    with _told(run):
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
    """What a merge consists of: a shard of a run, and the record that it is to have."""
    number = offset = 0
    for store in stores:
        for at, record in enumerate(store.records):
            new = replace(
                record,
                name=f"{number:05d}",
                fingerprint=fingerprint,
                indices=[index + offset for index in record.indices],
            )
            yield partial(store.shard, at), new
            number += 1
        offset += 1 + max(
            (index for record in store.records for index in record.indices), default=-1
        )


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
    """A part of a run as a run of its own; conditions that are given together must all hold.

    The labels of its traces go along.

    Args:
        run: folder of the whole.
        out: folder of the part; it must not exist, or be unfinished.
        ids: question ids, with all their samples.
        indices: places in the whole run, from 0.
        label: ``NAME=0`` (right) or ``NAME=1`` (hallucinated) by the labels of that name; or
            ``right`` or ``wrong``, whether the answer contains a reference, which needs no labels.
            Traces that were dropped, and those of questions without references, are neither.
        where: called with each trace that is left.
        sample: so many traces at random of those that are left.
        seed: of the sample.

    Returns:
        The part, in the order of the whole.

    Raises:
        InputError: nothing is left, or an id, an index or labels that the run does not have.
        DamagedError: a trace that is not what its checksums say, or labels that cannot be trusted.

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
    of = {"of": whole.manifest.fingerprint, "traces": chosen}
    manifest = Manifest({**whole.manifest.identity, "subset": of}, whole.manifest.facts)
    size = int(whole.manifest.identity["shard_size"])
    planned = [
        _part_record(whole, chosen[begin : begin + size], f"{number:05d}", manifest.fingerprint)
        for number, begin in enumerate(range(0, len(chosen), size))
    ]
    part = _begin(Path(out), manifest)
    check_planned(part, planned, "subset")
    with _told(part):
        for begin, record in zip(range(0, len(chosen), size), planned, strict=True):
            if part.record(record.name) is not None:
                continue
            with _claimed(part, record.name) as mine:
                if part.record(record.name) is None:
                    found = part.take_published(record.name, record.fingerprint)
                    if found is None:
                        _copy(whole, chosen[begin : begin + size], part, record, mine.check)
                    elif (found.keys, found.indices) == (record.keys, record.indices):
                        part.commit(found)
                    else:
                        raise InputError(
                            f"Expected the finished shard {record.name} of {part.folder} to hold "
                            "what a new subset would, got other traces: the run has changed since "
                            "- subset into another folder, or delete this one first"
                        )
    made = open_run(out)
    write_labels(made)
    return made


@contextmanager
def _claimed(run: Run, name: str) -> Iterator[Claim]:
    """Within it, no other process writes the shard."""
    mine = claim(run.partial, name, UNKNOWN_COUNT)
    if isinstance(mine, Holder):
        raise InputError(
            f"Expected to write the shard {name} of {run.folder}, got process {mine.pid} on "
            f"{mine.host} at it - let it end, then run the same command again"
        )
    with mine:
        yield mine
        mine.done = run.record(name) is not None


@contextmanager
def _told(run: Run) -> Iterator[None]:
    """Within it, what the file system says is told as a StorageError."""
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
    """The new run, or the same one that was not finished."""
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
    """Commits a shard of another run, by a link to its file or a copy."""
    scratch = run.partial / f"{record.name}.safetensors"
    scratch.unlink(missing_ok=True)
    run.shard_path(record.name).unlink(missing_ok=True)  # without its record it is not finished
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
        chosen = [at for at in chosen if keys[at][0] in wanted]
    return [
        at
        for at in chosen
        if (has_label is None or has_label(at)) and (where is None or where(whole[at]))
    ]


def _label_condition(whole: TraceStore, label: str) -> Callable[[int], bool]:
    """Whether the trace at a place of the run has a label."""
    name, equals, value = label.rpartition("=")
    if equals and value in ("0", "1"):
        labels, keys = read_labels(whole.folder, name), whole.keys()
        return lambda at: labels.get(keys[at]) == int(value)
    if label not in ("right", "wrong"):
        raise InputError(
            f"Expected `label` to be right, wrong, NAME=0 or NAME=1, got {label!r} - the names are "
            f"{', '.join(whole.labels()) or 'none yet: make some with `hallutrace label`'}"
        )

    def is_so(at: int) -> bool:
        trace = whole[at]
        is_right = contains(trace.answer, trace.references)
        return bool(trace.references) and is_right == (label == "right")

    return is_so


def _part_record(
    whole: TraceStore, chosen: Sequence[int], name: str, fingerprint: str
) -> CommitRecord:
    """The record of a shard of a subset, but for what its bytes decide."""
    keys = whole.keys()
    ids = [list(keys[at]) for at in chosen]
    return CommitRecord(
        name=name,
        first=-1,
        questions=len({id_ for id_, _ in ids}),
        digest="",
        keys=ids,
        indices=[whole.index_of(at) for at in chosen],
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
    """Copies traces into a shard of their own, and commits it."""
    types = whole.manifest.identity
    hidden: Any = types["hidden"]["dtype"]
    # What was begun of other traces is begun anew.
    held = digest([record.keys, record.indices]).hex()[:16]
    writer = ShardWriter(
        part.folder,
        record.name,
        f"{record.fingerprint}/{record.name}/{held}",
        len(chosen),
        record.description(),
        edge_weight=types["sparsification"]["edge_dtype"],
        hidden=hidden,
    )
    done = len(writer)
    counts = {**record.counts, "judged": 0, "right": 0, "answer_tokens": 0}
    for number, at in enumerate(chosen):
        trace = whole[at]
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
