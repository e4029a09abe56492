"""Every example in a docstring of the package runs and gives what it says.

Examples may use ``hallutrace``, ``Path``, ``folder`` (a temporary folder, also the current one)
and ``run`` (the folder of a run of eight questions by the small model in the package, labelled with
``contains``).
"""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import hallutrace
from hallutrace import ExtractConfig, extract, labels

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def examples() -> Iterator[doctest.DocTest]:
    """The examples of each module, in the order of their names."""
    names = [module.name for module in pkgutil.walk_packages(hallutrace.__path__, "hallutrace.")]
    for name in ["hallutrace", *names]:
        if not name.endswith(".__main__"):
            module = importlib.import_module(name)
            finder = doctest.DocTestFinder(exclude_empty=True)
            yield from (test for test in finder.find(module, name) if test.examples)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("doctests") / "run"
    extract(ExtractConfig(model="demo", questions="demo:8", out=folder, device="cpu"))
    labels.label(folder, "contains")
    return folder


@pytest.mark.parametrize("test", list(examples()), ids=lambda test: test.name)
def test_example(
    test: doctest.DocTest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    names = {**test.globs, "hallutrace": hallutrace, "Path": Path, "folder": folder}
    if any("run" in example.source for example in test.examples):
        # Each example has a run of its own, so that none depends on another.
        names["run"] = shutil.copytree(request.getfixturevalue("run"), tmp_path / "run")
    test.globs = names
    report: list[str] = []
    doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=report.append)
    assert not report, "".join(report)


def test_what_the_package_exports_has_examples() -> None:
    """The names in ``hallutrace.__all__`` that can be called or opened show how."""
    without = {"HallutraceError"}  # an error is caught, not called
    missing = [
        name
        for name in hallutrace.__all__
        if name not in without and ">>>" not in (inspect.getdoc(getattr(hallutrace, name)) or "")
    ]
    assert not missing
