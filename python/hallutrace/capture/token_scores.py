"""What the logits of a replay say of each answer token, and of its likeliest alternatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

# Logits that are scored at a time, so that what is made of them stays in the cache: 1,024 answer
# tokens and a vocabulary of 152,000 take .18 s, and .7 to 1.6 s by 64 rows.
SCORED = 1 << 20


@dataclass(frozen=True, slots=True)
class TokenScores:
    """The scores of one answer: A tokens, K alternatives of each.

    All are of the raw logits in float32, temperature 1, at the row that produced the token. The
    logit of a token is its log-probability plus ``logsumexp``.

    Attributes:
        logprob: float32 [A], log-probability of each answer token, nats.
        entropy: float32 [A], of the distribution it was drawn from, nats.
        logsumexp: float32 [A], of its logits.
        alternatives: int32 [A, K], the likeliest tokens, ties to the lower id.
        alternative_logprobs: float32 [A, K], their log-probabilities.
    """

    logprob: NDArray[np.float32]
    entropy: NDArray[np.float32]
    logsumexp: NDArray[np.float32]
    alternatives: NDArray[np.int32]
    alternative_logprobs: NDArray[np.float32]


def score(
    logits: torch.Tensor, answers: Sequence[Sequence[int]], alternatives: int
) -> list[TokenScores]:
    """Scores the tokens of several answers.

    Args:
        logits: [tokens of all answers, vocabulary], of any floating-point type.
        answers: ids of the tokens of each answer.
        alternatives: how many of the likeliest tokens to give, K; at most the vocabulary.

    Returns:
        The scores of each answer.
    """
    targets = torch.tensor([token for answer in answers for token in answer], device=logits.device)
    rows = max(1, SCORED // logits.shape[1])
    parts = [
        _score(some.float(), target, alternatives)
        for some, target in zip(torch.split(logits, rows), torch.split(targets, rows), strict=True)
    ]
    lengths = [len(answer) for answer in answers]
    whole = [torch.split(torch.cat(column), lengths) for column in zip(*parts, strict=True)]
    return [TokenScores(*(part.numpy() for part in one)) for one in zip(*whole, strict=True)]


def _score(
    logits: torch.Tensor, targets: torch.Tensor, alternatives: int
) -> tuple[torch.Tensor, ...]:
    """The columns of :class:`TokenScores` for some rows, on the CPU."""
    # Rather than by `log_softmax`, whose sum over 350,000 tokens is off by 1.5e-5.
    logsumexp = torch.logsumexp(logits, dim=-1)
    logp = logits - logsumexp[:, None]
    # xlogy's twin: a token of probability 0 has log-probability -inf and adds nothing.
    entropy = -(logp.exp() * logp.clamp_min(torch.finfo(torch.float32).min)).sum(-1)
    likeliest = likeliest_tokens(logits, alternatives)
    columns = (
        logp.gather(1, targets[:, None])[:, 0],
        entropy,
        logsumexp,
        likeliest.to(torch.int32),
        logp.gather(1, likeliest),
    )
    return tuple(column.cpu() for column in columns)


def likeliest_tokens(logits: torch.Tensor, count: int) -> torch.Tensor:
    """The tokens with the largest logits of each row, ties to the lower id.

    ``topk`` picks any of equal ones, so it only tells how large the last one is.

    Args:
        logits: [rows, vocabulary].
        count: how many, at most the vocabulary.

    Returns:
        int64 [rows, count], the largest first.
    """
    if not count:
        return torch.empty((len(logits), 0), dtype=torch.int64, device=logits.device)
    least = torch.topk(logits, count, dim=-1).values[:, -1:]
    # In the order of rows and ids; NaN is not below anything, so a row has enough in any case.
    row, token = (~(logits < least)).nonzero(as_tuple=True)
    order = torch.argsort(logits[row, token], descending=True, stable=True)
    order = order[torch.argsort(row[order], stable=True)]
    in_row = torch.bincount(row, minlength=len(logits))
    begins = torch.cumsum(in_row, 0) - in_row
    places = begins[:, None] + torch.arange(count, device=logits.device)
    return token[order[places]]
