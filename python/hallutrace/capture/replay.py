"""Replay: one forward pass over prompt and answer, whose attention is reduced block by block.

The Rust core reduces each block of rows on the CPU, :class:`DeviceReducer` on a GPU. The same pass
gives the hidden states, and the logits that score the answer tokens.
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
from hallutrace.choices import Heads, Rows
from hallutrace.errors import ModelError
from hallutrace.model.loading import Loaded


@dataclass(frozen=True, slots=True)
class Text:
    """A prompt with its answer, to replay.

    Attributes:
        tokens: ids of prompt and answer.
        prompt_tokens: number of prompt tokens P.
        boundaries: first token of each segment but the first.
    """

    tokens: list[int]
    prompt_tokens: int
    boundaries: list[int]


@dataclass(frozen=True, slots=True)
class Reduction:
    """How attention is reduced.

    Attributes:
        top_k: edges kept per row; None for no limit.
        min_weight: smallest weight of an edge.
        top_mass: share of a row's weight above which further edges are dropped; None for no limit.
        heads: ``mean``, ``max`` or ``each``: how the heads of a layer are combined.
        answer_edges: whether to keep edges of the rows P-1..N-1 only.
        all_marginal_rows: whether to keep marginals of all rows instead of P-1..N-1.
    """

    top_k: int | None = 16
    min_weight: float = 0.0
    top_mass: float | None = None
    heads: Heads = "mean"
    answer_edges: bool = False
    all_marginal_rows: bool = False


@dataclass(frozen=True, slots=True)
class Replayed:
    """The result of the replay of one text.

    Attributes:
        layers: ``LayerReduction`` or ``DeviceReduction`` of each captured layer.
        value_norms: float32 [value heads, tokens] of each captured layer.
        scores: scores of the answer tokens.
        hidden: [chosen layers, rows, hidden_dim] on the CPU in the model's dtype; None if no layers
            were chosen.
    """

    layers: list[Any]
    value_norms: list[NDArray[np.float32]]
    scores: TokenScores
    hidden: torch.Tensor | None


class _Reducers:
    """The consumer of the capture: reduces each layer and computes its value norms.

    Attention on a GPU is reduced on it; only edges and marginals are copied to the host.
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
    """A tensor as a NumPy array, without a copy if it is on the CPU.

    Args:
        weights: a tensor of any floating-point dtype on any device.

    Returns:
        The array, and whether its elements are the bits of bfloat16 as uint16.

    Examples:
        >>> as_numpy(torch.tensor([0.5], dtype=torch.bfloat16))
        (array([16128], dtype=uint16), True)
    """
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
    hidden_rows: Rows = "answer",
    alternatives: int = 0,
    rows: int | None = None,
) -> list[Replayed]:
    """Runs a right-padded batch of texts through the model once and reduces their attention.

    Args:
        loaded: the model.
        sequences: the texts of one batch.
        reduction: how attention is reduced.
        hidden_layers: indices of the blocks whose output is returned; may be empty.
        hidden_rows: ``answer`` returns the rows P-1..N-1, ``all`` the rows of all tokens.
        alternatives: number of most likely tokens to return for each answer token.
        rows: query rows of a block; None for ``block_rows``.

    Returns:
        One result per text, in order.

    Raises:
        ModelError: the attention or the logits of the model cannot be captured.
        InputError: an attention weight is negative or not finite.

    Examples:
        >>> from hallutrace import ExtractConfig
        >>> from hallutrace.model.loading import load
        >>> loaded = load(ExtractConfig(model="demo", device="cpu"))
        >>> text = Text(tokens=[5, 6, 7, 8, 9], prompt_tokens=3, boundaries=[])
        >>> [replayed] = replay(loaded, [text], Reduction(top_k=2), hidden_layers=[0])
        >>> replayed.scores.logprob.shape, len(replayed.layers), replayed.hidden.shape[1]
        ((2,), 4, 3)
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
    for index, sequence in enumerate(sequences):
        hidden = None
        if hidden_layers:
            first = sequence.prompt_tokens - 1 if hidden_rows == "answer" else 0
            states = [
                output.hidden_states[layer + 1][index, first : len(sequence.tokens)].cpu()
                for layer in hidden_layers
            ]
            hidden = torch.stack(states)
        results.append(
            Replayed(
                layers=[layer[index] for layer in reduced],
                value_norms=[norm[index, :, : len(sequence.tokens)] for norm in norms],
                scores=scores[index],
                hidden=hidden,
            )
        )
    return results


def forward(loaded: Loaded, sequences: Sequence[Text], **options: bool) -> tuple[Any, torch.Tensor]:
    """Runs one forward pass over a right-padded batch of texts.

    Args:
        loaded: the model.
        sequences: the texts of one batch.
        options: further arguments of the model's ``forward``.

    Returns:
        The model's output, and the logits [rows, vocabulary] that predict the answer tokens, text
        by text.

    Raises:
        ModelError: the logits have an unexpected shape.

    Examples:
        >>> from hallutrace import ExtractConfig
        >>> from hallutrace.model.loading import load
        >>> loaded = load(ExtractConfig(model="demo", device="cpu"))
        >>> with torch.inference_mode():
        ...     _, logits = forward(loaded, [Text([5, 6, 7, 8, 9], 3, []), Text([5, 6], 1, [])])
        >>> logits.shape[0]  # of two answers, of 2 tokens and of 1
        3
    """
    ids, mask = _right_padded(sequences, loaded.pad_id)
    with answer_rows(loaded.model, sequences) as selected:
        output = loaded.model(
            input_ids=ids.to(loaded.device),
            attention_mask=mask.to(loaded.device),
            use_cache=False,
            **options,
        )
    logits = output.logits
    rows = len(selected.batch)
    if selected.times == 0 and logits.shape[:2] == ids.shape:
        return output, logits[selected.batch, selected.row]
    if selected.times != 1 or logits.ndim != 3 or logits.shape[:2] != (1, rows):
        raise ModelError(
            f"Expected logits [1, {rows}, vocabulary] of {loaded.name} "
            f"({loaded.model.config.model_type}), got {tuple(logits.shape)} after {selected.times} "
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
    """The rows whose logits predict answer tokens.

    Attributes:
        batch: index of the text of each row.
        row: token position of each row.
        times: number of calls of the output embeddings.
    """

    batch: list[int]
    row: list[int]
    times: int = 0


@contextmanager
def answer_rows(model: Any, sequences: Sequence[Text]) -> Iterator[AnswerRows]:
    """Restricts logits to the rows that predict answer tokens, [1, rows, vocabulary].

    The rows are selected at the input of the output embeddings, so that no logits are computed for
    the prompt, and the model still applies softcaps and scales. A model that does not call its
    output embeddings returns logits of all rows.

    Args:
        model: a causal language model of transformers.
        sequences: the texts of the batch of the forward pass.
    """
    selected = AnswerRows([], [])
    for index, sequence in enumerate(sequences):
        rows = range(sequence.prompt_tokens - 1, len(sequence.tokens) - 1)
        selected.batch.extend([index] * len(rows))
        selected.row.extend(rows)

    longest = max(len(sequence.tokens) for sequence in sequences)

    def select(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        selected.times += 1
        if inputs[0].ndim != 3 or inputs[0].shape[:2] != (len(sequences), longest):
            return inputs  # not the hidden states of the batch
        return (inputs[0][selected.batch, selected.row].unsqueeze(0), *inputs[1:])

    embeddings = model.get_output_embeddings()
    if embeddings is None:
        yield selected
        return
    handle = embeddings.register_forward_pre_hook(select)
    try:
        yield selected
    finally:
        handle.remove()
