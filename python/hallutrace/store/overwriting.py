"""Starting a run over: what `--overwrite` deletes, and what it refuses to.

A run is moved aside within its folder, its manifest first: without it there is no run, so whatever
a kill leaves is either the whole run as it was, or its remains, which the next command clears.
Other files in the folder stay.
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
from hallutrace.store.claims import UNKNOWN_COUNT, Holder, claim, left_behind, living
from hallutrace.store.folder import ASIDE, MANIFEST, RUN_FILES, Run


def check_may_go(run: Run) -> None:
    """Refuses to delete a run that somebody else needs.

    Raises:
        InputError: another process writes it, or it has labels that no command makes again.
    """
    for name in sorted({path.name.partition(".claim")[0] for path in run.partial.glob("*.claim*")}):
        holder = living(run.partial, name) if name else None
        if holder is not None:
            raise InputError(
                f"Expected a run that no other process uses, got process {holder.pid} on "
                f"{holder.host} at shard {name} of {run.folder} - let it end or stop it, "
                "or choose another --out"
            )
    labels = labels_from_files(run)
    if labels:
        raise InputError(
            f"Expected a run without labels from a file, got {', '.join(labels)} in "
            f"{run.folder / 'labels'}, which would be deleted - move these files to another "
            "folder (`hallutrace label --from` takes them again), or choose another --out"
        )


def labels_from_files(run: Run) -> list[str]:
    """Names of files with labels that no judge of this package would make again."""
    from hallutrace.store.label_files import names, read_parameters

    found = []
    for name in names(run.folder):
        try:
            made = read_parameters(run.folder, name)
        except HallutraceError:
            made = None  # nobody knows how they were made
        if made is None or made.get("by") not in JUDGES:
            found.append(f"{name}.jsonl")
    return found


def clear(run: Run) -> None:
    """Deletes a run, its labels included.

    Raises:
        InputError: as :func:`check_may_go`, or another process is deleting it as well.
        StorageError: the file system refused.
    """
    with _alone(run):
        check_may_go(run)
        if run.exists():
            aside = _make_aside(run)
            (run.folder / MANIFEST).rename(aside / MANIFEST)
            try:
                # Whoever claimed a shard since finds no manifest, and gives up.
                check_may_go(run)
            except InputError:
                (aside / MANIFEST).rename(run.folder / MANIFEST)
                aside.rmdir()
                raise
        _end(run)


def clear_remains(run: Run) -> None:
    """Ends what a kill cut short.

    Raises:
        InputError: another process is at it.
        StorageError: the file system refused.
    """
    if run.folder.is_dir() and any(run.folder.glob(f"{ASIDE}*")):
        with _alone(run):
            _end(run)


@contextmanager
def _alone(run: Run) -> Iterator[None]:
    """Within it, no other process starts the run over."""
    mine = claim(run.folder, ".overwriting", UNKNOWN_COUNT)
    if isinstance(mine, Holder):
        raise InputError(
            f"Expected to start {run.folder} over, got process {mine.pid} on {mine.host}, which "
            "does so as well - let it end, or choose another --out"
        )
    with mine:
        task, fix = f"start {run.folder} over", "make the folder writable, or choose another --out"
        try:
            with storage_errors(task, fix):
                yield
        finally:
            mine.done = True  # the claim leaves no trace


def _end(run: Run) -> None:
    """Without a manifest, all that is left of a run goes; with one, what was moved aside goes."""
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
