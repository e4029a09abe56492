"""The map: hidden states of all traces as points of a plane."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace.errors import DamagedError, InputError, NotInRunError
from hallutrace.store.reader import TraceStore
from hallutrace.viewer.projections import files
from hallutrace.viewer.projections.files import Wanted
from hallutrace.viewer.projections.hidden import chosen_states, map_layers, map_tokens
from hallutrace.viewer.projections.projection import Projection, method_named, project
from hallutrace.viewer.viewed_run import ViewedRun

ON_THE_FLY = 20_000
"""Traces up to which the page has a PCA made when it asks for one that is not stored."""

_WORK = 3e11  # multiplications of that PCA at most: seconds
_CARRIED = 12  # maps beside the stored ones in a report
_STEPS = 65535  # of a coordinate


def projections_data(viewed: ViewedRun) -> dict[str, Any]:
    """The payload ``projections``: what maps there are, and labels; no shard is read.

    Returns:
        ``traces``; ``missing``: null, or why there is no map; ``layers`` and ``tokens`` that a map
        may be of; ``layer`` and ``token``, the default; ``stored``: ``method``, ``layer``,
        ``token``, ``seed`` of each stored projection; ``pca``: whether a PCA of any layer and token
        is made when it is asked for; ``command`` that makes and stores another; ``labels`` by
        protocol, int8 [traces] as of :meth:`ViewedRun.label_values`, without damaged ones.

    Examples:
        >>> found = projections_data(ViewedRun(hallutrace.open(run)))
        >>> found["layers"], found["pca"], found["stored"]
        ([0, 1, 2, 3], True, [])
    """
    store = viewed.store
    about: dict[str, Any] = {"traces": len(store), "missing": None, "stored": []}
    try:
        layer, token = chosen_states(store, None, None)
    except NotInRunError as error:
        return {**about, "missing": str(error), "pca": False}
    if not len(store):
        return {**about, "missing": "This run has no traces yet.", "pca": False}
    return {
        **about,
        "layers": map_layers(store),
        "tokens": map_tokens(store),
        "layer": layer,
        "token": token,
        "stored": [
            {"method": one.method, "layer": one.layer, "token": one.token, "seed": one.seed}
            for one in files.stored(store)
        ],
        "pca": _is_quick(store),
        "command": Wanted("tsne", layer, token, 0).command(store.folder),
        "labels": _labels(viewed),
    }


def map_data(
    viewed: ViewedRun,
    *,
    method: str = "pca",
    layer: str | None = None,
    token: str | None = None,
    seed: str = "0",
) -> dict[str, Any]:
    """The payload ``map``: one projection, stored or, for a PCA, made now.

    Args:
        viewed: the run.
        method: ``pca``, ``tsne`` or ``umap``.
        layer: number in the model; None for the last that is kept.
        token: whose hidden state; None for the last answer token.
        seed: of the projection.

    Returns:
        ``x`` and ``y`` uint16 [traces] in the order of the run: 0 is the smallest coordinate and
        65535 the largest, of ``range`` [x smallest, x largest, y smallest, y largest]; ``method``,
        ``layer``, ``token``, ``seed``, ``explained``, ``preservation``, ``parameters`` and
        ``versions`` as :class:`hallutrace.viewer.projections.projection.Projection` has them;
        ``stored``: whether it is a file of the run.

    Raises:
        NotInRunError: no hidden states, or a projection that is not stored, or out of date.
        InputError: a method, layer, token or seed that cannot be.
        DamagedError: the stored file, or a trace, is damaged.

    Examples:
        >>> found = map_data(ViewedRun(hallutrace.open(run)), layer="1")
        >>> found["x"].dtype, found["layer"], found["preservation"]["k"]
        (dtype('uint16'), 1, 7)
    """
    store = viewed.store
    states = chosen_states(store, None if layer is None else _integer("layer", layer), token)
    wanted = Wanted(method_named(method), *states, _integer("seed", seed))
    is_stored = True
    try:
        found = files.read(store, wanted)
    except NotInRunError:  # or of the run as it was
        if method != "pca" or not _is_quick(store):
            raise
        found, is_stored = _made_now(store, wanted), False
    x, y = found.positions.T
    return {
        "x": _quantised(x),
        "y": _quantised(y),
        "range": [float(one) for axis in (x, y) for one in (axis.min(), axis.max())],
        "method": found.method,
        "layer": found.layer,
        "token": found.token,
        "seed": found.seed,
        "explained": found.explained,
        "preservation": found.preservation.to_json(),
        "parameters": found.parameters,
        "versions": found.versions,
        "stored": is_stored,
    }


def carried_maps(viewed: ViewedRun) -> list[dict[str, str]]:
    """Parameters of the maps that a report carries: the stored ones, and PCAs that are quick.

    Examples:
        >>> carried_maps(ViewedRun(hallutrace.open(run)))[0]["token"]
        'last_answer'
    """
    about = projections_data(viewed)
    if about["missing"]:
        return []
    found = [Wanted(**one) for one in about["stored"]]
    if about["pca"]:
        layers = about["layers"] if len(viewed.store) <= ON_THE_FLY // 10 else [about["layer"]]
        chosen = np.unique(np.linspace(0, len(layers) - 1, _CARRIED).round().astype(int))
        pcas = [Wanted("pca", layers[at], about["token"], 0) for at in reversed(chosen.tolist())]
        if len(layers) > 1:
            pcas += [Wanted("pca", about["layer"], one, 0) for one in about["tokens"][1:]]
        found += [one for one in pcas if one not in found]
    return [
        {"method": one.method, "layer": str(one.layer), "token": one.token, "seed": str(one.seed)}
        for one in found
    ]


def report_keys(viewed: ViewedRun) -> list[tuple[str, dict[str, str]]]:
    """Name and parameters of what a report carries of the maps.

    Examples:
        >>> report_keys(ViewedRun(hallutrace.open(run)))[0]
        ('projections', {})
    """
    return [("projections", {}), *(("map", one) for one in carried_maps(viewed))]


def _labels(viewed: ViewedRun) -> dict[str, NDArray[np.int8]]:
    found = {}
    for name in viewed.labels:
        with suppress(DamagedError):  # the payload `traces` tells of it
            found[name] = viewed.label_values(name)
    return found


@lru_cache(maxsize=16)
def _made_now(store: TraceStore, wanted: Wanted) -> Projection:
    return project(store, wanted.method, wanted.layer, wanted.token, wanted.seed)


def _is_quick(store: TraceStore) -> bool:
    """Whether a PCA takes seconds: by its traces, and by what the covariance takes."""
    size = int(store.manifest.facts.get("hidden_size", 0))
    return len(store) <= ON_THE_FLY and len(store) * size * min(len(store), size) <= _WORK


def _quantised(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    low, high = float(values.min()), float(values.max())
    if not high > low:
        return np.full(len(values), _STEPS // 2, np.uint16)
    shares = (values.astype(np.float64) - low) / (high - low)
    return np.round(shares * _STEPS).astype(np.uint16)


def _integer(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InputError(f"Expected a whole number as `{name}`, got {text[:80]!r}")
    return int(text)
