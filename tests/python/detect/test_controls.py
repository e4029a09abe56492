"""Detectors on signals that only some of them can see, and on labels that nothing tells.

HALLUTRACE_CONTROLS=1 pytest -s tests/python/detect/test_controls.py

goes through all detectors, seeds too, and prints a table; without the variable a few that are
quick go through the same.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_detect_linear import plant

import hallutrace
from detect_runs import write_run
from edge_runs import planted_edges
from hallutrace.detect import Examples
from hallutrace.detect.evaluation import (
    Evaluation,
    EvaluationData,
    EvaluationOptions,
    evaluate,
    table_rows,
)
from hallutrace.splits import Split

IS_LONG = bool(os.environ.get("HALLUTRACE_CONTROLS"))
COUNT, SEEDS = (1600, 3) if IS_LONG else (800, 1)
# So few traces ask for larger steps than a real run does.
STEPS = "learning_rate=0.005:dropout=0.0:batch_size=32"
DETECTORS = (
    ("length,question-only,perplexity,min-logprob,token-entropy,scalars,attention-score,rauq,"
     "rauq-code,lookback-lens,lapeigvals,attneigvals,sinkprobe,sinkprobe-later,linear-probe,"
     f"mlp-probe:{STEPS},attention-gnn:{STEPS},graph-vae:{STEPS},"
     f"graph-vae:{STEPS}:scorer=gru:edges=true,graph-vae:supervised=false:edges=true")
    if IS_LONG
    else "scalars,attneigvals,sinkprobe-later,linear-probe"
)  # fmt: skip

TOKENS = {"length", "question-only", "perplexity", "min-logprob", "token-entropy", "scalars"}
STATES = {"linear-probe", "mlp-probe"}
MARGINALS = {"attneigvals", "lapeigvals", "sinkprobe", "sinkprobe-later"}
GRAPHS = {"attention-gnn", "graph-vae"}
EVERY_HEAD = {"attention-score", "lookback-lens", "rauq", "rauq-code"}

# Signal: who must see it, and who cannot. Those of EVERY_HEAD see some of a change in received
# attention, by what it takes from the other keys; graph models see it diluted by the other heads.
VISIBLE = {
    "received": (MARGINALS, TOKENS | STATES),
    "hidden": (STATES, TOKENS | MARGINALS | GRAPHS | EVERY_HEAD),
    "edges": (GRAPHS, TOKENS | MARGINALS | STATES | EVERY_HEAD),
}


@pytest.fixture(scope="module", params=VISIBLE)
def signal(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def examples(signal: str, tmp_path_factory: pytest.TempPathFactory) -> Examples:
    folder = tmp_path_factory.mktemp(signal) / "run"
    if signal == "edges":
        return planted_edges(folder, COUNT, states="answer")
    rng = np.random.default_rng(21)
    made = [plant(at % 2, rng, signal) for at in range(COUNT)]
    store = hallutrace.open(write_run(folder, made, states="answer"))
    return Examples(store, np.arange(COUNT), np.array([one.label for one in made], np.int8))


def evaluated(examples: Examples, folder: Path, title: str) -> Evaluation:
    """Learns from one half, and tests on the other.

    One split: folds learn from each other's test parts, so that without a signal their mean spreads
    wider than an interval over test traces says, 1.3 times for a linear probe and 240 traces.
    """
    half = len(examples) // 2
    at, train = np.arange(half), 2 * half // 3
    learn, test, part = examples[:half], examples[half:], Split(at[:train], at[train:], at)
    chosen = EvaluationOptions(table_rows(DETECTORS), seeds=SEEDS, level=0.999, draws=20_000)
    processes = 2 if IS_LONG else 1
    found = evaluate(EvaluationData(learn, test, (part,)), chosen, folder, processes=processes)
    assert not found.failed and not found.missing
    print(f"\n{title}: AUROC, 99.9% interval")
    for label, figures in found.comparison.metrics.items():
        auroc = figures.intervals["auroc"]
        print(f"{label:75} {auroc.value:.3f} {auroc.low:.3f} {auroc.high:.3f}")
    return found


def test_those_that_can_see_a_signal_do(signal: str, examples: Examples, tmp_path: Path) -> None:
    found = evaluated(examples, tmp_path / "fits", f"signal in {signal}")
    see, blind = VISIBLE[signal]
    wrong = []
    for row in found.options.rows:
        auroc = found.comparison.metrics[row.label].intervals["auroc"]
        is_fair = row.options.get("supervised", True)  # without labels nothing must be seen
        is_blind = row.name in blind or (signal == "edges" and row.control_of is not None)
        if is_blind and not auroc.low <= 0.5 <= auroc.high:
            wrong.append(f"{row.label} sees what it cannot")
        if row.name in see and row.control_of is None and is_fair and auroc.value <= 0.95:
            wrong.append(f"{row.label} reaches {auroc.value:.3f}")
    assert not wrong


def test_labels_shuffled_teach_nothing(signal: str, examples: Examples, tmp_path: Path) -> None:
    labels = np.random.default_rng(4).permutation(examples.labels)
    shuffled = replace(examples, labels=labels)
    found = evaluated(shuffled, tmp_path / "fits", f"signal in {signal}, labels shuffled")
    for label, figures in found.comparison.metrics.items():
        auroc = figures.intervals["auroc"]
        assert auroc.low <= 0.5 <= auroc.high, label
