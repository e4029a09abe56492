"""What every detector is: checked against a run, fitted, asked for scores, saved and loaded."""

from __future__ import annotations

import importlib.util
import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from hallutrace.detect import saving
from hallutrace.detect.examples import Examples
from hallutrace.errors import InputError, MissingExtraError, NonFiniteError
from hallutrace.store.finite import NON_FINITE_FIX
from hallutrace.store.reader import TraceStore
from hallutrace.store.trace import Trace


class Progress(Protocol):
    """Told of a fit as it goes on."""

    def epoch(self, number: int, loss: float, validation_auroc: float, seconds: float) -> None:
        """An epoch is done."""

    def note(self, text: str) -> None:
        """Something worth a line."""


class Silent:
    """Says nothing; the default of :meth:`Detector.fit`."""

    def epoch(self, number: int, loss: float, validation_auroc: float, seconds: float) -> None:
        """Says nothing."""

    def note(self, text: str) -> None:
        """Says nothing."""


class Detector(ABC):
    """Anything that scores a trace: higher means more likely hallucinated.

    Scores order traces; they need not be probabilities, nor lie between 0 and 1.

    Args:
        seed: of all that is random in it.
        options: those in :attr:`defaults`, others are refused.

    Attributes:
        name: as in the registry.
        trained: False where there is nothing to fit.
        needs_hidden: whether it reads hidden states.
        is_graph: whether it is a graph model, which is shown beside its controls.
        seeded: whether the seed changes its result.
        packages: what must be installed to fit it, as imported; the extra ``detect`` has them.
        defaults: the options it knows, JSON-able, and what they are unless given.
        options: all of them, as they are.

    Raises:
        InputError: an option it does not know, or a value that an option cannot have.
    """

    name: ClassVar[str]
    trained: ClassVar[bool] = True
    needs_hidden: ClassVar[bool] = False
    is_graph: ClassVar[bool] = False
    seeded: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ()
    defaults: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, *, seed: int = 0, **options: Any) -> None:
        self.refuse_unknown(options)
        self.seed = seed
        self.options: dict[str, Any] = {**self.defaults, **options}
        self.check_options()

    @classmethod
    def known_options(cls) -> list[str]:
        """Names of the options it takes, ``seed`` left out."""
        named = [
            parameter.name
            for parameter in inspect.signature(cls.__init__).parameters.values()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        ]
        return sorted({*cls.defaults, *named} - {"seed"})

    @classmethod
    def refuse_unknown(cls, options: Mapping[str, Any]) -> None:
        """Raises InputError if an option is not one of those it knows."""
        known = cls.known_options()
        unknown = sorted(set(options) - set(known))
        if unknown:
            wanted = f"one of {', '.join(known)}" if known else "none, for it has none"
            raise InputError(
                f"Expected options of `{cls.name}` ({wanted}), got {', '.join(unknown)} - "
                "leave out what it does not know"
            )

    def check_options(self) -> None:  # noqa: B027 - most detectors have nothing to refuse
        """Refuses options that mean nothing; called when it is made.

        Raises:
            InputError: a value that an option cannot have.
        """

    def require_option(self, name: str, is_good: bool, expected: str) -> None:
        """Raises InputError, with what was expected of an option, unless it is good."""
        if not is_good:
            raise InputError(
                f"Expected `{name}` of `{self.name}` {expected}, got {self.options[name]!r} - "
                "change that option"
            )

    def check(self, store: TraceStore) -> None:
        """Refuses a run that lacks what the detector reads, before any work.

        Args:
            store: the run.

        Raises:
            InputError: no hidden states in the run, for a detector that needs them.
            MissingExtraError: a package is not installed.
        """
        for package in self.packages:
            if importlib.util.find_spec(package) is None:
                raise MissingExtraError.of(package, "detect", f"the detector `{self.name}`")
        if self.needs_hidden and store.manifest.identity["hidden"]["states"] == "none":
            raise InputError(
                f"Expected a run with hidden states for `{self.name}`, got {store.folder} without "
                "- extract it again with --hidden-states answer"
            )

    @abstractmethod
    def fit(
        self,
        train: Examples,
        validation: Examples,
        *,
        progress: Progress | None = None,
        workspace: Path | None = None,
    ) -> None:
        """Learns from labelled traces; nothing where :attr:`trained` is False.

        Args:
            train: what is learnt from.
            validation: what choices are made on, where the detector's docstring says that it makes
                any; no trace of it is learnt from.
            progress: told how it goes.
            workspace: folder of its own for checkpoints and the history of a training in epochs,
                which goes on from there after a kill; other detectors leave it empty.
        """

    @abstractmethod
    def score(self, trace: Trace) -> float:
        """How likely a trace is hallucinated; higher means more likely."""

    def scores(self, examples: Examples) -> NDArray[np.float64]:
        """Scores of several traces, float64 [examples]."""
        return np.array([self.score(trace) for trace in examples], np.float64)

    def finite_scores(self, examples: Examples) -> NDArray[np.float64]:
        """:meth:`scores`, if each is a finite number.

        Raises:
            NonFiniteError: naming the detector, and the first traces whose score is not.
            InputError: more or fewer scores than traces.
        """
        found = np.asarray(self.scores(examples), np.float64)
        if found.shape != (len(examples),):
            raise InputError(
                f"Expected a score of `{self.name}` for each of {len(examples)} traces, got "
                f"{list(found.shape)} - fix its `scores`"
            )
        bad = np.flatnonzero(~np.isfinite(found))
        if len(bad):
            named = (f"{id_!r}, sample {sample}" for id_, sample in examples.take(bad[:3]).keys)
            raise NonFiniteError(
                f"Expected finite scores of `{self.name}`, got {len(bad):,} of {len(found):,} that "
                f"are NaN or infinite, first of the traces {'; '.join(named)} - {NON_FINITE_FIX}"
            )
        return found

    def token_scores(self, trace: Trace) -> NDArray[np.float64] | None:
        """Risk of each answer token, float64 [A]; None where the detector has none."""
        return None

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """What was learnt: arrays by name, and JSON-able facts."""
        return {}, {}

    def restore(self, arrays: dict[str, NDArray[Any]], facts: dict[str, Any]) -> None:
        """Takes back what :meth:`state` gave.

        Raises:
            KeyError, TypeError, ValueError: arrays or facts of something else; :meth:`load` tells
                these as damage.
        """
        if arrays or facts:
            raise ValueError(f"arrays and facts that `{self.name}` does not have")

    def save(self, folder: str | PathLike[str]) -> None:
        """Writes ``detector.json`` and ``detector.safetensors``, whole or not at all.

        Args:
            folder: made if it is not there; a detector in it is replaced.

        Raises:
            StorageError: the folder cannot be written.
        """
        arrays, facts = self.state()
        content = {"name": self.name, "seed": self.seed, "options": self.options, "facts": facts}
        saving.write(folder, content, arrays)
