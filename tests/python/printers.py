"""Every command that prints text of others, on objects made up of given texts.

Each takes a patch and texts, prints through its command, and returns what must be seen.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace as Made
from typing import Any, NoReturn

import numpy as np
import pytest
import typer

from hallutrace.commands import (
    extract,
    inspect,
    label,
    merge,
    plan,
    repair,
    subset,
    verify,
)
from hallutrace.commands.exit_codes import report_error
from hallutrace.errors import InputError
from hallutrace.escaping import cell
from hallutrace.escaping import plain as one_line
from hallutrace.extraction.estimate import RunSize
from hallutrace.extraction.summary import Summary
from hallutrace.labels.agreement import Agreement, Disputed, Pair
from hallutrace.labels.labelling import LabelSummary
from hallutrace.store.failures import Failure
from hallutrace.store.reader import TraceStore
from hallutrace.store.repair import Finding as Repaired
from hallutrace.store.verify import Finding

ARGUMENT = 1 << 15  # characters, four bytes each: what Linux takes
Patch = pytest.MonkeyPatch
Printer = Callable[[Patch, list[str]], list[str]]
FIGURES = {
    "traces": 3, "right_share": 0.5, "mean_logprob": -1.0, "finish_reasons": {"eos": 3},
    "prompt_tokens": {"least": 1, "median": 2, "mean": 2.0, "greatest": 3}, "answer_tokens": None,
    "attention_traces": 3, "retained_by_layer": [0.5], "entropy_by_layer": [1.0],
}  # fmt: skip
PRINTERS: dict[str, Printer] = {}


def printer(print_: Printer) -> Printer:
    """Adds one by its name."""
    PRINTERS[print_.__name__] = print_
    return print_


def path_of(text: str) -> Path:
    """A path with a text as its name, as the system allows names."""
    return Path("runs") / (text.replace("\0", "").replace("/", "|")[:80] or "x")


class Store:
    """A run, as `merge` and `subset` show it."""

    __repr__ = TraceStore.__repr__

    def __init__(self, folder: Path, model: str, names: list[str] | None = None) -> None:
        self._run = Made(folder=folder)
        self.folder = folder
        self.manifest = Made(identity={"model": {"name": model}}, fingerprint="f")
        self.names = names or []

    def __len__(self) -> int:
        return 3

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def labels(self) -> list[str]:
        return self.names


def interrupted(*_: Any, **__: Any) -> NoReturn:
    raise KeyboardInterrupt


@contextlib.contextmanager
def ends(code: int) -> Iterator[None]:
    with pytest.raises(SystemExit) as stop:
        yield
    assert stop.value.code == code


@printer
def extraction(patch: Patch, texts: list[str]) -> list[str]:
    folder = path_of(texts[0])
    failing = [
        Failure(id_, 0, 0, "prompt", error)
        for id_, error in zip(texts, reversed(texts), strict=True)
    ]
    summary = Summary(folder, 3, 3, 1, 1, 0.5, 1000, 1.0, 0.5, tuple(failing))

    def extracted(config: Any, reporter: Any) -> Summary:
        reporter.note(texts[1])
        reporter.begin(3, 0)
        reporter.advance(3, 3, 1, 4)
        return summary

    patch.setattr(extract, "config_of", lambda *_: Made(model=texts[2], retry_failed=True))
    patch.setattr("hallutrace.extraction.pipeline.extract", extracted)
    extract.run_extract()
    return [*map(cell, texts), one_line(texts[2]), one_line(str(folder))]


@printer
def extraction_stopped(patch: Patch, texts: list[str]) -> list[str]:
    patch.setattr(extract, "config_of", lambda *_: Made(model=texts[0], retry_failed=False))
    patch.setattr("hallutrace.extraction.pipeline.extract", interrupted)
    patch.setattr(sys, "argv", ["hallutrace", *(text[:ARGUMENT] for text in texts)])
    with ends(130):
        extract.run_extract()
    return [one_line(texts[0])]


@printer
def planning(patch: Patch, texts: list[str]) -> list[str]:
    config = Made(
        model=texts[0],
        revision=None,
        adapter=None,
        trust_remote_code=False,
        limit=3,
        batch_size=1,
        hidden_states="none",
    )
    source = Made(total=3, describe=lambda: texts[1:])
    patch.setattr(plan, "_source_at_hand", lambda _: source)
    shape = Made(layers=1, heads=1, hidden_size=8, parameters=10)
    patch.setattr(plan, "config_of", lambda *_: config)
    patch.setattr("hallutrace.extraction.estimate.model_shape", lambda *_: shape)
    patch.setattr(
        "hallutrace.extraction.estimate.plan", lambda *_: [RunSize("none", 1, 1, 1, 1, 3, None)]
    )
    patch.setattr("hallutrace.extraction.estimate.memory", lambda *_: {"weights": 10})
    plan.run_plan(prompt_tokens=40, answer_tokens=12)
    return [one_line(texts[0])]


@printer
def inspection(patch: Patch, texts: list[str]) -> list[str]:
    shards = [
        {**FIGURES, "name": name, "failures": 0, "bytes_per_trace": None} for name in texts[:3]
    ]
    identity = {
        "model": {"name": texts[3], "dtype": "float32", "quantization": "none"},
        "source": {"spec": texts[4]},
    }
    facts = {"note": texts[5], "captured_layers": [0]}
    run = {**FIGURES, "folder": texts[6], "shards": 3, "bytes": 1, "identity": identity}
    between = {"right_share": {"least": 0.0, "greatest": 1.0, "deviation": 0.5}}
    found = {"run": {**run, "facts": facts}, "shards": shards, "between_shards": between}
    patch.setattr("hallutrace.store.reader.open_run", lambda _: Store(Path("run"), "model"))
    patch.setattr("hallutrace.store.inspect.inspect_run", lambda *_: found)
    inspect.run_inspect(Path("run"))
    return list(map(one_line, texts[3:7]))


@printer
def inspection_of_a_trace(patch: Patch, texts: list[str]) -> list[str]:
    count = len(texts) - 2
    trace = Made(
        id=texts[0], sample=0, prompt_length=2, prompt=texts[1], answer=texts[2],
        references=texts[3:5], answer_tokens=range(count), finish_reason="eos", layers=[0],
        logprob=np.zeros(count), token_entropy=np.zeros(count), tokens=np.zeros(count),
    )  # fmt: skip
    edges = [(0, 1, 0.5), (1, 2, 0.5)]
    patch.setattr("hallutrace.store.reader.open_run", lambda _: Store(Path("run"), "model"))
    patch.setattr(inspect, "_find", lambda *_: trace)
    patch.setattr(inspect, "texts_of", lambda _: lambda _: texts)
    patch.setattr("hallutrace.store.inspect.strongest_edges", lambda *_: edges)
    inspect.run_inspect(Path("run"), trace="0")
    return list(map(one_line, texts))


@printer
def verification(patch: Patch, texts: list[str]) -> list[str]:
    found = [Finding(name, 1, damage) for name, damage in zip(texts, reversed(texts), strict=True)]
    patch.setattr("hallutrace.store.verify.verify_run", lambda *_: iter(found))
    run = path_of(texts[0])
    if any(texts):
        with ends(1):
            verify.run_verify(run)
    return [one_line(name) for name, damage in zip(texts, reversed(texts), strict=True) if damage]


@printer
def repairs(patch: Patch, texts: list[str]) -> list[str]:
    found = [
        Repaired(name, problem, "done", at % 2 == 0)
        for at, (name, problem) in enumerate(zip(texts, reversed(texts), strict=True))
    ]
    patch.setattr("hallutrace.store.repair.repair", lambda *_, **__: iter(found))
    with ends(1):
        repair.run_repair(path_of(texts[0]))
    return [*map(one_line, texts), one_line(str(path_of(texts[0])))]


@printer
def merging(patch: Patch, texts: list[str]) -> list[str]:
    merged = Store(path_of(texts[0]), texts[1])
    patch.setattr("hallutrace.store.merge.merge", lambda *_, **__: merged)
    patch.setattr(
        "hallutrace.store.reader.open_run", lambda _: Store(Path("run"), "model", texts[2:])
    )
    merge.run_merge([Path("run")], Path("out"))
    return [one_line(texts[1]), *map(one_line, texts[2:])]


@printer
def subsetting(patch: Patch, texts: list[str]) -> list[str]:
    patch.setattr(
        "hallutrace.store.subset.subset", lambda *_, **__: Store(path_of(texts[0]), texts[1])
    )
    subset.run_subset(Path("run"), Path("out"))
    return [one_line(texts[1])]


@printer
def labelling(patch: Patch, texts: list[str]) -> list[str]:
    path = path_of(texts[0])
    summary = LabelSummary(texts[1], path, {}, 3, 1, 1, 1, 0, 0, 3, True)
    patch.setattr("hallutrace.labels.label", lambda *_, **__: summary)
    label.run_label(path, by="f1")
    return [one_line(str(path))]


@printer
def agreeing(patch: Patch, texts: list[str]) -> list[str]:
    names = ("hallucinated", "right", "dropped", "unjudged", "unlabelled")
    counts = {name: dict.fromkeys(names, 1) for name in texts[:3]}
    pairs = [Pair((one, other), 3, 1, None) for one, other in itertools.pairwise(texts[3:6])]
    decided = dict.fromkeys(texts[6:8], 1)
    disputed = Disputed(
        texts[8], 0, texts[9], texts[10], texts[11:13], decided, dict.fromkeys(decided)
    )
    found = Agreement(3, counts, pairs, 1, [disputed])
    patch.setattr("hallutrace.labels.agreement", lambda *_: found)
    label.run_label(Path("r"), agreement=True)
    return [*map(cell, texts[:6]), *(cell(text, label.SHOWN) for text in texts[8:11])]


@printer
def mistakes(patch: Patch, texts: list[str]) -> list[str]:
    for text in texts:
        assert report_error(InputError(text)) == 2
    return [text for text in map(one_line, texts) if "⏎" not in text and len(text) < 1000]


@printer
def faults(patch: Patch, texts: list[str]) -> list[str]:
    for text in texts[:2]:
        assert report_error(RuntimeError(text)) == 1
    return [text for text in map(one_line, texts[:2]) if "⏎" not in text and len(text) < 1000]


@printer
def refusals(patch: Patch, texts: list[str]) -> list[str]:
    for text in texts:
        assert report_error(typer.BadParameter(text, param_hint=texts[0])) == 2
    return [text for text in map(one_line, texts) if "⏎" not in text and len(text) < 1000]
