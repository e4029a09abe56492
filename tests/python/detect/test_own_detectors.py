"""Detectors of other people: what they break is their own row, and what is wrong is said."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import Field

import hallutrace
from conftest import Command
from detect_runs import Made, causal_attention, write_run
from hallutrace import plugins, registry
from hallutrace.detect import (
    Detector,
    Examples,
    LinearDetector,
    Needs,
    Scorer,
    Source,
    find,
    load,
    load_examples,
    make,
    names,
    register,
)
from hallutrace.detect.evaluation import EvaluationData, EvaluationOptions, evaluate, table_rows
from hallutrace.detect.options import Options, option_help, read_texts
from hallutrace.detect.registry import REGISTRY
from hallutrace.errors import InputError
from hallutrace.plugins import load_plugin

BREAKING = """
import os
import numpy as np
from hallutrace.detect import Scorer, register


class Breaks(Scorer):
    def score(self, trace):
        return -float(trace.logprob.mean())


@register
class Fine(Breaks):
    name = "fine"


@register
class BreaksWhenMade(Breaks):
    name = "breaks-when-made"

    def __init__(self, options=None, *, seed=0):
        raise RuntimeError("no room")


@register
class BreaksInFit(Breaks):
    name = "breaks-in-fit"

    def fit(self, train, validation, **_):
        raise KeyError("fit")


@register
class BreaksInScore(Breaks):
    name = "breaks-in-score"

    def score(self, trace):
        return 1 / 0


@register
class GivesNan(Breaks):
    name = "gives-nan"

    def score(self, trace):
        return float("nan")


@register
class GivesTooFew(Breaks):
    name = "gives-too-few"

    def scores(self, examples):
        return np.zeros(1)


@register
class Exits(Breaks):
    name = "exits"

    def score(self, trace):
        raise SystemExit(3)


@register
class Kills(Breaks):
    name = "kills"

    def score(self, trace):
        os._exit(9)
"""


@pytest.fixture(autouse=True)
def nothing_stays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers is gone after it."""
    monkeypatch.setattr(plugins, "_files", {})
    yield
    for name in REGISTRY.added():
        REGISTRY.remove(name)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    rng = np.random.default_rng(3)
    made = []
    for at in range(60):
        label, answer = at % 2, int(rng.integers(2, 4))
        logprob = -rng.exponential(1.0 + label, answer)
        attention = causal_attention((2, 2, 8), rng)
        made.append(Made(attention, 8 - answer, label, group=f"g{at // 2}", logprob=logprob))
    folder = write_run(tmp_path_factory.mktemp("own") / "run", made)
    return load_examples(hallutrace.open(folder), "contains")


@pytest.mark.parametrize("processes", [1, 2])
def test_whatever_a_detector_of_a_file_does_is_its_own_row(
    processes: int, examples: Examples, tmp_path: Path
) -> None:
    (tmp_path / "breaking.py").write_text(BREAKING)
    load_plugin(tmp_path / "breaking.py")
    mine = [name for name in names() if name in REGISTRY.added()]
    plan = EvaluationOptions(rows=table_rows(["length", *mine]), folds=2, draws=100)
    found = evaluate(
        EvaluationData.of(examples, 2, 0), plan, tmp_path / "fits", processes=processes
    )
    assert {"fine", "length", "perplexity"} <= set(found.scores)
    assert found.missing.pop("breaks-when-made") == "RuntimeError: no room"
    assert set(found.missing) == {"linear-probe"}
    reasons = {label: one.reason for label, one in found.failed.items()}
    assert reasons["breaks-in-fit"] == "KeyError: 'fit'"
    assert reasons["breaks-in-score"] == "ZeroDivisionError: division by zero"
    assert "Expected finite scores of `gives-nan`" in reasons["gives-nan"]
    assert "got [1] - fix its `scores`" in reasons["gives-too-few"]
    assert reasons["exits"] == "SystemExit: 3"
    assert "its process was killed" in reasons["kills"]
    assert np.allclose(found.scores["fine"].scores, found.scores["perplexity"].scores)


