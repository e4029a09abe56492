"""What runs have to agree in to be made into one, and what a new run has to agree with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hallutrace.errors import IdentityError, InputError
from hallutrace.store.folder import CommitRecord, Run, differences
from hallutrace.store.reader import TraceStore

# What readers take from one manifest for all traces of a run.
READ_BY = ("sparsification.heads", "marginal_rows")
# Fields of a record that follow from the traces themselves; a subset learns the rest by copying.
PLANNED = ("first", "questions", "digest", "keys", "indices", "fingerprint")
OF_BYTES = ("size", "checksum", "counts")


def check_mergeable(stores: Sequence[TraceStore], forced: set[str]) -> None:
    """Refuses runs that differ in more than their questions.

    Raises:
        IdentityError: naming the fields, or facts that one manifest cannot say of all traces.
    """
    first = stores[0].manifest
    for store in stores[1:]:
        names = [name for name, _, _ in differences(first.identity, store.manifest.identity)]
        names = [name for name in names if name.split(".")[0] != "source"]
        differing = [name for name in names if not {name, name.split(".")[0]} & forced]
        if differing:
            raise IdentityError(
                "Expected runs that differ in nothing but their questions, got "
                f"{store.folder} with other {', '.join(differing)} - leave it out, or name the "
                "field with --force-differing"
            )
        facts = [
            name
            for name, _, _ in differences(first.facts, store.manifest.facts)
            if name in ("layers", "hidden_size", "captured_layers", "heads", "value_heads")
        ]
        unreadable = [name for name in names if name.startswith(READ_BY)] + facts
        if unreadable:
            raise IdentityError(
                "Expected runs whose traces are read in the same way, got "
                f"{store.folder} with other {', '.join(unreadable)} - leave it out"
            )


def check_unique(stores: Sequence[TraceStore]) -> None:
    """Refuses a question and sample that comes twice.

    Raises:
        InputError: naming it, and where it is.
    """
    folders: dict[Path, Path] = {}
    for store in stores:
        before = folders.setdefault(store.folder.resolve(), store.folder)
        if before is not store.folder:
            raise InputError(
                f"Expected different runs, got one as {before} and as {store.folder} - name it once"
            )
    seen: dict[tuple[str, int], Path] = {}
    for store in stores:
        for record in store.records:
            for id_, sample in record.keys:
                if (id_, sample) in seen:
                    raise InputError(
                        f"Expected each question once, got {id_!r}, sample {sample}, in "
                        f"{seen[id_, sample]} and {store.folder} - take it out of one with "
                        "`hallutrace subset`"
                    )
                seen[id_, sample] = store.folder


def check_planned(run: Run, planned: Sequence[CommitRecord], verb: str) -> None:
    """Refuses a run whose shards are others than those that are about to be written.

    Args:
        run: the new run, or what there is of it.
        planned: all its records; a size of 0 stands for bytes that are not known yet.
        verb: what is done, for the message.

    Raises:
        InputError: naming the shard and what differs.
    """
    wanted = {record.name: record for record in planned}
    for record in run.records():
        new = wanted.get(record.name)
        if new is None:
            differing = ["no such shard now"]
        else:
            names = PLANNED if new.size == 0 else (*PLANNED, *OF_BYTES)
            differing = [
                f"other {name}" for name in names if getattr(record, name) != getattr(new, name)
            ]
        if differing:
            traces = sum(len(one.keys) for one in planned)
            raise InputError(
                f"Expected the shard {record.name} of {run.folder} to be what a new {verb} would "
                f"write, got {', '.join(differing)}: what it was made of has changed since (now "
                f"{traces:,} traces) - {verb} into another folder, or delete this one first"
            )
