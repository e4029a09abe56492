"""What a run says of itself: its manifest, and the commit records of its shards."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hallutrace.canonical_json import canonical, digest, to_utf8
from hallutrace.errors import DamagedError, IdentityError, StorageError

SCHEMA = 2
ANEW = "another version of hallutrace wrote it: extract it anew"


@dataclass(frozen=True)
class Manifest:
    """What a run was asked for.

    Attributes:
        identity: all that decides its bytes; two runs with the same are the same run.
        facts: of the model and the source: layers captured, heads, windows, notes.
    """

    identity: dict[str, Any]
    facts: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that stand for identity and facts, in the shards of the run."""
        # As the file has them: names are text, and tuples are lists.
        content = json.loads(canonical({"identity": self.identity, "facts": self.facts}))
        return digest(content).hex()[:16]

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Reads one.

        Raises:
            DamagedError: not a manifest, of another schema, or changed since it was written.
        """
        content = read_json(path)
        try:
            schema, told = content["schema"], content["fingerprint"]
            manifest = cls(content["identity"], content["facts"])
        except (KeyError, TypeError):
            raise DamagedError(
                f"Expected a manifest, got something else in {path} - restore it from a copy"
            ) from None
        if schema != SCHEMA:
            raise DamagedError(
                f"Expected a manifest of schema {SCHEMA}, got schema {schema} in {path} - {ANEW}"
            )
        if told != manifest.fingerprint:
            raise DamagedError(
                f"Expected identity and facts with the fingerprint {told}, as the manifest says of "
                f"itself, got others ({manifest.fingerprint}) in {path} - something changed it: "
                "restore it from a copy"
            )
        return manifest

    def to_json(self) -> bytes:
        """The file's content, readable."""
        content = {
            "schema": SCHEMA,
            "fingerprint": self.fingerprint,
            "identity": self.identity,
            "facts": self.facts,
        }
        text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)
        return to_utf8(text + "\n")

    def check_same(self, asked: Manifest, where: Path) -> None:
        """Refuses another identity.

        Raises:
            IdentityError: naming the fields that differ.
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
                "choose another --out, or start over with --overwrite"
            )


def differences(there: Any, here: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The fields in which two identities differ: dotted name, value there, value here."""
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
    """What makes a shard done; before it is, what is known of it so far.

    Attributes:
        name: of the shard, ``00042`` or ``retry-00000``.
        first: number of the first question it covers, in the source's order, bad rows not counted;
            -1 for a shard of retried questions.
        questions: how many questions it covers.
        digest: of those questions.
        keys: ``[question id, sample]`` of each trace, in the source's order.
        indices: row in the source of each trace, as ``keys``.
        size: bytes of the shard.
        checksum: XXH3 of the shard, hexadecimal.
        fingerprint: of the run's manifest.
        counts: traces, failures, answers that contain a reference, tokens.
        environment: versions, device, threads: text, whole numbers or None.
        halvings: batches that were halved for want of memory, ``[batch, size]``.
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
        """The file's content."""
        return canonical({"schema": SCHEMA, **asdict(self)}) + b"\n"

    def description(self) -> str:
        """What a shard is told of itself before it is written, as JSON."""
        names = ("digest", "environment", "fingerprint", "first", "name", "questions")
        return canonical({name: getattr(self, name) for name in names}).decode()

    @classmethod
    def of_shard(
        cls, commit: str, keys: Iterable[tuple[int, str, int]], size: int, checksum: str
    ) -> CommitRecord:
        """The record of a finished shard, made of the shard alone.

        Args:
            commit: what its header says of it, as JSON.
            keys: number, question id and sample of its traces.
            size: bytes of the file.
            checksum: of the file.
        """
        ordered = [[id_, sample] for _, id_, sample in sorted(keys)]
        return cls(**json.loads(commit), keys=ordered, size=size, checksum=checksum)

    @classmethod
    def read(cls, path: Path) -> CommitRecord:
        """Reads one.

        Raises:
            DamagedError: not a commit record.
        """
        content = read_json(path)
        schema = content.pop("schema", None) if isinstance(content, dict) else None
        if type(schema) is int and schema != SCHEMA:
            raise DamagedError(
                f"Expected a commit record of schema {SCHEMA}, got schema {schema} in {path} - "
                f"{ANEW}"
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
        """Validated on read: the file may be damaged or hostile."""
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
    """The content of a file of JSON.

    Raises:
        StorageError: it cannot be read.
        DamagedError: it is no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise StorageError(f"Expected to read {path}, got: {error.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DamagedError(
            f"Expected JSON in {path}, got {error} - restore it from a copy"
        ) from None
