"""The traces of an evaluation: which are trained on and which are tested on, fold by fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hallutrace.detect.examples import Examples, FeatureCache
from hallutrace.errors import InputError
from hallutrace.splits import Split, folds, holdout, shuffled_by_group


@dataclass(frozen=True)
class EvaluationData:
    """Labelled traces, split into folds.

    Attributes:
        train_run: traces of which the training and validation parts are taken.
        test_run: traces of which the test parts are taken; the same unless they are of another run.
        splits: indices of the parts of each fold; each trace of ``test_run`` is in one test part.
        shared_groups: number of groups that both runs of a transfer have.
    """

    train_run: Examples
    test_run: Examples
    splits: tuple[Split, ...]
    shared_groups: int = 0

    @classmethod
    def of(cls, examples: Examples, count: int, seed: int) -> EvaluationData:
        """Folds of one run.

        Args:
            examples: of the run.
            count: number of folds.
            seed: of the folds.

        Raises:
            InputError: as :func:`hallutrace.splits.folds`.
        """
        return cls(examples, examples, tuple(folds(examples.labels, examples.groups, count, seed)))

    @classmethod
    def transfer(
        cls, train_run: Examples, test_run: Examples, count: int, seed: int
    ) -> EvaluationData:
        """One run is trained on, another is tested on.

        Where they have groups in common (the same questions, another model), both are split
        together, so that nothing is tested on a group that was trained on. Otherwise all of the one
        is trained on at once, and all of the other is tested on.

        Raises:
            InputError: too few traces or groups of both classes.
        """
        groups, test_groups = train_run.groups, test_run.groups
        shared = len(set(groups) & set(test_groups))
        if not shared:
            train, validation = holdout(train_run.labels, groups, seed)
            return cls(train_run, test_run, (Split(train, validation, np.arange(len(test_run))),))
        labels = np.concatenate([train_run.labels, test_run.labels])
        size = len(train_run)
        splits = tuple(
            Split(
                joint.train[joint.train < size],
                joint.validation[joint.validation < size],
                joint.test[joint.test >= size] - size,
            )
            for joint in folds(labels, [*groups, *test_groups], count, seed)
        )
        for number, split in enumerate(splits):
            parts = (train_run.labels[split.train], train_run.labels[split.validation],
                     test_run.labels[split.test])  # fmt: skip
            if any(len(np.unique(part)) < 2 for part in parts):
                raise InputError(
                    "Expected hallucinated and right answers in every part of both runs, got one "
                    f"class in split {number + 1} of {count} - take fewer folds or more traces"
                )
        return cls(train_run, test_run, splits, shared)

    @property
    def is_transfer(self) -> bool:
        """Whether another run is tested on."""
        return self.train_run is not self.test_run

    @property
    def fold_of(self) -> NDArray[np.int64]:
        """The fold whose test part each trace of ``test_run`` is in, int64 [traces]."""
        fold = np.zeros(len(self.test_run), np.int64)
        for number, split in enumerate(self.splits):
            fold[split.test] = number
        return fold

    def with_fresh_caches(self) -> EvaluationData:
        """The same traces, with no features in memory; known groups are kept."""
        train_run = replace(self.train_run, cache=_emptied(self.train_run.cache))
        test_run = train_run
        if self.is_transfer:
            test_run = replace(self.test_run, cache=_emptied(self.test_run.cache))
        return replace(self, train_run=train_run, test_run=test_run)


def shuffled(runs: Sequence[Examples], seed: int) -> list[Examples]:
    """Traces with labels moved from group to group; see ``splits.shuffled_by_group``.

    Args:
        runs: one, or both of a transfer, whose labels are moved together: a group that both have
            has labels that belong together.
        seed: of the order.
    """
    labels = np.concatenate([one.labels for one in runs])
    groups = [group for one in runs for group in one.groups]
    ends = np.cumsum([len(one) for one in runs])[:-1]
    parts = np.split(shuffled_by_group(labels, groups, seed), ends)
    return [replace(one, labels=part) for one, part in zip(runs, parts, strict=True)]


def _emptied(cache: FeatureCache) -> FeatureCache:
    fresh = FeatureCache()
    fresh.groups = cache.groups
    return fresh
