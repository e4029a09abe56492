"""`hallutrace train`, `evaluate` and `score` as a user types them."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hallutrace
from conftest import Command
from detect_runs import Made, causal_attention, write_run
from hallutrace import ExtractConfig, extract, labels
from hallutrace.commands.app import main
from hallutrace.detect import load, load_examples
from hallutrace.detect.provenance import Provenance, TrainingTraces
from hallutrace.errors import DamagedError, InputError
from hallutrace.extraction.same_settings import settings_of
from hallutrace.splits import fold, holdout

COUNT = 90


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ninety answers of the small model, labelled."""
    folder = tmp_path_factory.mktemp("small") / "run"
    extract(ExtractConfig.from_options({"questions": f"demo:{COUNT}", "out": folder}))
    labels.label(folder, "contains")
    return folder


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty answers without hidden states, labelled."""
    folder = tmp_path_factory.mktemp("bare") / "bare"
    options = {"questions": "demo:40", "out": folder, "hidden_states": "none"}
    extract(ExtractConfig.from_options(options))
    labels.label(folder, "contains")
    return folder


def relabel(run: Path, name: str, decide: Callable[[int], int | None]) -> None:
    keys = hallutrace.open(run).keys()
    rows = [
        {"id": id_, "sample": sample, "label": decide(at), "score": None}
        for at, (id_, sample) in enumerate(keys)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (run / "labels" / f"{name}.jsonl").write_text(text)


QUICKLY = ["--detectors", "scalars", "--draws", "100", "--folds", "3", "--jobs", "1"]


# Evaluate -----------------------------------------------------------------------------------------


def test_evaluate_writes_its_report_and_shows_the_table(
    command: Command, run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "report"
    code, shown, said = command("evaluate", run, "--label", "contains", *QUICKLY, "--out", out)
    assert (code, "Error" in said) == (0, False)
    assert sorted(path.name for path in out.iterdir()) == [
        "evaluation.json", "fits", "scores.csv", "table.md",
    ]  # fmt: skip
    content = json.loads((out / "evaluation.json").read_text())
    names = ["length", "question-only", "perplexity", "scalars", "linear-probe"]
    assert [row["label"] for row in content["detectors"]] == names
    for name in names:
        assert f"| {name}" in (out / "table.md").read_text()
        assert name in shown
    assert f"90 traces of {content['run']['counts']['groups']} groups in run, labels" in shown
    assert str(out) in shown
    assert len((out / "scores.csv").read_text().splitlines()) == COUNT + 1


def test_a_finished_evaluation_is_not_replaced_unasked(
    command: Command, run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "report"
    asked = ["evaluate", run, "--label", "contains", *QUICKLY, "--out", out]
    assert command(*asked)[0] == 0
    first = json.loads((out / "evaluation.json").read_text())
    assert command(*asked) == (
        2,
        "",
        f"Error: Expected no finished evaluation, got one in {out} - choose another --out, or "
        "start over with --overwrite\n",
    )
    code, shown, _ = command(*asked, "--overwrite", "--json")
    second = json.loads(shown)
    assert code == 0
    assert second == json.loads((out / "evaluation.json").read_text())
    for content in (first, second):
        del content["timing"]
    assert first == second


def test_evaluate_leaves_folders_of_others_alone(
    command: Command, run: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    asked = ["evaluate", run, "--label", "contains", *QUICKLY, "--overwrite", "--out"]
    assert command(*asked, tmp_path / "mine")[2] == (
        "Error: Expected a new folder, or one of an evaluation, got "
        f"{tmp_path / 'mine'} with thesis.tex - choose another --out\n"
    )
    assert command(*asked, tmp_path / "mine" / "thesis.tex")[2] == (
        f"Error: Expected a folder, got the file {tmp_path / 'mine' / 'thesis.tex'} - "
        "choose another --out\n"
    )
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "precious"


def test_evaluate_refuses_before_any_work(
    command: Command, run: Path, bare: Path, tmp_path: Path
) -> None:
    relabel(run, "all-wrong", lambda at: 1)
    out = tmp_path / "report"

    def said(*arguments: str | Path) -> str:
        code, shown, told = command("evaluate", *arguments, "--out", out, "--jobs", "1")
        assert (code, shown, out.exists()) == (2, "", False)
        return told

    assert said(run, "--label", "exact") == (
        f"Error: Expected the labels `exact` in {run}, got all-wrong, contains - make them with "
        f"`hallutrace label {run} --by exact`\n"
    )
    assert said(run, "--label", "all-wrong") == (
        "Error: Expected hallucinated and right answers under the labels `all-wrong` of "
        f"{run}, got {COUNT} hallucinated and 0 right - take another protocol or more traces\n"
    )
    assert said(run, "--label", "contains", "--limit", "4") == (
        "Error: Expected at least as many traces as folds, got 4 traces for 5 folds - take fewer "
        "folds or more traces\n"
    )
    assert said(bare, "--label", "contains", "--detectors", "linear-probe") == (
        f"Error: Expected hidden states for `linear-probe`, got none in {bare} - "
        "extract it again with --hidden-states answer\n"
    )
    assert said(run, "--label", "contains", "--detectors", "oracle").startswith(
        "Error: Expected a detector (length, question-only, perplexity, "
    )
    assert said(tmp_path / "nowhere", "--label", "contains").startswith("Error: ")
    assert said("--label", "contains") == (
        "Error: Expected RUN, or --train-on with --test-on, got none - begin with "
        "`hallutrace evaluate runs/demo --label contains`\n"
    )
    assert said(run, "--label", "contains", "--train-on", bare) == (
        "Error: Expected RUN, or --train-on with --test-on, got RUN, --train-on - begin with "
        "`hallutrace evaluate runs/demo --label contains`\n"
    )


def test_evaluate_goes_on_after_ctrl_c(
    command: Command, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hallutrace.commands.progress_display import FitsDisplay

    out, ended = tmp_path / "report", FitsDisplay.end

    def end(self: FitsDisplay, job: str, seconds: float, failure: str | None) -> None:
        ended(self, job, seconds, failure)
        if self._done == 7:
            raise KeyboardInterrupt

    asked = ["evaluate", run, "--label", "contains", *QUICKLY, "--out", out]
    monkeypatch.setattr(FitsDisplay, "end", end)
    code, shown, said = command(*asked)
    assert (code, shown) == (130, "")
    assert "Stopped. Fits that were finished are kept." in said
    assert "hallutrace evaluate" in said
    monkeypatch.setattr(FitsDisplay, "end", ended)
    code, shown, said = command(*asked)
    assert code == 0
    assert "6 of 15 fits were there already." in said
    assert (out / "evaluation.json").exists()


def test_evaluate_tells_a_failure_and_tries_it_again(
    command: Command, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hallutrace.detect.detectors.rauq import Rauq

    def score(self: Rauq, trace: Any) -> float:
        raise ValueError("heads [4] of layer 3")

    out = tmp_path / "report"
    asked = ["evaluate", run, "--label", "contains", "--folds", "3", "--draws", "100", "--jobs",
             "1", "--detectors", "rauq", "--out", out]  # fmt: skip
    with monkeypatch.context() as broken:
        broken.setattr(Rauq, "score", score)
        code, shown, said = command(*asked)
    assert code == 1
    assert "rauq, failed: ValueError: heads [4] of layer 3" in shown
    assert "evaluation.json tells where they failed; the same command tries them again." in shown
    assert "rauq, fold 1, seed 0 failed: ValueError: heads [4] of layer 3" in said
    rows = json.loads((out / "evaluation.json").read_text())["detectors"]
    failed = next(row for row in rows if row["status"] == "failed")
    assert 'raise ValueError("heads [4] of layer 3")' in failed["traceback"]
    code, shown, said = command(*asked)
    assert (code, "failed" in shown) == (0, False)
    assert "12 of 15 fits were there already." in said
    assert "Expected no finished evaluation" in command(*asked)[2]


def test_evaluate_transfers(command: Command, run: Path, bare: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    asked = ["--train-on", run, "--test-on", bare, "--label", "contains", *QUICKLY, "--out", out]
    code, shown, _ = command("evaluate", *asked, "--json")
    content = json.loads(shown)
    assert code == 0
    assert (content["run"]["name"], content["trained_on"]["name"]) == ("bare", "run")
    assert content["shared_groups"] == content["run"]["counts"]["groups"]
    probe = content["detectors"][-1]
    assert (probe["label"], probe["status"]) == ("linear-probe", "missing")


# Train --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [(), ("--all-traces",)])
def test_train_saves_a_detector_and_what_it_saw(
    command: Command, run: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    out = tmp_path / "detector"
    code, shown, said = command(
        "train", run, "--detector", "linear-probe", "--label", "contains", "--out", out,
        "--set", "token=last_prompt", "--seed", "3", *more,
    )  # fmt: skip
    assert code == 0
    assert "layer 3: inner folds AUROC" in said  # few answers of a class
    detector = load(out)
    assert (detector.name, detector.seed, detector.options.token) == (
        "linear-probe", 3, "last_prompt",
    )  # fmt: skip
    examples = load_examples(hallutrace.open(run), "contains")
    first = fold(examples.labels, examples.groups, seed=3)
    parts = (first.train, first.validation)
    if more:
        parts = holdout(examples.labels, examples.groups, 3)
    train, validation = (examples.take(at) for at in parts)
    left = len(examples) - len(train) - len(validation)
    assert f"{len(train)} traces to train on, {len(validation)} for validation" in said
    assert f"{left} left for testing" in said
    learnt = TrainingTraces.read(out)
    assert learnt == TrainingTraces.of(train, validation)
    assert not {*train.groups} & {*validation.groups}
    provenance = Provenance.read(out)
    assert provenance is not None
    assert provenance.identity == examples.store.manifest.identity
    assert provenance.curve is not None
    risks = provenance.curve(detector.scores(validation))
    assert risks.mean() == pytest.approx(validation.labels.mean(), abs=0.1)
    assert f"validation AUROC {provenance.validation_auroc:.3f}" in shown
    assert "hallutrace evaluate" in shown


def test_what_is_tested_is_one_part_for_all(command: Command, run: Path, tmp_path: Path) -> None:
    from hallutrace.graphs import TraceGraphs

    command("train", run, "--detector", "scalars", "--label", "contains", "--out", tmp_path / "d")
    _, shown, _ = command("score", run, "--detector", tmp_path / "d")
    unseen = [row["id"] for row in csv.DictReader(io.StringIO(shown)) if not row["part"]]
    asked = ["evaluate", run, "--label", "contains", *QUICKLY, "--folds", "5"]
    command(*asked, "--out", tmp_path / "report")
    scores = csv.DictReader(io.StringIO((tmp_path / "report" / "scores.csv").read_text()))
    assert [row["id"] for row in scores if row["fold"] == "0"] == unseen
    graphs = TraceGraphs(run, labels="contains", split="test")
    assert [trace.id for trace in graphs.traces] == unseen
    assert len(unseen) == pytest.approx(COUNT / 5, abs=3)


def test_train_refuses_before_any_work(
    command: Command, run: Path, bare: Path, tmp_path: Path
) -> None:
    out = tmp_path / "detector"

    def said(where: Path, name: str, *more: str) -> str:
        asked = ["train", where, "--detector", name, "--label", "contains", "--out", out, *more]
        code, shown, told = command(*asked)
        assert (code, shown, out.exists()) == (2, "", False)
        return told

    assert said(bare, "linear-probe") == (
        f"Error: Expected hidden states for `linear-probe`, got none in {bare} - "
        "extract it again with --hidden-states answer\n"
    )
    assert said(run, "rauq", "--set", "alpha") == (
        "Error: Expected name=value, got 'alpha' - change --set\n"
    )
    assert said(run, "rauq", "--epochs", "3") == (
        "Error: Expected options of `rauq` (one of alpha), got epochs - leave out what it does "
        "not know\n"
    )
    assert said(run, "scalars", "--limit", "1").startswith(
        "Error: Expected hallucinated and right answers under the labels `contains` of"
    )


def test_train_replaces_nothing_unasked(command: Command, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "detector"
    asked = ["train", run, "--label", "contains", "--out", out, "--detector"]
    assert command(*asked, "scalars")[0] == 0
    assert command(*asked, "scalars")[2] == (
        f"Error: Expected no trained detector, got one in {out} - choose another --out, or start "
        "over with --overwrite\n"
    )
    code, shown, _ = command(*asked, "rauq", "--overwrite", "--json")
    assert code == 0
    assert json.loads(shown)["folder"] == str(out)
    assert load(out).name == "rauq"
    (out / "notes.txt").write_text("mine")
    assert command(*asked, "scalars", "--overwrite")[2] == (
        f"Error: Expected a new folder, or one of a detector, got {out} with notes.txt - "
        "choose another --out\n"
    )


def test_train_goes_on_after_ctrl_c(
    command: Command, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hallutrace.commands.train import EpochPrinter

    said_epoch = EpochPrinter.epoch

    def epoch(self: EpochPrinter, *told: Any) -> None:
        said_epoch(self, *told)
        if self.epochs == 2:
            raise KeyboardInterrupt

    options = ["--set", "layers=[3]", "--set", "hidden_dims=[8]", "--epochs", "4"]
    asked = ["train", run, "--detector", "mlp-probe", "--label", "contains", *options, "--out"]
    monkeypatch.setattr(EpochPrinter, "epoch", epoch)
    code, shown, said = command(*asked, tmp_path / "killed")
    assert (code, shown) == (130, "")
    assert "goes on after the last of them" in said
    assert not (tmp_path / "killed" / "detector.json").exists()
    monkeypatch.setattr(EpochPrinter, "epoch", said_epoch)
    assert command(*asked, tmp_path / "killed", "--seed", "1")[2].startswith(
        f"Error: Expected the training that is in {tmp_path / 'killed'}, got another one "
        "(detector.seed, split differ)"
    )
    code, _, said = command(*asked, tmp_path / "killed")
    assert code == 0
    assert "Goes on after epoch 2" in said
    assert command(*asked, tmp_path / "undisturbed")[0] == 0
    for name in ("detector.json", "detector.safetensors", "training.json", "split.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (
            tmp_path / "undisturbed" / name
        ).read_bytes()
    histories = list((tmp_path / "killed" / "training").rglob("history.json"))
    assert [len(json.loads(path.read_text())["epochs"]) for path in histories] == [4]
    assert list((tmp_path / "killed" / "training").rglob("history.csv"))


@pytest.mark.parametrize("detector", ["mlp-probe", "graph-vae"])
def test_epochs_are_written_for_tensorboard(
    detector: str, command: Command, run: Path, tmp_path: Path
) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    out, log = tmp_path / "detector", tmp_path / "log"
    asked = ["train", run, "--detector", detector, "--label", "contains", "--epochs", 2]
    code, _, told = command(*asked, "--out", out, "--tensorboard", log)
    assert code == 0, told
    events = accumulators.EventAccumulator(str(log))
    events.Reload()
    histories = sorted((out / "training").rglob("history.json"))
    assert histories
    for path in histories:
        network = path.parent.relative_to(out / "training").as_posix()
        begin = "" if network == "." else f"{network}/"
        epochs = json.loads(path.read_text())["epochs"]
        for name in ("loss", "validation_auroc", "learning_rate", "gradient", "seconds"):
            found = [(one.step, one.value) for one in events.Scalars(begin + name)]
            expected = [(one["epoch"], pytest.approx(one[name], rel=1e-6)) for one in epochs]
            assert found == expected, begin + name


def test_damaged_records_of_a_training_are_told(
    command: Command, run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "detector"
    assert command("train", run, "--detector", "rauq", "--label", "contains", "--out", out)[0] == 0
    content = json.loads((out / "training.json").read_text())
    for wrong in ("{", "[]", json.dumps({**content, "label": 3}), '{"schema": 1}'):
        (out / "training.json").write_text(wrong)
        with pytest.raises(DamagedError, match=r"Expected what `hallutrace train` wrote, got "):
            Provenance.read(out)
    (out / "training.json").write_text(json.dumps({**content, "schema": 2}))
    with pytest.raises(InputError, match=r"Expected schema 1, got another one in "):
        Provenance.read(out)
    (out / "split.json").write_text('{"schema": 1, "train": [[1]]}')
    with pytest.raises(DamagedError, match=r"split\.json - restore it from a copy"):
        TrainingTraces.read(out)


# Score --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def probe(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linear probe, trained by the command on the first 60 traces."""
    out = tmp_path_factory.mktemp("probe") / "detector"
    before, argv = sys.argv, ["train", str(run), "--detector", "linear-probe", "--label",
                              "contains", "--limit", "60", "--all-traces", "--out",
                              str(out)]  # fmt: skip
    sys.argv = ["hallutrace", *argv]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code
    finally:
        sys.argv = before
    return out


