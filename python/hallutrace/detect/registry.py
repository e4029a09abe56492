"""Detectors by name: built-in ones, those of installed packages, and those of the user."""

from __future__ import annotations

import inspect
from os import PathLike
from typing import Any, TypeVar

from hallutrace.detect import saving
from hallutrace.detect.base import Detector
from hallutrace.detect.options import parse
from hallutrace.errors import InputError
from hallutrace.option_names import wording
from hallutrace.registry import Registry

ENTRY_POINTS = "hallutrace.detectors"
"""The group of entry points by which a package adds detectors: ``name = "module:Class"``."""

_BUILT_IN = {
    # Controls and cheap ones.
    "length": "length:Length",
    "question-only": "question_only:QuestionOnly",
    "perplexity": "perplexity:Perplexity",
    "min-logprob": "min_logprob:MinLogprob",
    "token-entropy": "token_entropy:TokenEntropy",
    "scalars": "scalars:Scalars",
    # Attention: without training, then linear.
    "attention-score": "attention_score:AttentionScore",
    "rauq": "rauq:Rauq",
    "rauq-code": "rauq:RauqCode",
    "lookback-lens": "lookback_lens:LookbackLens",
    "lapeigvals": "lapeigvals:LapEigvals",
    "attneigvals": "attneigvals:AttnEigvals",
    "sinkprobe": "sinkprobe:SinkProbe",
    "sinkprobe-later": "sinkprobe:SinkProbeLater",
    # Hidden states.
    "linear-probe": "linear_probe:LinearProbe",
    "mlp-probe": "mlp_probe:MlpProbe",
    # Graphs.
    "attention-gnn": "attention_gnn:AttentionGnn",
    "graph-vae": "graph_vae:GraphVae",
}
"""File in ``detectors/`` and class, in the order of tables."""

Class = TypeVar("Class", bound=type[Detector])


def _checked(name: str, found: Any) -> type[Detector]:
    """A class, if it is a detector of that name.

    Raises:
        InputError: saying what is wrong with it.
    """
    called = getattr(found, "__qualname__", repr(found))
    if not (isinstance(found, type) and issubclass(found, Detector)):
        raise InputError(
            f"Expected a class derived from hallutrace.detect.Detector as `{name}`, got {called} "
            f"({type(found).__name__}) - derive it from Detector, Scorer or LinearDetector"
        )
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise InputError(
            f"Expected a detector `{name}` that can be made, got {called} without {missing} - "
            "write these methods"
        )
    if getattr(found, "name", None) != name:
        raise InputError(
            f"Expected the detector `{name}` to have that `name`, got "
            f"{getattr(found, 'name', None)!r} in {called} - use one name for both"
        )
    return found


REGISTRY = Registry(
    "detector",
    ENTRY_POINTS,
    {name: f"hallutrace.detect.detectors.{where}" for name, where in _BUILT_IN.items()},
    _checked,
    extra="detect",
)

names = REGISTRY.names
find = REGISTRY.find


def register(kind: Class) -> Class:
    """Registers a detector, as a decorator of its class.

    It then takes part in ``evaluate``, ``train``, ``score``, ``ask`` and :func:`load` by its name.

    Args:
        kind: a class with a ``name``, derived from :class:`Detector`, ``Scorer`` (a formula) or
            ``LinearDetector`` (a regression over features).

    Returns:
        The class.

    Raises:
        InputError: a class that is no detector, or a name that another one has.

    Examples:
        >>> from hallutrace.detect import Scorer, make, register
        >>> @register
        ... class LastToken(Scorer):
        ...     name = "last-token"
        ...     def score(self, trace):
        ...         return -float(trace.logprob[-1])
        >>> make("last-token").name
        'last-token'
        >>> REGISTRY.remove("last-token")
    """
    REGISTRY.add(getattr(kind, "name", None), kind)
    return kind


def make(name: str, *, seed: int = 0, **options: Any) -> Detector:
    """Makes a detector that has not been fitted.

    Args:
        name: one of :func:`names`.
        seed: of all that is random in it.
        options: of that detector; ``hallutrace detectors NAME`` lists them. An editor completes
            them where the class is made itself: ``LinearProbe(LinearProbe.Options(token="last"))``.

    Raises:
        InputError: no such detector, an option that it does not know, or a value that the option
            cannot have.

    Examples:
        >>> make("linear-probe", token="last_prompt").options.to_json()["token"]
        'last_prompt'
    """
    kind = find(name)
    return kind(parse(kind.Options, options, name), seed=seed)


def load(folder: str | PathLike[str]) -> Detector:
    """A detector that :meth:`Detector.save` wrote, as it was.

    A detector of someone else's must be registered before: its package is installed, or the file
    that registers it was run (:func:`hallutrace.plugins.load_plugin`, or ``--plugin FILE``). Code
    is never run because a saved detector says so.

    Args:
        folder: that it was saved in.

    Raises:
        InputError: no detector there, or one that is not registered here.
        DamagedError: files that are not what was written.
    """
    content, arrays = saving.read(folder)
    name = content["name"]
    if name not in names():
        raise InputError(
            f"Expected a detector that is known here, got `{name}` in {folder}, "
            f"{_where(content['origin'])}"
        )
    detector = make(name, seed=content["seed"], **content["options"])
    with saving.damage(folder):
        detector.restore(arrays, content["facts"])
    return detector


def _where(origin: dict[str, Any]) -> str:
    """Where the class of a saved detector was from, and how to have it here."""
    kind, where, called = (str(origin.get(name)) for name in ("kind", "where", "class"))
    if kind == "package":
        return f"the class {called} of the package {where} - install that package"
    if kind == "file":
        fix = wording(
            f"run it with `hallutrace.plugins.load_plugin({where!r})`",
            f"name that file with --plugin {where}",
        )
        return f"the class {called} of the file {where} - {fix}"
    if kind == "module":
        return f"the class {called} of the module {where} - import that module first"
    return "which this version does not have - read it with the version that wrote it"
