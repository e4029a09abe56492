"""Replay: one clean forward pass over prompt and answer, whose attention is reduced as it is made.

Each block of rows goes to the Rust core, or to its like on a GPU, at once. The same pass gives
hidden states, and logits, which score the answer's tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hallutrace._core import LayerReducer
from hallutrace.capture.attention_hook import capturing
from hallutrace.capture.token_scores import TokenScores, score
from hallutrace.capture.torch_reducer import DeviceReducer, Rules
from hallutrace.errors import ModelError
from hallutrace.model.loading import Loaded


@dataclass(frozen=True, slots=True)
class Text:
    """One finished text to replay.

    Attributes:
        tokens: ids of prompt and answer.
        prompt_tokens: how many of them are the prompt, P.
        boundaries: key positions where segments begin.
    """

    tokens: list[int]
    prompt_tokens: int
    boundaries: list[int]


@dataclass(frozen=True, slots=True)
class Reduction:
    """How attention is reduced; the options of the same names."""

    top_k: int | None = 16
    min_weight: float = 0.0
    top_mass: float | None = None
    heads: str = "mean"
    answer_edges: bool = False
    all_marginal_rows: bool = False


@dataclass(frozen=True, slots=True)
class Replayed:
    """What one replay gives of one sequence, before it is stored.

    Attributes:
        layers: a ``LayerReduction`` of the core, or its like from a device, for each layer.
        value_norms: float32 [value heads, tokens] for each captured layer.
        scores: of the answer's tokens.
        hidden: [layers kept, rows, width] on the CPU in the model's dtype; None if not asked for.
    """

    layers: list[Any]
    value_norms: list[NDArray[np.float32]]
    scores: TokenScores
    hidden: torch.Tensor | None


class _Reducers:
    """One reducer a layer, and the norms of its values.

    Attention on a GPU is reduced there; only edges and marginals come to the host.
    """

    def __init__(self, sequences: Sequence[Text], reduction: Reduction) -> None:
        self._sequences = [
            (len(sequence.tokens), sequence.prompt_tokens, sequence.boundaries)
            for sequence in sequences
        ]
        self._rules = Rules(
            top_k=reduction.top_k,
            min_weight=reduction.min_weight,
            top_mass=reduction.top_mass,
            combine=reduction.heads,
            answer_edges=reduction.answer_edges,
            all_marginal_rows=reduction.all_marginal_rows,
        )
        self.layers: dict[int, LayerReducer | DeviceReducer] = {}
        self.value_norms: dict[int, torch.Tensor] = {}

    def __call__(
        self, layer: int, weights: torch.Tensor, value: torch.Tensor, first_query: int
    ) -> None:
        if layer not in self.layers:
            self.layers[layer] = self._reducer(weights)
            self.value_norms[layer] = torch.linalg.vector_norm(
                value, dim=-1, dtype=torch.float32
            ).cpu()
        reducer = self.layers[layer]
        if isinstance(reducer, DeviceReducer):
            reducer.push(weights, first_query)
        else:
            reducer.push(*as_numpy(weights), first_query)

    def _reducer(self, weights: torch.Tensor) -> LayerReducer | DeviceReducer:
        heads = weights.shape[1]
        if weights.device.type == "cuda":
            return DeviceReducer(heads, self._sequences, self._rules)
        return LayerReducer(heads, self._sequences, **asdict(self._rules))


def as_numpy(weights: torch.Tensor) -> tuple[NDArray[Any], bool]:
    """The tensor's memory as numpy sees it, and whether that is bfloat16's bits."""
    weights = weights.detach().cpu()
    if weights.dtype == torch.bfloat16:
        return weights.view(torch.uint16).numpy(), True
    return weights.numpy(), False


def replay(
    loaded: Loaded,
    sequences: Sequence[Text],
    reduction: Reduction,
    *,
    hidden_layers: Sequence[int] = (),
    hidden_rows: str = "answer",
    alternatives: int = 0,
    rows: int | None = None,
) -> list[Replayed]:
    """Runs finished texts through the model once, right-padded, and reduces their attention.

    Args:
        loaded: the model.
        sequences: texts of one batch.
        reduction: how attention is reduced.
        hidden_layers: blocks whose output is kept; none keeps no hidden states.
        hidden_rows: ``answer`` keeps the rows P-1..N-1, ``all`` every token.
        alternatives: how many of the likeliest tokens are kept for each answer token.
        rows: query rows of a block; None decides from the shape.

    Returns:
        One result a sequence, in their order.
    """
    reducers = _Reducers(sequences, reduction)
    with torch.inference_mode(), capturing(loaded.model, reducers, rows):
        output, logits = forward(loaded, sequences, output_hidden_states=bool(hidden_layers))
    layers = sorted(reducers.layers)
    reduced = [reducers.layers[layer].finish() for layer in layers]
    norms = [reducers.value_norms[layer].numpy() for layer in layers]
    answers = [sequence.tokens[sequence.prompt_tokens :] for sequence in sequences]
    scores = score(logits, answers, alternatives)
    results = []
    for at, sequence in enumerate(sequences):
        hidden = None
        if hidden_layers:
            first = sequence.prompt_tokens - 1 if hidden_rows == "answer" else 0
            kept = [
                output.hidden_states[layer + 1][at, first : len(sequence.tokens)].cpu()
                for layer in hidden_layers
            ]
            hidden = torch.stack(kept)
        results.append(
            Replayed(
                layers=[layer[at] for layer in reduced],
                value_norms=[norm[at, :, : len(sequence.tokens)] for norm in norms],
                scores=scores[at],
                hidden=hidden,
            )
        )
    return results


def forward(loaded: Loaded, sequences: Sequence[Text], **options: bool) -> tuple[Any, torch.Tensor]:
    """A forward pass over right-padded texts.

    Args:
        loaded: the model.
        sequences: texts of one batch.
        options: further arguments of the model's forward.

    Returns:
        The model's output, and logits [rows, vocabulary] of all rows that produced answer tokens,
        text by text.

    Raises:
        ModelError: logits of another shape.
    """
    ids, mask = _right_padded(sequences, loaded.pad_id)
    with answer_rows(loaded.model, sequences) as picked:
        output = loaded.model(
            input_ids=ids.to(loaded.device),
            attention_mask=mask.to(loaded.device),
            use_cache=False,
            **options,
        )
    logits = output.logits
    rows = len(picked.batch)
    if picked.times == 0 and logits.shape[:2] == ids.shape:
        return output, logits[picked.batch, picked.row]
    if picked.times != 1 or logits.ndim != 3 or logits.shape[:2] != (1, rows):
        raise ModelError(
            f"Expected logits [1, {rows}, vocabulary] of {loaded.name} "
            f"({loaded.model.config.model_type}), got {tuple(logits.shape)} after {picked.times} "
            "calls of its output embeddings - choose another architecture"
        )
    return output, logits[0]


def _right_padded(sequences: Sequence[Text], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(len(sequence.tokens) for sequence in sequences)
    ids = torch.full((len(sequences), longest), pad_id)
    mask = torch.zeros((len(sequences), longest), dtype=torch.long)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence.tokens)] = torch.tensor(sequence.tokens)
        mask[row, : len(sequence.tokens)] = 1
    return ids, mask


@dataclass(slots=True)
class AnswerRows:
    """Rows that produced answer tokens.

    Attributes:
        batch: the text of each row.
        row: its token.
        times: how often the rows were picked on their way into the output embeddings.
    """

    batch: list[int]
    row: list[int]
    times: int = 0


@contextmanager
def answer_rows(model: Any, sequences: Sequence[Text]) -> Iterator[AnswerRows]:
    """Within it, logits come for the rows that produced answer tokens, [1, rows, vocabulary].

    The rows are picked where hidden states enter the output embeddings, so that what a model does
    to its logits afterwards (softcaps, scales) still happens, and a large vocabulary costs answers
    alone. A model that does not call its output embeddings gives logits of all rows.
    """
    picked = AnswerRows([], [])
    for at, sequence in enumerate(sequences):
        produced = range(sequence.prompt_tokens - 1, len(sequence.tokens) - 1)
        picked.batch.extend([at] * len(produced))
        picked.row.extend(produced)

    longest = max(len(sequence.tokens) for sequence in sequences)

    def pick(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        picked.times += 1
        if inputs[0].ndim != 3 or inputs[0].shape[:2] != (len(sequences), longest):
            return inputs  # something else than the hidden states of all texts
        return (inputs[0][picked.batch, picked.row].unsqueeze(0), *inputs[1:])

    embeddings = model.get_output_embeddings()
    if embeddings is None:
        yield picked
        return
    handle = embeddings.register_forward_pre_hook(pick)
    try:
        yield picked
    finally:
        handle.remove()
