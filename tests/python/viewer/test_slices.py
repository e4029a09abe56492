"""Parts of a run and their figures, against plain numpy and loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect_runs import plain_auroc
from hallutrace.detect.evaluation.bootstrap import Resampling
from hallutrace.detect.metrics import holm
from hallutrace.viewer.slices.families import (
    NOWHERE,
    Family,
    agreement,
    frequent,
    quantiles,
    whole_numbers,
)
from hallutrace.viewer.slices.figures import (
    LEAST_CLASS,
    Judged,
    fold_ranks,
    slice_figures,
    two_sided,
)
from hallutrace.viewer.slices.intervals import share_by_group, wilson
from hallutrace.viewer.slices.text_kinds import answer_type, first_word, question_type

COUNT, DRAWS = 240, 60


def made_up(seed: int = 0) -> tuple[list[Family], Judged]:
    """Two families and scores that tell something; groups of one to four traces."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(COUNT) < 0.4).astype(np.int8)
    groups = [f"g{number}" for number in rng.integers(0, 110, COUNT)]
    # A group is in one fold, as in an evaluation.
    folds = np.array([int(name[1:]) % 3 for name in groups])
    scores = np.round(rng.normal(size=(2, COUNT)) + labels, 1)
    first = Family("size", ["s", "m", "l"], ["of s", "of m", "of l"], rng.integers(-1, 3, COUNT))
    rare = np.full(COUNT, NOWHERE)
    rare[:4], rare[4:60] = 0, 1
    second = Family("rare", ["few", "some"], ["few", "some"], rare)
    judged = Judged(np.arange(COUNT), labels, groups, folds, fold_ranks(scores, folds))
    return [first, second], judged


def test_figures_of_parts_are_those_of_plain_numpy() -> None:
    found, judged = made_up()
    figures = slice_figures(found, judged, DRAWS, seed=3)
    assert judged.ranks is not None
    assert figures["name"] == ["s", "m", "l", "some"]
    assert figures["left_out"] == 1
    assert figures["families"] == ["size", "rare"]
    resampling = Resampling(
        judged.labels.astype(int), judged.groups, judged.folds, DRAWS, 3, both_classes=False
    )
    weights = np.concatenate([*resampling.weights()]).astype(int)
    masks = [np.ones(COUNT, bool), *(found[0].of == part for part in range(3)), found[1].of == 1]
    shares, aurocs = np.zeros((5, DRAWS)), np.zeros((5, DRAWS))
    for row, mask in enumerate(masks):
        for draw, times in enumerate(weights):
            at = np.repeat(np.flatnonzero(mask), times[mask])
            shares[row, draw] = judged.labels[at].mean()
            aurocs[row, draw] = plain_auroc(judged.ranks[at], judged.labels[at])
    whole = figures["all"]
    rows = {name: np.append(value, figures[name]) for name, value in whole.items()}
    p_values: dict[str, list[float]] = {"share": [], "auroc": []}
    for row, mask in enumerate(masks):
        labels, ranks = judged.labels[mask], judged.ranks[mask]
        assert rows["traces"][row] == mask.sum()
        assert rows["groups"][row] == len({judged.groups[at] for at in np.flatnonzero(mask)})
        assert rows["hallucinated"][row] == labels.sum()
        assert rows["share"][row] == pytest.approx(labels.mean())
        assert rows["auroc"][row] == pytest.approx(plain_auroc(ranks, labels))
        for name, drawn in (("share", shares), ("auroc", aurocs)):
            ends = rows[f"{name}_low"][row], rows[f"{name}_high"][row]
            assert ends == pytest.approx(np.quantile(drawn[row], [0.025, 0.975]))
            std = (drawn[row] - drawn[0]).std(ddof=1)
            p_values[name].append(two_sided(rows[name][row] - rows[name][0], std))
    assert figures["share_p"] == pytest.approx(holm(p_values["share"][1:]))
    assert figures["auroc_p"] == pytest.approx(holm(p_values["auroc"][1:]))


def test_a_part_of_one_class_has_a_share_and_no_auroc() -> None:
    _, judged = made_up()
    of = np.where(judged.labels == 1, 0, np.arange(COUNT) % 2).astype(np.int64)
    figures = slice_figures([Family("sure", ["a", "b"], ["a", "b"], of)], judged, DRAWS)
    row = figures["name"].index("b")
    assert figures["hallucinated"][row] == 0 and np.isnan(figures["auroc"][row])
    low, high = figures["share_low"][row], figures["share_high"][row]
    assert (low, high) == wilson(0.0, figures["groups"][row]) and 0 < high < 0.2


def test_without_scores_there_are_shares_alone() -> None:
    found, judged = made_up()
    bare = Judged(judged.at, judged.labels, judged.groups, np.zeros(COUNT, int), None)
    figures = slice_figures(found, bare, DRAWS)
    assert np.isfinite(figures["share_p"]).all() and np.isnan(figures["auroc"]).all()
    assert np.isnan(figures["auroc_p"]).all() and np.isnan(figures["all"]["auroc"])


@pytest.mark.parametrize("label", [0, 1])
def test_labels_of_one_class(label: int) -> None:
    found, judged = made_up()
    one = Judged(judged.at, np.full(COUNT, label, np.int8), judged.groups, judged.folds, None)
    figures = slice_figures(found, one, DRAWS)
    assert (figures["share"] == label).all() and (figures["share_p"] == 1).all()