def test_score_writes_scores_and_says_what_was_seen(
    command: Command, run: Path, probe: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores.csv"
    code, shown, said = command("score", run, "--detector", probe, "--out", out)
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    store = hallutrace.open(run)
    detector = load(probe)
    assert [(row["id"], int(row["sample"])) for row in rows] == store.keys()
    scores = [detector.score(trace) for trace in store]
    assert [float(row["score"]) for row in rows] == pytest.approx(scores, abs=1e-9)
    known = labels.read(run, "contains")
    assert [int(row["label"]) for row in rows] == list(known.values())
    learnt = TrainingTraces.read(probe)
    assert learnt is not None
    for row, trace in zip(rows, store, strict=True):
        key = (row["id"], int(row["sample"]))
        expected = "group" if trace.group in learnt.groups else ""
        expected = "validation" if key in learnt.validation else expected
        assert row["part"] == ("train" if key in learnt.train else expected)
        assert 0 < float(row["risk"]) < 1
    counts = [len(learnt.train), len(learnt.validation)]
    assert sum(counts) == 60
    assert said == (
        f"Warning: {counts[0]} of 90 traces were in the detector's training part and {counts[1]} "
        "in its validation part (column `part`): what it reaches on them says nothing\n"
    )
    unseen = [row for row in rows if not row["part"]]
    assert f"by the labels contains on {len(unseen)} traces that training has not seen" in shown


def test_score_writes_lines_and_standard_output(
    command: Command, run: Path, probe: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores.jsonl"
    assert command("score", run, "--detector", probe, "--out", out)[0] == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    code, shown, _ = command("score", run, "--detector", probe)
    rows = list(csv.DictReader(io.StringIO(shown)))
    assert code == 0
    assert [float(row["score"]) for row in rows] == [line["score"] for line in lines]
    assert list(lines[0]) == ["id", "sample", "score", "risk", "label", "part"]
    assert command("score", run, "--detector", probe, "--out", out)[2] == (
        f"Error: Expected no such file, got {out} - choose another --out, or replace it with "
        "--overwrite\n"
    )
    assert command("score", run, "--detector", probe, "--out", out, "--overwrite")[0] == 0


def test_score_of_another_run_warns_of_groups(
    command: Command, run: Path, bare: Path, probe: Path, tmp_path: Path
) -> None:
    out = tmp_path / "rauq"
    asked = ["train", run, "--detector", "rauq", "--label", "contains", "--all-traces"]
    assert command(*asked, "--out", out)[0] == 0
    code, shown, said = command("score", bare, "--detector", out)
    assert (code, len(shown.splitlines())) == (0, 41)
    assert said == (
        "Warning: 40 of 40 traces are of groups that the detector was trained on (column `part`), "
        "in the run run\n"
    )
    assert command("score", bare, "--detector", probe)[2] == (
        f"Error: Expected hidden states for `linear-probe`, got none in {bare} - "
        "extract it again with --hidden-states answer\n"
    )
    for name in ("training.json", "split.json"):
        (out / name).unlink()
    code, shown, said = command("score", bare, "--detector", out)
    assert said == (
        "Warning: it is not known what the detector was trained on, so it may have seen these "
        "traces\n"
    )
    assert {row["risk"] for row in csv.DictReader(io.StringIO(shown))} == {""}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ask", " "], "Expected a question, got none - write it after `hallutrace ask`"),
        (["score", "RUN", "--out", "x.txt"], "Expected a .csv or .jsonl file, got x.txt - change"),
        (["score", "RUN", "--label", "exact"], "Expected the labels `exact` in "),
    ],
)
def test_what_cannot_be_scored_is_refused(
    command: Command, run: Path, probe: Path, arguments: list[str], said: str
) -> None:
    given = [str(run) if one == "RUN" else one for one in arguments]
    code, shown, told = command(*given, "--detector", probe)
    assert (code, shown) == (2, "")
    assert told.startswith(f"Error: {said}")


