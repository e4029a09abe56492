"""New runs out of old ones, by linking or copying bytes, never by decoding."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hallutrace._core import Shard, ShardWriter, publish
from hallutrace.errors import IdentityError, InputError, UnrecordedError
from hallutrace.judges import contains
from hallutrace.labels import carry_merged, carry_part, read
from hallutrace.run import CommitRecord, Manifest, Run, differences
from hallutrace.store import TraceStore, open_run
from hallutrace.trace import Trace


def merge(
    runs: Sequence[str | Path], out: str | Path, *, force_differing: Iterable[str] = ()
) -> TraceStore:
    """One run out of several that differ in nothing but their questions.

    Shards are linked where the file system can, and copied elsewhere; the runs stay as they are.
    Labels that all of them have, made in the same way, go along; the others do not.

    Args:
        runs: folders, in the order their traces are to have.
        out: folder of the new run; it must not exist, or be an unfinished merge of the same runs.
        force_differing: fields of the identity that may differ, such as ``batch_size``.

    Returns:
        The merged run.

    Raises:
        InputError: fewer than two runs, or a question and sample that two of them hold.
        IdentityError: runs that differ in another field; it is named.
        DamagedError: a shard whose size is not what its commit record says.
    """
    stores = [open_run(run) for run in runs]
    if len(stores) < 2:
        raise InputError(f"Expected at least two runs to merge, got {len(stores)}")
    _check_mergeable(stores, set(force_differing))
    _check_unique(stores)
    write_labels = carry_merged(stores)
    first = stores[0].manifest
    identity = {
        **first.identity,
        "source": {"kind": "merge", "of": [store.manifest.fingerprint for store in stores]},
    }
    manifest = Manifest(identity, first.facts)
    run, fingerprint = _begin(Path(out), manifest), manifest.fingerprint
    number = offset = 0
    for store in stores:
        for traces in store.shards():
            record = replace(
                traces.record,
                name=f"{number:05d}",
                fingerprint=fingerprint,
                indices=[index + offset for index in traces.record.indices],
            )
            if run.record(record.name) is None:
                _adopt(traces.path, run, record)
            number += 1
        offset += 1 + max(
            (index for record in store.records for index in record.indices), default=-1
        )
    merged = open_run(out)
    write_labels(merged)
    return merged


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
    part, fingerprint = _begin(Path(out), manifest), manifest.fingerprint
    size = int(whole.manifest.identity["shard_size"])
    for number, begin in enumerate(range(0, len(chosen), size)):
        name = f"{number:05d}"
        if part.record(name) is None:
            _copy(whole, chosen[begin : begin + size], part, name, fingerprint)
    made = open_run(out)
    write_labels(made)
    return made


def _check_mergeable(stores: Sequence[TraceStore], forced: set[str]) -> None:
    first = stores[0].manifest.identity
    for store in stores[1:]:
        differing = [
            name
            for name, _, _ in differences(first, store.manifest.identity)
            if name.split(".")[0] != "source" and not {name, name.split(".")[0]} & forced
        ]
        if differing:
            raise IdentityError(
                "Expected runs that differ in nothing but their questions, got "
                f"{store.folder} with other {', '.join(differing)} - leave it out, or name the "
                "field with --force-differing"
            )


def _check_unique(stores: Sequence[TraceStore]) -> None:
    seen: dict[tuple[str, int], Path] = {}
    for store in stores:
        for record in store.records:
            for id_, sample in record.keys:
                before = seen.setdefault((id_, sample), store.folder)
                if before != store.folder:
                    raise InputError(
                        f"Expected each question once, got {id_!r}, sample {sample}, in "
                        f"{before} and {store.folder} - take it out of one with `hallutrace subset`"
                    )


def _begin(out: Path, manifest: Manifest) -> Run:
    """The new run, or the same one that was not finished."""
    run = Run(out)
    run.check_ours()
    run.begin(manifest)
    run.manifest().check_same(manifest, out)
    return run


def _adopt(path: Path, run: Run, record: CommitRecord) -> None:
    """Commits a shard of another run, by a link to its file or a copy."""
    scratch = run.partial / f"{record.name}.safetensors"
    scratch.unlink(missing_ok=True)
    run.shard_path(record.name).unlink(missing_ok=True)
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
        labels, keys = read(whole.folder, name), whole.keys()
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


def _copy(whole: TraceStore, chosen: Sequence[int], part: Run, name: str, fingerprint: str) -> None:
    """Copies traces into a shard of their own, and commits it."""
    types = whole.manifest.identity
    hidden: Any = types["hidden"]["dtype"]
    begin = partial(
        ShardWriter,
        part.folder,
        name,
        f"{fingerprint}/{name}",
        len(chosen),
        edge_weight=types["sparsification"]["edge_dtype"],
        hidden=hidden,
    )
    try:
        writer = begin()
    except UnrecordedError:
        # All of it is in the run that it is made of.
        part.shard_path(name).unlink()
        writer = begin()
    done = len(writer)
    keys, indices = [], []
    counts = {"traces": 0, "failures": 0, "judged": 0, "right": 0, "answer_tokens": 0}
    for number, at in enumerate(chosen):
        trace = whole[at]
        if number >= done:
            shard: Shard = trace.shard
            writer.append_from(shard, trace.position, number)
            writer.end_batch("")
        keys.append([trace.id, trace.sample])
        indices.append(whole.index_of(at))
        counts["traces"] += 1
        counts["answer_tokens"] += len(trace.logprob)
        counts["judged"] += bool(trace.references)
        counts["right"] += contains(trace.answer, trace.references)
    size, checksum = writer.finish()
    part.commit(
        CommitRecord(
            name=name,
            first=-1,
            questions=len({id_ for id_, _ in keys}),
            digest="",
            keys=keys,
            indices=indices,
            size=size,
            checksum=checksum,
            fingerprint=fingerprint,
            counts=counts,
            environment=whole.records[0].environment,
        )
    )
    writer.forget()
