"""Projections beside the run that they are of: ``RUN/projections/NAME.safetensors``.

Such a file holds the tensor ``positions``, float32 [traces, 2] in the order of the run, and in the
metadata ``hallutrace`` canonical JSON that says how it came about, with the SHA-256 of the
positions. It belongs to a run of one fingerprint with certain traces: of a run that has grown
since, it is out of date.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace import atomic_files
from hallutrace.atomic_files import storage_errors
from hallutrace.canonical_json import canonical
from hallutrace.errors import DamagedError, HallutraceError, NotInRunError
from hallutrace.escaping import command
from hallutrace.store.reader import TraceStore
from hallutrace.viewer.projections.neighbours import Preservation
from hallutrace.viewer.projections.projection import METHODS, Projection, run_state

SCHEMA = 1
FOLDER = "projections"
_METADATA, _POSITIONS = "hallutrace", "positions"
_NAME = re.compile(r"(pca|tsne|umap)-layer(\d{1,5})-([a-z_]{1,40})-seed(\d{1,19})")


@dataclass(frozen=True, order=True)
class Wanted:
    """What names a projection.

    Attributes:
        method: ``pca``, ``tsne`` or ``umap``.
        layer: number in the model.
        token: whose hidden state it is.
        seed: of the method.

    Examples:
        >>> Wanted("pca", 3, "last_answer", 0).name
        'pca-layer3-last_answer-seed0'
    """

    method: str
    layer: int
    token: str
    seed: int

    @property
    def name(self) -> str:
        """Name of its file, without the ending."""
        return f"{self.method}-layer{self.layer}-{self.token}-seed{self.seed}"

    def command(self, folder: Path) -> str:
        """The command that makes it."""
        layer, seed = str(self.layer), str(self.seed)
        return command(
            *("hallutrace", "project", folder, "--method", self.method, "--layer", layer),
            *("--token", self.token, "--seed", seed),
        )


def stored(store: TraceStore) -> list[Wanted]:
    """The projections that have a file in the run, sorted; the files are not opened.

    Examples:
        >>> stored(hallutrace.open(run))
        []
    """
    return sorted(_stored(store.folder / FOLDER))


def _stored(folder: Path) -> Iterator[Wanted]:
    for path in folder.glob("*.safetensors"):
        if found := _NAME.fullmatch(path.stem):
            yield Wanted(found[1], int(found[2]), found[3], int(found[4]))


def path_of(store: TraceStore, wanted: Wanted) -> Path:
    """Path of the file of a projection, which may be missing."""
    return store.folder / FOLDER / f"{wanted.name}.safetensors"


def write(store: TraceStore, projection: Projection) -> Path:
    """Writes a projection into the folder of its run; it replaces one of the same name.

    Raises:
        StorageError: the folder cannot be written.

    Examples:
        >>> from hallutrace.viewer.projections.projection import project
        >>> store = hallutrace.open(run)
        >>> write(store, project(store)).name
        'pca-layer3-last_answer-seed0.safetensors'
        >>> read(store, stored(store)[0]).positions.shape
        (8, 2)
    """
    from safetensors.numpy import save

    wanted = Wanted(projection.method, projection.layer, projection.token, projection.seed)
    positions = np.ascontiguousarray(projection.positions, "<f4")
    about = {
        "schema": SCHEMA,
        "method": projection.method,
        "layer": projection.layer,
        "token": projection.token,
        "seed": projection.seed,
        "explained": projection.explained,
        "preservation": projection.preservation.to_json(),
        "parameters": projection.parameters,
        "versions": projection.versions,
        "run": projection.run,
        "checksum": _checksum(positions),
    }
    path = path_of(store, wanted)
    content = save({_POSITIONS: positions}, {_METADATA: canonical(about).decode()})
    with storage_errors(f"write {path}", "make the folder of the run writable"):
        atomic_files.write(path, content)
    return path


def read(store: TraceStore, wanted: Wanted) -> Projection:
    """Reads a projection of a run as it is now.

    Raises:
        NotInRunError: there is no such file, or it is of another run, or of this one with fewer
            traces; the message names the command that makes it.
        DamagedError: the file is damaged.
    """
    path = path_of(store, wanted)
    again = f"`{wanted.command(store.folder)}` makes it"
    if not path.is_file():
        raise NotInRunError(f"This run has no projection {wanted.name}: {again}")
    try:
        about, positions = _opened(path)
        found = _projection(about, positions)
    except HallutraceError:
        raise
    except Exception as error:  # of safetensors, of JSON, or of a member that is missing
        raise DamagedError(
            f"Expected a projection in {path}, got {type(error).__name__}: {error} - {again} anew"
        ) from None
    if (found.method, found.layer, found.token, found.seed) != (
        wanted.method, wanted.layer, wanted.token, wanted.seed
    ):  # fmt: skip
        raise DamagedError(f"Expected the projection {wanted.name}, got another in {path}")
    _check_current(store, found, wanted, again)
    return found


def _check_current(store: TraceStore, found: Projection, wanted: Wanted, again: str) -> None:
    now = run_state(store)
    if found.run["fingerprint"] != now["fingerprint"]:
        raise NotInRunError(f"The projection {wanted.name} is of another run: {again} anew")
    if found.run != now:
        raise NotInRunError(
            f"The projection {wanted.name} is of {found.run['traces']:,} traces, and the run now "
            f"has {now['traces']:,}: {again} anew"
        )


def _opened(path: Path) -> tuple[dict[str, Any], NDArray[np.float32]]:
    from safetensors import safe_open

    with storage_errors(f"read {path}", "check the disk"), safe_open(path, "numpy") as file:
        about = json.loads(file.metadata()[_METADATA])
        positions = file.get_tensor(_POSITIONS)
    if about["schema"] != SCHEMA:
        raise ValueError(f"schema {about['schema']} where {SCHEMA} is known")
    if about["checksum"] != _checksum(positions):
        raise ValueError("positions with another checksum than the file names")
    return about, positions


def _projection(about: dict[str, Any], positions: NDArray[np.float32]) -> Projection:
    traces = about["run"]["traces"]
    if positions.dtype != np.float32 or positions.shape != (traces, 2):
        raise ValueError(f"positions {positions.dtype} {positions.shape} of {traces} traces")
    method = next(one for one in METHODS if one == about["method"])
    names = ("parameters", "versions", "run")
    return Projection(
        method,
        int(about["layer"]),
        str(about["token"]),
        int(about["seed"]),
        positions,
        about["explained"],
        Preservation(**about["preservation"]),
        *(dict(about[name]) for name in names),
    )


def _checksum(positions: NDArray[np.float32]) -> str:
    return hashlib.sha256(positions.astype("<f4").tobytes()).hexdigest()
