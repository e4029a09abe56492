"""The view of errors: its payload against plain numpy, its sentences, and what the page shows."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hallutrace
from detect_runs import Made, causal_attention, plain_auroc, write_run
from evaluations import write_made_up
from hallutrace.errors import NotInRunError
from hallutrace.viewer.data.errors import ALARM_SHARE, LISTED, errors_data, report_keys
from hallutrace.viewer.evaluations.scores import evaluation_scores
from hallutrace.viewer.payload import pack, unpack
from hallutrace.viewer.slices.families import families
from hallutrace.viewer.slices.hidden_clusters import hidden_clusters
from hallutrace.viewer.slices.suggestions import Findings, suggestions
from hallutrace.viewer.viewed_run import ViewedRun
from viewed_pages import write_page

COUNT = 200


def made_run(folder: Path, hidden: bool = True) -> Path:
    """Questions that begin with "when" are hallucinated more often, and their answers are short."""
    rng = np.random.default_rng(11)
    traces = []
    for number in range(COUNT):
        is_when = number % 4 == 0
        label = int(rng.random() < (0.8 if is_when else 0.3))
        answer = 1 if is_when else int(rng.integers(3, 7))
        states = rng.normal(size=(2, answer + 1, 6)) + 8.0 * is_when
        traces.append(
            Made(
                causal_attention((2, 2, 5 + answer), rng),
                5,
                None if number % 20 == 19 else label,
                question=f"{'When' if is_when else 'Who'} was number {number}?",
                group=f"g{number // 2}",
                logprob=-rng.exponential(1.0 + label, answer),
                token_entropy=rng.exponential(1.0 + label, answer),
                hidden=states if hidden else None,
                eos=number % 3 > 0,
            )
        )
    return write_run(folder / "run", traces, states="answer" if hidden else "none")


def made_scores(run: Path) -> dict[str, np.ndarray]:
    """Scores that mislead where questions begin with "when"; another detector sees there."""
    rng = np.random.default_rng(4)
    labels = hallutrace.labels.read(run, "contains")
    keys = hallutrace.open(run).keys()
    truth = np.array([labels[key] or 0 for key in keys])
    is_when = np.arange(COUNT) % 4 == 0
    noise = rng.normal(size=(5, COUNT))
    return {
        "length": noise[0],
        "question-only": noise[1] + truth,
        "model seed=0": noise[2] + truth * np.where(is_when, -0.5, 3.0),
        "model seed=1": noise[3] + truth * np.where(is_when, -0.5, 3.0),
        "other": noise[4] + 3 * truth * is_when,
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_run(tmp_path_factory.mktemp("errors-view"))


@pytest.fixture(scope="module")
def viewed(run: Path, tmp_path_factory: pytest.TempPathFactory) -> ViewedRun:
    folder = tmp_path_factory.mktemp("errors-evaluation") / "evaluation"
    write_made_up(folder, run, made_scores(run))
    return ViewedRun(hallutrace.open(run), folder)


def expected_errors(viewed: ViewedRun, detector: str) -> tuple[np.ndarray, ...]:
    """Labels, ranks and alarms of all traces by plain loops; NaN and False without a score."""
    scores = evaluation_scores(viewed)
    labels, folds = viewed.label_values("contains"), scores.folds
    ranks, alarm = np.full(COUNT, np.nan), np.zeros(COUNT, bool)
    for fold in range(5):
        inside = np.flatnonzero(folds == fold)
        of_seeds = []
        for series in scores.series[detector]:
            ours = series[inside]
            below = np.array([(ours < one).sum() + (ours == one).sum() / 2 for one in ours])
            of_seeds.append(below / len(ours))
        ranks[inside] = np.mean(of_seeds, axis=0)
        right = ranks[inside][labels[inside] == 0]
        for one in inside:
            alarm[one] = (right >= ranks[one]).sum() <= int(ALARM_SHARE * len(right) + 1e-9)
    return labels, ranks, alarm


def test_misses_and_false_alarms_are_those_of_plain_numpy(viewed: ViewedRun) -> None:
    found = unpack(pack(errors_data(viewed, detector="model")))
    labels, ranks, alarm = expected_errors(viewed, "model")
    misses, false = (labels == 1) & ~alarm, (labels == 0) & alarm
    assert found["counts"] == {
        "traces": COUNT,
        "judged": int((labels >= 0).sum()),
        "hallucinated": int((labels == 1).sum()),
        "right": int((labels == 0).sum()),
        "misses": int(misses.sum()),
        "false_alarms": int(false.sum()),
    }
    assert false.sum() <= ALARM_SHARE * (labels == 0).sum()
    for name, mask, sign in (("misses", misses, 1), ("false_alarms", false, -1)):
        order = sorted(np.flatnonzero(mask), key=lambda at: sign * ranks[at])[:LISTED]
        shown = found["listed"]["rank"][found[name]]
        np.testing.assert_allclose(shown, ranks[order], rtol=1e-6)
        assert {found["listed"]["key"][row] for row in found[name]} <= {
            viewed.key_texts[at] for at in np.flatnonzero(mask)
        }
    assert found["slices"]["all"]["auroc"] == pytest.approx(
        plain_auroc(ranks[labels >= 0], labels[labels >= 0])
    )


def test_alarms_reach_the_tpr_of_the_evaluation(demo_run: Path, demo_evaluation: Path) -> None:
    viewed = ViewedRun(hallutrace.open(demo_run), demo_evaluation)
    found = errors_data(viewed, detector="perplexity")
    row = next(one for one in viewed.evaluation_json["detectors"] if one["label"] == "perplexity")
    labels, folds = viewed.label_values("contains"), evaluation_scores(viewed).folds
    misses = {found["listed"]["position"][at] for at in found["misses"]}
    assert found["counts"]["misses"] == len(misses) <= LISTED
    reached = []
    for fold in range(2):
        inside = np.flatnonzero((folds == fold) & (labels == 1))
        reached.append(1 - sum(int(at) in misses for at in inside) / len(inside))
    assert np.mean(reached) == pytest.approx(row["tpr10"]["value"])


def test_parts_count_their_errors_and_name_their_worst(viewed: ViewedRun) -> None:
    found = errors_data(viewed, detector="model")
    labels, ranks, alarm = expected_errors(viewed, "model")
    slices, listed = found["slices"], found["listed"]
    all_families, _ = families(viewed)
    assert [one.name for one in all_families] == slices["families"]
    for row, name in enumerate(slices["name"]):
        inside = all_families[slices["family"][row]].of == slices["part"][row]
        assert slices["traces"][row] == (inside & (labels >= 0)).sum()
        assert slices["misses"][row] == (inside & (labels == 1) & ~alarm).sum(), name
        assert slices["false_alarms"][row] == (inside & (labels == 0) & alarm).sum()
        examples = listed["position"][slices["examples"][row]].astype(int)
        assert inside[examples].all()
        for label in (1, 0):
            chosen = np.flatnonzero(inside & (labels == label))
            wrong = np.sort(np.abs(label - ranks[chosen]))[::-1][:5]
            of_label = examples[labels[examples] == label]
            np.testing.assert_allclose(np.abs(label - ranks[of_label]), wrong)


def test_the_planted_parts_are_found(viewed: ViewedRun) -> None:
    found = errors_data(viewed, detector="model")
    slices = found["slices"]
    rows = {
        slices["families"][slices["family"][row]] + ": " + name: row
        for row, name in enumerate(slices["name"])
    }
    when = rows["first word of the question: “when”"]
    assert slices["share_p"][when] < 0.01 and slices["auroc_p"][when] < 0.01
    assert slices["auroc"][when] < 0.7 < 0.85 < slices["auroc"][rows["type of question: who"]]
    texts = [one["text"] for one in found["suggestions"]]
    labels, _, alarm = expected_errors(viewed, "model")
    _, _, other = expected_errors(viewed, "other")
    inside = np.arange(COUNT) % 4 == 0
    misses = (labels == 1) & ~alarm
    share = (inside & (labels == 1)).sum() / (labels == 1).sum()
    count, total = (misses & inside).sum(), misses.sum()
    text = next(one for one in texts if "misses" in one and "answers of 1 token" in one)
    assert text == (
        f"{count} of {total} misses ({100 * count / total:.0f}%) are traces with answers of 1 "
        f"token, as are {100 * share:.0f}% of the hallucinated answers; other catches "
        f"{(misses & inside & other).sum()} of them."
    )
    assert f"other catches {(misses & other).sum()} of the {total} misses of model" in " ".join(
        texts
    )
    cut = (np.arange(COUNT) % 3 == 0) & (labels == 1)
    assert any(
        one.startswith(f"{cut.sum()} of {(labels == 1).sum()} hallucinated answers ended by length")
        for one in texts
    )
    assert [one["priority"] for one in found["suggestions"]] == sorted(
        one["priority"] for one in found["suggestions"]
    )
    assert all(re.search(r"\d", one) for one in texts)


def test_clusters_separate_what_is_apart_and_are_the_same_twice(viewed: ViewedRun) -> None:
    groups = [trace.group for trace in viewed.store]
    found = hidden_clusters(viewed, groups)
    is_when = np.arange(COUNT) % 4 == 0
    assert (found.layer, found.token, found.count) == (1, "last_answer", 8)
    for cluster in range(found.count):
        assert len(set(is_when[found.of == cluster].tolist())) == 1
    sizes = np.bincount(found.of)
    assert (np.diff(sizes) <= 0).all()
    again = hidden_clusters(ViewedRun(hallutrace.open(viewed.store.folder)), groups)
    np.testing.assert_array_equal(found.of, again.of)


def test_other_labels_are_judged_by_the_same_scores(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    text = (copy / "labels" / "contains.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    for number, line in enumerate(lines):
        line["label"] = number % 2
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (copy / "labels" / "f1.jsonl").write_text(text)
    evaluation = write_made_up(tmp_path / "evaluation", copy, made_scores(copy))
    viewed = ViewedRun(hallutrace.open(copy), evaluation)
    found = errors_data(viewed, label="f1")
    assert (found["label"], found["trained_on"]) == ("f1", "contains")
    assert found["counts"]["judged"] == 190  # those with a score
    assert "agreement of labels" in found["slices"]["families"]
    assert not any("Agreement" in one for one in found["missing"])
    assert report_keys(viewed) == [("errors", {}), ("errors", {"label": "f1"})]


def test_without_an_evaluation_there_are_shares_and_a_command(run: Path) -> None:
    viewed = ViewedRun(hallutrace.open(run))
    found = errors_data(viewed)
    assert found["detector"] is None and found["detectors"] == []
    assert "`hallutrace evaluate RUN --label contains` makes one" in found["missing"][-1]
    labels = viewed.label_values("contains")
    logprob = np.array([trace.logprob.mean() for trace in viewed.store])
    surest = sorted(np.flatnonzero(labels == 1), key=lambda at: -logprob[at])[:LISTED]
    keys = [found["listed"]["key"][row] for row in found["confident"]]
    assert keys == [viewed.key_texts[at] for at in surest]
    assert np.isnan(found["slices"]["auroc"]).all() and "misses" not in found["slices"]


def test_what_is_missing_is_named(run: Path, viewed: ViewedRun, tmp_path: Path) -> None:
    with pytest.raises(NotInRunError, match="Expected one of the detectors length, "):
        errors_data(viewed, detector="none such")
    bare = ViewedRun(hallutrace.open(made_run(tmp_path, hidden=False)))
    assert any("--hidden-states answer" in one for one in errors_data(bare)["missing"])
    shutil.rmtree(tmp_path / "run" / "labels")
    with pytest.raises(NotInRunError, match="hallutrace label RUN --by contains"):
        errors_data(ViewedRun(hallutrace.open(tmp_path / "run")))


def test_few_answers_and_text_controls_are_told() -> None:
    figures: dict[str, Any] = {"all": {"auroc": 0.9, "share": 0.5, "traces": 20}}
    for name in ("family", "traces", "hallucinated", "share", "share_p", "auroc", "auroc_p"):
        figures[name] = np.zeros(0)
    labels = np.array([0, 1] * 10, np.int8)
    none = np.zeros(20, bool)
    control = {"label": "length", "value": 0.7, "low": 0.6, "high": 0.8}
    made = suggestions(
        Findings(labels, figures, np.zeros((0, 20), bool), none, "m", {"m": none}, 0.1, [control])
    )
    texts = [one["text"] for one in made]
    assert "length alone reaches AUROC 0.700: 50% of what m reaches above chance." in texts
    assert sum(one.startswith("Only 10 labelled answers are") for one in texts) == 2
    assert all(one["priority"] == 1 and one["part"] is None for one in made)


# The page -----------------------------------------------------------------------------------------


def test_the_page_shows_the_figures_of_all_parts(
    viewed: ViewedRun, tmp_path: Path, opened: Any
) -> None:
    shown = opened(write_page(viewed, tmp_path / "page.html", "run", "errors"))
    shown.show(view="errors")
    page, found = shown.page, errors_data(viewed)
    slices = found["slices"]
    parts = page.locator(".slices .part:not(.head)")
    assert parts.count() == len(slices["name"])
    for row, name in enumerate(slices["name"]):
        cells = parts.nth(row).locator("> div").all_inner_texts()
        assert cells[0].strip() == name and int(cells[1]) == slices["traces"][row]
        assert cells[2].strip().startswith(f"{100 * slices['share'][row]:.1f}% [")
        if np.isfinite(slices["auroc"][row]):
            low, high = slices["auroc_low"][row], slices["auroc_high"][row]
            expected = f"{slices['auroc'][row]:.3f} [{low:.3f}, {high:.3f}]"
            assert cells[3].strip() == expected
        assert [int(one) for one in cells[4:]] == [
            slices["misses"][row],
            slices["false_alarms"][row],
        ]
    bold = parts.locator(".differs").count()
    assert bold == (slices["share_p"] < 0.05).sum() + (slices["auroc_p"] < 0.05).sum() > 0
    texts = page.locator(".suggestions li > span:last-child").all_inner_texts()
    assert [one.removesuffix(" Show these") for one in texts] == [
        one["text"] for one in found["suggestions"]
    ]
    lead = page.locator(".lead").inner_text()
    assert f"misses {found['counts']['misses']} of the" in lead


def test_a_part_opens_its_traces_and_they_open(
    viewed: ViewedRun, tmp_path: Path, opened: Any
) -> None:
    shown = opened(write_page(viewed, tmp_path / "page.html", "run", "errors"))
    shown.show(view="errors")
    page, found = shown.page, errors_data(viewed)
    button = page.get_by_role("button", name="“when”")
    button.focus()
    page.keyboard.press("Enter")
    row = found["slices"]["clause"].index("whose question begins with “when”")
    grid = page.get_by_role("grid", name="Traces whose question begins with “when”")
    shown_rows = grid.locator(".rows > div")
    expected = [found["listed"]["question"][at] for at in found["slices"]["examples"][row]]
    assert shown_rows.locator("> div:nth-child(2)").all_inner_texts() == expected
    assert button.get_attribute("aria-expanded") == "true"
    shown_rows.nth(2).click()
    key = found["listed"]["key"][found["slices"]["examples"][row][2]]
    assert "view=trace&slice" in page.evaluate("location.hash")
    assert f"trace={key}" in page.evaluate("location.hash")


def test_the_page_without_an_evaluation(run: Path, tmp_path: Path, opened: Any) -> None:
    viewed = ViewedRun(hallutrace.open(run))
    shown = opened(write_page(viewed, tmp_path / "page.html", "run", "errors"))
    shown.show(view="errors", detector="other")
    text = shown.page.inner_text("main")
    assert "Hallucinated, and sure of it" in text and "The worst errors" not in text
    assert not shown.page.locator(".slices.scored").count()
    assert "hallutrace evaluate RUN --label contains" in text
