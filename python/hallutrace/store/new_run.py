"""Runs that are made of other runs: begun once, a shard written by one process at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hallutrace.errors import (
    HallutraceError,
    IdentityError,
    InputError,
    StorageError,
)
from hallutrace.option_names import parameter
from hallutrace.store.claims import UNKNOWN_COUNT, Claim, Holder, claim
from hallutrace.store.folder import Manifest, Run


@contextmanager
def claimed_shard(run: Run, name: str) -> Iterator[Claim]:
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
def as_storage_error(run: Run) -> Iterator[None]:
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


def begin_run(out: Path, manifest: Manifest) -> Run:
    """Creates the new run, or opens an unfinished one with the same manifest."""
    run = Run(out)
    run.check_ours()
    if not run.exists():
        run.begin(manifest)
    run.manifest().check_same(manifest, out)
    if run.manifest().facts != manifest.facts:
        raise IdentityError(
            f"Expected a run of the same model facts in {out}, got others - choose another "
            f"{parameter('out')}"
        )
    run.make_folders()
    return run
