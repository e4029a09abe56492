"""What the model does without a head or a layer: its forward pass over a stored answer, again.

This is causal, unlike what :mod:`hallutrace.viewer.sensitivity` says of a score: the answer stays,
and what changes is how likely the model finds it, and how a detector scores the trace of that pass.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from hallutrace.config import ExtractConfig
from hallutrace.detect import Detector, load
from hallutrace.errors import InputError, NotInRunError
from hallutrace.extraction.pipeline import open_source, walk
from hallutrace.model.ablation import Ablated, ablating
from hallutrace.model.loading import Loaded
from hallutrace.progress import Silent
from hallutrace.store.folder import Run
from hallutrace.store.reader import open_run
from hallutrace.store.trace import Trace
from hallutrace.viewer.explorer.own_model import OwnModel, Question, StoppedError, Tell
from hallutrace.viewer.viewed_run import ViewedRun


class Ablater:
    """Runs stored answers through their model again.

    Args:
        model: loads the models of runs.
    """

    def __init__(self, model: OwnModel) -> None:
        self._model = model

    def ablate(
        self,
        viewed: ViewedRun,
        key: str,
        layer: int | None,
        detector: Path | None,
        tell: Tell,
        is_stopped: Callable[[], bool],
    ) -> None:
        """Ablates each layer, or each head of one layer, one after the other.

        Events: ``state`` (text); ``whole`` (logprob of the answer in nats, score or None, seconds)
        of the pass without an ablation; ``ablated`` (layer, head or None, change of logprob, change
        of the score or None, seconds) of each that follows.

        Args:
            viewed: the run.
            key: of the trace.
            layer: whose heads are ablated; None for each layer as a whole.
            detector: folder of the detector that scores; None for none.
            tell: told each event.
            is_stopped: asked before each pass.

        Raises:
            BusyError: the model is in use.
            NotInRunError: no such trace or layer.
            InputError: the trace cannot be made again, as of a run of existing answers.
            StoppedError: ``is_stopped`` said so.
        """
        with self._model.in_use():
            trace = viewed.trace(key)
            parts = parts_of(trace, layer)
            scorer = None if detector is None else load(detector)
            question = Question(trace.question, trace.context, tuple(trace.answer_tokens.tolist()))
            with _folder() as folder:
                config = self._model.config(trace.manifest, question, folder)
                loaded = self._model.loaded(config, trace.manifest, tell)
                tell("state", {"text": "Running the answer through the model again …"})
                whole = None
                for part in [None, *parts]:
                    if is_stopped():
                        raise StoppedError("Stopped.")
                    began = time.monotonic()
                    found = _passed(config, loaded, trace, part, scorer)
                    seconds = time.monotonic() - began
                    if whole is None or part is None:
                        whole = found
                        values = {"logprob": found[0], "score": found[1]}
                        tell("whole", {**values, "seconds": seconds, "passes": len(parts)})
                    else:
                        changes = _changes(whole, found)
                        tell("ablated", {**asdict(part), **changes, "seconds": seconds})


def parts_of(trace: Trace, layer: int | None) -> list[Ablated]:
    """What is ablated: every layer with attention, or every head of one.

    Args:
        trace: of a run.
        layer: whose heads; None for the layers.

    Raises:
        NotInRunError: a layer without captured attention.

    Examples:
        >>> trace = hallutrace.open(run)[0]
        >>> len(parts_of(trace, None)), len(parts_of(trace, 2))
        (4, 8)
    """
    if layer is None:
        return [Ablated(one) for one in trace.layers]
    if layer not in trace.layers:
        raise NotInRunError(f"Expected a layer with attention ({trace.layers}), got {layer}")
    heads = trace.manifest.facts["heads"][trace.layers.index(layer)]
    return [Ablated(layer, head) for head in range(heads)]


def _passed(
    config: ExtractConfig,
    loaded: Loaded,
    trace: Trace,
    part: Ablated | None,
    detector: Detector | None,
) -> tuple[float, float | None]:
    """Log-probability of the answer and the score of its trace, in a pass without a part."""
    folder = config.out
    assert folder is not None  # it is the model's own
    shutil.rmtree(folder, ignore_errors=True)
    context: Any = nullcontext()
    if part is not None:
        heads = trace.manifest.facts["heads"][trace.layers.index(part.layer)]
        context = ablating(loaded.model, part, heads)
    with context:
        walk(config, open_source(config), Run(folder), loaded, Silent())
    with open_run(folder) as store:
        if not len(store):
            failures = Run(folder).failures.read()
            reason = failures[-1].error if failures else "no trace"
            raise InputError(f"Expected the trace again, got: {reason}")
        again = store[0]
        if not np.array_equal(again.tokens, trace.tokens):
            raise InputError(
                "Expected the tokens of the trace from its question, got others: the prompt of "
                "this trace cannot be made again from what the run keeps"
            )
        logprob = float(again.logprob.sum(dtype=np.float64))
        return logprob, None if detector is None else float(detector.score(again))


def _changes(
    whole: tuple[float, float | None], found: tuple[float, float | None]
) -> dict[str, float | None]:
    score = None if whole[1] is None or found[1] is None else found[1] - whole[1]
    return {"logprob": found[0] - whole[0], "score": score}


@contextmanager
def _folder() -> Iterator[Path]:
    """A temporary folder; files that are still mapped go with the process."""
    with tempfile.TemporaryDirectory(prefix="hallutrace-", ignore_cleanup_errors=True) as name:
        yield Path(name)
