"""`linear-probe`: a direction in the hidden states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace.detect.base import Progress, Source
from hallutrace.detect.choosing import inner_aurocs, is_few
from hallutrace.detect.examples import Examples
from hallutrace.detect.layer_probe import LayerProbe
from hallutrace.detect.linear import LinearDetector
from hallutrace.detect.logistic import (
    Recipe,
    check_validation,
    fit_best,
    fit_logistic,
    note_choice,
)
from hallutrace.detect.metrics import auroc
from hallutrace.errors import InputError


class LinearProbe(LayerProbe, LinearDetector):
    """Logistic regression on one hidden vector of one layer.

    Formula: w . h^(l)_token + b. The layer is chosen on the validation part, with standardised
    features and ``C`` 1 unless these are given: the one with the largest AUROC there, the first of
    equal ones. Then scaling and penalty are chosen in that layer. Where the validation part has
    few answers of a class, layer and penalty are chosen together by inner folds, with standardised
    features, see :mod:`hallutrace.detect.choosing`.

    Source: after Alain and Bengio 2016 (linear probes) and Azaria and Mitchell 2023 (SAPLMA, which
    has a small network in its place); positions after Kossen et al. 2024, Semantic Entropy Probes
    (last prompt token, last answer token), whose targets are semantic entropies and not labels.
    Not checked against their texts.

    Examples:
        >>> from hallutrace.detect import load_examples
        >>> train = load_examples(hallutrace.open(run), "contains")
        >>> detector = LinearProbe(LinearProbe.Options(layers=(3,), standardize=True, C=1.0))
        >>> detector.fit(train, train)  # in earnest with traces of its own to validate on
        >>> detector.scores(train).shape
        (8,)
    """

    name = "linear-probe"
    source = Source(
        "after Alain and Bengio 2016 and Azaria and Mitchell 2023 (SAPLMA); positions after Kossen "
        "et al. 2024, Semantic Entropy Probes",
        "text",
    )

    class Options(LayerProbe.Options, LinearDetector.Options):
        """Of the vector, the layer and the regression."""

    options: Options

    def fit(
        self,
        train: Examples,
        validation: Examples,
        *,
        progress: Progress | None = None,
        workspace: Path | None = None,
    ) -> None:
        """Fits a probe in every layer, keeps the best, and refines it."""
        if not len(train):
            raise InputError("Expected traces to learn from, got none - take more traces")
        recipes = self._chosen_by_folds(train, validation, progress)
        if recipes is None:
            self._choose_layer(train, validation, progress)
            recipes = self.recipes()
        chosen = self.chosen_layer
        self._linear, self._chosen_recipe = fit_best(
            (self.vectors(train, chosen), train.labels),
            (self.vectors(validation, chosen), validation.labels),
            recipes,
            progress,
        )

    def _chosen_by_folds(
        self, train: Examples, validation: Examples, progress: Progress | None
    ) -> list[Recipe] | None:
        """Layer and recipe together by inner folds; None where the validation part is enough."""
        if not is_few(validation.labels):
            return None
        labels = np.concatenate([train.labels, validation.labels])
        groups = [*train.groups, *validation.groups]
        every = self.recipes()
        recipes = [recipe for recipe in every if recipe.standardize] or every
        best, chosen = -1.0, None
        for layer in self.candidates(train[0]):
            vectors = [self.vectors(part, layer) for part in (train, validation)]
            reached = inner_aurocs(np.concatenate(vectors), labels, groups, recipes)
            if reached is None:
                return None
            if progress is not None:
                progress.note(f"layer {layer}: inner folds AUROC {reached.max():.4f}")
            if reached.max() > best:
                best, self.layer = float(reached.max()), layer
                chosen = recipes[int(reached.argmax())]
        if chosen is None:
            return None
        note_choice(chosen, best, "inner folds", progress)
        return [chosen]

    def _choose_layer(
        self, train: Examples, validation: Examples, progress: Progress | None
    ) -> None:
        """The layer that is best on the validation part with one recipe."""
        check_validation(validation.labels)
        recipes = self.recipes()
        first = Recipe(components=self.options.components, balanced=self.options.balanced)
        first = first if first in recipes else recipes[0]
        best = -1.0
        for layer in self.candidates(train[0]):
            made = fit_logistic(self.vectors(train, layer), train.labels, first, progress)
            reached = auroc(made(self.vectors(validation, layer)), validation.labels)
            if progress is not None:
                progress.note(f"layer {layer}: validation AUROC {reached:.4f}")
            if reached > best:
                best, self.layer = reached, layer

    def log_odds(self, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        """The regression on vectors of the chosen layer, float64 [vectors]."""
        return self.linear(vectors)

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Weight and bias, how they were fitted, and the layer."""
        arrays, facts = super().state()
        return arrays, {**facts, "layer": self.layer}

    def restore(self, arrays: dict[str, NDArray[Any]], facts: dict[str, Any]) -> None:
        """Takes them back."""
        super().restore(arrays, facts)
        self.layer = int(facts["layer"])
