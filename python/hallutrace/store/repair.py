"""Repairs a run without the model: missing commit records and leftovers of killed processes.

====================================  ============================================================
problem                               action
====================================  ============================================================
commit record of an intact shard      written again from the header of the shard, which contains all
missing or unreadable                 fields but size and checksum
finished shard in ``partial``         moved to ``shards``, and its record written again
without journal
journal without its shard, unfinished removed, because they cannot be continued
shard without its journal
leftovers in ``partial`` of a         removed
committed shard: link to the shard,
journal, record, claims
claims of dead processes              released; claims of committed shards are removed
temporary files                       removed if no process works on the run
damaged shards, shards of other runs  reported, not changed
====================================  ============================================================

An unfinished shard with its journal needs no repair: ``extract`` continues it. The process claims
a shard before it changes it, so that no other process works on it at the same time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from hallutrace._core import Shard, publish
from hallutrace.errors import HallutraceError, InputError, StorageError
from hallutrace.store.claims import (
    UNKNOWN_COUNT,
    Claim,
    Holder,
    claim,
    last_holder,
    left_behind,
    links,
    running_holder,
)
from hallutrace.store.folder import CommitRecord, Run
from hallutrace.store.records import SCHEMA
from hallutrace.store.verify import damage_of, is_merged

NAME = re.compile(r"(retry-)?\d{5,}")
TEMPORARY_FILES = ("manifest-*.json", ".clock-*", ".released-*")


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem of a run.

    Attributes:
        name: of the shard; empty for a problem of the whole run.
        problem: description of the problem.
        action: what was done about it, or would be done in a dry run; if it cannot be repaired,
            what the user can do.
        is_left: whether nothing was changed, because the problem cannot be repaired.
    """

    name: str
    problem: str
    action: str
    is_left: bool = False


def repair(folder: str | Path, *, dry_run: bool = False) -> Iterator[Finding]:
    """Repairs a run, one shard after the other; all checksums are verified.

    Args:
        folder: of the run.
        dry_run: change nothing, only report what would be done.

    Yields:
        A finding for each problem.

    Raises:
        NotARunError: the folder has no run.
        DamagedError: the manifest is invalid.
        StorageError: the file system refused.

    Examples:
        >>> (run / "shards" / "00000.json").unlink()
        >>> [finding.action for finding in repair(run)]
        ['its commit record made again from its 8 traces']
    """
    run = Run(Path(folder))
    try:
        yield from Repairer(run, dry_run).repair_all()
    except OSError as error:
        if isinstance(error, HallutraceError):
            raise
        raise StorageError(
            f"Expected to repair {run.folder}, got: {error.strerror or error} - nothing committed "
            "was touched; mend the file system and repair again"
        ) from None


