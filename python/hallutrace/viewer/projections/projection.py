"""A projection: one hidden state of each trace of a run as a point of a plane."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hallutrace.canonical_json import digest
from hallutrace.errors import InputError
from hallutrace.option_names import parameter
from hallutrace.package_versions import versions_of
from hallutrace.store.reader import TraceStore
from hallutrace.viewer.projections.embeddings import REDUCED_TO, tsne, umap
from hallutrace.viewer.projections.hidden import HiddenStates, Progress, chosen_states, silent
from hallutrace.viewer.projections.neighbours import Preservation, neighbour_preservation, sampled
from hallutrace.viewer.projections.pca import Components, principal_components

Method = Literal["pca", "tsne", "umap"]
METHODS: tuple[Method, ...] = get_args(Method)
_PACKAGES = {"pca": ("numpy",), "tsne": ("numpy", "openTSNE"), "umap": ("numpy", "umap-learn")}


@dataclass(frozen=True)
class Projection:
    """Positions of all traces of a run in a plane, and how they came about.

    Attributes:
        method: ``pca``, ``tsne`` or ``umap``.
        layer: number in the model, from 0.
        token: whose hidden state it is.
        seed: of the method, and of the traces that ``preservation`` compares.
        positions: float32 [traces, 2], in the order of the run.
        explained: share of the variance along each axis of a PCA; None of other methods.
        preservation: which share of the nearest neighbours is kept.
        parameters: of the method, JSON-able.
        versions: of the packages that made it.
        run: the run as it was: ``fingerprint``, ``traces``, and ``keys``, a digest of their keys.
    """

    method: Method
    layer: int
    token: str
    seed: int
    positions: NDArray[np.float32]
    explained: list[float] | None
    preservation: Preservation
    parameters: dict[str, Any]
    versions: dict[str, str | None]
    run: dict[str, Any]


def project(
    store: TraceStore,
    method: str = "pca",
    layer: int | None = None,
    token: str | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Projection:
    """Projects one hidden state of each trace to a plane.

    The run is read two or three times, block by block. t-SNE and UMAP get the first 50 principal
    components. Memory is that of [hidden size, hidden size] in float64, 2,000 whole states, and 50
    numbers of each trace.

    Args:
        store: the run.
        method: ``pca``, ``tsne`` or ``umap``.
        layer: number in the model; None for the last that is kept.
        token: see :func:`hallutrace.viewer.projections.hidden.map_tokens`; None for the last answer
            token.
        seed: of the method, and of the traces that are compared for the preservation.
        progress: is told what is done.

    Raises:
        NotInRunError: the run has no hidden states.
        InputError: another method, layer or token, or too few traces.
        MissingExtraError: the package of the method is not installed.

    Examples:
        >>> found = project(hallutrace.open(run), layer=3)
        >>> found.positions.shape, found.preservation.traces
        ((8, 2), 8)
    """
    named = method_named(method)
    chosen_layer, chosen_token = chosen_states(store, layer, token)
    if not len(store):
        raise InputError("Expected a run with traces, got none - extract some first")
    states = HiddenStates(store, chosen_layer, chosen_token, progress)
    components = principal_components(
        lambda: states.blocks("reading the hidden states"),
        len(store),
        2 if named == "pca" else REDUCED_TO,
    )
    reduced, sample, compared = _reduced(states, components, seed)
    positions, parameters = reduced, dict[str, Any]()
    if named != "pca":
        positions, parameters = (tsne if named == "tsne" else umap)(reduced, seed, progress)
    if positions.shape[1] < 2:  # a single trace, or states of one number
        positions = np.pad(positions, [(0, 0), (0, 2 - positions.shape[1])])
    return Projection(
        named,
        chosen_layer,
        chosen_token,
        seed,
        positions,
        components.explained.tolist() if named == "pca" else None,
        neighbour_preservation(compared, positions[sample]),
        parameters,
        versions_of("hallutrace", *_PACKAGES[named]),
        run_state(store),
    )


def run_state(store: TraceStore) -> dict[str, Any]:
    """What tells a run, as it is now, from others and from what it was.

    Returns:
        ``fingerprint`` of the manifest, number of ``traces``, and ``keys``: the first 16
        hexadecimal digits of the SHA-256 of the canonical JSON of all keys, in order.

    Examples:
        >>> run_state(hallutrace.open(run))["traces"]
        8
    """
    keys = digest(store.keys()).hex()[:16]
    return {"fingerprint": store.manifest.fingerprint, "traces": len(store), "keys": keys}


def method_named(name: str) -> Method:
    """A method by its name.

    Raises:
        InputError: there is no such method.

    Examples:
        >>> method_named("tsne")
        'tsne'
    """
    for one in METHODS:
        if one == name:
            return one
    raise InputError(
        f"Expected one of the methods {', '.join(METHODS)}, got {name[:80]!r} - change "
        f"{parameter('method')}"
    )


def _reduced(
    states: HiddenStates, components: Components, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """All vectors along the components; positions and whole vectors of those to compare."""
    sample = sampled(len(states), seed)
    reduced: list[NDArray[np.float32]] = []
    compared: list[NDArray[np.float32]] = []
    for begin, block in _counted(states.blocks("projecting the hidden states")):
        reduced.append(components.of(block))
        inside = sample[(sample >= begin) & (sample < begin + len(block))]
        compared.append(block[inside - begin])
    return np.concatenate(reduced), sample, np.concatenate(compared)


def _counted(
    blocks: Iterator[NDArray[np.float32]],
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Blocks, each with the number of rows before it."""
    begin = 0
    for block in blocks:
        yield begin, block
        begin += len(block)
