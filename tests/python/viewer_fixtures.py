"""Fixtures of what is looked at: a browser, and a labelled run of the small model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hallutrace
from browsers import Opened, chromium
from evaluations import make_evaluation
from hallutrace import ExtractConfig, extract, labels
from hallutrace.viewer.report.report import write_report
from hallutrace.viewer.viewed_run import ViewedRun


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[..., Opened]]:
    """Opens a page; at the end of the test it fails for errors and for requests to elsewhere."""
    pages: list[Opened] = []

    def open_page(address: Path | str, **options: Any) -> Opened:
        pages.append(Opened(browser, address, **options))
        return pages[-1]

    yield open_page
    for one in pages:
        one.close()


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty answers of the small model, labelled by ``contains``; nobody may change it."""
    folder = tmp_path_factory.mktemp("viewed") / "demo"
    extract(ExtractConfig(model="demo", questions="demo:60", out=folder, device="cpu"))
    labels.label(folder, "contains")
    return folder


@pytest.fixture(scope="session")
def demo_evaluation(demo_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of ``demo_run`` with rows that failed and are missing; nobody may change it."""
    return make_evaluation(demo_run, tmp_path_factory.mktemp("viewed-evaluation") / "evaluation")


@pytest.fixture(scope="session")
def probed_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run ``run`` and two detectors of it; nobody may change it.

    The run is sixty answers of the small model with hidden states, labelled by ``contains``; the
    detectors are ``linear-probe`` and ``lookback-lens``.
    """
    from hallutrace.commands.train import run_train

    folder = tmp_path_factory.mktemp("probed")
    run = folder / "run"
    options = {"model": "demo", "questions": "demo:60", "out": run, "device": "cpu"}
    extract(ExtractConfig.from_options({**options, "hidden_states": "answer", "top_k": 4}))
    labels.label(run, "contains")
    for name in ("linear-probe", "lookback-lens"):
        run_train(run, name, "contains", folder / name)
    return folder


@pytest.fixture(scope="session")
def probed_explorer(probed_runs: Path) -> Iterator[str]:
    """The address of an explorer of ``probed_runs``, which loads its model once."""
    from explorers import served

    with served(probed_runs, "--device", "cpu") as address:
        yield address


@pytest.fixture(scope="session")
def demo_report(
    demo_run: Path, demo_evaluation: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The report of ``demo_run`` with its evaluation; nobody may change it."""
    out = tmp_path_factory.mktemp("report") / "demo.html"
    write_report(ViewedRun(hallutrace.open(demo_run), demo_evaluation), out)
    return out