class Repairer:
    """Repairs one run, see :func:`repair`.

    Args:
        run: folder of the run.
        dry_run: change nothing.
    """

    def __init__(self, run: Run, dry_run: bool) -> None:
        self._run, self._dry_run = run, dry_run
        self._manifest = run.manifest()
        self._records: dict[str, CommitRecord] = {}
        self._unreadable: set[str] = set()

    def repair_all(self) -> Iterator[Finding]:
        """Repairs all shards in order, then removes temporary files."""
        if not self._dry_run:
            for folder in (self._run.shards, self._run.partial):
                folder.mkdir(exist_ok=True)
        names = self._names()
        for name in list(names):
            try:
                record = self._run.record(name)
            except StorageError as error:
                # The record may be valid, so it is neither replaced nor used.
                names.remove(name)
                yield Finding(name, str(error), "fix the disk and repair again", is_left=True)
            except HallutraceError:
                self._unreadable.add(name)
            else:
                if record is not None:
                    self._records[name] = record
        for name in names:
            yield from self._repair_shard(name)
        yield from self._remove_temporary_files(names)

    def _names(self) -> list[str]:
        """Names of all shards of which there is a file in ``shards`` or ``partial``, in order."""
        found = {path.stem for kind in ("json", "safetensors") for path in self._in_shards(kind)}
        partial = [path.name for path in self._run.partial.glob("*.*")]
        found |= {
            match[1]
            for match in (
                re.fullmatch(r"(.+?)\.(safetensors|journal|json|claim(\..*)?)", file)
                for file in partial
            )
            if match and NAME.fullmatch(match[1])
        }
        return sorted(found, key=lambda name: (name.startswith("retry-"), len(name), name))

    def _in_shards(self, kind: str) -> Iterator[Path]:
        return self._run.shards.glob(f"*.{kind}")

    def _repair_shard(self, name: str) -> Iterator[Finding]:
        """Repairs one shard."""
        if not NAME.fullmatch(name):
            problem = f"files in shards that are called {name}, as no shard is"
            yield Finding(name, problem, "move them away", is_left=True)
            return
        record = self._records.get(name)
        if record is not None:
            damage = damage_of(self._run, record, self._manifest)
            if damage:
                yield Finding(name, *_split_message(damage), is_left=True)
            else:
                yield from self._remove_files(name, "of a committed shard", is_committed=True)
            return
        path, partial = self._run.shard_path(name), self._run.partial / f"{name}.safetensors"
        if path.exists():
            yield from self._recommit(name, path)
        elif name in self._unreadable:
            yield Finding(
                name,
                "neither a commit record that can be read nor a shard is there",
                "restore both from a copy, or delete the record and extract again",
                is_left=True,
            )
        elif not partial.exists():
            yield from self._remove_files(name, "without its shard")
        elif (self._run.partial / f"{name}.journal").exists():
            yield from self._release_claim(name)
        elif _opens(partial):
            yield from self._recommit(name, partial)
        else:
            yield from self._remove_files(name, "without its journal")

    # Records ----------------------------------------------------------------------------------

    def _recommit(self, name: str, path: Path) -> Iterator[Finding]:
        """Writes the record of an intact shard again."""
        where = f"in {path.parent.name}/{path.name}"
        problem = f"a shard without its commit record {where}"
        if name in self._unreadable:
            problem = f"a commit record that cannot be read over the shard {where}"
            schema = _schema_of(self._run.shards / f"{name}.json")
            if schema is not None and schema > SCHEMA:
                action = f"it is of schema {schema}: use a hallutrace that knows it"
                yield Finding(name, problem, action, is_left=True)
                return
        own_claim = self._claim(name)
        if isinstance(own_claim, Holder):
            holder = f"process {own_claim.pid} on {own_claim.host}"
            action = f"{holder} is at work on it: repair once it has ended"
            yield Finding(name, problem, action, is_left=True)
            return
        with own_claim or nullcontext():
            if name not in self._unreadable and self._run.record(name) is not None:
                if own_claim is not None:
                    own_claim.done = True
                return  # another process has committed it in the meantime
            try:
                record = self._record_from_shard(name, path)
            except StorageError:
                raise
            except HallutraceError as error:
                found, action = _split_message(str(error))
                yield Finding(name, f"{problem}: {found}", action, is_left=True)
                return
            if own_claim is not None:
                self._commit(name, path, record)
                own_claim.done = True
        self._records[name] = record
        verb = "would be made again" if self._dry_run else "made again"
        action = f"its commit record {verb} from its {len(record.keys):,} traces"
        yield Finding(name, problem, action)

    def _record_from_shard(self, name: str, path: Path) -> CommitRecord:
        """Builds the commit record of a shard from its header, and verifies all checksums.

        Raises:
            DamagedError: the shard is damaged.
            InputError: the shard has another name or is of another run, or the run is a merge,
                whose shards contain the records of their sources.
        """
        shard = Shard(path)
        shard.verify()
        record = CommitRecord.of_shard(shard.commit(), shard.keys(), shard.bytes, shard.digest())
        if is_merged(self._manifest):
            raise InputError(
                f"Expected a run whose shards are its own, got one merged of others in "
                f"{self._run.folder} - the same `hallutrace merge` writes the record again"
            )
        ours = self._manifest.fingerprint
        if record.fingerprint != ours:
            raise InputError(
                f"Expected a shard of the run {ours}, got one of {record.fingerprint} as {name} - "
                "it is of another run; move it away"
            )
        if record.name != name:
            raise InputError(
                f"Expected the shard {name}, got {record.name} in its place - rename it, or move "
                "it away"
            )
        return record

    def _commit(self, name: str, path: Path, record: CommitRecord) -> None:
        if name in self._unreadable:
            (self._run.shards / f"{name}.json").unlink()
        if path != self._run.shard_path(name):
            publish(path, self._run.shard_path(name))
        self._run.commit(record)
        for kind in ("safetensors", "journal"):
            (self._run.partial / f"{name}.{kind}").unlink(missing_ok=True)

    # Leftovers --------------------------------------------------------------------------------

    def _remove_files(self, name: str, why: str, is_committed: bool = False) -> Iterator[Finding]:
        """Removes the files in ``partial`` of a shard that are not needed."""
        partial = self._run.partial
        files = [partial / f"{name}.{kind}" for kind in ("safetensors", "journal", "json")]
        files = [path for path in files if path.exists()]
        chain = [path for path in links(partial / f"{name}.claim") if path.exists()]
        if not files and not (is_committed and chain):
            yield from self._release_claim(name)
            return
        if not files and last_holder(partial, name) is None:
            return  # its holder has just deleted the claims
        listed = ", ".join(path.name for path in [*files, *(chain if is_committed else [])])
        problem = f"{listed} in partial, {why}"
        own_claim = self._claim(name)
        if isinstance(own_claim, Holder):
            return  # that process deletes the files itself
        if own_claim is not None:
            with own_claim:
                if is_committed or self._run.record(name) is None:
                    for path in files:
                        path.unlink(missing_ok=True)
                own_claim.done = is_committed or self._run.record(name) is not None
        yield Finding(name, problem, "would be removed" if self._dry_run else "removed")

    def _release_claim(self, name: str) -> Iterator[Finding]:
        """Releases the claim of a dead process; deletes its files only if the shard is committed.

        Another process may be about to create the next claim of the chain. If the chain were
        deleted, a third process could claim the shard as well.
        """
        last = last_holder(self._run.partial, name)
        if last is None or last[1].released or running_holder(self._run.partial, name):
            return
        own_claim = self._claim(name)
        if isinstance(own_claim, Holder):
            return
        if own_claim is not None:
            with own_claim:  # released on exit
                own_claim.done = self._run.record(name) is not None
        problem = f"a claim of process {last[1].pid} on {last[1].host}, which is gone"
        yield Finding(name, problem, "would be given up" if self._dry_run else "given up")

    def _remove_temporary_files(self, names: list[str]) -> Iterator[Finding]:
        """Removes temporary files of killed processes, unless a process still works on the run."""
        if any(running_holder(self._run.partial, name) for name in names):
            return
        leftovers = [path for kind in TEMPORARY_FILES for path in self._run.partial.glob(kind)]
        leftovers = sorted({*leftovers, *left_behind(self._run.partial)})
        if not leftovers:
            return
        if not self._dry_run:
            for path in leftovers:
                path.unlink(missing_ok=True)
        listed = ", ".join(path.name for path in leftovers[:5]) + ", ..." * (len(leftovers) > 5)
        action = "would be removed" if self._dry_run else "removed"
        yield Finding("", f"{len(leftovers)} temporary files in partial ({listed})", action)

    # Claims -----------------------------------------------------------------------------------

    def _claim(self, name: str) -> Claim | Holder | None:
        """Claims a shard, see :func:`claim`; in a dry run only its holder is returned, or None."""
        if self._dry_run:
            return running_holder(self._run.partial, name)
        return claim(self._run.partial, name, UNKNOWN_COUNT)


def _opens(path: Path) -> bool:
    """Whether a file has the header of a finished shard."""
    try:
        Shard(path)
    except HallutraceError:
        return False
    return True


def _schema_of(path: Path) -> int | None:
    """Schema of a commit record; None if it cannot be read."""
    try:
        schema = json.loads(path.read_bytes())["schema"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return schema if isinstance(schema, int) else None


def _split_message(message: str) -> tuple[str, str]:
    """Splits an error message into problem and fix."""
    problem, dash, fix = message.rpartition(" - ")
    return (problem, fix) if dash else (message, "restore it from a copy")
