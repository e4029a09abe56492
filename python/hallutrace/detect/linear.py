"""Detectors that are a logistic regression over features of a trace."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hallutrace.detect.base import Detector, Progress
from hallutrace.detect.choosing import inner_aurocs, is_few
from hallutrace.detect.examples import Examples
from hallutrace.detect.logistic import (
    CHOICES,
    Linear,
    Recipe,
    fit_best,
    note_choice,
)
from hallutrace.errors import InputError
from hallutrace.store.trace import Trace

Components = Annotated[
    int | None,
    Field(
        ge=1,
        description="principal components of the training part that are kept, or as many as it "
        "has; none for the features themselves",
    ),
]
Balanced = Annotated[
    bool, Field(description="whether classes are weighed so that both count the same")
]


class LinearDetector(Detector):
    """A logistic regression over :meth:`feature`; the score is its log odds.

    Of the options that all of them have (see :class:`~hallutrace.detect.logistic.Recipe`)
    ``standardize`` and ``C`` are chosen on the validation part unless they are given, among
    :data:`~hallutrace.detect.logistic.CHOICES`.
    """

    packages = ("sklearn",)
    by_head: ClassVar[bool] = False
    """Whether its features are [layers, heads, ...] in this order, flattened."""

    class Options(Detector.Options):
        """Of the regression."""

        standardize: bool | None = Field(
            None,
            description="whether features are brought to mean 0 and variance 1 first; chosen on "
            "the validation part unless given",
        )
        C: float | None = Field(
            None,
            gt=0,
            description="inverse strength of the L2 penalty; chosen on the validation part unless "
            "given",
        )
        components: Components = None
        balanced: Balanced = False

    options: Options
    _linear: Linear | None = None
    _chosen_recipe: Recipe | None = None

    @abstractmethod
    def feature(self, trace: Trace) -> NDArray[np.float32]:
        """Features of one trace, float32 [features]."""

    def feature_name(self) -> str:
        """Name of the features in a cache: the detector's, and the options that change them."""
        of_regression = set(LinearDetector.Options.model_fields)
        chosen = self.options.model_dump(mode="json", exclude=of_regression)
        return f"{self.name} {chosen}" if chosen else self.name

    def fit(
        self,
        train: Examples,
        validation: Examples,
        *,
        progress: Progress | None = None,
        workspace: Path | None = None,
    ) -> None:
        """Fits on the training part, and chooses scaling and penalty on the validation part.

        Where that has few answers of a class, see :mod:`hallutrace.detect.choosing`.
        """
        name, recipes = self.feature_name(), self.recipes()
        training = (train.features(name, self.feature), train.labels)
        if len(recipes) == 1:
            self._linear, self._chosen_recipe = fit_best(training, training, recipes, progress)
            return
        validating = (validation.features(name, self.feature), validation.labels)
        reached = None
        if is_few(validation.labels):
            pooled = [
                np.concatenate([one, other])
                for one, other in zip(training, validating, strict=True)
            ]
            groups = [*train.groups, *validation.groups]
            reached = inner_aurocs(pooled[0], pooled[1], groups, recipes)
        if reached is not None:
            recipes = [recipes[int(reached.argmax())]]
            note_choice(recipes[0], float(reached.max()), "inner folds", progress)
        self._linear, self._chosen_recipe = fit_best(training, validating, recipes, progress)

    def recipes(self) -> list[Recipe]:
        """What is chosen among: :data:`CHOICES`, as far as options leave them open."""
        given = self.options
        found = [
            Recipe(
                standardize if given.standardize is None else given.standardize,
                C if given.C is None else given.C,
                given.components,
                given.balanced,
            )
            for standardize, C in CHOICES
            if given.standardize in (None, standardize)
        ]
        return list(dict.fromkeys(found))

    @property
    def linear(self) -> Linear:
        """What was fitted.

        Raises:
            InputError: nothing yet.
        """
        if self._linear is None:
            raise InputError(f"Expected a fitted `{self.name}`, got a new one - call fit first")
        return self._linear

    def score(self, trace: Trace) -> float:
        """Log odds that a trace is hallucinated."""
        return float(self.linear(self.feature(trace)[None])[0])

    def scores(self, examples: Examples) -> NDArray[np.float64]:
        """The same of several, float64 [examples]; their features are kept in the cache."""
        return self.linear(examples.features(self.feature_name(), self.feature))

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Weight and bias, and how they were fitted."""
        how = None if self._chosen_recipe is None else asdict(self._chosen_recipe)
        return self.linear.arrays(), {"recipe": how}

    def restore(self, arrays: dict[str, NDArray[Any]], facts: dict[str, Any]) -> None:
        """Takes them back."""
        self._linear = Linear.of(arrays)
        self._chosen_recipe = Recipe(**facts["recipe"])
