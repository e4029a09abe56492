"""Merges of runs: their shards are linked, or copied, without decoding."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from hallutrace._core import publish
from hallutrace.errors import (
    InputError,
)
from hallutrace.store.folder import CommitRecord, Manifest, Run
from hallutrace.store.label_carrying import carry_merged
from hallutrace.store.merge_checks import check_mergeable, check_planned, check_unique
from hallutrace.store.new_run import as_storage_error, begin_run, claimed_shard
from hallutrace.store.reader import TraceStore, open_run
from hallutrace.store.shard_traces import ShardTraces


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

    Examples:
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
    run = begin_run(Path(out), manifest)
    check_planned(run, [record for _, record in planned], "merge")
    with as_storage_error(run):
        for traces, record in planned:
            if run.record(record.name) is not None:
                continue
            with claimed_shard(run, record.name):
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
