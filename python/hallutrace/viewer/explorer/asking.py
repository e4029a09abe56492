"""A question to the model of a run: its answer token by token, then trace, score, neighbours."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace.detect import Detector, load
from hallutrace.detect.provenance import Provenance
from hallutrace.errors import HallutraceError, InputError, NotInRunError
from hallutrace.extraction.pipeline import open_source, walk
from hallutrace.model.answer_ends import decode
from hallutrace.model.generation_watch import Step, Watcher, watching
from hallutrace.model.loading import Loaded
from hallutrace.progress import Silent
from hallutrace.store.finite_numbers import require_finite
from hallutrace.store.folder import Run
from hallutrace.store.reader import open_run
from hallutrace.store.trace import Trace
from hallutrace.viewer.explorer.catalog import Catalog, SavedDetector, run_id
from hallutrace.viewer.explorer.neighbors import Neighbors, layer_read_by
from hallutrace.viewer.explorer.own_model import OwnModel, Question, StoppedError, Tell
from hallutrace.viewer.explorer.partial_trace import PartialTrace, live_layers
from hallutrace.viewer.explorer.runs import OpenRuns
from hallutrace.viewer.viewed_run import ViewedRun

ASKED = "asked"
"""Id under which the trace of the last answer is shown, as the only one of a run."""


class Asker:
    """Asks the models of runs, one question at a time.

    Args:
        catalog: where detectors are.
        runs: where the trace of the answer is shown, under :data:`ASKED`.
        model: that is asked.

    Attributes:
        model: that is asked.
        asked_of: id of the run whose model gave the last answer; None before the first.
    """

    def __init__(self, catalog: Catalog, runs: OpenRuns, model: OwnModel) -> None:
        self._catalog, self._runs, self.model = catalog, runs, model
        self._neighbors = Neighbors()
        self._folder: Path | None = None
        self.asked_of: str | None = None

    def about(self, run: str) -> dict[str, Any]:
        """What can be asked of a run: its model, and the detectors that can score the answer.

        Args:
            run: id of the run.

        Raises:
            NotInRunError: no such run.
            DamagedError: its manifest is damaged.
        """
        run = self.base_of(run)
        manifest = Run(self._runs.folder(run)).manifest()
        detectors = [
            {"id": run_id(one.folder), "name": one.name, "folder": one.folder.name}
            for one in self._detectors(manifest.fingerprint, manifest.identity["model"])
        ]
        name = str(manifest.identity["model"]["name"])
        return {"run": run, "model": name, "detectors": detectors}

    def ask(
        self,
        run: str,
        question: Question,
        detector: str | None,
        tell: Tell,
        is_stopped: Callable[[], bool],
    ) -> None:
        """Asks, and tells what happens.

        Events: ``state`` (text), ``token`` (text, logprob, entropy, risk) for each token but the
        last, ``done`` (see :meth:`_tell_trace`), ``neighbors`` (see
        :meth:`hallutrace.viewer.explorer.neighbors.Neighbors.nearest`, or a message).

        Args:
            run: id of the run whose model is asked.
            question: what is asked.
            detector: id of a detector of :meth:`about`; None for none.
            tell: told each event.
            is_stopped: asked before each token.

        Raises:
            BusyError: another question is being answered.
            StoppedError: ``is_stopped`` said so.
            HallutraceError: the question cannot be answered.
        """
        with self.model.in_use():
            viewed = self._runs.viewed(run)
            saved = self._detector(viewed, detector)
            scorer = None if saved is None else load(saved.folder)
            folder = self._new_folder()
            config = self.model.config(viewed.store.manifest, question, folder)
            loaded = self.model.loaded(config, viewed.store.manifest, tell)
            if is_stopped():
                raise StoppedError("Stopped before the first token.")
            began = time.monotonic()
            tell("state", {"text": "Answering …"})
            follower = _Follower(loaded, scorer, tell, is_stopped)
            with watching(Watcher(follower.step, live_layers(scorer) or ())):
                walk(config, open_source(config), Run(folder / "run"), loaded, Silent())
            store = open_run(folder / "run")
            if not len(store):
                raise InputError(_failure(folder / "run"))
            shown = ViewedRun(store, None, None if saved is None else saved.folder)
            self._runs.lend(ASKED, shown)
            self.asked_of = run
            self._tell_trace(store[0], loaded, scorer, saved, time.monotonic() - began, tell)
            self._tell_neighbors(viewed, store[0], scorer, tell)

    def base_of(self, run: str) -> str:
        """The run that was asked, for the id of the last answer; else the run itself."""
        return (self.asked_of or run) if run == ASKED else run

    def detector_folder(self, run: str, detector: str | None) -> Path | None:
        """The folder of a detector of a run; None for none.

        Args:
            run: id of a run, or of the last answer.
            detector: id of a detector of :meth:`about`.

        Raises:
            NotInRunError: no such run or detector.
        """
        found = self._detector(self._runs.viewed(self.base_of(run)), detector)
        return None if found is None else found.folder

    def _new_folder(self) -> Path:
        """A folder for one question; that of the question before goes."""
        self._runs.lend(ASKED, None)
        self.close()
        self._folder = Path(tempfile.mkdtemp(prefix="hallutrace-"))
        return self._folder

    def close(self) -> None:
        """Removes what the last question left."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _detectors(self, fingerprint: str, model: Any) -> list[SavedDetector]:
        """Detectors that were trained on the run, then those of other runs of the same model."""
        own = self._catalog.detectors_of(fingerprint)
        others = [one for one in self._catalog.detectors if one.model == model and one not in own]
        return [*own, *others]

    def _detector(self, viewed: ViewedRun, asked: str | None) -> SavedDetector | None:
        if asked is None:
            return None
        manifest = viewed.store.manifest
        for one in self._detectors(manifest.fingerprint, manifest.identity["model"]):
            if run_id(one.folder) == asked:
                return one
        raise NotInRunError(f"Expected a detector of this run, got {asked[:80]!r}")

    def _tell_trace(
        self,
        trace: Trace,
        loaded: Loaded,
        detector: Detector | None,
        saved: SavedDetector | None,
        seconds: float,
        tell: Tell,
    ) -> None:
        """Tells ``done``: numbers of the answer, and where its trace is shown.

        ``tokens`` (texts), ``logprob`` and ``entropy`` (nats), ``risk_by_token`` (None where the
        detector has none), ``score``, ``risk`` (probability; None without a curve), ``detector``
        (name), ``answer``, ``finish_reason``, ``seconds``, ``run`` and ``trace`` (of the trace).
        """
        score = risk = by_token = None
        if detector is not None and saved is not None:
            detector.check(self._runs.viewed(ASKED).store)
            score = float(require_finite(np.array([detector.score(trace)]), "score", trace)[0])
            found = detector.token_scores(trace)
            by_token = None if found is None else numbers(found)
            provenance = Provenance.read(saved.folder)
            curve = None if provenance is None else provenance.curve
            risk = None if curve is None else float(curve([score])[0])
        tell(
            "done",
            {
                "tokens": token_texts(loaded, trace.answer_tokens.tolist()),
                "logprob": numbers(trace.logprob),
                "entropy": numbers(trace.token_entropy),
                "risk_by_token": by_token,
                "score": score,
                "risk": risk,
                "detector": None if detector is None else detector.name,
                "answer": trace.answer,
                "finish_reason": trace.finish_reason,
                "seconds": seconds,
                "run": ASKED,
                "trace": trace.id,
            },
        )

    def _tell_neighbors(
        self, viewed: ViewedRun, trace: Trace, detector: Detector | None, tell: Tell
    ) -> None:
        try:
            layer = layer_read_by(detector)
            tell("neighbors", self._neighbors.nearest(viewed, trace, layer))
        except InputError as error:
            tell("neighbors", {"message": str(error)})


