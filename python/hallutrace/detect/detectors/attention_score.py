"""`attention-score`: how much tokens look at themselves (LLM-Check)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hallutrace.detect.base import Scorer, Source
from hallutrace.detect.trace_needs import Needs
from hallutrace.errors import InputError
from hallutrace.store.trace import Trace


def attention_score(
    log_diagonal: NDArray[np.float32], layer: int, prompt: int, answer: int, tokens: str
) -> float:
    """Log determinant of one layer's attention, over the tokens, summed over heads.

    Args:
        log_diagonal: float32 [layers, heads, 2], mean ln A_ii over the prompt and over the answer.
        layer: number on the first axis.
        prompt: tokens of the prompt, P.
        answer: tokens of the answer, A.
        tokens: ``answer`` for rows P .. N-1, ``all`` for all N.

    Returns:
        sum_h 1/|rows| sum_i ln A_ii.
    """
    sums = log_diagonal[layer].sum(axis=0, dtype=np.float64)
    if tokens == "answer":
        return float(sums[1])
    return float((prompt * sums[0] + answer * sums[1]) / (prompt + answer))


class AttentionScore(Scorer):
    """Minus the log determinant of one layer's attention over the answer.

    Formula: - sum_h 1/A sum_{i=P}^{N-1} ln A^{(l,h)}_ii. A causal attention matrix is lower
    triangular, so its eigenvalues are its diagonal, and the mean log eigenvalue is what is written
    here. It is defined on a forward pass over the finished text: the last row counts.

    Source: Sriramanan et al. 2024, LLM-Check, Attention Score; public code
    GaurangSriramanan/LLM_Check_Hallucination_Detection, ``get_attn_eig_prod``, read; the paper's
    text was not. Departures: the authors' code leaves the sign to the analysis, the code of
    Binkowski et al. 2025 and of Vazhentsev et al. 2025 takes the minus, and so does this; diagonals
    below 2^-126 count as that, where the authors' logarithm is minus infinity.

    Examples:
        >>> trace = hallutrace.open(run)[0]
        >>> AttentionScore().score(trace) > 0
        True
    """

    name = "attention-score"
    source = Source(
        "Sriramanan et al. 2024, LLM-Check, Attention Score",
        "code",
        "GaurangSriramanan/LLM_Check_Hallucination_Detection",
    )

    class Options(Scorer.Options):
        """Which layer and rows, and what counts as risky."""

        layer: int | None = Field(
            None,
            ge=0,
            description="number in the model; the middle one unless given (15 of 32, the default "
            "of the authors' code; the paper compares all)",
        )
        tokens: Literal["answer", "all"] = Field(
            "answer", description="rows of the answer, as the authors' runs have it, or all rows"
        )
        sign: Literal[-1, 1] = Field(
            -1, description="-1: less attention of tokens to themselves is riskier; 1: more is"
        )

    options: Options

    @property
    def needs(self) -> Needs:
        """The mean log diagonal of one layer."""
        layer = self.options.layer
        return Needs(marginals=("log_diagonal",), layers=() if layer is None else (layer,))

    def score(self, trace: Trace) -> float:
        """Minus the mean log diagonal, summed over heads."""
        index = self._layer_index(trace.layers)
        answer = len(trace.logprob)
        log_diagonal = trace.marginals.log_diagonal
        found = attention_score(
            log_diagonal, index, trace.prompt_length, answer, self.options.tokens
        )
        return float(self.options.sign * found)

    def _layer_index(self, layers: list[int]) -> int:
        """Index of the chosen layer among those captured."""
        layer = self.options.layer
        if layer is None:
            return (len(layers) - 1) // 2
        if layer not in layers:
            raise InputError(
                f"Expected `layer` of `{self.name}` to be one whose attention was captured, got "
                f"{layer} for {layers} - choose one of those"
            )
        return layers.index(layer)
