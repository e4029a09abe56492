"""Logistic regression, fitted by scikit-learn and kept as one weight for each feature."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace.detect.base import Progress
from hallutrace.detect.metrics import auroc
from hallutrace.errors import InputError

MAX_ITERATIONS = 5_000
_PCA_SEED = 0  # of the randomised solver, which scikit-learn takes for large matrices


@dataclass(frozen=True)
class Recipe:
    """How a logistic regression is fitted.

    Attributes:
        standardize: bring every feature to mean 0 and variance 1 on the training part first.
        C: inverse strength of the L2 penalty, as in scikit-learn.
        components: keep so many principal components of the training part, or as many as it has;
            None for the features themselves.
        balanced: weigh the classes so that both count the same.
    """

    standardize: bool = True
    C: float = 1.0
    components: int | None = None
    balanced: bool = False


CHOICES = ((False, 1.0), (False, 100.0), (True, 1.0), (True, 0.1), (True, 0.01), (True, 0.001))
"""What ``standardize`` and ``C`` are chosen among on the validation part; of equal ones the first.

The first is scikit-learn's default, which most published probes take. Scales of features differ by
orders of magnitude between detectors, and no fixed penalty is fair to all of them.
"""


@dataclass(frozen=True)
class Linear:
    """A fitted linear score: ``features @ weight + bias``.

    Attributes:
        weight: float64 [features], of the raw features: scaling and projection are folded in.
        bias: float.
    """

    weight: NDArray[np.float64]
    bias: float

    def __call__(self, features: Any) -> NDArray[np.float64]:
        """Log odds of each row, float64 [rows]; a row's does not depend on the others.

        Args:
            features: [rows, features], an array or a sparse matrix.

        Raises:
            InputError: another number of features than it was fitted on.
        """
        if not features.shape[0]:
            return np.zeros(0)
        if features.shape[1] != len(self.weight):
            raise InputError(
                f"Expected {len(self.weight)} features, as it was fitted on, got "
                f"{features.shape[1]} - score traces of the same model and the same choices"
            )
        if isinstance(features, np.ndarray):
            found = np.array([np.dot(row.astype(np.float64), self.weight) for row in features])
        else:
            found = np.asarray(features @ self.weight)
        return found + self.bias

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What to save."""
        return {"weight": self.weight, "bias": np.array([self.bias])}

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Linear:
        """Takes back :meth:`arrays`.

        Raises:
            KeyError, ValueError: other arrays than those.
        """
        weight, bias = arrays["weight"], arrays["bias"]
        if weight.dtype != np.float64 or weight.ndim != 1 or bias.shape != (1,):
            raise ValueError(f"weight {weight.dtype} {weight.shape} and bias {bias.shape}")
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise ValueError("weights that are not finite")
        return cls(weight, float(bias[0]))


@dataclass(frozen=True)
class _Prepared:
    """Features of a training part, scaled and projected, and the way back."""

    matrix: Any
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    project: Any

    @classmethod
    def of(cls, features: Any, recipe: Recipe) -> _Prepared:
        from sklearn.decomposition import PCA
        from sklearn.preprocessing import StandardScaler

        matrix, project = features.astype(np.float64), None
        mean, scale = np.zeros(matrix.shape[1]), np.ones(matrix.shape[1])
        if recipe.standardize:
            scaler = StandardScaler().fit(matrix)
            mean, scale = scaler.mean_, scaler.scale_  # a constant feature has the scale 1
            matrix = (matrix - mean) / scale
        if recipe.components is not None:
            project = PCA(min(recipe.components, *matrix.shape), random_state=_PCA_SEED)
            matrix = project.fit_transform(matrix)
        return cls(matrix, mean, scale, project)

    def back(self, weight: NDArray[np.float64], bias: float) -> Linear:
        """Weights of the raw features from those of the prepared ones."""
        if self.project is not None:
            weight = weight @ self.project.components_
            bias -= float(self.project.mean_ @ weight)
        weight = weight / self.scale
        return Linear(weight, bias - float(self.mean @ weight))


def fit_logistic(
    features: Any,
    labels: NDArray[np.int8],
    recipe: Recipe,
    progress: Progress | None = None,
) -> Linear:
    """Fits scaler, principal components and logistic regression of scikit-learn, in that order.

    Args:
        features: float [examples, features]; a sparse matrix unless standardised or projected.
        labels: int8 [examples], 1 hallucinated, 0 right.
        recipe: how.
        progress: told if the solver stops before it converges.

    Raises:
        InputError: labels of one class only.
    """
    _check_both_classes(labels, "learn from", "")
    return _solve(_Prepared.of(features, recipe), labels, recipe, progress)


def fit_best(
    train: tuple[Any, NDArray[np.int8]],
    validation: tuple[Any, NDArray[np.int8]],
    recipes: Sequence[Recipe],
    progress: Progress | None = None,
) -> tuple[Linear, Recipe]:
    """Fits every recipe on the training part, and keeps the best on the validation part.

    Args:
        train: features and labels, as for :func:`fit_logistic`.
        validation: features and labels; not looked at if there is one recipe.
        recipes: of equal AUROC on the validation part, the first is kept.
        progress: told what was chosen.

    Raises:
        InputError: labels of one class only.
    """
    if len(recipes) == 1:
        return fit_logistic(*train, recipes[0], progress), recipes[0]
    _check_both_classes(train[1], "learn from", "")
    check_validation(validation[1])
    prepared: dict[Recipe, _Prepared] = {}
    best, chosen = -1.0, (Linear(np.zeros(0), 0.0), recipes[0])
    for recipe in recipes:
        like = replace(recipe, C=1.0)  # what it takes before the penalty matters
        if like not in prepared:
            prepared[like] = _Prepared.of(train[0], recipe)
        made = _solve(prepared[like], train[1], recipe, progress)
        reached = auroc(made(validation[0]), validation[1])
        if reached > best:
            best, chosen = reached, (made, recipe)
    note_choice(chosen[1], best, "validation", progress)
    return chosen


def note_choice(recipe: Recipe, reached: float, where: str, progress: Progress | None) -> None:
    """Tells which recipe was chosen, and what it reached there."""
    if progress is not None:
        how = "standardised" if recipe.standardize else "as they are"
        progress.note(f"features {how}, C {recipe.C}: {where} AUROC {reached:.4f}")


def _solve(
    prepared: _Prepared, labels: NDArray[np.int8], recipe: Recipe, progress: Progress | None
) -> Linear:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(
        C=recipe.C, class_weight="balanced" if recipe.balanced else None, max_iter=MAX_ITERATIONS
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(prepared.matrix, labels)
    for warning in caught:
        if not issubclass(warning.category, ConvergenceWarning):
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
        elif progress is not None:
            progress.note(
                f"logistic regression (C {recipe.C}) stopped after {MAX_ITERATIONS} iterations "
                "before it converged"
            )
    return prepared.back(model.coef_[0], float(model.intercept_[0]))


def check_validation(labels: NDArray[np.int8]) -> None:
    """Refuses a validation part on which nothing can be chosen.

    Raises:
        InputError: labels of one class only.
    """
    _check_both_classes(labels, "choose on", " in the validation part")


def _check_both_classes(labels: NDArray[np.int8], purpose: str, where: str) -> None:
    if len(np.unique(labels)) < 2:
        raise InputError(
            f"Expected hallucinated and right answers to {purpose}, got {len(labels)} of one "
            f"class{where} - take more traces or another labelling protocol"
        )
