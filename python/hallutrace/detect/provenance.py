"""What a trained detector was trained on, beside it in its folder.

``training.json`` has the run's identity (so that a question can be asked in the same way), labels,
seed and, once it is trained, the curve that makes its scores probabilities. ``split.json`` has the
keys and groups of the traces that it was trained and validated on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hallutrace import atomic_files
from hallutrace.atomic_files import storage_errors
from hallutrace.canonical_json import to_utf8
from hallutrace.detect.examples import Examples
from hallutrace.detect.metrics import Platt
from hallutrace.errors import DamagedError, IdentityError, InputError
from hallutrace.option_names import parameter, wording
from hallutrace.store.folder import differences
from hallutrace.store.label_files import read_parameters

SCHEMA = 1
TRAINING, SPLIT = "training.json", "split.json"

Key = tuple[str, int]


@dataclass(frozen=True)
class Provenance:
    """What a detector was asked to be trained on.

    Attributes:
        run: name of the run's folder.
        fingerprint: of the run.
        identity: of the run: model, prompt, decoding, what was kept.
        facts: of the run: layers, heads.
        label: name of the protocol.
        label_parameters: how the labels came about, where that is known.
        detector: name, options and seed.
        limit: of the traces taken.
        split: digest of the keys, groups and labels of both parts.
        versions: of the packages that training depends on.
        validation_auroc: what it reached there; None until it is trained.
        calibration: slope and intercept of the Platt curve; None until it is trained.
    """

    run: str
    fingerprint: str
    identity: dict[str, Any]
    facts: dict[str, Any]
    label: str
    label_parameters: dict[str, Any] | None
    detector: dict[str, Any]
    limit: int | None
    split: str
    versions: dict[str, str | None]
    validation_auroc: float | None = None
    calibration: tuple[float, float] | None = None

    @property
    def curve(self) -> Platt | None:
        """Makes scores probabilities; None where it was not trained to its end."""
        return None if self.calibration is None else Platt(*self.calibration)

    def check_same(self, asked: Provenance, folder: Path) -> None:
        """Refuses to go on with another training.

        Raises:
            IdentityError: naming the fields that differ.
        """
        ours, theirs = (
            asdict(replace(one, validation_auroc=None, calibration=None)) for one in (self, asked)
        )
        found = [name for name, _, _ in differences(_plain(ours), _plain(theirs))]
        if found:
            more = f" and {len(found) - 6} more" if len(found) > 6 else ""
            raise IdentityError(
                f"Expected the training that is in {folder}, got another one "
                f"({', '.join(found[:6])}{more} differ) - choose another "
                f"{parameter('folder', option='--out')}, or "
                f"{wording('delete it', 'start over with --overwrite')}"
            )

    def write(self, folder: Path) -> None:
        """Writes ``training.json``, whole or not at all.

        Raises:
            StorageError: the folder cannot be written.
        """
        _write(folder / TRAINING, {"schema": SCHEMA, **asdict(self)})

    @classmethod
    def read(cls, folder: Path) -> Provenance | None:
        """What :meth:`write` wrote; None where there is nothing.

        Raises:
            DamagedError: another file under that name.
        """
        content = _read(folder / TRAINING)
        if content is None:
            return None
        try:
            calibration = content["calibration"]
            if calibration is not None:
                content["calibration"] = (float(calibration[0]), float(calibration[1]))
            found = cls(**content)
            if not isinstance(found.identity, dict) or not isinstance(found.label, str):
                raise TypeError("a field of another type")
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise _damaged(folder / TRAINING, error) from None
        return found


@dataclass(frozen=True)
class TrainingTraces:
    """Which traces a detector has seen in training.

    Attributes:
        train: keys of its training part.
        validation: keys of its validation part.
        groups: of both.
    """

    train: frozenset[Key]
    validation: frozenset[Key]
    groups: frozenset[str]

    @classmethod
    def of(cls, train: Examples, validation: Examples) -> TrainingTraces:
        """From the parts themselves."""
        return cls(
            frozenset(train.keys),
            frozenset(validation.keys),
            frozenset([*train.groups, *validation.groups]),
        )

    def write(self, folder: Path) -> None:
        """Writes ``split.json``, whole or not at all.

        Raises:
            StorageError: the folder cannot be written.
        """
        content = {name: sorted(value) for name, value in vars(self).items()}
        _write(folder / SPLIT, {"schema": SCHEMA, **content})

    @classmethod
    def read(cls, folder: Path) -> TrainingTraces | None:
        """What :meth:`write` wrote; None where there is nothing.

        Raises:
            DamagedError: another file under that name.
        """
        content = _read(folder / SPLIT)
        if content is None:
            return None
        try:
            keys = {
                name: frozenset((str(id_), int(sample)) for id_, sample in content[name])
                for name in ("train", "validation")
            }
            return cls(keys["train"], keys["validation"], frozenset(map(str, content["groups"])))
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(folder / SPLIT, error) from None


def label_parameters(examples: Examples, label: str) -> dict[str, Any] | None:
    """How the labels of a run came about, where that is known."""
    return read_parameters(examples.store.folder, label)


def _plain(value: Any) -> Any:
    """As it comes back from JSON."""
    return json.loads(json.dumps(value))


def _write(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    with storage_errors(f"write {path}", f"choose another {parameter('folder', option='--out')}"):
        atomic_files.write(path, to_utf8(text))


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content: Any = json.loads(path.read_bytes())
        if content.pop("schema") != SCHEMA:
            raise InputError(
                f"Expected schema {SCHEMA}, got another one in {path} - read it with the version "
                "of hallutrace that wrote it"
            )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise _damaged(path, error) from None
    found: dict[str, Any] = content
    return found


def _damaged(path: Path, error: Exception) -> DamagedError:
    return DamagedError(
        f"Expected what `hallutrace train` wrote, got {type(error).__name__} {error} in {path} - "
        "restore it from a copy, or train the detector again"
    )
