"""Verifies that the shards of a run match their commit records and are not damaged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from hallutrace._core import Shard
from hallutrace.errors import HallutraceError
from hallutrace.option_names import parameter
from hallutrace.store.finite_numbers import count_not_finite
from hallutrace.store.folder import CommitRecord, Manifest, Run
from hallutrace.store.tensor_names import FLOATS


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of the verification of one shard.

    Attributes:
        name: of the shard.
        traces: number of traces by its commit record; 0 if that cannot be read.
        damage: error message; None if the shard is intact.
    """

    name: str
    traces: int
    damage: str | None


def verify_run(folder: Path, fast: bool = False) -> Iterator[Finding]:
    """Verifies all shards of a run, one after the other.

    Args:
        folder: of the run.
        fast: check only headers and sizes, not checksums and values.

    Yields:
        A finding for each commit record, sorted by name, and one for each shard file without a
        commit record that no process has claimed.

    Raises:
        NotARunError: the folder has no run.
        DamagedError: the manifest is invalid.

    Examples:
        >>> [(finding.traces, finding.damage) for finding in verify_run(run)]
        [(8, None)]
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
        damage = damage_of(run, record, manifest, fast) or _duplicate_key(record, seen)
        yield Finding(name, len(record.keys), damage)
    for path in sorted(run.shards.glob("*.safetensors")):
        if path.stem not in names and not (run.partial / f"{path.stem}.claim").exists():
            yield Finding(
                path.stem,
                0,
                f"Expected a commit record beside {path}, got none - `hallutrace repair` makes it "
                "again, or the same `hallutrace extract` finishes the shard",
            )


def _duplicate_key(record: CommitRecord, seen: dict[tuple[str, int], str]) -> str | None:
    """Error message if a key of this shard is in ``seen``; adds its keys to ``seen``."""
    for id_, sample in record.keys:
        if (id_, sample) in seen:
            other = seen[id_, sample]
            where = f"twice in {other}" if other == record.name else f"in {other} as well"
            return (
                f"Expected each question and sample once in a run, got {id_!r}, sample {sample}, "
                f"{where} - make the run anew: `hallutrace merge` or `hallutrace subset` of what "
                "it was made of, into another folder"
            )
        seen[id_, sample] = record.name
    return None


def is_merged(manifest: Manifest) -> bool:
    """Whether a run is a merge; the headers of its shards then describe shards of other runs."""
    return bool(manifest.identity.get("source", {}).get("kind") == "merge")


def damage_of(run: Run, record: CommitRecord, manifest: Manifest, fast: bool = False) -> str | None:
    """Verifies a committed shard.

    Args:
        run: folder of the run.
        record: commit record of the shard.
        manifest: of the run.
        fast: check only header and size, not checksums and values.

    Returns:
        Error message with a fix; None if the shard is intact.
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
        header = CommitRecord.of_shard(shard.commit(), shard.keys(), shard.bytes, record.checksum)
        if shard.bytes != record.size or header.keys != record.keys:
            return (
                f"Expected {record.size} bytes and {len(record.keys)} traces in {path}, as its "
                f"commit record says, got {shard.bytes} bytes and {len(header.keys)} traces - "
                f"{restore}"
            )
        if differing := _differing(header, record, manifest):
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


def _differing(header: CommitRecord, record: CommitRecord, manifest: Manifest) -> list[str]:
    """Fields of a commit record that are not as the header of its shard says."""
    # A merge changes these fields in the record, but not in the header of the linked shard.
    changed = ("name", "fingerprint", "indices") if is_merged(manifest) else ()
    names = (field.name for field in fields(record) if field.name not in changed)
    return [name for name in names if getattr(header, name) != getattr(record, name)]


def _not_finite(shard: Shard, path: Path) -> str | None:
    """Error message for the first tensor with NaN or infinity, which checksums do not detect."""
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
                    f"question again with {parameter('dtype', 'bfloat16')} or float32, into "
                    "another run"
                )
    return None
