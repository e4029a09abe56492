"""Labelling protocols of one's own: a function that scores a trace, by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from hallutrace.errors import InputError
from hallutrace.label_protocols import JUDGES
from hallutrace.registry import Registry
from hallutrace.store.trace import Trace
from hallutrace.third_party import refusing

ENTRY_POINTS = "hallutrace.label_protocols"
"""The group of entry points by which a package adds protocols: ``name = "module:function"``."""

Score = Callable[[Trace], "float | bool | None"]
"""Scores the answer of a trace, from 0 (hallucinated) to 1 (right); None where it cannot tell."""


@dataclass(frozen=True)
class TraceProtocol:
    """A labelling protocol of one's own.

    Attributes:
        name: of the protocol, and of its labels unless another is given.
        function: scores a trace.
        threshold: an answer is right if its score is at least that.
    """

    name: str
    function: Score
    threshold: float = 0.5
    is_graded: bool = field(default=True, init=False)

    @property
    def __wrapped__(self) -> Score:
        return self.function

    @property
    def facts(self) -> dict[str, Any]:
        """A digest of its code, so that labels that older code made are told from new ones."""
        return {
            "code": PROTOCOLS.code_digest(self.name) if self.name in PROTOCOLS.names() else None
        }

    def __call__(self, trace: Trace) -> float | None:
        """The score of a trace.

        Raises:
            InputError: the function failed, or gave something other than a score.
        """
        where = f"the trace {trace.id!r}, sample {trace.sample}"
        with refusing(f"a score of {where} by `{self.name}`", "fix the protocol"):
            score = self.function(trace)
        if score is None:
            return None
        if not isinstance(score, (int, float)) or not math.isfinite(score) or not 0 <= score <= 1:
            raise InputError(
                f"Expected a score from 0 (hallucinated) to 1 (right), or None, of {where} by "
                f"`{self.name}`, got {score!r} - fix the protocol"
            )
        return float(score)


def _checked(name: str, found: Any) -> TraceProtocol:
    """A protocol of a function, or of a class whose objects are functions.

    Raises:
        InputError: something that cannot be called, or the name of a protocol of this package.
    """
    if name in JUDGES:
        raise InputError(f"Expected another name than a protocol of hallutrace, got `{name}`")
    if isinstance(found, TraceProtocol):
        return found
    if not callable(found):
        raise InputError(
            f"Expected a function of a trace as the labelling protocol `{name}`, got "
            f"{type(found).__name__} - give a function, or a class with `__call__`"
        )
    return TraceProtocol(name, found() if isinstance(found, type) else found)


PROTOCOLS = Registry("labelling protocol", ENTRY_POINTS, {}, _checked)


def register(name: str, *, threshold: float = 0.5) -> Callable[[Any], TraceProtocol]:
    """Registers a labelling protocol, as a decorator of a function or a class.

    ``hallutrace label RUN --by NAME`` and :func:`hallutrace.labels.label` then know it.

    Args:
        name: of the protocol, and of its labels.
        threshold: an answer is right (label 0) if its score is at least that, else hallucinated
            (label 1).

    Returns:
        A decorator of a function that takes a trace and gives a score from 0 (hallucinated) to 1
        (right), True or False, or None where it cannot tell; or of a class that is made without
        arguments and whose object is such a function.

    Raises:
        InputError: no proper name, a name that another protocol has, or something that cannot be
            called.

    Examples:
        >>> from hallutrace.labels import register
        >>> @register("short-is-right")
        ... def short_is_right(trace):
        ...     return len(trace.answer.split()) <= 5
        >>> PROTOCOLS.remove("short-is-right")
    """

    def decorate(thing: Any) -> TraceProtocol:
        protocol = replace(_checked(name, thing), threshold=threshold)
        return PROTOCOLS.add(name, protocol)

    return decorate
