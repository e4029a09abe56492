"""Parts of traces for training, validation and testing; no group is in two of them.

There is one set of splits: the folds of ``hallutrace evaluate``, which labels, groups, number of
folds and seed determine. ``TraceGraphs(split=...)`` gives the parts of one of these folds, the
first unless asked otherwise. ``hallutrace train`` trains on the training part of the first fold and
chooses on its validation part. So the test part of the first fold is the same for all of them, and
none of them trains on it. (``--limit`` and ``--folds`` make other folds.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hallutrace.errors import InputError
from hallutrace.option_names import parameter

Indices = NDArray[np.int64]

FOLDS = 5
"""Default number of folds."""

PARTS = ("train", "validation", "test")

VALIDATION_PARTS = 5
"""The validation part is one of so many parts of what the test part leaves."""


@dataclass(frozen=True)
class Split:
    """Three parts of the traces, as increasing indices, int64.

    Attributes:
        train: what detectors are fitted on.
        validation: what choices are made on: epochs, layers, penalties, calibration.
        test: what figures are reported of; used for nothing else.
    """

    train: Indices
    validation: Indices
    test: Indices


def folds(
    labels: ArrayLike, groups: Sequence[str], count: int = FOLDS, seed: int = 0
) -> list[Split]:
    """Splits so that each trace is in the test part of one of them.

    All traces of a group are on one side, and shares of hallucinated answers are near those of the
    whole. Groups are dealt out in random order, larger ones first, each to the part that has the
    least of what the group has: the part p with the smallest sum over classes c of
    n_pc g_c / N_c^2, which is the greedy step for the least squared shares.

    Args:
        labels: [traces], 1 hallucinated, 0 right.
        groups: of each trace; see :attr:`hallutrace.Trace.group`.
        count: how many splits.
        seed: of the order of the groups.

    Returns:
        ``count`` splits: test one part of ``count``, validation a fifth of the others.

    Raises:
        InputError: fewer than 2 splits, one class only, fewer traces or groups than splits, fewer
            than 3 groups, or so few groups that a part would lack a class.

    Examples:
        >>> groups = [f"question {number}" for number in range(20)]
        >>> first, *others = folds([0, 1] * 10, groups)
        >>> len(first.train), len(first.validation), len(first.test), len(others)
        (13, 3, 4, 4)
    """
    truth, names = _checked(labels, groups, count)
    part_of = _deal(truth, names, count, np.random.default_rng([seed, 0]))
    return [_split(truth, names, part_of, number, seed) for number in range(count)]


def fold(
    labels: ArrayLike | None,
    groups: Sequence[str],
    number: int = 0,
    count: int = FOLDS,
    seed: int = 0,
) -> Split:
    """One of the splits that :func:`folds` gives.

    Args:
        labels: [traces], 1 hallucinated, 0 right; None where there are none: parts then have their
            shares of traces alone, and are not those of any labels.
        groups: of each trace.
        number: of the split, from 0.
        count: how many splits there are.
        seed: of the order of the groups.

    Raises:
        InputError: as :func:`folds`, of this split; or no such split.

    Examples:
        >>> labels, groups = [0, 1] * 10, [f"question {number}" for number in range(20)]
        >>> fold(labels, groups, 2).test.tolist() == folds(labels, groups)[2].test.tolist()
        True
    """
    truth, names = _checked(labels, groups, count)
    if not 0 <= number < count:
        raise InputError(f"Expected a fold in 0..{count - 1}, got {number} - choose one of those")
    part_of = _deal(truth, names, count, np.random.default_rng([seed, 0]))
    return _split(truth, names, part_of, number, seed)


def holdout(labels: ArrayLike, groups: Sequence[str], seed: int = 0) -> tuple[Indices, Indices]:
    """A training and a validation part of all traces, four fifths and one fifth.

    For detectors that are tested on other traces than these: there is no test part.

    Args:
        labels: [traces], 1 hallucinated, 0 right.
        groups: of each trace.
        seed: of the order of the groups.

    Returns:
        Increasing indices, int64.

    Raises:
        InputError: one class only, or so few groups that a part would lack a class.

    Examples:
        >>> train, validation = holdout([0, 1] * 10, list("abcdefghijklmnopqrst"))
        >>> len(train), len(validation)
        (16, 4)
    """
    truth, names = _checked(labels, groups, 2, least_groups=2)
    dealt = _validation(truth, names, np.random.default_rng([seed, 0]))
    train, validation = np.flatnonzero(dealt != 0), np.flatnonzero(dealt == 0)
    _check_parts(truth, Split(train, validation, validation), "")
    return train, validation


def shuffled_by_group(labels: ArrayLike, groups: Sequence[str], seed: int) -> NDArray[np.int8]:
    """Labels moved from group to group, to check a protocol.

    The labels of a group stay together, so that one trace of a group tells something of the others:
    a detector that is tested on groups that it was trained on reaches more than chance. Labels that
    move from trace to trace would hide that. The labels of all groups, in a random order of groups,
    are dealt to the groups in another random order. Groups of one size thus exchange their labels
    whole; others share some of them. Within a group labels are in random order, because questions
    may be of the same kinds in all groups.

    Args:
        labels: [traces], 1 hallucinated, 0 right.
        groups: of each trace.
        seed: of the order.

    Returns:
        int8 [traces], as many of each class as before.

    Examples:
        >>> shuffled_by_group([0, 0, 1, 1, 1, 1], ["a", "a", "b", "b", "c", "c"], 0).tolist()
        [1, 1, 0, 0, 1, 1]
    """
    truth, names = np.asarray(labels).astype(np.int8), numbered(groups)
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(names == group) for group in range(int(names.max()) + 1)]
    # Of groups in random order, each with its members in random order.
    source, target = (
        np.concatenate([rng.permutation(members[one]) for one in rng.permutation(len(members))])
        for _ in range(2)
    )
    moved = np.empty_like(truth)
    moved[target] = truth[source]
    return moved


def numbered(groups: Sequence[str]) -> Indices:
    """Groups as numbers from 0, in the order of their names, int64 [traces].

    >>> numbered(["ox", "cat", "ox"])
    array([1, 0, 1])
    """
    # Arrays of text would take the longest name's memory for each, and drop zeros at their ends.
    number = {name: at for at, name in enumerate(sorted(set(groups)))}
    return np.array([number[name] for name in groups], np.int64)


def _split(truth: Indices, names: Indices, part_of: Indices, number: int, seed: int) -> Split:
    """One part as the test part, and the others as training and validation."""
    rest, test = np.flatnonzero(part_of != number), np.flatnonzero(part_of == number)
    dealt = _validation(truth[rest], names[rest], np.random.default_rng([seed, 1 + number]))
    made = Split(rest[dealt != 0], rest[dealt == 0], test)
    _check_parts(truth, made, f"of split {number + 1} of {part_of.max() + 1}")
    return made


def _validation(truth: Indices, names: Indices, rng: np.random.Generator) -> Indices:
    parts = max(2, min(VALIDATION_PARTS, len(np.unique(names))))
    return _deal(truth, names, parts, rng)


def _deal(truth: Indices, names: Indices, count: int, rng: np.random.Generator) -> Indices:
    """The part of each trace, int64 [traces]."""
    _, group_of = np.unique(names, return_inverse=True)
    groups = int(group_of.max()) + 1
    holds = np.zeros((groups, 2))
    np.add.at(holds, (group_of, truth), 1)
    shares = holds / np.maximum(holds.sum(axis=0), 1)
    order = rng.permutation(groups)
    order = order[np.argsort(-holds[order].sum(axis=1), kind="stable")]
    filled, sizes = np.zeros((count, 2)), np.zeros(count)
    part_of_group = np.zeros(groups, np.int64)
    for group in order.tolist():
        cost = filled @ shares[group]
        cheapest = np.flatnonzero(cost <= cost.min() * (1 + 1e-9))
        part = int(cheapest[sizes[cheapest].argmin()])
        part_of_group[group] = part
        filled[part] += shares[group]
        sizes[part] += holds[group].sum()
    dealt: Indices = part_of_group[group_of]
    return dealt


def _checked(
    labels: ArrayLike | None, groups: Sequence[str], count: int, least_groups: int = 3
) -> tuple[Indices, Indices]:
    """Labels, and groups as numbers; refuses what cannot be split."""
    truth = np.zeros(len(groups), np.int64) if labels is None else np.asarray(labels)
    truth = truth.astype(np.int64)
    if count < 2:
        raise InputError(f"Expected at least 2 folds, got {count} - change {parameter('folds')}")
    if len(groups) != len(truth):
        raise InputError(
            f"Expected a group for each of {len(truth)} traces, got {len(groups)} groups"
        )
    hallucinated = int(truth.sum())
    if labels is not None and hallucinated in (0, len(truth)):
        raise InputError(
            f"Expected hallucinated and right answers, got {hallucinated} hallucinated and "
            f"{len(truth) - hallucinated} right - take another labelling protocol or more traces"
        )
    known = numbered(groups)
    of_groups = len(np.unique(known))
    for what, there in (("traces", len(truth)), ("groups", of_groups)):
        if there < count:
            raise InputError(
                f"Expected at least as many {what} as folds, got {there} {what} for {count} folds "
                "- take fewer folds or more traces"
            )
    if of_groups < least_groups:
        raise InputError(
            f"Expected a group for each of training, validation and testing, got {of_groups} "
            "groups - take more traces, or finer groups"
        )
    return truth, known


def _check_parts(truth: Indices, split: Split, where: str) -> None:
    has_labels = truth.any()
    for name, part in vars(split).items():
        hallucinated = int(truth[part].sum())
        if hallucinated in (0, len(part)) and (has_labels or not len(part)):
            raise InputError(
                f"Expected hallucinated and right answers in the {name} part{where and ' '}{where},"
                f" got {hallucinated} hallucinated and {len(part) - hallucinated} right - take "
                "fewer folds, or more traces with labels of both classes"
            )
