"""The traces of an evaluation: which are learnt from and which are tested on, fold by fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hallutrace.detect.examples import Examples, FeatureCache
from hallutrace.errors import InputError
from hallutrace.splits import Split, folds, holdout, shuffled_by_group


@dataclass(frozen=True)
class Material:
    """Labelled traces in parts.

    Attributes:
        learn: what the training and validation parts are of.
        test: what the test parts are of; the same as ``learn`` unless it is of another run.
        parts: indices of the parts of each fold; each test trace is in one test part.
        shared: groups that both runs of a transfer have.
    """

    learn: Examples
    test: Examples
    parts: tuple[Split, ...]
    shared: int = 0

    @classmethod
    def of(cls, examples: Examples, count: int, seed: int) -> Material:
        """Folds of one run.

        Raises:
            InputError: as :func:`hallutrace.splits.folds`.
        """
        return cls(examples, examples, tuple(folds(examples.labels, examples.groups, count, seed)))

    @classmethod
    def transfer(cls, learn: Examples, test: Examples, count: int, seed: int) -> Material:
        """One run is learnt from, another is tested on.

        Where they have groups in common (the same questions, another model), both are split
        together, so that nothing is tested on a group that was learnt from. Otherwise all of the
        one is learnt from at once, and all of the other is tested on.

        Raises:
            InputError: too few traces or groups of both classes.
        """
        ours, theirs = learn.groups, test.groups
        shared = len(set(ours) & set(theirs))
        if not shared:
            train, validation = holdout(learn.labels, ours, seed)
            return cls(learn, test, (Split(train, validation, np.arange(len(test))),))
        joint = folds(np.concatenate([learn.labels, test.labels]), [*ours, *theirs], count, seed)
        size = len(learn)
        parts = tuple(
            Split(
                one.train[one.train < size],
                one.validation[one.validation < size],
                one.test[one.test >= size] - size,
            )
            for one in joint
        )
        for number, part in enumerate(parts):
            for labels in (learn.labels[part.train], learn.labels[part.validation],
                           test.labels[part.test]):  # fmt: skip
                if len(np.unique(labels)) < 2:
                    raise InputError(
                        "Expected hallucinated and right answers in every part of both runs, got "
                        f"one class in split {number + 1} of {count} - take fewer folds or more "
                        "traces"
                    )
        return cls(learn, test, parts, shared)

    @property
    def is_transfer(self) -> bool:
        """Whether another run is tested on."""
        return self.learn is not self.test

    @property
    def fold_of(self) -> NDArray[np.int64]:
        """The fold whose test part each test trace is in, int64 [test]."""
        fold = np.zeros(len(self.test), np.int64)
        for number, part in enumerate(self.parts):
            fold[part.test] = number
        return fold

    def with_fresh_caches(self) -> Material:
        """The same traces, with no features in memory; what is known of groups is kept."""
        learn = replace(self.learn, cache=_emptied(self.learn.cache))
        test = learn
        if self.is_transfer:
            test = replace(self.test, cache=_emptied(self.test.cache))
        return replace(self, learn=learn, test=test)


def shuffled(runs: Sequence[Examples], seed: int) -> list[Examples]:
    """Traces with labels that have moved from group to group, see ``splits.shuffled_by_group``.

    Args:
        runs: one, or both of a transfer, whose labels are moved together: a group that both have
            has labels that belong together.
        seed: of the order.
    """
    labels = np.concatenate([one.labels for one in runs])
    groups = [group for one in runs for group in one.groups]
    moved = shuffled_by_group(labels, groups, seed)
    begins = np.cumsum([len(one) for one in runs])[:-1]
    parts = np.split(moved, begins)
    return [replace(one, labels=part) for one, part in zip(runs, parts, strict=True)]


def _emptied(cache: FeatureCache) -> FeatureCache:
    fresh = FeatureCache()
    fresh.groups = cache.groups
    return fresh
