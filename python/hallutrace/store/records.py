"""What a run says of itself: its manifest, and the commit records of its shards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hallutrace.canonical_json import canonical, digest, to_utf8
from hallutrace.errors import DamagedError, IdentityError, StorageError

SCHEMA = 1


def fingerprint(identity: dict[str, Any]) -> str:
    """16 hexadecimal digits that stand for an identity."""
    return digest(identity).hex()[:16]


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
        """Stands for the identity in commit records."""
        return fingerprint(self.identity)

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
    """What makes a shard done.

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
        fingerprint: of the run's identity.
        counts: traces, failures, answers that contain a reference, tokens.
        environment: versions, device, threads; empty where a rebuilt record does not know them.
        halvings: batches that were halved for want of memory, ``[batch, size]``; None where a
            rebuilt record does not know whether there were any.
    """

    name: str
    first: int
    questions: int
    digest: str
    keys: list[list[Any]]
    indices: list[int]
    size: int
    checksum: str
    fingerprint: str
    counts: dict[str, int]
    environment: dict[str, Any]
    halvings: list[list[int]] | None = field(default_factory=list)

    def to_json(self) -> bytes:
        """The file's content."""
        return canonical({"schema": SCHEMA, **asdict(self)}) + b"\n"

    @classmethod
    def read(cls, path: Path) -> CommitRecord:
        """Reads one.

        Raises:
            DamagedError: not a commit record.
        """
        content = read_json(path)
        try:
            if content.pop("schema") != SCHEMA or content["name"] != path.stem:
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
        """What is read is data from a stranger: nothing of it is believed to be of its type."""
        numbers = (self.first, self.questions, self.size, *self.indices, *self.counts.values())
        texts = (self.digest, self.checksum, self.fingerprint)
        keys = [(id_, sample) for id_, sample in self.keys]
        if (
            any(type(number) is not int for number in numbers)
            or any(type(text) is not str for text in texts)
            or any(type(id_) is not str or type(sample) is not int for id_, sample in keys)
            or "traces" not in self.counts
            or type(self.environment) is not dict
            or type(self.halvings) not in (list, type(None))
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
