"""All that the page can ask of a run, by name; the explorer serves it, a report embeds a part."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from hallutrace.errors import InputError, NotInRunError
from hallutrace.viewer.data import (
    attention,
    detectors,
    distributions,
    errors,
    heads,
    layers,
    run,
    trace,
    trace_list,
    trace_marginals,
    training,
)
from hallutrace.viewer.data import map as map_view
from hallutrace.viewer.payload import pack
from hallutrace.viewer.viewed_run import ViewedRun

PROVIDERS: dict[str, Callable[..., Any]] = {
    "run": run.run_data,
    "distributions": distributions.distributions_data,
    "errors": errors.errors_data,
    "traces": trace_list.traces_data,
    "trace": trace.trace_data,
    "token_heads": trace_marginals.token_heads_data,
    "attention": attention.attention_data,
    "layer_choices": layers.layer_choices,
    "layers": layers.layers_data,
    "heads": heads.heads_data,
    "trace_heads": heads.trace_heads,
    "detectors": detectors.detectors_data,
    "training": training.training_data,
    "map": map_view.map_data,
    "projections": map_view.projections_data,
}
"""Functions ``(viewed, *, parameter: str | None = None, ...)`` to what :func:`pack` takes."""

LIVE = frozenset({"training"})
"""Names of what changes while the run stays the same, so that no answer may be kept."""


def payload_of(viewed: ViewedRun, name: str, parameters: Mapping[str, str]) -> bytes:
    """What the page asks for, packed.

    Args:
        viewed: the run.
        name: one of :data:`PROVIDERS`.
        parameters: arguments of that function.

    Raises:
        NotInRunError: no such name, or what it needs is not in the run.
        InputError: parameters that it does not take, or values that it refuses.

    Examples:
        >>> from hallutrace.viewer.payload import unpack
        >>> unpack(payload_of(ViewedRun(hallutrace.open(run)), "run", {}))["traces"]
        8
    """
    if name not in PROVIDERS:
        raise NotInRunError(f"Expected one of {', '.join(PROVIDERS)}, got {name[:80]!r}")
    function = PROVIDERS[name]
    taken = list(inspect.signature(function).parameters)[1:]
    if unknown := sorted(set(parameters) - set(taken)):
        raise InputError(f"Expected parameters among {', '.join(taken)}, got {unknown[0][:80]!r}")
    return pack(function(viewed, **parameters))


def key_of(name: str, parameters: Mapping[str, str | None] | None = None) -> str:
    """The key under which a page finds a payload, the same as ``keyOf`` of the page gives.

    Args:
        name: one of :data:`PROVIDERS`.
        parameters: its arguments; those that are None do not count.

    Examples:
        >>> key_of("layer", {"trace": "q 1", "layer": "0"})
        'layer?layer=0&trace=q%201'
    """
    given = sorted((key, value) for key, value in (parameters or {}).items() if value is not None)
    text = "&".join(f"{_quoted(key)}={_quoted(value)}" for key, value in given)
    return f"{name}?{text}" if text else name


def _quoted(text: str) -> str:
    """As ``encodeURIComponent`` of a page."""
    return quote(text, safe="!'()*-._~")
