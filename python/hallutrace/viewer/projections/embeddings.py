"""t-SNE and UMAP, by the packages of the extra `projections`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace.cpu_threads import available_cpus
from hallutrace.errors import InputError, MissingExtraError
from hallutrace.option_names import parameter
from hallutrace.third_party import refusing
from hallutrace.viewer.projections.hidden import Progress

REDUCED_TO = 50
"""Principal components that both read: as usual, for speed and against noise."""

_LEAST = 5  # traces
_ITERATIONS = (250, 500)  # of t-SNE: with exaggeration, and after it
_EVERY = 25  # iterations between two words of progress


def tsne(
    vectors: NDArray[np.float32], seed: int, progress: Progress
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Positions by t-SNE, from the first two principal components on.

    Args:
        vectors: float32 [traces, components], principal components in descending order.
        seed: of the approximate neighbours.
        progress: is told of the iterations.

    Returns:
        float32 [traces, 2], and the parameters.

    Raises:
        MissingExtraError: openTSNE is not installed.
        InputError: fewer than five traces.

    Source: van der Maaten and Hinton 2008; openTSNE, Policar et al. 2024; learning rate n / 12 and
    initialisation by PCA after Kobak and Berens 2019.
    """
    _check(vectors, "t-SNE")
    try:
        from openTSNE import TSNE
    except ImportError as error:
        raise MissingExtraError.of(
            "openTSNE", "projections", parameter("method", "tsne")
        ) from error
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    done = 0

    def told(*_: Any) -> bool:
        nonlocal done
        done += _EVERY
        progress("t-SNE", done, sum(_ITERATIONS))
        return False  # no change of the embedding

    with refusing("t-SNE of these hidden states", f"choose another {parameter('method')}"):
        embedding = TSNE(
            perplexity=perplexity,
            early_exaggeration_iter=_ITERATIONS[0],
            n_iter=_ITERATIONS[1],
            random_state=seed,
            n_jobs=available_cpus(),
            callbacks=told,
            callbacks_every_iters=_EVERY,
        ).fit(vectors, initialization=_scaled(vectors))
    parameters = {
        "perplexity": perplexity,
        "iterations": list(_ITERATIONS),
        "components": vectors.shape[1],
    }
    return np.asarray(embedding, np.float32), parameters


def umap(
    vectors: NDArray[np.float32], seed: int, progress: Progress
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Positions by UMAP, from the first two principal components on.

    With a seed it uses one thread. The seed fixes the picture on one machine with equal versions,
    not across operating systems.

    Args:
        vectors: float32 [traces, components], principal components in descending order.
        seed: of its stochastic steps.
        progress: is told that it begins and ends; it tells no steps.

    Returns:
        float32 [traces, 2], and the parameters.

    Raises:
        MissingExtraError: umap-learn is not installed.
        InputError: fewer than five traces.

    Source: McInnes, Healy and Melville 2018.
    """
    _check(vectors, "UMAP")
    try:
        from umap import UMAP
    except ImportError as error:
        raise MissingExtraError.of(
            "umap-learn", "projections", parameter("method", "umap")
        ) from error
    neighbours, least_distance = min(15, len(vectors) - 1), 0.1
    progress("UMAP", 0, 1)
    with refusing("UMAP of these hidden states", f"choose another {parameter('method')}"):
        embedding = UMAP(
            n_neighbors=neighbours,
            min_dist=least_distance,
            random_state=seed,
            n_jobs=1,
            init=_scaled(vectors),  # which it scales by itself
        ).fit_transform(vectors)
    progress("UMAP", 1, 1)
    parameters = {
        "neighbours": neighbours,
        "min_dist": least_distance,
        "components": vectors.shape[1],
    }
    return np.asarray(embedding, np.float32), parameters


def _scaled(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """The first two components with the small spread that t-SNE begins with (1e-4)."""
    first = vectors[:, :2].astype(np.float64)
    if first.shape[1] < 2:
        first = np.hstack([first, np.zeros_like(first)])
    spread = float(first[:, 0].std())
    return first / spread * 1e-4 if spread > 0 else first


def _check(vectors: NDArray[np.float32], name: str) -> None:
    if len(vectors) < _LEAST:
        raise InputError(
            f"Expected at least {_LEAST} traces for {name}, got {len(vectors)} - use "
            f"{parameter('method', 'pca')}"
        )
