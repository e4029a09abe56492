"""The manifest of a run, and the commit records of its shards."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hallutrace.canonical_json import canonical, digest, to_utf8
from hallutrace.errors import DamagedError, IdentityError, StorageError
from hallutrace.option_names import parameter

SCHEMA = 2
FIX_OTHER_SCHEMA = "another version of hallutrace wrote it: extract it anew"


@dataclass(frozen=True)
class Manifest:
    """Settings of a run, and facts about its model and source.

    Attributes:
        identity: all settings that decide the bytes of the run; runs with equal identities have
            equal traces.
        facts: of the model and the source: captured layers, heads, windows, notes.
    """

    identity: dict[str, Any]
    facts: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """Hash of identity and facts, 16 hexadecimal digits; each shard of the run contains it."""
        # As read back from the file: keys are strings, and tuples are lists.
        content = json.loads(canonical({"identity": self.identity, "facts": self.facts}))
        return digest(content).hex()[:16]

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Reads a manifest.

        Raises:
            DamagedError: the file is not a manifest, has another schema, or was changed since it
                was written.
            StorageError: the file cannot be read.
        """
        content = read_json(path)
        try:
            schema, fingerprint = content["schema"], content["fingerprint"]
            manifest = cls(content["identity"], content["facts"])
        except (KeyError, TypeError):
            raise DamagedError(
                f"Expected a manifest, got something else in {path} - restore it from a copy"
            ) from None
        if schema != SCHEMA:
            raise DamagedError(
                f"Expected a manifest of schema {SCHEMA}, got schema {schema} in {path} - "
                f"{FIX_OTHER_SCHEMA}"
            )
        if fingerprint != manifest.fingerprint:
            raise DamagedError(
                f"Expected identity and facts with the fingerprint {fingerprint}, as the manifest "
                f"says of itself, got others ({manifest.fingerprint}) in {path} - something "
                "changed it: restore it from a copy"
            )
        return manifest

    def to_json(self) -> bytes:
        """Content of the file, as indented JSON."""
        content = {
            "schema": SCHEMA,
            "fingerprint": self.fingerprint,
            "identity": self.identity,
            "facts": self.facts,
        }
        text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)
        return to_utf8(text + "\n")

    def check_same(self, asked: Manifest, where: Path) -> None:
        """Checks that another manifest has the same identity.

        Args:
            asked: manifest of the settings that the user gave.
            where: folder of the run, for the error message.

        Raises:
            IdentityError: fields differ; the message names them.
        """
        differing = list(differences(self.identity, asked.identity))
        if differing:
            fields = "; ".join(
                f"{name} is {_short(there)}, asked {_short(here)}"
                for name, there, here in differing[:6]
            )
            more = f" and {len(differing) - 6} more" if len(differing) > 6 else ""
            raise IdentityError(
                f"Expected the settings of the run in {where}, got others ({fields}{more}) - "
                f"choose another {parameter('out')}, or start over with "
                f"{parameter('overwrite', True)}"
            )


def differences(there: Any, here: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Compares two identities.

    Args:
        there: identity of an existing run, or a part of it.
        here: identity to compare with it.
        name: dotted name of the part; empty for the whole.

    Yields:
        Dotted name, value in ``there`` and value in ``here`` of each field that differs.

    Examples:
        >>> list(differences({"model": {"dtype": "float32"}}, {"model": {"dtype": "float16"}}))
        [('model.dtype', 'float32', 'float16')]
    """
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted({*there, *here}):
            yield from differences(there.get(key), here.get(key), f"{name}.{key}".lstrip("."))
    elif there != here:
        yield name, there, here


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


@dataclass(frozen=True)
class CommitRecord:
    """Description of a shard; the shard is committed once the record is a file of the run.

    Attributes:
        name: of the shard, ``00042`` or ``retry-00000``.
        first: number of its first question in the order of the source, from 0, without invalid
            rows; -1 for a shard of retried questions and of a subset.
        questions: number of its questions.
        digest: hash of these questions, hexadecimal; empty for a shard of a subset.
        keys: ``[question id, sample]`` of each trace, in the source's order.
        indices: row in the source of each trace, as ``keys``.
        size: of the shard file, bytes.
        checksum: XXH3 of the shard file, hexadecimal.
        fingerprint: of the run's manifest.
        counts: number of traces, failures, answers that contain a reference, and answer tokens.
        environment: versions, device and threads as text, integers or None.
        halvings: batches that were halved because memory ran out, ``[batch, size]``.
    """

    name: str
    first: int
    questions: int
    digest: str
    fingerprint: str
    environment: dict[str, Any]
    keys: list[list[Any]] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)
    size: int = 0
    checksum: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    halvings: list[list[int]] = field(default_factory=list)

    def to_json(self) -> bytes:
        """Content of the file, as canonical JSON."""
        return canonical({"schema": SCHEMA, **asdict(self)}) + b"\n"

    def description(self) -> str:
        """The fields that are known before the shard is written, for its header, as JSON."""
        names = ("digest", "environment", "fingerprint", "first", "name", "questions")
        return canonical({name: getattr(self, name) for name in names}).decode()

    @classmethod
    def of_shard(
        cls, commit: str, keys: Iterable[tuple[int, str, int]], size: int, checksum: str
    ) -> CommitRecord:
        """Builds the record of a finished shard from the shard alone.

        Args:
            commit: fields of the record in the header of the shard, as JSON.
            keys: number, question id and sample of each trace.
            size: of the file, bytes.
            checksum: XXH3 of the file, hexadecimal.
        """
        ordered = [[id_, sample] for _, id_, sample in sorted(keys)]
        return cls(**json.loads(commit), keys=ordered, size=size, checksum=checksum)

    @classmethod
    def read(cls, path: Path) -> CommitRecord:
        """Reads a commit record.

        Raises:
            DamagedError: the file is not a commit record, or has another schema.
            StorageError: the file cannot be read.
        """
        content = read_json(path)
        schema = content.pop("schema", None) if isinstance(content, dict) else None
        if type(schema) is int and schema != SCHEMA:
            raise DamagedError(
                f"Expected a commit record of schema {SCHEMA}, got schema {schema} in {path} - "
                f"{FIX_OTHER_SCHEMA}"
            )
        try:
            if schema is None or content["name"] != path.stem:
                raise ValueError("another schema or name")
            record = cls(**content)
            record._check()
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DamagedError(
                f"Expected a commit record of schema {SCHEMA}, got {error} in {path} - "
                "restore it from a copy, or delete it with its shard and extract again"
            ) from None
        return record

    def _check(self) -> None:
        """Checks the types, because the file may be damaged or hostile."""
        numbers = (self.first, self.questions, self.size, *self.indices, *self.counts.values())
        texts = (self.digest, self.checksum, self.fingerprint)
        keys = [(id_, sample) for id_, sample in self.keys]
        if (
            any(type(number) is not int for number in numbers)
            or any(type(text) is not str for text in texts)
            or any(type(id_) is not str or type(sample) is not int for id_, sample in keys)
            or "traces" not in self.counts
            or type(self.environment) is not dict
            or type(self.halvings) is not list
        ):
            raise ValueError("a field of another type")
        if len(self.keys) != len(self.indices):
            raise ValueError("other indices than keys")


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        StorageError: the file cannot be read.
        DamagedError: the file is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise StorageError(f"Expected to read {path}, got: {error.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DamagedError(
            f"Expected JSON in {path}, got {error} - restore it from a copy"
        ) from None