def test_a_trace_without_finite_numbers_has_no_score(command: Command, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    made = [
        Made(causal_attention((2, 2, 10), rng), 7, at % 2, logprob=-rng.exponential(1.0, 3))
        for at in range(40)
    ]
    good = write_run(tmp_path / "good", made)
    made[4].logprob = np.array([-1.0, np.nan, -1.0])
    bad = write_run(tmp_path / "bad", made)
    for name in ("perplexity", "scalars"):
        asked = ["--detector", name, "--label", "contains", "--out", tmp_path / name]
        assert command("train", good, *asked)[0] == 0
        out = tmp_path / f"{name}.jsonl"
        code, _, said = command("score", bad, "--detector", tmp_path / name, "--out", out)
        assert code == 0
        assert "1 of 40 traces have no score, for numbers in them are NaN or infinite" in said
        assert "first 'q4', sample 0" in said
        written = out.read_text().splitlines()
        lines = [json.loads(line, parse_constant=pytest.fail) for line in written]
        assert [(line["score"], line["risk"]) for line in lines if line["id"] == "q4"] == [
            (None, None)
        ]
        assert sum(line["score"] is None for line in lines) == 1
    # Whoever trains on them is told the trace.
    asked = ["--detector", "scalars", "--label", "contains", "--all-traces"]
    code, _, said = command("train", bad, *asked, "--out", tmp_path / "other")
    assert code == 2
    assert "Error: Expected finite features `scalars`, got 2 of 4 numbers" in said
    assert "in the trace 'q4', sample 0" in said


def test_score_needs_a_detector(command: Command, run: Path, tmp_path: Path) -> None:
    assert command("score", run, "--detector", tmp_path)[2] == (
        f"Error: Expected a detector in {tmp_path} (detector.json and detector.safetensors), got "
        "none - give the folder that `hallutrace train` wrote\n"
    )


# A question ---------------------------------------------------------------------------------------


def test_a_question_is_asked_as_those_of_the_run(command: Command, run: Path, probe: Path) -> None:
    trace = hallutrace.open(run)[7]
    code, shown, _ = command("ask", trace.question, "--detector", probe, "--json")
    found = json.loads(shown)
    assert code == 0
    assert (found["question"], found["answer"]) == (trace.question, trace.answer)
    detector = load(probe)
    assert found["score"] == pytest.approx(detector.score(trace), abs=1e-3)
    provenance = Provenance.read(probe)
    assert provenance is not None and provenance.curve is not None
    assert found["risk"] == pytest.approx(provenance.curve([found["score"]])[0])
    by_token = detector.token_scores(trace)
    assert by_token is not None
    np.testing.assert_allclose(found["token_scores"], by_token, atol=1e-3)
    assert len(found["tokens"]) == len(trace.answer_tokens)
    assert "".join(found["tokens"]).removesuffix("<eos>").strip() == trace.answer


def test_an_answer_is_printed_with_its_risk_by_token(
    command: Command, run: Path, probe: Path, tmp_path: Path
) -> None:
    trace = hallutrace.open(run)[7]
    _, shown, _ = command("ask", trace.question, "--detector", probe)
    lines = shown.splitlines()
    assert lines[0] == f"Q  {trace.question}"
    assert lines[1].startswith("A   ") and trace.answer in lines[1]
    assert lines[2].startswith("risk 0.") and lines[2].endswith(" of linear-probe")
    assert lines[3] == "Risk by token (colours compare the tokens of this answer):"
    assert len(lines) == 4 + len(trace.answer_tokens)
    out = tmp_path / "length"
    asked = ["train", run, "--detector", "length", "--label", "contains", "--out", out]
    assert command(*asked)[0] == 0
    for name in ("training.json", "split.json"):
        (out / name).unlink()
    _, shown, said = command("ask", trace.question, "--detector", out)
    assert "Nothing tells which model it was trained on: taking the defaults of extract." in said
    assert shown.splitlines()[2:] == [
        f"score {len(trace.answer_tokens)} of length",
        "No curve makes the score a probability: it was not trained by hallutrace train.",
        "length has no risk by token.",
    ]


def test_settings_of_a_run_ask_for_the_same_run(run: Path) -> None:
    identity = hallutrace.open(run).manifest.identity
    asked = ExtractConfig.from_options(settings_of(identity, has_context=False))
    usual = ExtractConfig.from_options({})
    changed = {
        name for name in ExtractConfig.model_fields if getattr(asked, name) != getattr(usual, name)
    }
    # These are what `auto` and the small model's own template come to.
    assert changed == {"dtype", "prompt", "chat", "hidden_layers"}
    assert (asked.hidden_layers, asked.chat, asked.dtype) == ("0,1,2,3", "off", "float32")
    with pytest.raises(InputError, match=r"got one of a run of existing answers \(`responses`\)"):
        settings_of({**identity, "decoding": {"responses": True}}, has_context=False)


def test_provenance_tells_another_training(run: Path, probe: Path) -> None:
    provenance = Provenance.read(probe)
    assert provenance is not None
    provenance.check_same(replace(provenance, calibration=None), probe)
    with pytest.raises(InputError) as caught:
        provenance.check_same(replace(provenance, label="exact", limit=7), probe)
    assert str(caught.value) == (
        f"Expected the training that is in {probe}, got another one (label, limit differ) - "
        "choose another `folder`, or delete it"
    )
