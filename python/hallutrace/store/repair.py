"""What can be made good in a run without the model: lost records, and what kills leave behind.

====================================  ============================================================
found                                 done
====================================  ============================================================
no commit record, or one that cannot  the record is made again from the shard, whose header says
be read, over a good shard            all of it but size and checksum
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
    living,
)
from hallutrace.store.folder import CommitRecord, Run
from hallutrace.store.records import SCHEMA
from hallutrace.store.verify import damage_of, is_merged

NAME = re.compile(r"(retry-)?\d{5,}")
STRAYS = ("manifest-*.json", ".clock-*", ".released-*")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that was wrong with a run.

    Attributes:
        name: of the shard; empty where it is about the run.
        problem: what was found.
        action: what was done, or would be; where it is left, what to do.
        is_left: whether it is left as it was, because it cannot be repaired.
    """

    name: str
    problem: str
    action: str
    is_left: bool = False


def repair(folder: str | Path, *, dry_run: bool = False) -> Iterator[Finding]:
    """Repairs a run, shard after shard; every byte of it is checked on the way.

    Args:
        folder: of the run.
        dry_run: change nothing, and tell what would be done.

    Yields:
        A finding for each thing that was wrong; none for a run that is whole.

    Raises:
        NotARunError: no run in that folder.
        DamagedError: a manifest that cannot be trusted.
        StorageError: the file system refused.
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
    """One repair of a run.

    Args:
        run: to be repaired.
        dry_run: change nothing.
    """

    def __init__(self, run: Run, dry_run: bool) -> None:
        self._run, self._dry_run = run, dry_run
        self._manifest = run.manifest()
        self._records: dict[str, CommitRecord] = {}
        self._unreadable: set[str] = set()

    def repair_all(self) -> Iterator[Finding]:
        """All shards in order, then what belongs to none."""
        if not self._dry_run:
            for folder in (self._run.shards, self._run.partial):
                folder.mkdir(exist_ok=True)
        names = self._names()
        for name in list(names):
            try:
                record = self._run.record(name)
            except StorageError as error:
                # Nobody knows what it says: it may well be good.
                names.remove(name)
                yield Finding(name, str(error), "fix the disk and repair again", is_left=True)
            except HallutraceError:
                self._unreadable.add(name)
            else:
                if record is not None:
                    self._records[name] = record
        for name in names:
            yield from self._shard(name)
        yield from self._strays(names)

    def _names(self) -> list[str]:
        """Whatever is called like a shard or like something of one, in the order of shards."""
        found = {path.stem for kind in ("json", "safetensors") for path in self._in_shards(kind)}
        partial = [path.name for path in self._run.partial.glob("*.*")]
        found |= {
            match[1]
            for match in (
                re.fullmatch(r"(.+?)\.(safetensors|journal|json|claim(\..*)?)", one)
                for one in partial
            )
            if match and NAME.fullmatch(match[1])
        }
        return sorted(found, key=lambda name: (name.startswith("retry-"), len(name), name))

    def _in_shards(self, kind: str) -> Iterator[Path]:
        return self._run.shards.glob(f"*.{kind}")

    def _shard(self, name: str) -> Iterator[Finding]:
        """One shard, whatever there is of it."""
        if not NAME.fullmatch(name):
            problem = f"files in shards that are called {name}, as no shard is"
            yield Finding(name, problem, "move them away", is_left=True)
            return
        record = self._records.get(name)
        if record is not None:
            damage = damage_of(self._run, record, self._manifest)
            if damage:
                yield Finding(name, *_in_two(damage), is_left=True)
            else:
                yield from self._clear(name, "of a committed shard", is_committed=True)
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
            yield from self._clear(name, "without its shard")
        elif (self._run.partial / f"{name}.journal").exists():
            yield from self._give_up_claim(name)
        elif _opens(partial):
            yield from self._recommit(name, partial)
        else:
            yield from self._clear(name, "without its journal")

    # Records ----------------------------------------------------------------------------------

    def _recommit(self, name: str, path: Path) -> Iterator[Finding]:
        """Makes the record of a good shard again, and commits it."""
        where = f"in {path.parent.name}/{path.name}"
        problem = f"a shard without its commit record {where}"
        if name in self._unreadable:
            problem = f"a commit record that cannot be read over the shard {where}"
            schema = _schema_of(self._run.shards / f"{name}.json")
            if schema is not None and schema > SCHEMA:
                action = f"it is of schema {schema}: use a hallutrace that knows it"
                yield Finding(name, problem, action, is_left=True)
                return
        mine = self._claim(name)
        if isinstance(mine, Holder):
            action = f"process {mine.pid} on {mine.host} is at work on it: repair once it has ended"
            yield Finding(name, problem, action, is_left=True)
            return
        with mine or nullcontext():
            if name not in self._unreadable and self._run.record(name) is not None:
                if mine is not None:
                    mine.done = True
                return  # another process has finished it meanwhile
            try:
                record = self._made_again(name, path)
            except StorageError:
                raise
            except HallutraceError as error:
                found, action = _in_two(str(error))
                yield Finding(name, f"{problem}: {found}", action, is_left=True)
                return
            if mine is not None:
                self._commit(name, path, record)
                mine.done = True
        self._records[name] = record
        verb = "would be made again" if self._dry_run else "made again"
        told = f"its commit record {verb} from its {len(record.keys):,} traces"
        yield Finding(name, problem, told)

    def _made_again(self, name: str, path: Path) -> CommitRecord:
        """The record that a shard tells of; every byte of it is checked.

        Raises:
            DamagedError: the shard is damaged.
            InputError: it is another shard than its name says, or of another run.
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

    def _clear(self, name: str, why: str, is_committed: bool = False) -> Iterator[Finding]:
        """Removes what is left in ``partial`` of a shard that does not need it."""
        partial = self._run.partial
        files = [partial / f"{name}.{kind}" for kind in ("safetensors", "journal", "json")]
        files = [path for path in files if path.exists()]
        chain = [path for path in links(partial / f"{name}.claim") if path.exists()]
        if not files and not (is_committed and chain):
            yield from self._give_up_claim(name)
            return
        if not files and last_holder(partial, name) is None:
            return  # its holder has just taken it away
        listed = ", ".join(path.name for path in [*files, *(chain if is_committed else [])])
        problem = f"{listed} in partial, {why}"
        mine = self._claim(name)
        if isinstance(mine, Holder):
            return  # who is at work there clears up by itself
        if mine is not None:
            with mine:
                if is_committed or self._run.record(name) is None:
                    for path in files:
                        path.unlink(missing_ok=True)
                mine.done = is_committed or self._run.record(name) is not None
        yield Finding(name, problem, "would be removed" if self._dry_run else "removed")

    def _give_up_claim(self, name: str) -> Iterator[Finding]:
        """Gives up the claim of a dead process; without a record its links have to stay.

        Another process may be about to inherit it: were the links gone, a third could claim the
        shard too.
        """
        last = last_holder(self._run.partial, name)
        if last is None or last[1].released or living(self._run.partial, name):
            return
        mine = self._claim(name)
        if isinstance(mine, Holder):
            return
        if mine is not None:
            with mine:  # its end gives it up
                mine.done = self._run.record(name) is not None
        problem = f"a claim of process {last[1].pid} on {last[1].host}, which is gone"
        yield Finding(name, problem, "would be given up" if self._dry_run else "given up")

    def _strays(self, names: list[str]) -> Iterator[Finding]:
        """Temporary files whose process was killed; a process at work may still want its own."""
        if any(living(self._run.partial, name) for name in names):
            return
        strays = [path for kind in STRAYS for path in self._run.partial.glob(kind)]
        strays = sorted({*strays, *left_behind(self._run.partial)})
        if not strays:
            return
        if not self._dry_run:
            for path in strays:
                path.unlink(missing_ok=True)
        listed = ", ".join(path.name for path in strays[:5]) + ", ..." * (len(strays) > 5)
        action = "would be removed" if self._dry_run else "removed"
        yield Finding("", f"{len(strays)} temporary files in partial ({listed})", action)

    # Claims -----------------------------------------------------------------------------------

    def _claim(self, name: str) -> Claim | Holder | None:
        """The right to work on a shard, or who has it; None in a dry run where nobody has."""
        if self._dry_run:
            return living(self._run.partial, name)
        return claim(self._run.partial, name, UNKNOWN_COUNT)


def _opens(path: Path) -> bool:
    """Whether a file is a finished shard, as far as its header tells."""
    try:
        Shard(path)
    except HallutraceError:
        return False
    return True


def _schema_of(path: Path) -> int | None:
    """The schema that a record says it is of, where it is JSON at all."""
    try:
        schema = json.loads(path.read_bytes())["schema"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return schema if isinstance(schema, int) else None


def _in_two(message: str) -> tuple[str, str]:
    """What is wrong, and how to fix it."""
    problem, dash, fix = message.rpartition(" - ")
    return (problem, fix) if dash else (message, "restore it from a copy")
