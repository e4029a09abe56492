"""Labelling protocols that someone else registers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import Extract
from hallutrace import labels, plugins
from hallutrace.errors import InputError
from hallutrace.labels.registry import PROTOCOLS
from hallutrace.plugins import load_plugin

CODE = """
from hallutrace.labels import register

@register("by-length", threshold=0.75)
def by_length(trace):
    return None if trace.sample else min(len(trace.answer) / 20, 1)
"""


@pytest.fixture(autouse=True)
def nothing_stays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(plugins, "_files", {})
    yield
    for name in PROTOCOLS.added():
        PROTOCOLS.remove(name)


def test_a_protocol_of_a_file_labels_by_its_threshold(run_extract: Extract, tmp_path: Path) -> None:
    run = run_extract().folder
    (tmp_path / "mine.py").write_text(CODE)
    assert load_plugin(tmp_path / "mine.py") == ["labelling protocol by-length"]
    summary = labels.label(run, "by-length")
    assert (summary.name, summary.parameters["threshold"]) == ("by-length", 0.75)
    assert summary.traces == 7
    import hallutrace

    with hallutrace.open(run) as store:
        for key, row in labels.read_rows(run, "by-length").items():
            score = min(len(store[key].answer) / 20, 1)
            assert (row.label, row.score) == (int(score < 0.75), score)
    assert not labels.label(run, "by-length").is_changed
    (tmp_path / "mine.py").write_text(CODE.replace("/ 20", "/ 10"))
    plugins._files.clear()
    load_plugin(tmp_path / "mine.py")
    with pytest.raises(InputError, match=r"Expected labels `by-length` .*, got others in .*code"):
        labels.label(run, "by-length")


@pytest.mark.parametrize(
    ("gives", "said"),
    [
        (lambda trace: 1 / 0, "a score of the trace 'q0', sample 0 by `mine`, got ZeroDivision"),
        (lambda trace: 3, "got 3 - fix the protocol"),
        (lambda trace: float("nan"), "got nan - fix the protocol"),
        (lambda trace: "right", "got 'right' - fix the protocol"),
        (lambda trace: None, "got None for all 7 - fix the protocol"),
    ],
)
def test_what_is_no_score_is_told_with_the_trace(
    gives: Any, said: str, run_extract: Extract
) -> None:
    run = run_extract().folder
    labels.register("mine")(gives)
    with pytest.raises(InputError) as caught:
        labels.label(run, "mine")
    assert said in str(caught.value)


def test_a_class_and_true_or_false_are_taken(run_extract: Extract) -> None:
    @labels.register("judge")
    class Judge:
        def __init__(self) -> None:
            self.words = 3

        def __call__(self, trace: Any) -> bool:
            return len(trace.answer.split()) > self.words

    summary = labels.label(run_extract().folder, "judge")
    assert summary.hallucinated + summary.right == 7


def test_names_and_things_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="another name than a protocol of hallutrace, got `f1`"):
        labels.register("f1")(lambda trace: 1)
    with pytest.raises(InputError, match=r"Expected a function of a trace .*`mine`, got int - "):
        labels.register("mine")(3)
    with pytest.raises(InputError, match="Expected a name of small letters"):
        labels.register("my protocol")(lambda trace: 1)