def test_a_changed_file_is_fitted_anew(examples: Examples, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    code = BREAKING[: BREAKING.index("@register\nclass BreaksWhenMade")]
    material, scores = EvaluationData.of(examples, 2, 0), []
    for change in ("", "\n\nBreaks.score = lambda self, trace: float(trace.logprob.min())\n"):
        file.write_text(code + change)
        plugins._files.clear()
        load_plugin(file)
        plan = EvaluationOptions(rows=table_rows("fine"), folds=2, draws=100)
        scores.append(evaluate(material, plan, tmp_path / "fits").scores["fine"].scores)
    assert not np.array_equal(*scores)


class Broken:
    """A package whose module fails, and one that works."""

    @staticmethod
    def points(*, group: str) -> list[EntryPoint]:
        assert group.startswith("hallutrace.")
        if group != "hallutrace.detectors":
            return []
        return [
            EntryPoint("of-package", f"{__name__}:OfPackage", group),
            EntryPoint("broken", "hallutrace_no_such_module:Thing", group),
            EntryPoint("no-class", f"{__name__}:COUNT", group),
        ]


COUNT = 3


class OfPackage(Scorer):
    """What a package adds."""

    name = "of-package"

    def score(self, trace: Any) -> float:
        return float(len(trace.answer))


def test_entry_points_are_names_and_a_broken_one_is_a_row(
    examples: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    monkeypatch.setattr(registry, "entry_points", Broken.points)
    assert names()[-3:] == ["broken", "no-class", "of-package"]
    assert find("of-package") is OfPackage and str(REGISTRY.origin("of-package")) == (
        "package a package"
    )
    with pytest.raises(InputError, match=r"Expected the detector `broken` of .*ModuleNotFoundErr"):
        find("broken")
    with pytest.raises(InputError, match="as `no-class`, got 3 "):
        find("no-class")
    rows = [row for row in table_rows("all", quick=True) if row.name in ("broken", "length")]
    found = evaluate(
        EvaluationData.of(examples, 2, 0),
        EvaluationOptions(tuple(rows), folds=2, draws=100),
        tmp_path / "fits",
    )
    assert "length" in found.scores and "No module named" in found.missing["broken"]
    status, out, _ = command("detectors")
    assert status == 0 and "broken" in out and "of-package" in out
    register(OfPackage)  # as the module of an entry point does, which may use both
    assert REGISTRY.added() == {}


# Names and classes --------------------------------------------------------------------------------


def test_what_is_no_detector_is_refused() -> None:
    class Named(Scorer):
        name = "length"

        def score(self, trace: Any) -> float:
            return 0.0

    with pytest.raises(InputError) as caught:
        register(Named)
    assert "got `length`, which is there (built-in) - choose another name" in str(caught.value)
    for name in ("Length", "my detector", "a:b", "", None):
        Named.name = name  # type: ignore[assignment]
        with pytest.raises(InputError, match="Expected a name of small letters"):
            register(Named)
    with pytest.raises(InputError, match=r"got .*\.Half without score - write these methods"):

        @register
        class Half(Scorer):
            name = "half"

    with pytest.raises(InputError, match=r"Expected a class derived from hallutrace\.detect\.De"):

        @register
        class Alone:  # type: ignore[type-var]
            name = "alone"

    with pytest.raises(InputError, match=r"Expected marginals among .*, got entropies - "):
        Needs(marginals=("entropies",))


def test_a_class_that_is_defined_anew_takes_the_place_of_the_older() -> None:
    def define(value: float) -> None:
        @register
        class Mine(Scorer):
            name = "mine"

            def score(self, trace: Any) -> float:
                return value

    define(1.0)
    define(2.0)
    assert make("mine").score(None) == 2.0  # type: ignore[arg-type]


# Files of the user --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("x = 1\n", "to register a detector, a labelling protocol"),
        ("x = 1\ny = nothing\n", "NameError: name 'nothing' is not defined in line 2 - fix the"),
        ("def f(:\n", "in line 1 - fix the file"),
        ("raise SystemExit(4)", "got SystemExit: 4 in line 1"),
    ],
)
def test_a_file_that_does_not_do_is_told(code: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(code)
    with pytest.raises(InputError) as caught:
        load_plugin(file)
    assert said in str(caught.value)
    with pytest.raises(InputError, match=r"Expected a \.py file, got .*missing.py - change `file`"):
        load_plugin(tmp_path / "missing.py")


def test_a_file_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(BREAKING + "\nraise ValueError('late')\n")
    before = names()
    with pytest.raises(InputError, match="ValueError: late"):
        load_plugin(file)
    assert names() == before
    file.write_text(BREAKING)
    assert "detector fine" in load_plugin(file) and load_plugin(file) == load_plugin(file)
    assert "fine" in names()


def test_a_saved_detector_tells_what_is_missing_and_runs_nothing(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(BREAKING)
    load_plugin(file)
    make("fine", seed=2).save(tmp_path / "saved")
    for name in REGISTRY.added():
        REGISTRY.remove(name)
    plugins._files.clear()
    modules = set(sys.modules)
    with pytest.raises(InputError) as caught:
        load(tmp_path / "saved")
    assert str(caught.value) == (
        f"Expected a detector that is known here, got `fine` in {tmp_path / 'saved'}, the class "
        f"Fine of the file {file} - run it with `hallutrace.plugins.load_plugin({str(file)!r})`"
    )
    assert set(sys.modules) == modules
    load_plugin(file)
    assert load(tmp_path / "saved").seed == 2


def test_what_learns_and_does_not_say_what_is_not_saved(tmp_path: Path) -> None:
    class Forgets(Detector):
        name = "forgets"

        def fit(self, train: Examples, validation: Examples, **_: Any) -> None: ...

        def score(self, trace: Any) -> float:
            return 0.0

    with pytest.raises(InputError, match="Expected `state` and `restore` of `forgets`"):
        Forgets().save(tmp_path)


# Options ------------------------------------------------------------------------------------------


class Chosen(Options):
    top_k: int | None = Field(8, ge=1, description="of each row")
    share: float = Field(0.5, ge=0, le=1, description="kept")
    names: tuple[str, ...] = Field(("a",), strict=False, description="of columns")
    balanced: bool = Field(False, description="classes")


def test_options_are_read_from_text_and_told_in_words() -> None:
    texts = {"top-k": "none", "share": "1e-3", "names": "[b, c]", "balanced": "true"}
    assert read_texts(Chosen, texts) == {
        "top_k": None,
        "share": 1e-3,
        "names": ["b", "c"],
        "balanced": True,
    }
    assert [(one.name, one.takes, one.default) for one in option_help(Chosen)] == [
        ("top_k", "an integer >= 1 or none", 8),
        ("share", "a number from 0 to 1", 0.5),
        ("names", "a list of text", ["a"]),
        ("balanced", "true or false", False),
    ]


def test_every_option_of_every_detector_is_described() -> None:
    for name in names():
        for one in option_help(find(name).Options):
            assert one.description and "a value" not in one.takes, (name, one)


def test_options_of_another_detector_are_refused() -> None:
    with pytest.raises(InputError, match=r"Expected options of `rauq` \(Rauq.Options\), got "):
        find("rauq")(find("lapeigvals").Options())


# What a run has -----------------------------------------------------------------------------------


def suited(examples: Examples, **needs: Any) -> tuple[str, str]:
    class Wanting(LinearDetector):
        name = "wanting"
        source = Source("a paper", "code", "a/b")

        def feature(self, trace: Any) -> Any:
            return np.zeros(1, np.float32)

    Wanting.needs = Needs(**needs)  # type: ignore[assignment,method-assign]
    found = Wanting().suitability(examples.store)
    return found.status, "; ".join(found.reasons)


def test_what_a_run_has_is_exact_near_or_refused(examples: Examples) -> None:
    assert suited(examples) == ("exact", "")
    assert suited(examples, marginals=("log_diagonal",)) == ("exact", "")
    status, why = suited(examples, marginals=("mass",))
    assert status == "near" and "rounded to float16" in why
    status, why = suited(examples, marginals=("mass",), all_rows=True)
    assert status == "refused" and "extract with `marginal_rows='all'`" in why
    assert suited(examples, marginals=("mass",), all_rows=True, takes_less=True)[0] == "near"
    status, why = suited(examples, hidden=("last_answer",))
    assert status == "refused" and "`hidden_states='answer'`" in why
    status, why = suited(examples, edges="all", heads=True)
    assert status == "near" and "heads combined to their mean" in why
    assert suited(examples, logsumexp=True) == ("exact", "")
    status, why = suited(examples, alternatives=10)
    assert status == "refused" and "got none" in why and "`alternatives=10`" in why
    status, why = suited(examples, samples=3)
    assert status == "refused" and "`samples=3`" in why
    assert suited(examples, marginals=("log_diagonal",), layers=(7,))[0] == "refused"


@pytest.mark.parametrize(
    ("kept", "takes_less", "status", "reason"),
    [
        (10, False, "near", "gets them rounded to float16"),
        (5, True, "near", "wants the 10 likeliest tokens of each answer token, gets 5"),
        (5, False, "refused", "extract with `alternatives=10`"),
        (0, True, "refused", "extract with `alternatives=10`"),
    ],
)
def test_alternatives_are_near_or_refused(
    kept: int, takes_less: bool, status: str, reason: str, examples: Examples, monkeypatch: Any
) -> None:
    monkeypatch.setitem(examples.store.manifest.identity, "alternatives", kept)
    found, why = suited(examples, alternatives=10, takes_less=takes_less)
    assert found == status and reason in why
    assert str(Needs(alternatives=10, logsumexp=True)) == (
        "logsumexp of each answer token, alternatives (10 an answer token)"
    )
