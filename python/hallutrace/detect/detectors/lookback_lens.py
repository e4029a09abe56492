"""`lookback-lens`: attention to the prompt against attention to what was just said."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hallutrace.detect.base import Source
from hallutrace.detect.features import answer_rows
from hallutrace.detect.linear import LinearDetector
from hallutrace.detect.trace_needs import Needs
from hallutrace.store.trace import Trace


def lookback_ratios(mass: NDArray[np.float32], prompt: int) -> NDArray[np.float32]:
    """Mean attention on the prompt, as a share of that and mean attention on the new tokens.

    Args:
        mass: float32 [layers, heads, A + 1, segments], answer rows; the answer is the last segment.
        prompt: tokens of the prompt, P.

    Returns:
        float32 [layers, heads, A], of the row that produced each answer token; 0 where a row has no
        attention at all (heads that pad a layer).
    """
    made = mass[:, :, :-1]
    answer = made.shape[2]
    on_prompt = made[..., :-1].sum(axis=-1) / np.float32(prompt)
    # The row that produced token t sees t new tokens, itself among them; the first sees none.
    seen = np.maximum(np.arange(answer, dtype=np.float32), 1)
    on_new = made[..., -1] / seen
    total = on_prompt + on_new
    ratios: NDArray[np.float32] = np.divide(
        on_prompt, total, out=np.zeros_like(total), where=total != 0
    )
    return ratios


class LookbackLens(LinearDetector):
    """Logistic regression on the lookback ratio of each layer and head, mean over the answer.

    Formula: LR_t = A_t(context) / (A_t(context) + A_t(new)), with A_t(context) the mean attention
    of the row that produced answer token t on the P tokens of the prompt, and A_t(new) its mean
    attention on the t answer tokens before it; features are the means of LR_t over t. The last row
    of the replay produced nothing and is left out.

    Departures: at the first answer token there is nothing new, and A_t(new) is 0, so that its ratio
    is 1 (the authors' code counts the end of the template as new); the whole answer is one span, as
    its label is; scaling and penalty are chosen on the validation part (theirs:
    ``standardize=False, C=1``).

    Source: Chuang et al. 2024, Lookback Lens, section 2 (not checked against its text); public
    code voidism/Lookback-Lens, ``step01_extract_attns.py`` and ``step03_lookback_lens.py``, read.

    Examples:
        >>> trace = hallutrace.open(run)[0]
        >>> LookbackLens().feature(trace).shape
        (32,)
    """

    name = "lookback-lens"
    source = Source("Chuang et al. 2024, Lookback Lens, section 2", "code", "voidism/Lookback-Lens")
    needs = Needs(marginals=("mass",))
    by_head = True

    def feature(self, trace: Trace) -> NDArray[np.float32]:
        """Mean ratio of each layer and head, float32 [layers * heads]."""
        means: NDArray[np.float32] = self._ratios(trace).mean(axis=2)
        return means.reshape(-1)

    def token_scores(self, trace: Trace) -> NDArray[np.float64]:
        """The same regression on the ratios of each token alone, float64 [A]; mean: the score."""
        ratios = self._ratios(trace)
        return self.linear(ratios.reshape(-1, ratios.shape[2]).T)

    def _ratios(self, trace: Trace) -> NDArray[np.float32]:
        mass = answer_rows(trace.marginals.mass, len(trace.logprob))
        return lookback_ratios(mass, trace.prompt_length)
