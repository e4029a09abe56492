"""Deletion of an existing run for `--overwrite`.

The files of a run are first moved into a temporary folder within its folder, the manifest before
the others. A folder without a manifest is not a run. So a killed process leaves either the complete
run, or remains without a manifest, which the next command deletes. Other files in the folder stay.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hallutrace.atomic_files import storage_errors, sync_folder
from hallutrace.errors import HallutraceError, InputError
from hallutrace.label_protocols import JUDGES
from hallutrace.option_names import parameter
from hallutrace.store.claims import UNKNOWN_COUNT, Holder, claim, left_behind, running_holder
from hallutrace.store.folder import ASIDE, MANIFEST, RUN_FILES, Run


def check_may_go(run: Run) -> None:
    """Checks that a run may be deleted.

    Raises:
        InputError: another process writes the run, or it has labels that no command can make again.
    """
    for name in sorted({path.name.partition(".claim")[0] for path in run.partial.glob("*.claim*")}):
        holder = running_holder(run.partial, name) if name else None
        if holder is not None:
            raise InputError(
                f"Expected a run that no other process uses, got process {holder.pid} on "
                f"{holder.host} at shard {name} of {run.folder} - let it end or stop it, or "
                f"choose another {parameter('out')}"
            )
    labels = labels_from_files(run)
    if labels:
        raise InputError(
            f"Expected a run without labels from a file, got {', '.join(labels)} in "
            f"{run.folder / 'labels'}, which would be deleted - move these files to another "
            "folder (`hallutrace label --from` takes them again), or choose "
            f"another {parameter('out')}"
        )


def labels_from_files(run: Run) -> list[str]:
    """Names of label files that no judge of this package can make again."""
    from hallutrace.store.label_files import names, read_parameters

    found = []
    for name in names(run.folder):
        try:
            parameters = read_parameters(run.folder, name)
        except HallutraceError:
            parameters = None  # a damaged file: the origin is not known
        if parameters is None or parameters.get("by") not in JUDGES:
            found.append(f"{name}.jsonl")
    return found


def clear(run: Run) -> None:
    """Deletes a run, its labels included.

    Raises:
        InputError: as :func:`check_may_go`, or another process deletes the run.
        StorageError: the file system refused.
    """
    with _claimed(run):
        check_may_go(run)
        if run.exists():
            aside = _make_aside(run)
            (run.folder / MANIFEST).rename(aside / MANIFEST)
            try:
                # A process that claims a shard from now on finds no manifest, and stops.
                # One that claimed a shard before is found here.
                check_may_go(run)
            except InputError:
                (aside / MANIFEST).rename(run.folder / MANIFEST)
                aside.rmdir()
                raise
        _delete_remains(run)


def clear_remains(run: Run) -> None:
    """Finishes the deletion of a run whose process was killed.

    Raises:
        InputError: another process deletes the run.
        StorageError: the file system refused.
    """
    if run.folder.is_dir() and any(run.folder.glob(f"{ASIDE}*")):
        with _claimed(run):
            _delete_remains(run)


@contextmanager
def _claimed(run: Run) -> Iterator[None]:
    """Holds a claim, so that no other process deletes the run at the same time."""
    own_claim = claim(run.folder, ".overwriting", UNKNOWN_COUNT)
    if isinstance(own_claim, Holder):
        raise InputError(
            f"Expected to start {run.folder} over, got process {own_claim.pid} on "
            f"{own_claim.host}, which does so as well - let it end, or choose another "
            f"{parameter('out')}"
        )
    with own_claim:
        task = f"start {run.folder} over"
        fix = f"make the folder writable, or choose another {parameter('out')}"
        try:
            with storage_errors(task, fix):
                yield
        finally:
            own_claim.done = True  # so that the claim file is deleted


def _delete_remains(run: Run) -> None:
    """Deletes what was moved aside, and if there is no manifest all other files of the run."""
    if not run.exists() and any(run.folder.glob(f"{ASIDE}*")):
        aside = _make_aside(run)
        for name in RUN_FILES:
            with suppress(FileNotFoundError):
                (run.folder / name).rename(aside / name)
        _sync(run.folder)
    for aside in run.folder.glob(f"{ASIDE}*"):
        shutil.rmtree(aside, ignore_errors=True)
    for path in left_behind(run.folder):
        path.unlink(missing_ok=True)


def _make_aside(run: Run) -> Path:
    aside = run.folder / f"{ASIDE}{secrets.token_hex(4)}"
    aside.mkdir()
    return aside


def _sync(folder: Path) -> None:
    with suppress(OSError):  # some systems cannot sync folders
        sync_folder(folder)
