"""Checks that runs can be merged, and that an unfinished merge or subset can be continued."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hallutrace.errors import IdentityError, InputError
from hallutrace.option_names import parameter
from hallutrace.store.folder import CommitRecord, Run, differences
from hallutrace.store.reader import TraceStore

# Fields of the identity that readers need, so they must be equal for all traces of a run.
READER_FIELDS = ("sparsification.heads", "marginal_rows")
# Fields of a commit record that are known before a subset is copied, and those known after.
PLANNED = ("first", "questions", "digest", "keys", "indices", "fingerprint")
COPIED = ("size", "checksum", "counts")


def check_mergeable(stores: Sequence[TraceStore], forced: set[str]) -> None:
    """Checks that runs differ only in their questions.

    Args:
        stores: the runs.
        forced: names of fields of the identity that may differ.

    Raises:
        IdentityError: other fields differ, or fields that readers need; the message names them.
    """
    first = stores[0].manifest
    for store in stores[1:]:
        names = [name for name, _, _ in differences(first.identity, store.manifest.identity)]
        names = [name for name in names if name.split(".")[0] != "source"]
        differing = [name for name in names if not {name, name.split(".")[0]} & forced]
        if differing:
            raise IdentityError(
                f"Expected runs that differ in nothing but their questions, got {store.folder} "
                f"with other {', '.join(differing)} - leave it out, or name the field with "
                f"{parameter('force_differing')}"
            )
        facts = [
            name
            for name, _, _ in differences(first.facts, store.manifest.facts)
            if name in ("layers", "hidden_size", "captured_layers", "heads", "value_heads")
        ]
        unreadable = [name for name in names if name.startswith(READER_FIELDS)] + facts
        if unreadable:
            raise IdentityError(
                "Expected runs whose traces are read in the same way, got "
                f"{store.folder} with other {', '.join(unreadable)} - leave it out"
            )


def check_unique(stores: Sequence[TraceStore]) -> None:
    """Checks that no question and sample occurs in two runs.

    Raises:
        InputError: one does; the message names it and both runs.
    """
    folders: dict[Path, Path] = {}
    for store in stores:
        earlier = folders.setdefault(store.folder.resolve(), store.folder)
        if earlier is not store.folder:
            raise InputError(
                f"Expected different runs, got one as {earlier} and as {store.folder} - "
                "name it once"
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
    """Checks that the committed shards of an unfinished run are those that would be written now.

    Args:
        run: the new run, which may have committed shards.
        planned: commit records of all its shards; a size of 0 means that the bytes are not known
            yet.
        verb: ``merge`` or ``subset``, for the error message.

    Raises:
        InputError: a shard differs; the message names it and the fields.
    """
    wanted = {record.name: record for record in planned}
    for record in run.records():
        new = wanted.get(record.name)
        if new is None:
            differing = ["no such shard now"]
        else:
            names = PLANNED if new.size == 0 else (*PLANNED, *COPIED)
            differing = [
                f"other {name}" for name in names if getattr(record, name) != getattr(new, name)
            ]
        if differing:
            traces = sum(len(other.keys) for other in planned)
            raise InputError(
                f"Expected the shard {record.name} of {run.folder} to be what a new {verb} would "
                f"write, got {', '.join(differing)}: what it was made of has changed since (now "
                f"{traces:,} traces) - {verb} into another folder, or delete this one first"
            )
