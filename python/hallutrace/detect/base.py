"""What every detector is: checked against a run, fitted, asked for scores, saved and loaded."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from hallutrace.detect import saving
from hallutrace.detect.examples import Examples
from hallutrace.detect.options import Options as BaseOptions
from hallutrace.detect.trace_needs import Needs, Suitability, shortfalls
from hallutrace.errors import InputError, MissingExtraError, NonFiniteError
from hallutrace.registry import origin_of
from hallutrace.store.finite_numbers import NON_FINITE_FIX
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


@dataclass(frozen=True)
class Source:
    """Where a method is from.

    Attributes:
        text: authors, year, title, section or equation; empty for one of the detector's author.
        follows: ``text`` where it does what the paper says, ``code`` where it does what the
            authors' public code does, ``own`` where it is of the detector's author.
        code: repository of the authors' code.
    """

    text: str = ""
    follows: Literal["text", "code", "own"] = "own"
    code: str = ""

    def __str__(self) -> str:
        if self.follows == "own":
            return self.text or "own"
        code = f"; code {self.code}" if self.code else ""
        return f"{self.text}{code} (as in the {self.follows})"


class Detector(ABC):
    """Anything that scores a trace: higher means more likely hallucinated.

    Scores order traces; they need not be probabilities, nor lie between 0 and 1.

    Args:
        options: of the class's own ``Options``; its defaults unless given.
        seed: of all that is random in it.

    Attributes:
        name: as in the registry: small letters, digits and hyphens.
        trained: False where there is nothing to fit.
        is_graph: whether it is a graph model, which is shown beside its controls.
        seeded: whether the seed changes its result.
        packages: what must be installed to fit or to score, as imported.
        source: where the method is from.
        needs: what it reads of a trace; a property where that depends on options.
        options: all of them.

    Raises:
        InputError: options of another detector.

    Examples:
        >>> class LastToken(Scorer):
        ...     name = "last-token"
        ...     def score(self, trace):
        ...         return -float(trace.logprob[-1])
        >>> LastToken(seed=3).seed
        3
    """

    class Options(BaseOptions):
        """It has none."""

    name: ClassVar[str]
    trained: ClassVar[bool] = True
    is_graph: ClassVar[bool] = False
    seeded: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ()
    source: ClassVar[Source] = Source()
    options: Options

    def __init__(self, options: Options | None = None, *, seed: int = 0) -> None:
        given = type(self).Options() if options is None else options
        if not isinstance(given, type(self).Options):
            raise InputError(
                f"Expected options of `{self.name}` ({type(self).__name__}.Options), got "
                f"{type(given).__qualname__} - make them with that class"
            )
        self.options, self.seed = given, seed

    @property
    def needs(self) -> Needs:
        """What it reads of a trace beside its text and its token probabilities."""
        return Needs()

    def check(self, store: TraceStore) -> None:
        """Refuses a run that lacks what the detector reads, before any work.

        Args:
            store: the run.

        Raises:
            InputError: the run lacks something of :attr:`needs`.
            MissingExtraError: a package is not installed.
        """
        for package in self.packages:
            if importlib.util.find_spec(package) is None:
                raise MissingExtraError.of(package, "detect", f"the detector `{self.name}`")
        for one in shortfalls(self.needs, store.manifest):
            if one.is_refused:
                raise InputError(
                    f"Expected {one.expected} for `{self.name}`, got {one.got} in {store.folder} "
                    f"- {one.fix}"
                )

    def suitability(self, store: TraceStore) -> Suitability:
        """Whether what it reads is in a run exactly, nearly or not, and why.

        Args:
            store: the run.
        """
        try:
            self.check(store)
        except (InputError, MissingExtraError) as error:
            return Suitability("refused", (str(error),))
        found = shortfalls(self.needs, store.manifest)
        reasons = tuple(f"wants {one.expected}, gets {one.got} - {one.fix}" for one in found)
        return Suitability("near" if reasons else "exact", reasons)

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
            train: the training part.
            validation: the part that choices are made on, if the detector makes any.
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
        """What was fitted: arrays by name, and JSON-able facts."""
        return {}, {}

    def restore(self, arrays: dict[str, NDArray[Any]], facts: dict[str, Any]) -> None:
        """Takes back what :meth:`state` gave.

        Raises:
            KeyError, TypeError, ValueError: arrays or facts of something else; :meth:`load` tells
                these as damage.
        """
        if arrays or facts:
            raise ValueError(f"arrays and facts that `{self.name}` does not have")

    def check_can_be_saved(self) -> None:
        """Refuses a detector that learns and does not say what.

        Raises:
            InputError: no :meth:`state` of its own, or no :meth:`restore`.
        """
        kind = type(self)
        is_silent = kind.state is Detector.state or kind.restore is Detector.restore
        if self.trained and is_silent:
            raise InputError(
                f"Expected `state` and `restore` of `{self.name}`, which is trained, got none of "
                "its own - write both, so that what was fitted can be saved"
            )

    def save(self, folder: str | PathLike[str]) -> None:
        """Writes ``detector.json`` and ``detector.safetensors``, whole or not at all.

        Args:
            folder: made if it is not there; a detector in it is replaced.

        Raises:
            InputError: it is trained and has no state of its own.
            StorageError: the folder cannot be written.
        """
        self.check_can_be_saved()
        arrays, facts = self.state()
        kind = type(self)
        origin = origin_of(self.name, kind).to_json()
        content = {
            "name": self.name,
            "seed": self.seed,
            "options": self.options.to_json(),
            "facts": facts,
            "origin": {**origin, "class": kind.__qualname__},
        }
        saving.write(folder, content, arrays)


class Scorer(Detector):
    """A formula over one trace: there is nothing to fit, and nothing to save but its options."""

    trained = False

    def fit(
        self,
        train: Examples,
        validation: Examples,
        *,
        progress: Progress | None = None,
        workspace: Path | None = None,
    ) -> None:
        """Does nothing."""
