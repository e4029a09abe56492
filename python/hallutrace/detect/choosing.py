"""Choices on few answers: by folds within the training and the validation part together.

A validation part in which one class has a dozen answers orders layers and penalties by chance: one
answer moves AUROC by several hundredths. Where a class has fewer than :data:`FEW` there, choices go
by the mean AUROC over inner folds of training and validation part, each by group, so that five
times as many answers are counted. Weights come from the training part alone as ever, so the curve
that calibrates still sees traces that nothing was fitted on, and the test part is seen by nothing.

Test AUROC of a linear probe, mean over splits of 845 traces of the small model with 45 right ones
(4 layers), and of 800 made-up vectors with 40 right ones (8 layers): on the validation part .857
and .678, by inner folds .879 and .719. Tried and left: the validation part's AUROC averaged over
neighbouring layers (.864, .710); inner folds averaged so (.876, .732), and classes weighed beside
(.873, .738), whose gain depends on the model; log loss in place of AUROC, which fell to chance on
made-up vectors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hallutrace.detect.logistic import Recipe, fit_logistic
from hallutrace.detect.metrics import auroc
from hallutrace.errors import InputError
from hallutrace.splits import folds

FEW = 50
"""Answers of the rarer class in the validation part below which choices go by inner folds."""

INNER_FOLDS = 3


def is_few(labels: NDArray[np.int8]) -> bool:
    """Whether a validation part has few answers of a class; none at all is refused elsewhere."""
    rarer = min(int(np.count_nonzero(labels == each)) for each in (0, 1))
    return 0 < rarer < FEW


def inner_aurocs(
    features: NDArray[np.float32],
    labels: NDArray[np.int8],
    groups: Sequence[str],
    recipes: Sequence[Recipe],
) -> NDArray[np.float64] | None:
    """What each recipe reaches on traces that it was not fitted on.

    Args:
        features: float32 [examples, features], of the training and the validation part.
        labels: int8 [examples].
        groups: of each; no group is in two folds.
        recipes: how a regression may be fitted.

    Returns:
        Mean AUROC over the inner folds, float64 [recipes]; None where there are too few groups of
        both classes for folds.
    """
    try:
        parts = folds(labels, groups, INNER_FOLDS)
    except InputError:
        return None
    reached = np.zeros(len(recipes))
    for part in parts:
        training = np.concatenate([part.train, part.validation])
        for index, recipe in enumerate(recipes):
            made = fit_logistic(features[training], labels[training], recipe)
            reached[index] += auroc(made(features[part.test]), labels[part.test])
    return reached / len(parts)
