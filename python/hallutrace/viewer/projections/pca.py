"""Principal components of vectors that are read block by block, exactly, with numpy alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Blocks = Callable[[], Iterable[NDArray[np.float32]]]
"""Gives the vectors anew each time it is called, in blocks [rows, dimension] of at least one."""

_SPARE = 10  # directions that are followed beside those that are wanted
_STEPS = 40  # of the Krylov space, before all eigenvectors are computed
_RESIDUAL = 1e-11  # of an eigenvector, as a share of the largest eigenvalue
_DENSE = 256  # dimensions up to which all eigenvectors are computed at once


@dataclass(frozen=True)
class Components:
    """Directions of the largest variance.

    Attributes:
        mean: float64 [dimension].
        axes: float64 [dimension, components], orthonormal; the largest number of each by its
            absolute value is positive, so that equal data give equal signs.
        explained: float64 [components], share of the whole variance along each.
    """

    mean: NDArray[np.float64]
    axes: NDArray[np.float64]
    explained: NDArray[np.float64]

    def of(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """Positions of vectors along the axes, float32 [rows, components]."""
        return ((block - self.mean) @ self.axes).astype(np.float32)


def principal_components(blocks: Blocks, count: int, components: int) -> Components:
    """The principal components of vectors.

    Fewer vectors than dimensions are decomposed by SVD; of more, the covariance is summed up in
    float64 around the first vector, so that memory does not grow with their number.

    Args:
        blocks: the vectors.
        count: how many they are, at least 1.
        components: wanted; fewer are returned where there are fewer vectors or dimensions.

    Source: Pearson 1901; Hotelling 1933.

    Examples:
        >>> line = np.array([[0, 0], [1, 2], [2, 4]], np.float32)
        >>> found = principal_components(lambda: [line], 3, 1)
        >>> found.axes.round(3).ravel().tolist(), found.explained.round(3).tolist()
        ([0.447, 0.894], [1.0])
    """
    dimension = next(iter(blocks())).shape[1]
    components = min(components, count, dimension)
    if count <= dimension:
        vectors = np.concatenate([block.astype(np.float64) for block in blocks()])
        mean = vectors.mean(axis=0)
        _, singular, directions = np.linalg.svd(vectors - mean, full_matrices=False)
        variances, axes = singular**2 / count, directions.T
        whole = float(variances.sum())
    else:
        mean, covariance = _covariance(blocks, count)
        variances, axes = _largest(covariance, components)
        whole = float(np.trace(covariance))
    variances, axes = variances[:components], axes[:, :components]
    signs = np.where(np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], 0) < 0, -1.0, 1.0)
    explained = np.clip(variances, 0, None) / whole if whole > 0 else np.zeros(components)
    return Components(mean, axes * signs, explained)


def _covariance(blocks: Blocks, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    origin: NDArray[np.float64] | None = None
    for block in blocks():
        if origin is None:
            origin = block[0].astype(np.float64)
            total, products = np.zeros_like(origin), np.zeros((len(origin), len(origin)))
        moved = block - origin
        total += moved.sum(axis=0)
        products += moved.T @ moved
    assert origin is not None
    mean = total / count
    return origin + mean, products / count - np.outer(mean, mean)


def _largest(
    symmetric: NDArray[np.float64], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The largest eigenvalues, descending, and their vectors [size, count].

    In a block Krylov space, which is hundreds of times as fast as all eigenvectors of 4,096
    dimensions; where it does not converge, all are computed.
    """
    size = len(symmetric)
    if size > max(_DENSE, 4 * (count + _SPARE)):
        rng = np.random.default_rng(0)
        block = np.linalg.qr(rng.standard_normal((size, count + _SPARE)))[0]
        basis, images = block, symmetric @ block
        for _ in range(_STEPS):
            values, inner = np.linalg.eigh(basis.T @ images)
            values, inner = values[::-1][:count], inner[:, ::-1][:, :count]
            vectors = basis @ inner
            residuals = np.linalg.norm(images @ inner - vectors * values, axis=0)
            if residuals.max() <= _RESIDUAL * abs(values[0]):
                return values, vectors
            if basis.shape[1] + block.shape[1] > size:
                break
            block = images[:, -block.shape[1] :]
            for _ in range(2):  # once leaves rounding errors
                block = np.linalg.qr(block - basis @ (basis.T @ block))[0]
            basis = np.hstack([basis, block])
            images = np.hstack([images, symmetric @ block])
    values, vectors = np.linalg.eigh(symmetric)
    return values[::-1][:count], vectors[:, ::-1][:, :count]
