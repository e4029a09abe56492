"""What can be made good in a run without the model: lost records, and what kills leave behind.

====================================  ============================================================
found                                 done
====================================  ============================================================
no commit record, or one that cannot  the record is made again (:mod:`.rebuild`)
be read, over a good shard
a finished shard in ``partial``       moved to its place, and its record made again
without journal
a journal without its shard, a shard  removed: nothing can go on from them
in progress without its journal
a second name of a committed shard,   removed
its journal, record and claims
claims of dead processes              given up; links of a chain are removed once it is committed
stray temporary files                 removed where no process is at work
damaged shards, other runs' shards    left as they are, and named
====================================  ============================================================

A shard with its journal is in progress, and nothing is wrong with it: ``extract`` goes on there.
Every change is made under a claim of its own, so that no process is at work on the same shard.

Rooms: ``coverage`` (which questions a shard covers), ``rebuild`` (its record), ``repairer`` (what
is found and done). Imports flow coverage ◄ rebuild ◄ repairer.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hallutrace.errors import HallutraceError, StorageError
from hallutrace.retry import Retry
from hallutrace.store.folder import Run
from hallutrace.store.repair.repairer import Finding, Repairer

__all__ = ["Finding", "repair"]


def repair(
    folder: str | Path,
    *,
    dry_run: bool = False,
    questions: str | None = None,
    retry: Retry | None = None,
) -> Iterator[Finding]:
    """Repairs a run, shard after shard; every byte of it is checked on the way.

    Args:
        folder: of the run.
        dry_run: change nothing, and tell what would be done.
        questions: file or name of the questions (or responses) that the run was made of, where
            the manifest's own cannot be found any more.
        retry: of what fails for a moment, as when a hub is busy.

    Yields:
        A finding for each thing that was wrong; none for a run that is whole.

    Raises:
        NotARunError: no run in that folder.
        DamagedError: a manifest that cannot be trusted.
        StorageError: the file system refused.
    """
    run = Run(Path(folder))
    repairer = Repairer(run, dry_run, questions, retry or Retry())
    try:
        yield from repairer.repair_all()
    except OSError as error:
        if isinstance(error, HallutraceError):
            raise
        raise StorageError(
            f"Expected to repair {run.folder}, got: {error.strerror or error} - nothing committed "
            "was touched; fix the file system and repair again"
        ) from None
