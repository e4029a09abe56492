"""`question-only`: a bag of the question's words; a control that never sees the answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hallutrace.detect.base import Detector, Progress
from hallutrace.detect.examples import Examples
from hallutrace.detect.logistic import Linear, Recipe, fit_best
from hallutrace.errors import InputError
from hallutrace.normalization import split_words
from hallutrace.store.trace import Trace


class QuestionOnly(Detector):
    """Logistic regression on how often each word is in the question.

    Formula: sum_w n_w(question) beta_w + b, over the words of the training part that
    ``min_questions`` of its questions have; words are those of
    :func:`~hallutrace.normalization.split_words`. It knows neither model nor answer, so what it
    reaches is what the choice of questions gives away.

    Source: ours, a control.
    """

    name = "question-only"
    packages = ("sklearn", "scipy")

    class Options(Detector.Options):
        """Of the vocabulary and the regression."""

        C: float | None = Field(
            None,
            gt=0,
            description="inverse strength of the L2 penalty; chosen on the validation part among "
            "1, .1 and .01 unless given",
        )
        min_questions: int = Field(
            2, ge=1, description="questions of the training part that a word must be in"
        )

    options: Options
    _words: dict[str, int] | None = None
    _linear: Linear

    def fit(
        self,
        train: Examples,
        validation: Examples,
        *,
        progress: Progress | None = None,
        workspace: Path | None = None,
    ) -> None:
        """Takes vocabulary and weights from the training part, the penalty from validation."""
        bags = [words_of(trace.question) for trace in train]
        known = vocabulary(bags, self.options.min_questions)
        validation_bags = [words_of(trace.question) for trace in validation]
        penalties = (1.0, 0.1, 0.01) if self.options.C is None else (self.options.C,)
        self._linear, _ = fit_best(
            (counts(bags, known), train.labels),
            (counts(validation_bags, known), validation.labels),
            [Recipe(standardize=False, C=C) for C in penalties],
            progress,
        )
        self._words = known

    def score(self, trace: Trace) -> float:
        """Log odds that an answer to this question is hallucinated."""
        if self._words is None:
            raise InputError(f"Expected a fitted `{self.name}`, got a new one - call fit first")
        weight = self._linear.weight
        bag = words_of(trace.question)
        known = sorted(word for word in bag if word in self._words)
        found = sum(bag[word] * float(weight[self._words[word]]) for word in known)
        return found + self._linear.bias

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Weight and bias, and the words in the order of the weights."""
        if self._words is None:
            raise InputError(f"Expected a fitted `{self.name}`, got a new one - call fit first")
        return self._linear.arrays(), {"words": list(self._words)}

    def restore(self, arrays: dict[str, NDArray[Any]], facts: dict[str, Any]) -> None:
        """Takes them back."""
        self._linear = Linear.of(arrays)
        self._words = {str(word): at for at, word in enumerate(facts["words"])}
        if len(self._linear.weight) != max(len(self._words), 1):
            raise ValueError(f"{len(self._words)} words")


def words_of(question: str) -> Counter[str]:
    """How often each word is in a question; characters are words where none are written."""
    return Counter(split_words(question))


def counts(bags: Iterable[Mapping[str, int]], known: Mapping[str, int]) -> Any:
    """How often each known word is in each bag, a sparse float64 matrix [bags, known words]."""
    from scipy.sparse import csr_array

    indptr, indices, values = [0], [], []
    for bag in bags:
        found = sorted((known[word], count) for word, count in bag.items() if word in known)
        indices += [at for at, _ in found]
        values += [count for _, count in found]
        indptr.append(len(indices))
    return csr_array(
        (np.array(values, np.float64), np.array(indices, np.int32), np.array(indptr, np.int32)),
        shape=(len(indptr) - 1, max(len(known), 1)),
    )


def vocabulary(bags: Iterable[Mapping[str, int]], least: int) -> dict[str, int]:
    """Words that are in at least so many questions, in order, and their numbers."""
    counts = Counter(word for bag in bags for word in bag)
    chosen = sorted(word for word, count in counts.items() if count >= least)
    return {word: at for at, word in enumerate(chosen)}
