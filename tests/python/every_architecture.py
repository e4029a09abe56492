"""What comes of a causal architecture: exact, refused with the reason, or not built."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hallutrace.capture.exactness_check import probe
from hallutrace.capture.replay import Reduction, Text, replay
from hallutrace.errors import ModelError
from hallutrace.model.loading import Loaded, describe
from small_architectures import OUTSIDE, small_model
from tiny_models import tiny_tokenizer, tiny_tokens


@dataclass(frozen=True)
class Verdict:
    """What came of an architecture.

    Attributes:
        kind: its model type.
        verdict: `exact`, `refused`, `not built` or, which must not be, `wrong`.
        reason: why it was refused or not built.
        attention: largest difference to the model's own eager attention, calm and sharp.
        logprob: to the log-probabilities of the model as it was loaded.
        hidden: to its hidden states.
        layers: of attention that were captured, of how many.
    """

    kind: str
    verdict: str
    reason: str = ""
    attention: tuple[float, ...] = ()
    logprob: tuple[float, ...] = ()
    hidden: tuple[float, ...] = ()
    layers: str = ""


ATTENTION = {"calm": 1e-6, "sharp": 3e-5}
LOGPROB = {"calm": 1e-5, "sharp": 3e-4}

# (tokens, of them prompt)
TEXTS = ((40, 25), (17, 9), (31, 30), (8, 1))
EVERYTHING = Reduction(top_k=None, heads="each", all_marginal_rows=True)


def examine(kind: str) -> Verdict:
    """Tries an architecture: built, probed, replayed in padded batches, compared alone."""
    if kind in OUTSIDE:
        return Verdict(kind, "not built", OUTSIDE[kind])
    attention, logprob, hidden, layers, reason = [], [], [], "", ""
    for temper in ("calm", "sharp"):
        try:
            model = small_model(kind, temper)
            with torch.inference_mode():
                model(input_ids=tiny_tokens(2, 40), use_cache=False)
        except Exception as error:
            return Verdict(kind, "not built", f"{type(error).__name__}: {error}")
        try:
            loaded = describe(model, tiny_tokenizer(), kind, "random")
        except ModelError as error:
            return Verdict(kind, "refused", _reason(error))
        try:
            facts = probe(loaded)
        except ModelError as error:
            if "hidden_states='none'" not in str(error):
                return Verdict(kind, "refused", _reason(error))
            reason = f"with --hidden-states none: {_reason(error)}"
            try:
                facts = probe(loaded, hidden=False)
            except ModelError as second:
                return Verdict(kind, "refused", _reason(second))
        layers = f"{len(facts.layers)} of {loaded.layers}"
        found = differences(loaded, facts.layers, not reason)
        attention.append(found[0])
        logprob.append(found[1])
        hidden.append(found[2])
    good = all(
        off <= ATTENTION[temper] and apart <= LOGPROB[temper]
        for temper, off, apart in zip(ATTENTION, attention, logprob, strict=True)
    )
    return Verdict(
        kind,
        "exact" if good else "wrong",
        reason,
        tuple(attention),
        tuple(logprob),
        tuple(hidden),
        layers,
    )


def _reason(error: Exception) -> str:
    """Why a model is refused, without what it is called and what to do."""
    text = " ".join(str(error).split()).rpartition(" - ")[0]
    return re.sub(r"^Expected a model whose attention can be captured, got [^,:]*[,:] ", "", text)


def differences(
    loaded: Loaded, layers: Sequence[int], hidden: bool = True
) -> tuple[float, float, float]:
    """Largest differences of attention, log-probabilities and states, over a padded batch."""
    texts = [
        Text(tiny_tokens(1, tokens, seed=tokens)[0].tolist(), prompt, [1, max(prompt, 1)])
        for tokens, prompt in TEXTS
    ]
    states = range(loaded.layers if hidden else 0)
    results = replay(loaded, texts, EVERYTHING, hidden_layers=states, hidden_rows="all", rows=7)
    worst = [0.0, 0.0, 0.0]
    for text, result in zip(texts, results, strict=True):
        ids = torch.tensor([text.tokens])
        with torch.inference_mode():
            plain = loaded.model(input_ids=ids, use_cache=False)
            logits = plain.logits[0].float().log_softmax(-1)
            before = loaded.attention
            loaded.model.set_attn_implementation("eager")
            eager = loaded.model(
                input_ids=ids, use_cache=False, output_attentions=True, output_hidden_states=hidden
            )
            loaded.model.set_attn_implementation(before)
        own = [weights[0] for weights in eager.attentions or () if weights is not None]
        if len(own) != len(layers):  # layers of linear attention list something else
            own = [own[layer] for layer in layers]
        assert len(result.layers) == len(layers)
        for layer, weights in zip(result.layers, own, strict=True):
            worst[0] = max(worst[0], float(np.abs(dense(layer) - weights.numpy()).max()))
        rows = torch.arange(text.prompt_tokens, len(text.tokens))
        due = logits[rows - 1, torch.tensor(text.tokens)[rows]]
        worst[1] = max(worst[1], float(np.abs(result.scores.logprob - due.numpy()).max()))
        if not hidden:
            continue
        states = torch.stack([state[0] for state in eager.hidden_states[1:]])
        assert result.hidden is not None
        scale = max(1.0, float(states.abs().max()))
        worst[2] = max(worst[2], float((result.hidden - states).abs().max()) / scale)
    return worst[0], worst[1], worst[2]


def dense(layer: Any) -> np.ndarray:
    """[heads, queries, keys] of a reduction that kept every weight."""
    heads, tokens = layer.indptr.shape[0], layer.indptr.shape[1] - 1
    matrix = np.zeros((heads, tokens, tokens), np.float32)
    counts = np.diff(layer.indptr, axis=1).ravel()
    graphs, queries = np.divmod(np.repeat(np.arange(heads * tokens), counts), tokens)
    matrix[graphs, queries, layer.keys] = layer.weights
    return matrix
