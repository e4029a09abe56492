"""Detectors that are a logistic regression over features of a trace."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hallutrace.detect.base import Detector, Progress
from hallutrace.detect.choosing import inner_aurocs, is_few
from hallutrace.detect.examples import Examples
from hallutrace.detect.logistic import (
    CHOICES,
    Linear,
    Recipe,
    fit_best,
    is_penalty,
    note_choice,
)
from hallutrace.errors import InputError
from hallutrace.store.trace import Trace


class LinearDetector(Detector):
    """A logistic regression over :meth:`feature`; the score is its log odds.

    Options that all of them have, see :class:`~hallutrace.detect.logistic.Recipe`: ``standardize``
    and ``C``, each chosen on the validation part unless it is given, among
    :data:`~hallutrace.detect.logistic.CHOICES`; ``components`` and ``balanced``.
    """

    packages = ("sklearn",)
    recipe: ClassVar[dict[str, Any]] = {
        "standardize": None,
        "C": None,
        "components": None,
        "balanced": False,
    }
    defaults: ClassVar[Mapping[str, Any]] = recipe
    _linear: Linear | None = None
    _chosen_recipe: Recipe | None = None

    @abstractmethod
    def feature(self, trace: Trace) -> NDArray[np.float32]:
        """Features of one trace, float32 [width]."""

    def feature_name(self) -> str:
        """Name of the features in a cache: the detector's, and the options that change them."""
        chosen = {name: self.options[name] for name in self.defaults if name not in self.recipe}
        return f"{self.name} {chosen}" if chosen else self.name

    def check_options(self) -> None:
        """Refuses a penalty or a number of components that means nothing."""
        components = self.options["components"]
        self.require_option("C", is_penalty(self.options["C"]), "a number > 0 or None")
        for name in ("standardize", "balanced"):
            good = isinstance(self.options[name], bool) or (self.recipe[name] is self.options[name])
            self.require_option(name, good, "True or False")
        self.require_option(
            "components",
            components is None or (type(components) is int and components > 0),
            "an integer >= 1 or None",
        )

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
        learnt = (train.features(name, self.feature), train.labels)
        if len(recipes) == 1:
            self._linear, self._chosen_recipe = fit_best(learnt, learnt, recipes, progress)
            return
        held = (validation.features(name, self.feature), validation.labels)
        reached = None
        if is_few(validation.labels):
            pooled = [np.concatenate([one, other]) for one, other in zip(learnt, held, strict=True)]
            groups = [*train.groups, *validation.groups]
            reached = inner_aurocs(pooled[0], pooled[1], groups, recipes)
        if reached is not None:
            recipes = [recipes[int(reached.argmax())]]
            note_choice(recipes[0], float(reached.max()), "inner folds", progress)
        self._linear, self._chosen_recipe = fit_best(learnt, held, recipes, progress)

    def recipes(self) -> list[Recipe]:
        """What is chosen among: :data:`CHOICES`, as far as options leave them open."""
        given = self.options
        found = [
            Recipe(
                standardize if given["standardize"] is None else given["standardize"],
                float(C if given["C"] is None else given["C"]),
                given["components"],
                given["balanced"],
            )
            for standardize, C in CHOICES
            if given["standardize"] in (None, standardize)
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