class _Follower:
    """Tells each token as it comes, with its risk where the detector can say it already."""

    def __init__(
        self,
        loaded: Loaded,
        detector: Detector | None,
        tell: Tell,
        is_stopped: Callable[[], bool],
    ) -> None:
        self._loaded, self._tell, self._is_stopped = loaded, tell, is_stopped
        self._detector = None if live_layers(detector) is None else detector
        self._trace = PartialTrace()
        self._text = ""

    def step(self, step: Step) -> None:
        if self._is_stopped():
            raise StoppedError("Stopped.")
        self._trace.add(step)
        before, self._text = self._text, decode(self._loaded, self._trace.answer_tokens.tolist())
        text = self._text[len(before) :] if self._text.startswith(before) else self._text
        event = {"text": text, "logprob": step.logprob, "entropy": step.entropy}
        self._tell("token", {**event, "risk": self._risk()})

    def _risk(self) -> float | None:
        if self._detector is None:
            return None
        trace: Any = self._trace
        try:
            found = self._detector.token_scores(trace)
        except (AttributeError, HallutraceError):  # it reads more than it says
            self._detector = None
            return None
        risk = None if found is None else float(found[-1])
        return risk if risk is not None and np.isfinite(risk) else None


def token_texts(loaded: Loaded, tokens: Sequence[int]) -> list[str]:
    """The text that each token of an answer adds, special tokens shown.

    Args:
        loaded: the model.
        tokens: ids.
    """
    # A character may take several tokens, which decode to something only together.
    texts = [decode(loaded, tokens[:end], special=True) for end in range(len(tokens) + 1)]
    return [
        after[len(before) :] if after.startswith(before) else decode(loaded, [token], special=True)
        for before, after, token in zip(texts[:-1], texts[1:], tokens, strict=True)
    ]


def numbers(values: NDArray[Any]) -> list[float | None]:
    """Numbers as JSON has them: None for those that are not finite.

    Examples:
        >>> numbers(np.array([0.5, np.nan]))
        [0.5, None]
    """
    return [float(value) if np.isfinite(value) else None for value in values]


def _failure(folder: Path) -> str:
    failures = Run(folder).failures.read()
    reason = failures[-1].error if failures else "no trace"
    return f"Expected an answer, got: {reason} - ask in another way"