def test_a_draw_without_a_class_is_left_out_of_the_interval() -> None:
    labels = np.zeros(40, np.int8)
    labels[:LEAST_CLASS] = 1
    groups = [f"g{min(at, 30)}" if at >= LEAST_CLASS else "one" for at in range(40)]
    judged = Judged(np.arange(40), labels, groups, np.zeros(40, int), np.linspace(0.9, 0.1, 40))
    figures = slice_figures([], judged, DRAWS)
    assert figures["all"]["auroc_low"] == figures["all"]["auroc_high"] == 1.0


def test_ranks_have_a_common_scale_in_all_folds() -> None:
    rng = np.random.default_rng(0)
    folds = np.arange(30) % 2
    scores = rng.normal(size=(1, 30)) * np.where(folds, 1000.0, 1.0)
    ranks = fold_ranks(scores, folds)
    for number in (0, 1):
        inside = scores[0, folds == number]
        expected = [((inside < one).sum() + (inside == one).sum() / 2) / 15 for one in inside]
        np.testing.assert_allclose(ranks[folds == number], expected)


def test_draws_of_groups_are_as_they_are_where_a_class_is_missing() -> None:
    labels, folds = np.zeros(10, int), np.zeros(10, int)
    groups = [str(at // 2) for at in range(10)]
    (weights,) = Resampling(labels, groups, folds, 50, 1, both_classes=False).weights()
    assert weights.shape == (50, 10) and (weights.sum(axis=1) == 10).all()
    assert (weights[:, ::2] == weights[:, 1::2]).all() and len(np.unique(weights[:, 0])) > 2


def test_the_share_of_a_run_is_drawn_by_group() -> None:
    rng = np.random.default_rng(2)
    of_group = rng.integers(0, 40, 300)
    labels = (rng.random(40) < 0.3).astype(np.int8)[of_group]  # the same within a group
    share, low, high = share_by_group(labels, [str(one) for one in of_group], 4000)
    assert share == labels.mean()
    sizes, hits = np.bincount(of_group, minlength=40), np.bincount(of_group, labels, 40)
    picked = np.random.default_rng(9).integers(0, 40, (4000, 40))
    drawn = hits[picked].sum(axis=1) / sizes[picked].sum(axis=1)
    assert (low, high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.02)
    alone = wilson(share, 300)
    assert high - low > 1.8 * (alone[1] - alone[0])
    assert share_by_group(labels[:0], [])[0] != share_by_group(labels[:0], [])[0]
    assert share_by_group(np.ones(3, np.int8), list("abc")) == (1.0, *wilson(1.0, 3))


def test_wilson_is_the_root_of_its_equation() -> None:
    for hits, count in ((0, 10), (3, 10), (10, 10), (156, 400)):
        share = hits / count
        for end in wilson(share, count):
            variance = end * (1 - end) / count
            assert (share - end) ** 2 == pytest.approx(1.95996398**2 * variance, abs=1e-9)
    assert wilson(0.0, 0) == (0.0, 1.0)


@given(st.lists(st.integers(0, 60), min_size=1, max_size=80))
def test_every_length_is_in_the_part_that_names_it(values: list[int]) -> None:
    lengths = np.array(values, np.uint32)
    is_read = np.arange(len(values)) % 7 != 6
    family = whole_numbers("length", "of {}", lengths, is_read)
    assert len(family.parts) <= 4
    for value, read, part in zip(values, is_read, family.of.tolist(), strict=True):
        if not read:
            assert part == NOWHERE
            continue
        words = family.parts[part].split()
        first, last = int(words[0]), int(words[2] if "to" in words else words[0])
        assert first <= value <= last
        assert family.clauses[part] == f"of {family.parts[part]}"


def test_quarters_of_a_quantity() -> None:
    values = np.array([*np.linspace(0, 1, 100), np.nan], np.float32)
    family = quantiles("entropy", "with {} nats", values)
    assert family.parts[0] == "0 to 0.25" and family.of[-1] == NOWHERE
    assert np.bincount(family.of[:-1]).tolist() == [25, 25, 25, 25]
    assert quantiles("entropy", "{}", np.full(3, np.nan, np.float32)).parts == []
    assert set(quantiles("entropy", "{}", np.ones(5, np.float32)).of.tolist()) <= {0, 1}


def test_protocols_agree_or_not() -> None:
    one, other = np.array([1, 0, 1, -1], np.int8), np.array([1, 0, 0, 1], np.int8)
    assert agreement([one, other]).of.tolist() == [0, 0, 1, 2]


def test_rare_texts_share_a_part() -> None:
    names, of = frequent(["x"] * 3 + ["y"] * 2 + ["z", ""], 2)
    assert names == ["x", "y", ""] and of.tolist() == [0, 0, 0, 1, 1, 2, NOWHERE]


@pytest.mark.parametrize(
    ("question", "word", "kind"),
    [
        ("Who wrote it?", "who", "who"),
        ("How many legs has an ant?", "how", "how many"),
        ("In what year did it begin?", "in", "when"),
        ("Is it red?", "is", "yes or no"),
        ("Tell me what it is", "tell", "what"),
        ("¿?", "", "other"),
        ("w" * (1 << 20), "w" * 24, "other"),
    ],
)
def test_kinds_of_questions(question: str, word: str, kind: str) -> None:
    assert (first_word(question), question_type(question)) == (word, kind)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("yes", "yes or no"),
        ("12.5%", "number"),
        ("seven days", "number"),
        ("1969", "date"),
        ("3 March 1984", "date"),
        ("March 3, 1984", "date"),
        ("2001-02-03", "date"),
        ("Leonardo da Vinci", "name"),
        ("the colour of the sky", "other"),
        ("", "other"),
        ("May", "name"),
        ("9" * (1 << 20), "number"),
    ],
)
def test_kinds_of_answers(answer: str, kind: str) -> None:
    assert answer_type(answer) == kind
