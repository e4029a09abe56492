"""Splits: no group on two sides, every trace tested once, shares near those of the whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hallutrace.errors import InputError
from hallutrace.splits import Split, fold, folds, holdout, numbered, shuffled_by_group


@st.composite
def labelled(draw: Any) -> tuple[np.ndarray, list[str]]:
    """Labels and groups of 40 to 150 traces."""
    seed, groups = draw(st.integers(0, 10**6)), draw(st.integers(15, 60))
    rng = np.random.default_rng(seed)
    count = int(rng.integers(40, 150))
    labels = (rng.random(count) < draw(st.sampled_from([0.2, 0.5, 0.7]))).astype(np.int8)
    return labels, [f"g{at}" for at in rng.integers(0, groups, count)]


def sides(split: Split, groups: list[str]) -> list[set[str]]:
    return [{groups[at] for at in part} for part in vars(split).values()]


@settings(deadline=None)
@given(labelled(), st.integers(2, 5), st.integers(0, 50))
def test_folds_keep_groups_together_and_test_each_trace_once(
    given_to: Any, count: int, seed: int
) -> None:
    labels, groups = given_to
    try:
        found = folds(labels, groups, count, seed)
    except InputError as error:
        assume("Expected hallucinated and right answers in the" not in str(error))
        raise
    assert len(found) == count
    tested = np.sort(np.concatenate([split.test for split in found]))
    assert tested.tolist() == list(range(len(labels)))
    for split in found:
        train, validation, test = sides(split, groups)
        assert not (train & validation or train & test or validation & test)
        everything = np.sort(np.concatenate(list(vars(split).values())))
        assert everything.tolist() == list(range(len(labels)))
        assert all((np.diff(part) > 0).all() for part in vars(split).values())


def test_shares_and_sizes_are_near_those_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    groups = [f"g{at}" for at in rng.integers(0, 300, 1200)]
    # Some groups are mostly hallucinated, as entities that a model has never heard of are.
    risk = {group: rng.random() for group in sorted(set(groups))}
    labels = np.array([rng.random() < risk[group] for group in groups], np.int8)
    for split in folds(labels, groups):
        assert len(split.test) == pytest.approx(240, abs=3)
        assert len(split.validation) == pytest.approx(192, abs=3)
        for part in vars(split).values():
            assert labels[part].mean() == pytest.approx(labels.mean(), abs=0.01)


def test_a_seed_decides() -> None:
    labels, groups = np.tile([0, 1], 50), [f"g{at // 2}" for at in range(100)]

    def parts(seed: int) -> list[list[int]]:
        return [part.tolist() for split in folds(labels, groups, 5, seed) for part in
                vars(split).values()]  # fmt: skip

    assert parts(3) == parts(3)
    assert parts(3) != parts(4)


def test_holdout_is_a_fifth_by_group() -> None:
    labels, groups = np.tile([0, 1], 50), [f"g{at // 2}" for at in range(100)]
    train, validation = holdout(labels, groups, seed=1)
    assert (len(train), len(validation)) == (80, 20)
    assert not {groups[at] for at in train} & {groups[at] for at in validation}
    assert labels[validation].mean() == 0.5
    assert not np.array_equal(validation, holdout(labels, groups, seed=2)[1])


@pytest.mark.parametrize(
    ("labels", "groups", "count", "said"),
    [
        (
            [0, 1, 0, 1],
            "abcd",
            5,
            "Expected at least as many traces as folds, got 4 traces for 5 folds - take fewer "
            "folds or more traces",
        ),
        (
            [0, 1, 0, 1, 0, 1],
            "aabbcc",
            5,
            "Expected at least as many groups as folds, got 3 groups for 5 folds - take fewer "
            "folds or more traces",
        ),
        (
            [1, 1, 1],
            "abc",
            2,
            "Expected hallucinated and right answers, got 3 hallucinated and 0 right - take "
            "another labelling protocol or more traces",
        ),
        ([0, 1], "ab", 1, "Expected at least 2 folds, got 1 - change `folds`"),
        (
            [0, 1, 0, 1],
            "aabb",
            2,
            "Expected a group for each of training, validation and testing, got 2 groups - take "
            "more traces, or finer groups",
        ),
        ([0, 1], "abc", 2, "Expected a group for each of 2 traces, got 3 groups"),
        (
            [0, 0, 0, 0, 0, 0, 0, 1],
            "abcdefgh",
            2,
            "Expected hallucinated and right answers in the test part of split 2 of 2, got 0 "
            "hallucinated and 4 right - take fewer folds, or more traces with labels of both "
            "classes",
        ),
    ],
)
def test_what_cannot_be_split_is_refused(
    labels: list[int], groups: str, count: int, said: str
) -> None:
    with pytest.raises(InputError) as caught:
        folds(labels, list(groups), count)
    got = str(caught.value)
    # Which part lacks a class depends on the order in which groups were dealt.
    if "split 2 of 2" in said:
        assert "Expected hallucinated and right answers in the " in got
        assert got.endswith(said[said.index(" - take") :])
    else:
        assert got == said


def test_a_validation_part_of_one_class_is_refused() -> None:
    with pytest.raises(InputError, match="Expected hallucinated and right answers in the "):
        holdout([0, 0, 0, 0, 1], list("abcde"))


def test_one_fold_is_the_one_of_all() -> None:
    labels, groups = np.tile([0, 1], 50), [f"g{at // 2}" for at in range(100)]
    for number, split in enumerate(folds(labels, groups, 4, 2)):
        one = fold(labels, groups, number, 4, 2)
        assert [part.tolist() for part in vars(one).values()] == [
            part.tolist() for part in vars(split).values()
        ]
    with pytest.raises(InputError, match=r"Expected a fold in 0\.\.3, got 4 - choose one of those"):
        fold(labels, groups, 4, 4)


def test_traces_without_labels_are_split_by_group_too() -> None:
    groups = [f"g{at // 2}" for at in range(100)]
    found = fold(None, groups)
    assert [len(part) for part in vars(found).values()] == [64, 16, 20]
    train, validation, test = sides(found, groups)
    assert not (train & validation or train & test or validation & test)


def test_a_group_larger_than_a_fold_is_whole() -> None:
    rng = np.random.default_rng(1)
    groups = ["large"] * 150 + [f"g{at}" for at in range(50)]
    labels = rng.integers(0, 2, 200)
    tests = [set(split.test.tolist()) for split in folds(labels, groups)]
    holding = [test for test in tests if test & set(range(150))]
    assert [set(range(150)) <= test for test in holding] == [True]


def test_names_of_groups_are_taken_as_they_are() -> None:
    # An array of text would drop zeros at the end, and take 4 bytes a letter of the longest.
    assert numbered(["b", "a\0", "a", "x" * 10**6]).tolist() == [2, 1, 0, 3]
    assert numbered(["b\ud800", "b"]).tolist() == [1, 0]
    labels, groups = np.tile([0, 1], 10), [f"g{at // 2}{chr(0) * (at % 2)}" for at in range(20)]
    assert len(set(groups)) == 20
    assert len({len(split.test) for split in folds(labels, groups)}) == 1


# Shuffling ----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(labelled(), st.integers(0, 50))
def test_shuffling_keeps_classes_and_is_seeded(given_to: Any, seed: int) -> None:
    labels, groups = given_to
    found = shuffled_by_group(labels, groups, seed)
    assert found.dtype == np.int8
    assert np.sort(found).tolist() == np.sort(labels).tolist()
    assert found.tolist() == shuffled_by_group(labels, groups, seed).tolist()


def test_groups_of_one_size_exchange_their_labels_whole() -> None:
    groups = [f"g{at % 40}" for at in range(120)]
    means = np.repeat([[0, 1 / 3, 2 / 3, 1]], 10)
    labels = np.zeros(120, int)
    for group, mean in enumerate(means):
        labels[np.flatnonzero([name == f"g{group}" for name in groups])[: round(3 * mean)]] = 1
    found = [shuffled_by_group(labels, groups, seed) for seed in range(200)]
    of_group = np.array([one.reshape(3, 40).sum(axis=0) for one in found])
    assert (np.sort(of_group, axis=1) == np.sort(np.round(3 * means))).all()
    # Neither a group nor a place within one keeps anything of what it had.
    assert of_group.mean(axis=0) == pytest.approx(np.full(40, 1.5), abs=0.4)
    within = np.array([one.reshape(3, 40).mean(axis=1) for one in found]).mean(axis=0)
    assert within == pytest.approx(np.full(3, 0.5), abs=0.02)


def test_groups_of_many_sizes_keep_their_labels_together() -> None:
    sizes = np.arange(1, 40)
    groups = [f"g{at}" for at in np.repeat(np.arange(39), sizes)]
    labels = np.repeat(np.arange(39) % 2, sizes)
    found = shuffled_by_group(labels, groups, 0)
    means = [found[np.array(groups) == f"g{at}"].mean() for at in range(39)]
    # Labels that move from trace to trace give groups of 20 a share near .5 each.
    assert np.mean(np.abs(np.array(means) - 0.5)[10:]) > 0.25
    assert abs(np.corrcoef(found, labels)[0, 1]) < 0.5
