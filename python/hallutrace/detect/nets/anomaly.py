"""How far a trace is from right answers, for detectors that are fitted on right answers alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class AnomalyScore:
    """Reconstruction error + Mahalanobis distance, each standardised on right answers.

    The covariance S of n codes of d numbers is shrunk to its diagonal, (1 - s) S + s diag(S) with
    s = d / (n + d), and a thousandth of its mean variance is added, so that it can be inverted.

    Attributes:
        mean: float64 [d], of the codes.
        precision: float64 [d, d], inverse of the covariance.
        error: float64 [2], mean and standard deviation of the error of right answers.
        distance: float64 [2], the same of their distance.

    Source: Mahalanobis 1936; the shrinkage is ours.
    """

    mean: Array
    precision: Array
    error: Array
    distance: Array

    @classmethod
    def fit(cls, errors: Array, codes: Array) -> AnomalyScore:
        """Fits it on right answers.

        Args:
            errors: float64 [n], reconstruction errors.
            codes: float64 [n, d].
        """
        mean = codes.mean(axis=0)
        centred = codes - mean
        count, size = codes.shape
        covariance = centred.T @ centred / max(count - 1, 1)
        share = size / (count + size)
        diagonal = np.diag(covariance)
        covariance = (1 - share) * covariance + np.diag(share * diagonal)
        covariance += np.eye(size) * max(1e-3 * float(diagonal.mean()), 1e-12)
        precision = np.linalg.inv(covariance)
        distances = mahalanobis(codes, mean, precision)
        return cls(mean, precision, _moments(errors), _moments(distances))

    def __call__(self, errors: Array, codes: Array) -> Array:
        """Scores of other answers, float64 [n]; the arguments are those of :meth:`fit`."""
        distances = mahalanobis(codes, self.mean, self.precision)
        scores: Array = (errors - self.error[0]) / self.error[1]
        scores += (distances - self.distance[0]) / self.distance[1]
        return scores

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What was fitted, by name, for safetensors."""
        return {f"anomaly.{field.name}": getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> AnomalyScore:
        """Takes back :meth:`arrays`.

        Raises:
            KeyError: an array is missing.
        """
        return cls(*(np.array(arrays[f"anomaly.{it.name}"], np.float64) for it in fields(cls)))


def mahalanobis(codes: Array, mean: Array, precision: Array) -> Array:
    """Mahalanobis distances from a mean, float64 [n].

    Args:
        codes: float64 [n, d].
        mean: float64 [d].
        precision: float64 [d, d], inverse of the covariance.

    Examples:
        >>> mahalanobis(np.array([[3.0, 4.0]]), np.zeros(2), np.eye(2))
        array([5.])
    """
    centred = codes - mean
    squared = np.einsum("nd,de,ne->n", centred, precision, centred)
    distances: Array = np.sqrt(np.maximum(squared, 0))
    return distances


def _moments(values: Array) -> Array:
    """Mean and standard deviation, which is at least 1e-12."""
    return np.array([float(values.mean()), max(float(values.std()), 1e-12)])
