"""Whether a run is what its commit records say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from hallutrace._core import Shard
from hallutrace.errors import HallutraceError
from hallutrace.store.finite_numbers import FLOATS, count_not_finite
from hallutrace.store.folder import CommitRecord, Manifest, Run


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one shard.

    Attributes:
        name: of the shard.
        traces: that its commit record tells of.
        damage: what is wrong; None where nothing is.
    """

    name: str
    traces: int
    damage: str | None


def verify_run(folder: Path, fast: bool = False) -> Iterator[Finding]:
    """Checks every shard of a run, one after another.

    Args:
        folder: of the run.
        fast: headers and sizes alone, not checksums and data.

    Yields:
        A finding for each commit record, in the order of names, damaged ones included, and one for
        each shard file that no commit record is for and nobody works on.

    Raises:
        NotARunError: no run in that folder.
        DamagedError: a manifest that cannot be trusted.
    """
    run = Run(folder)
    manifest = run.manifest()
    names = {path.stem for path in run.shards.glob("*.json")}
    seen: dict[tuple[str, int], str] = {}
    for name in sorted(names):
        try:
            record = CommitRecord.read(run.shards / f"{name}.json")
        except HallutraceError as error:
            yield Finding(name, 0, str(error))
            continue
        damage = damage_of(run, record, manifest, fast) or _repeated(record, seen)
        yield Finding(name, len(record.keys), damage)
    for path in sorted(run.shards.glob("*.safetensors")):
        if path.stem not in names and not (run.partial / f"{path.stem}.claim").exists():
            yield Finding(
                path.stem,
                0,
                f"Expected a commit record beside {path}, got none - `hallutrace repair` makes it "
                "again, or the same `hallutrace extract` finishes the shard",
            )


def _repeated(record: CommitRecord, seen: dict[tuple[str, int], str]) -> str | None:
    """A key that this shard has twice, or one before it has already; what it has is added."""
    for id_, sample in record.keys:
        if (id_, sample) in seen:
            before = seen[id_, sample]
            where = f"twice in {before}" if before == record.name else f"in {before} as well"
            return (
                f"Expected each question and sample once in a run, got {id_!r}, sample {sample}, "
                f"{where} - make the run anew: `hallutrace merge` or `hallutrace subset` of what "
                "it was made of, into another folder"
            )
        seen[id_, sample] = record.name
    return None


def is_merged(manifest: Manifest) -> bool:
    """Whether a run is made of other runs' shards, whose headers tell of those runs."""
    return bool(manifest.identity.get("source", {}).get("kind") == "merge")


def damage_of(run: Run, record: CommitRecord, manifest: Manifest, fast: bool = False) -> str | None:
    """What is wrong with a committed shard, and how to fix it; None where nothing is.

    Args:
        run: that it is of.
        record: its commit record.
        manifest: of the run.
        fast: header and size alone, not checksums and data.
    """
    path = run.shard_path(record.name)
    restore = "restore it from a copy, or delete it with its commit record and extract again"
    if record.fingerprint != manifest.fingerprint:
        return (
            f"Expected a shard of the run {manifest.fingerprint}, got one of {record.fingerprint} "
            f"in {path} - {restore}"
        )
    try:
        shard = Shard(path)
        told = CommitRecord.of_shard(shard.commit(), shard.keys(), shard.bytes, record.checksum)
        if shard.bytes != record.size or told.keys != record.keys:
            return (
                f"Expected {record.size} bytes and {len(record.keys)} traces in {path}, as its "
                f"commit record says, got {shard.bytes} bytes and {len(told.keys)} traces - "
                f"{restore}"
            )
        theirs = ("name", "fingerprint", "indices") if is_merged(manifest) else ()
        differing = [
            field.name
            for field in fields(record)
            if field.name not in theirs and getattr(told, field.name) != getattr(record, field.name)
        ]
        if differing:
            return (
                f"Expected a commit record that says what its shard says, got another "
                f"{', '.join(differing)} than in the header of {path} - delete the record, and "
                "`hallutrace repair` makes it again"
            )
        if not fast:
            shard.verify()
            digest = shard.digest()
            if digest != record.checksum:
                return (
                    f"Expected the checksum {record.checksum} of {path}, as its commit record "
                    f"says, got {digest} - {restore}"
                )
            return _not_finite(shard, path)
    except HallutraceError as error:
        return str(error)
    return None


def _not_finite(shard: Shard, path: Path) -> str | None:
    """The first number of a shard that is none: whole bytes, but nothing can be made of them."""
    for position, (_, id_, sample) in enumerate(shard.keys()):
        for name in FLOATS:
            found = shard.tensor(position, name)
            if found is None:
                continue
            dtype, _, raw = found
            bad = count_not_finite(dtype, raw)
            if bad:
                return (
                    f"Expected finite numbers, got {bad:,} that are not in `{name}` of the trace "
                    f"{id_!r}, sample {sample}, in {path} - the model overflowed: extract the "
                    "question again with --dtype bfloat16 or float32, into another run"
                )
    return None
