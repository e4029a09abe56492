"""The folder of a run: manifest, commit records, paths of shards, leftovers of killed processes."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from hallutrace.errors import DamagedError, InputError, NotARunError, StorageError, UnrecordedError
from hallutrace.option_names import parameter
from hallutrace.paths import expanded
from hallutrace.store.claims import left_behind, links
from hallutrace.store.failures import FailureLog
from hallutrace.store.records import CommitRecord, Manifest, differences

__all__ = ["CommitRecord", "Manifest", "Run", "differences"]

MANIFEST = "manifest.json"
FOLDERS = ("shards", "partial", "labels")
RUN_FILES = (MANIFEST, "failures.jsonl", *FOLDERS, "projections")
OVERWRITING = ".overwrit"  # prefix of all temporary names of `--overwrite`
ASIDE = f"{OVERWRITING}ten-"  # prefix of folders whose content is about to be deleted


class Run:
    """The folder of a run.

    Args:
        folder: path of the folder, which need not exist.

    Examples:
        >>> Run(folder).exists()
        False
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder = expanded(folder)
        self.shards = folder / "shards"
        self.partial = folder / "partial"
        self.failures = FailureLog(folder / "failures.jsonl")

    def exists(self) -> bool:
        """Whether the folder has a manifest."""
        return (self.folder / MANIFEST).is_file()

    def check_ours(self) -> None:
        """Checks that the folder is missing, empty or a run.

        Raises:
            InputError: the path is a file, or the folder contains other files.
            StorageError: the folder cannot be read.
        """
        folder = self.folder
        try:
            if folder.exists() and not folder.is_dir():
                raise InputError(
                    f"Expected a folder for the run, got the file {folder} - change "
                    f"{parameter('out')}"
                )
            if not folder.exists() or self.exists():
                return
            names = [entry.name for entry in folder.iterdir()]
        except OSError as error:
            raise StorageError(
                f"Expected to look into the folder {folder}, got: {error.strerror} - choose "
                f"another {parameter('out')}"
            ) from None
        if any(name.startswith(OVERWRITING) for name in names):
            return
        # Another process may have written the manifest since.
        if not set(names) <= {*FOLDERS, MANIFEST, *(RUN_FILES if MANIFEST in names else ())}:
            raise InputError(
                f"Expected an empty folder or a run, got {folder} with other files - change "
                f"{parameter('out')}"
            )

    def manifest(self) -> Manifest:
        """Reads the manifest.

        Raises:
            NotARunError: the folder has no manifest.
            DamagedError: the manifest is invalid.
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
        """Creates the folders, and the manifest if it is missing.

        Returns:
            Whether this call created the manifest; False if the folder had one.

        Raises:
            StorageError: the folder cannot be written.
        """
        from hallutrace._core import write_new

        self.make_folders()
        if self.exists():
            return False
        # Each process writes a temporary file; only one of them gets the final name.
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
        """Creates the missing folders of the run.

        Raises:
            StorageError: the file system refused.
        """
        try:
            for folder in (self.folder, *(self.folder / name for name in FOLDERS)):
                if not folder.is_dir():
                    folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"Expected to make the folder {folder}, got: {error.strerror} - choose another "
                f"{parameter('out')}"
            ) from None

    def check_current(self, fingerprint: str) -> None:
        """Checks that no other process has overwritten the run.

        Args:
            fingerprint: of the manifest when this process began.

        Raises:
            InputError: the manifest is missing, or has another fingerprint.
        """
        if not self.exists() or self.manifest().fingerprint != fingerprint:
            raise InputError(
                f"Expected the run in {self.folder} as this process found it, got another that "
                f"was begun meanwhile with {parameter('overwrite', True)} - run the same command "
                f"again, or choose another {parameter('out')}"
            )

    def commit(self, record: CommitRecord) -> None:
        """Writes a commit record durably; it never replaces an existing one.

        Raises:
            StorageError: the record exists, or the file system refused.
        """
        from hallutrace._core import write_new

        name = f"{record.name}.json"
        write_new(self.partial / name, self.shards / name, record.to_json())

    def take_published(self, name: str, fingerprint: str) -> CommitRecord | None:
        """The commit record of a finished shard, derived from the shard file.

        For a shard whose process was killed before it wrote the record. All checksums are verified
        and the file name is made durable, so that the caller may commit the record.

        Args:
            name: of the shard.
            fingerprint: of the run.

        Returns:
            The record, not yet committed; None if there is no such shard file.

        Raises:
            DamagedError: the shard is damaged.
            UnrecordedError: the file is a shard of another run, or another shard of this one.
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
        """All commit records, sorted by name.

        Raises:
            DamagedError: a record is invalid.
        """
        paths = sorted(self.shards.glob("*.json")) if self.shards.is_dir() else []
        return [CommitRecord.read(path) for path in paths]

    def check_ours_alone(self, records: Iterable[CommitRecord], fingerprint: str) -> None:
        """Checks that the records belong to this run.

        Args:
            records: commit records.
            fingerprint: of the run.

        Raises:
            DamagedError: a record has another fingerprint; the message names the first one.
        """
        for record in records:
            if record.fingerprint != fingerprint:
                raise DamagedError(
                    f"Expected shards of the run {fingerprint}, got {record.fingerprint} in shard "
                    f"{record.name} of {self.folder} - it belongs to another run"
                )

    def record(self, name: str) -> CommitRecord | None:
        """The commit record of one shard; None if the shard is not committed.

        Raises:
            DamagedError: the record is invalid.
        """
        path = self.shards / f"{name}.json"
        return CommitRecord.read(path) if path.exists() else None

    def tidy(self, committed: Iterable[str]) -> None:
        """Deletes leftovers of committed shards in ``partial``.

        A process may be killed after it committed a shard and before it deleted the temporary name
        of the record, the journal or the claim. Deletion is safe while that process still runs,
        because it no longer needs these files. Files that cannot be deleted, as on a read-only file
        system, stay.

        Args:
            committed: names of committed shards.
        """
        leftovers = [*self.partial.glob("manifest-*.json"), *self.partial.glob(".clock-*")]
        leftovers += left_behind(self.partial)
        for name in committed:
            leftovers += [self.partial / f"{name}.json", self.partial / f"{name}.journal"]
            leftovers += links(self.partial / f"{name}.claim")
        for path in leftovers:
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def shard_path(self, name: str) -> Path:
        """Path of the file of a committed shard."""
        return self.shards / f"{name}.safetensors"
