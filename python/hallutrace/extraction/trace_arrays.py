"""Converts one replayed answer to the arrays and metadata that a shard stores."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hallutrace.canonical_json import canonical
from hallutrace.capture.replay import Replayed
from hallutrace.capture.token_scores import TokenScores
from hallutrace.choices import HiddenStates, Rows
from hallutrace.errors import InputError
from hallutrace.model.answer_ends import Answer
from hallutrace.model.prompts import Prompt
from hallutrace.option_names import parameter
from hallutrace.questions import Question
from hallutrace.store.tensor_names import MARGINALS

Arrays = dict[str, NDArray[Any]]

LEAST_FLOAT16 = np.float32(-65504)
POOLED = ["last_prompt", "last_answer", "last", "mean_answer"]


@dataclass(frozen=True, slots=True)
class HiddenChoice:
    """Which hidden states are stored.

    Attributes:
        states: ``none``, ``pooled``, ``answer`` or ``all``.
        layers: indices of the blocks whose output is stored.
        dtype: ``float32``, ``float16``, ``bfloat16`` or ``int8``.

    Examples:
        >>> HiddenChoice("pooled", [0, 1], "float16").rows
        'answer'
    """

    states: HiddenStates
    layers: list[int]
    dtype: str

    @property
    def rows(self) -> Rows:
        """The rows that the replay must return: ``all`` or ``answer``."""
        return "all" if self.states == "all" else "answer"


def arrays_of(replayed: Replayed, tokens: list[int], eos: bool, hidden: HiddenChoice) -> Arrays:
    """The tensors of a trace by their names in the format; ``meta`` is added by :func:`meta_of`.

    Args:
        replayed: the result of the replay.
        tokens: ids of prompt and answer.
        eos: whether the answer ends with an end-of-sequence token.
        hidden: which hidden states to store.

    Raises:
        InputError: a value is NaN or infinite; the message names array and layer.

    Examples:
        >>> from hallutrace import ExtractConfig
        >>> from hallutrace.capture.replay import Reduction, Text, replay
        >>> from hallutrace.model.loading import load
        >>> loaded = load(ExtractConfig(model="demo", device="cpu"))
        >>> tokens = [5, 6, 7, 8, 9]
        >>> [replayed] = replay(loaded, [Text(tokens, 3, [])], Reduction(top_k=2))
        >>> arrays = arrays_of(replayed, tokens, False, HiddenChoice("none", [], "float32"))
        >>> arrays["logprob"].shape, arrays["edges.indptr"].dtype
        ((2,), dtype('int32'))
    """
    _check_finite(replayed, hidden)
    arrays: Arrays = {
        "tokens": np.asarray(tokens, np.int32),
        **_scores(replayed.scores),
        "marginals.value_norm": _stack_heads(replayed.value_norms),
        **_edges(replayed.layers),
    }
    for name in MARGINALS:
        per_layer = [getattr(layer, name) for layer in replayed.layers]
        arrays[f"marginals.{name}"] = _stack_heads(per_layer)
    if replayed.hidden is not None:
        states = replayed.hidden
        if hidden.states == "pooled":
            states = _pool(states, eos)
        arrays.update(_hidden(states, hidden.dtype))
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _scores(scores: TokenScores) -> Arrays:
    """The scores of the answer tokens; alternatives only if their number is not 0."""
    arrays: Arrays = {
        "logprob": scores.logprob,
        "token_entropy": scores.entropy,
        "logsumexp": scores.logsumexp,
    }
    if scores.alternatives.shape[1]:
        arrays["alternatives.token"] = scores.alternatives
        # A log-probability of -inf becomes the lowest finite float16.
        arrays["alternatives.logprob"] = np.maximum(scores.alternative_logprobs, LEAST_FLOAT16)
    return arrays


def _check_finite(replayed: Replayed, hidden: HiddenChoice) -> None:
    """Raises an :class:`InputError` for NaN or infinity, before values are converted to float16."""
    for name, values in _scores(replayed.scores).items():
        if values.ndim == 1:  # NaN among the alternatives implies NaN in `logsumexp`
            _check(values, f"`{name}`, the first of answer token {{}}")
    for index, (layer, norms) in enumerate(zip(replayed.layers, replayed.value_norms, strict=True)):
        where = f"layer {index} of those with attention"
        _check(norms, f"`value_norm` of {where}")
        for name in MARGINALS:
            values = getattr(layer, name)
            _check(values, f"`{name}` of {where}")
        _check(layer.weights, f"the attention of {where}")
    if replayed.hidden is not None:
        for layer, states in zip(hidden.layers, replayed.hidden, strict=True):
            if states.numel() and not all(map(math.isfinite, torch.aminmax(states))):
                _check(states.float().numpy(), f"the hidden states of layer {layer}")


def _check(values: NDArray[Any], what: str) -> None:
    is_finite = np.isfinite(values)
    if is_finite.all():
        return
    bad = values[~is_finite]
    first = int(np.flatnonzero(~is_finite.reshape(-1))[0])
    raise InputError(
        f"Expected finite numbers from the model, got {bad.size:,} of {values.size:,} that are "
        f"not ({bad[0]}) in {what.format(first)} - the model overflowed, most likely in float16: "
        f"use {parameter('dtype', 'bfloat16')} or float32"
    )


def meta_of(
    question: Question, prompt: Prompt, answer: Answer, sample: int, hidden: HiddenChoice
) -> NDArray[np.uint8]:
    """The metadata of a trace.

    Args:
        question: the question.
        prompt: its prompt.
        answer: the answer.
        sample: number of the answer among the samples of the question.
        hidden: which hidden states are stored.

    Returns:
        Canonical JSON, uint8 [bytes].

    Examples:
        >>> question = Question("q1", "Who?", ("Anna",), context=None, index=0, group="q1")
        >>> prompt, answer = Prompt("Who?", [5, 6], None), Answer([7], "Anna", "eos")
        >>> meta = meta_of(question, prompt, answer, 0, HiddenChoice("answer", [0], "float32"))
        >>> bytes(meta[:15])
        b'{"answer":"Anna'
    """
    prompt_length = len(prompt.tokens)
    tokens = prompt_length + len(answer.tokens)
    stored: Any = POOLED
    if hidden.states in ("answer", "all"):
        stored = [prompt_length - 1 if hidden.states == "answer" else 0, tokens]
    content = {
        "id": question.id,
        "sample": sample,
        "group": question.group,
        "index": question.index,
        "question": question.question,
        "context": question.context,
        "prompt": prompt.text,
        "answer": answer.text,
        "references": list(question.references),
        "prompt_length": prompt_length,
        "segments": prompt.boundaries,
        "finish_reason": answer.finish_reason,
        "hidden": None if hidden.states == "none" else {"layers": hidden.layers, "tokens": stored},
    }
    content |= _optional_meta(question, answer, sample)
    return np.frombuffer(canonical(content), np.uint8)


def _optional_meta(question: Question, answer: Answer, sample: int) -> dict[str, Any]:
    """The metadata that only some sources provide."""
    meta: dict[str, Any] = {}
    if question.choices:
        meta["choices"] = [list(choice) for choice in question.choices]
    if question.incorrect_answers:
        meta["incorrect_answers"] = list(question.incorrect_answers)
    generator = question.generators[sample] if question.generators else None
    if generator is not None:
        meta["generator"] = generator._asdict()
    if question.spans:
        meta["spans"] = [asdict(span) for span in answer.spans]
    return meta


def _edges(layers: list[Any]) -> Arrays:
    """The concatenated graphs of all layers; layers with fewer heads get empty graphs."""
    graphs = max(layer.indptr.shape[0] for layer in layers)
    indptr = _stack_heads([layer.indptr for layer in layers])
    offsets = np.zeros(indptr.shape[0] * graphs + 1, np.int64)
    np.cumsum(indptr[:, :, -1].reshape(-1), out=offsets[1:])
    return {
        "edges.offset": offsets,
        "edges.indptr": indptr.reshape(-1, indptr.shape[2]),
        "edges.key": np.concatenate([layer.keys for layer in layers]),
        "edges.weight": np.concatenate([layer.weights for layer in layers]),
    }


def _stack_heads(layers: list[NDArray[Any]]) -> NDArray[Any]:
    """[layers, heads, ...]; layers with fewer heads are padded with zeros."""
    heads = max(layer.shape[0] for layer in layers)
    stacked = np.zeros((len(layers), heads, *layers[0].shape[1:]), layers[0].dtype)
    for index, layer in enumerate(layers):
        stacked[index, : layer.shape[0]] = layer
    return stacked


def _pool(states: torch.Tensor, eos: bool) -> torch.Tensor:
    """Pools answer rows [layers, A + 1, hidden_dim] to [layers, 4, hidden_dim], as in POOLED."""
    rows = states.shape[1]
    end = rows - 1 if eos else rows  # the first row is the last prompt token
    mean = states[:, 1:end] if end > 1 else states[:, :1]
    return torch.stack(
        [
            states[:, 0],
            states[:, end - 1],
            states[:, rows - 1],
            mean.float().mean(dim=1).to(states.dtype),
        ],
        dim=1,
    )


def _hidden(states: torch.Tensor, dtype: str) -> Arrays:
    if dtype == "bfloat16":
        return {"hidden": states.to(torch.bfloat16).view(torch.uint16).numpy()}
    values = states.float().numpy()
    if dtype != "int8":
        # The writer converts to float16 and raises an error on overflow.
        return {"hidden": values}
    scale = np.abs(values).max(axis=-1) / np.float32(127)
    is_nonzero = scale[..., None] > 0
    scaled = np.divide(values, scale[..., None], out=np.zeros_like(values), where=is_nonzero)
    return {"hidden": np.rint(scaled).astype(np.int8), "hidden.scale": scale}
