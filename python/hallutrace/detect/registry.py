"""Detectors by name; each lives in a file of its own, which loads when it is asked for."""

from __future__ import annotations

import importlib
from os import PathLike
from typing import Any

from hallutrace.detect import saving
from hallutrace.detect.base import Detector
from hallutrace.detect.options import parse
from hallutrace.errors import InputError, MissingExtraError

# Name -> module and class, in the order of tables: controls and cheap ones, those without
# training, linear ones, hidden states, graph models.
_HOMES: dict[str, tuple[str, str]] = {
    "length": ("length", "Length"),
    "question-only": ("question_only", "QuestionOnly"),
    "perplexity": ("perplexity", "Perplexity"),
    "min-logprob": ("min_logprob", "MinLogprob"),
    "token-entropy": ("token_entropy", "TokenEntropy"),
    "scalars": ("scalars", "Scalars"),
    "attention-score": ("attention_score", "AttentionScore"),
    "rauq": ("rauq", "Rauq"),
    "rauq-code": ("rauq", "RauqCode"),
    "lookback-lens": ("lookback_lens", "LookbackLens"),
    "lapeigvals": ("lapeigvals", "LapEigvals"),
    "attneigvals": ("attneigvals", "AttnEigvals"),
    "sinkprobe": ("sinkprobe", "SinkProbe"),
    "sinkprobe-later": ("sinkprobe", "SinkProbeLater"),
    "linear-probe": ("linear_probe", "LinearProbe"),
    "mlp-probe": ("mlp_probe", "MlpProbe"),
    "attention-gnn": ("attention_gnn", "AttentionGnn"),
    "graph-vae": ("graph_vae", "GraphVae"),
}


def names() -> list[str]:
    """Names of all detectors, in the order of tables."""
    return list(_HOMES)


def find(name: str) -> type[Detector]:
    """The class of a detector.

    Args:
        name: one of :func:`names`.

    Raises:
        InputError: no such detector.
        MissingExtraError: its module needs a package that is not installed.
    """
    if name not in _HOMES:
        raise InputError(f"Expected a detector ({', '.join(_HOMES)}), got {name!r}")
    module, kind = _HOMES[name]
    try:
        home = importlib.import_module(f"hallutrace.detect.detectors.{module}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("hallutrace"):
            raise
        raise MissingExtraError.of(error.name, "detect", f"the detector `{name}`") from None
    found: type[Detector] = getattr(home, kind)
    return found


def make(name: str, *, seed: int = 0, **options: Any) -> Detector:
    """Makes a detector that has not been fitted.

    Args:
        name: one of :func:`names`.
        seed: of all that is random in it.
        options: of that detector; its class's docstring says which.

    Raises:
        InputError: no such detector, or an option that it does not know.
    """
    kind = find(name)
    return kind(parse(kind.Options, options, name), seed=seed)


def load(folder: str | PathLike[str]) -> Detector:
    """A detector that :meth:`Detector.save` wrote, as it was.

    Args:
        folder: that it was saved in.

    Raises:
        InputError: no detector there, or one that this version does not know.
        DamagedError: files that are not what was written.
    """
    content, arrays = saving.read(folder)
    detector = make(content["name"], seed=content["seed"], **content["options"])
    with saving.damage(folder):
        detector.restore(arrays, content["facts"])
    return detector
