"""A run on disk: its folder, and what happens to it."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from hallutrace.errors import DamagedError, InputError, NotARunError, StorageError, UnrecordedError
from hallutrace.paths import expanded
from hallutrace.store.claims import left_behind, links
from hallutrace.store.failures import FailureLog
from hallutrace.store.records import CommitRecord, Manifest, differences

__all__ = ["CommitRecord", "Manifest", "Run", "differences"]

MANIFEST = "manifest.json"
FOLDERS = ("shards", "partial", "labels")
RUN_FILES = (MANIFEST, "failures.jsonl", *FOLDERS)
OVERWRITING = ".overwrit"  # begins the names of what a run that is started over leaves
ASIDE = f"{OVERWRITING}ten-"  # and those of folders with what is about to be deleted


class Run:
    """The folder of a run.

    Args:
        folder: where it is, or will be.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder = expanded(folder)
        self.shards = folder / "shards"
        self.partial = folder / "partial"
        self.failures = FailureLog(folder / "failures.jsonl")

    def exists(self) -> bool:
        """Whether a manifest is there."""
        return (self.folder / MANIFEST).is_file()

    def check_ours(self) -> None:
        """Refuses a folder that is something else than a run, begun or not.

        Raises:
            InputError: a file, or a folder with other files.
            StorageError: the file system does not let anybody look.
        """
        folder = self.folder
        try:
            if folder.exists() and not folder.is_dir():
                raise InputError(
                    f"Expected a folder for the run, got the file {folder} - change --out"
                )
            if not folder.exists() or self.exists():
                return
            names = [entry.name for entry in folder.iterdir()]
        except OSError as error:
            raise StorageError(
                f"Expected to look into the folder {folder}, got: {error.strerror} - "
                "choose another --out"
            ) from None
        if any(name.startswith(OVERWRITING) for name in names):
            return
        # Another process may have begun the run since.
        if not set(names) <= {*FOLDERS, MANIFEST, *(RUN_FILES if MANIFEST in names else ())}:
            raise InputError(
                f"Expected an empty folder or a run, got {folder} with other files - change --out"
            )

    def manifest(self) -> Manifest:
        """Reads the manifest.

        Raises:
            NotARunError: there is none.
            DamagedError: it is not one.
        """
        path = self.folder / MANIFEST
        if not self.exists():
            found = "no such folder" if not self.folder.exists() else f"no {MANIFEST} in it"
            raise NotARunError(
                f"Expected a run in {self.folder}, got {found} - "
                "give the folder that `hallutrace extract` wrote"
            )
        return Manifest.read(path)

    def begin(self, manifest: Manifest) -> bool:
        """Makes the folders, and the manifest where there is none.

        Returns:
            Whether the manifest is ours; False if another process was first.

        Raises:
            StorageError: the folder cannot be written.
        """
        from hallutrace._core import write_new

        self.make_folders()
        if self.exists():
            return False
        # Each process writes a file of its own, and one of them gets the name.
        scratch = self.partial / f"manifest-{secrets.token_hex(4)}.json"
        try:
            write_new(scratch, self.folder / MANIFEST, manifest.to_json())
        except StorageError:
            if not self.exists():
                raise
            return False
        finally:
            with suppress(OSError):
                scratch.unlink(missing_ok=True)
        return True

    def make_folders(self) -> None:
        """Makes what folders are missing.

        Raises:
            StorageError: the file system refused.
        """
        try:
            for folder in (self.folder, *(self.folder / name for name in FOLDERS)):
                if not folder.is_dir():
                    folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"Expected to make the folder {folder}, got: {error.strerror} - "
                "choose another --out"
            ) from None

    def check_current(self, fingerprint: str) -> None:
        """Refuses to write into a folder that was given to another run.

        Raises:
            InputError: the manifest is gone, or another's.
        """
        if not self.exists() or self.manifest().fingerprint != fingerprint:
            raise InputError(
                f"Expected the run in {self.folder} as this process found it, got another that was "
                "begun meanwhile with --overwrite - run the same command again, or choose another "
                "--out"
            )

    def commit(self, record: CommitRecord) -> None:
        """Writes a commit record, durably and never over another."""
        from hallutrace._core import write_new

        name = f"{record.name}.json"
        write_new(self.partial / name, self.shards / name, record.to_json())

    def take_published(self, name: str, fingerprint: str) -> CommitRecord | None:
        """The record of a finished shard, made of the shard; None where there is no such shard.

        For a shard that a kill left without its record. Every byte of it is checked, and its name
        is made durable, so that the record may be committed.

        Raises:
            DamagedError: it is damaged.
            UnrecordedError: it is of another run, or another shard.
        """
        from hallutrace._core import take_published

        found = take_published(self.folder, name)
        if found is None:
            return None
        record = CommitRecord.of_shard(*found)
        if (record.name, record.fingerprint) != (name, fingerprint):
            raise UnrecordedError(
                f"Expected the shard {name} of the run {fingerprint} at {self.shard_path(name)}, "
                f"got {record.name} of {record.fingerprint} - move it away, and the same command "
                "makes the shard"
            )
        return record

    def records(self) -> list[CommitRecord]:
        """All commit records, in the order of their names."""
        paths = sorted(self.shards.glob("*.json")) if self.shards.is_dir() else []
        return [CommitRecord.read(path) for path in paths]

    def check_ours_alone(self, records: Iterable[CommitRecord], fingerprint: str) -> None:
        """Refuses shards of another run in this folder.

        Raises:
            DamagedError: naming the first.
        """
        for record in records:
            if record.fingerprint != fingerprint:
                raise DamagedError(
                    f"Expected shards of the run {fingerprint}, got {record.fingerprint} in shard "
                    f"{record.name} of {self.folder} - it belongs to another run"
                )

    def record(self, name: str) -> CommitRecord | None:
        """The commit record of one shard, if it is there by now."""
        path = self.shards / f"{name}.json"
        return CommitRecord.read(path) if path.exists() else None

    def tidy(self, committed: Iterable[str]) -> None:
        """Removes what a kill may leave in ``partial`` of what is committed.

        It may come between the two names of a file, before the end of a journal, or before a claim
        is given up. A process that is still at it does not mind: what it wrote is in place. Where
        nothing can be removed, as in a folder that is read-only, it stays.
        """
        left = [*self.partial.glob("manifest-*.json"), *self.partial.glob(".clock-*")]
        left += left_behind(self.partial)
        for name in committed:
            left += [self.partial / f"{name}.json", self.partial / f"{name}.journal"]
            left += links(self.partial / f"{name}.claim")
        for path in left:
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def shard_path(self, name: str) -> Path:
        """Where a committed shard lies."""
        return self.shards / f"{name}.safetensors"
