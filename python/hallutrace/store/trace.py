"""A trace: one question, its answer and the stored tensors, read lazily from a shard."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace.attention.edges import EdgeList
from hallutrace.errors import DamagedError, InputError
from hallutrace.model.answer_spans import AnswerSpan
from hallutrace.notebook_display import ShownInNotebooks
from hallutrace.option_names import parameter
from hallutrace.questions import Generator
from hallutrace.store.folder import Manifest
from hallutrace.store.stored_marginals import StoredMarginals
from hallutrace.store.trace_tensors import TraceTensors

# Required members of `meta`.
MEMBERS = (
    "id",
    "sample",
    "group",
    "index",
    "question",
    "context",
    "prompt",
    "answer",
    "references",
    "prompt_length",
    "segments",
    "finish_reason",
    "hidden",
)


@dataclass(frozen=True, slots=True)
class Alternatives:
    """The K most likely tokens at each of A answer tokens, the most likely first.

    Attributes:
        tokens: ids, int32 [A, K]; of equally likely tokens the lower id comes first.
        logprobs: log-probabilities at temperature 1, nats, float32 [A, K]; stored as float16.
    """

    tokens: NDArray[np.int32]
    logprobs: NDArray[np.float32]


class Trace(ShownInNotebooks, TraceTensors):
    """One question, its answer, and the tensors that were stored for it.

    Arrays are read on access and checked against their checksums as ``verify`` says, see
    :func:`hallutrace.open`. They are views of the memory-mapped file if no conversion is needed.

    Args:
        shard: the open shard.
        position: index of the trace in the shard file, from 0.
        manifest: of the run.
        origin: path of the shard and ``verify``, with which a process that unpickles the trace
            opens the shard again; None for a trace that cannot be pickled.

    Attributes:
        shard: the open shard.
        position: index of the trace in the shard file, from 0.

    Examples:
        >>> trace = hallutrace.open(run)[0]
        >>> trace.layer(0).shape[1] == len(trace.tokens)
        True
        >>> len(trace.logprob) == len(trace.answer_tokens)
        True
    """

    def __eq__(self, other: object) -> bool:
        """Whether both have the same id and sample, and are of runs with equal manifests."""
        if not isinstance(other, Trace):
            return NotImplemented
        is_same_key = (self.id, self.sample) == (other.id, other.sample)
        return is_same_key and self._manifest == other._manifest

    def __hash__(self) -> int:
        return hash((self.id, self.sample))

    def __repr__(self) -> str:
        answer = self.answer if len(self.answer) <= 60 else self.answer[:57] + "..."
        return f"Trace({self.id!r}, sample {self.sample}, {len(self.tokens)} tokens: {answer!r})"

    # Text -------------------------------------------------------------------------------------

    @cached_property
    def meta(self) -> dict[str, Any]:
        """Text and scalars of the trace, by name.

        Raises:
            DamagedError: `meta` is not JSON, or lacks a member.
        """
        content = self.stored("meta").tobytes()
        # The core checks that it is JSON with the key of the trace, unless `verify` is "never".
        # A file that another program wrote may lack the other members.
        try:
            meta: dict[str, Any] = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise self._damaged(f"{error} in `meta`") from None
        missing = [name for name in MEMBERS if name not in meta]
        if missing:
            raise self._damaged(f"no {', '.join(missing)} in `meta`")
        return meta

    def _damaged(self, found: str) -> DamagedError:
        number, id_, _ = self.shard.keys()[self.position]
        return DamagedError(
            f"Expected a trace of schema 2, got {found} of trace {number:05} ({id_!r}) - "
            "restore its shard from a copy"
        )

    @property
    def id(self) -> str:
        """The question's id."""
        return str(self.meta["id"])

    @property
    def sample(self) -> int:
        """Number of the answer among those of its question, from 0."""
        return int(self.meta["sample"])

    @property
    def group(self) -> str:
        """Traces of a group are in the same part of a train/test split."""
        return str(self.meta["group"])

    @property
    def index(self) -> int:
        """Row of the question in its source, from 0."""
        return int(self.meta["index"])

    @property
    def question(self) -> str:
        """The question, without the prompt template."""
        return str(self.meta["question"])

    @property
    def context(self) -> str | None:
        """The context of the question; None if it has none."""
        context: str | None = self.meta["context"]
        return context

    @property
    def prompt(self) -> str:
        """The input text of the model."""
        return str(self.meta["prompt"])

    @property
    def answer(self) -> str:
        """The answer as text, without special tokens."""
        return str(self.meta["answer"])

    @property
    def references(self) -> list[str]:
        """Correct answers from the source."""
        return list(self.meta["references"])

    @property
    def choices(self) -> dict[str, str]:
        """Text of each choice by its label; empty if the question has no choices."""
        return dict(self.meta.get("choices", []))

    @property
    def incorrect_answers(self) -> list[str]:
        """Incorrect answers from the source; empty if it has none."""
        return list(self.meta.get("incorrect_answers", []))

    @property
    def generator(self) -> Generator | None:
        """The model that generated a given answer; None if the source does not name it."""
        found = self.meta.get("generator")
        return None if found is None else Generator(found.get("model"), found.get("temperature"))

    @property
    def spans(self) -> list[AnswerSpan]:
        """Spans of a given answer that the source labelled, in the order of the source."""
        return [
            AnswerSpan(
                span["start"], span["end"], span["label"], (span["tokens"][0], span["tokens"][1])
            )
            for span in self.meta.get("spans", [])
        ]

    @property
    def finish_reason(self) -> str:
        """Why the answer ended: ``eos``, ``stop``, ``length``, or ``given``."""
        return str(self.meta["finish_reason"])

    @property
    def prompt_length(self) -> int:
        """Number of tokens of the prompt, P."""
        return int(self.meta["prompt_length"])

    @property
    def segments(self) -> list[int]:
        """First key positions of the segments of ``marginals.mass``, without the 0 of the first."""
        return list(self.meta["segments"])

    # Tokens -----------------------------------------------------------------------------------

    @property
    def tokens(self) -> NDArray[np.int32]:
        """Token ids of prompt and answer, int32 [N]."""
        return self.stored("tokens")

    @property
    def answer_tokens(self) -> NDArray[np.int32]:
        """Token ids of the answer, int32 [A], with end-of-sequence if it was generated."""
        return self.tokens[self.prompt_length :]

    @property
    def logprob(self) -> NDArray[np.float32]:
        """Log-probability of each answer token at temperature 1, nats, float32 [A]."""
        return self.stored("logprob")

    @property
    def token_entropy(self) -> NDArray[np.float32]:
        """Entropy of the next-token distribution at each answer token, nats, float32 [A]."""
        return self.stored("token_entropy")

    @property
    def logsumexp(self) -> NDArray[np.float32]:
        """Logsumexp of the logits at each answer token, float32 [A].

        The logit of a token is its log-probability plus this value.
        """
        return self.stored("logsumexp")

    @property
    def alternatives(self) -> Alternatives:
        """The most likely tokens at each answer token, with their log-probabilities.

        Raises:
            InputError: the run has no alternatives.
        """
        if self.shard.tensor(self.position, "alternatives.token") is None:
            raise InputError(
                "Expected a trace with the likeliest tokens of each place, got one without - "
                f"extract with {parameter('alternatives', 10)}"
            )
        logprobs = self.stored("alternatives.logprob").astype(np.float32)
        return Alternatives(self.stored("alternatives.token"), logprobs)

    # Attention --------------------------------------------------------------------------------

    @property
    def manifest(self) -> Manifest:
        """Manifest of the run."""
        return self._manifest

    @property
    def layers(self) -> list[int]:
        """Numbers of the layers with stored attention, from 0."""
        return list(self._manifest.facts["captured_layers"])

    @cached_property
    def marginals(self) -> StoredMarginals:
        """Exact per-head statistics of the attention before pruning."""
        return StoredMarginals(self)

    def layer(self, layer: int) -> EdgeList:
        """The attention graph of one layer.

        Args:
            layer: number in the model, from 0.

        Returns:
            Edges of all N queries; a single head if heads were combined. ``retained`` is known for
            rows with stored mass (the answer rows, or all rows, as the run was configured). It is
            NaN for other rows, and for all rows if heads were combined by maximum. Weights are
            float16 as stored, or float32 if the run stored that. Rounding to float16 can create
            ties if the edges are pruned again.

        Raises:
            InputError: the attention of this layer was not captured.
            DamagedError: a checksum is wrong.

        Examples:
            >>> edges = hallutrace.open(run)[0].layer(0)
            >>> len(edges.keys) == len(edges.weights) == len(edges.queries)
            True
        """
        layers: list[int] = self._manifest.facts["captured_layers"]
        if layer not in layers:
            raise InputError(
                f"Expected a layer with captured attention ({_ranges(layers)}), got {layer}"
            )
        index = layers.index(layer)
        heads = self._manifest.facts["heads"][index]
        combine = self._manifest.identity["sparsification"]["heads"]
        indptr, keys, weights, retained, shape, first = self.shard.layer(
            self.position, index, heads, combine
        )
        return EdgeList(indptr, keys, weights, shape, first, retained)

    # Hidden states ----------------------------------------------------------------------------

    @property
    def hidden_layers(self) -> list[int]:
        """Numbers of the layers with stored hidden states, from 0; empty without hidden states."""
        kept = self.meta["hidden"]
        return list(kept["layers"]) if kept else []

    @property
    def hidden_tokens(self) -> list[str] | range:
        """Row labels of :meth:`hidden`: positions of tokens, or names of pooled vectors."""
        kept = self.meta["hidden"]
        tokens = kept["tokens"] if kept else []
        return range(*tokens) if tokens and isinstance(tokens[0], int) else list(tokens)

    def hidden(self, layer: int) -> NDArray[np.float32]:
        """Hidden states of one layer: the output of its block, for the last after the final norm.

        Args:
            layer: number in the model, from 0.

        Returns:
            float32 [tokens, hidden_dim], one row for each element of :attr:`hidden_tokens`.

        Raises:
            InputError: the layer has no stored hidden states.
            DamagedError: a checksum is wrong.
        """
        if layer not in self.hidden_layers:
            none = f"none: extract with {parameter('hidden_states', 'answer')}"
            kept = _ranges(self.hidden_layers) or none
            raise InputError(f"Expected a layer with hidden states ({kept}), got {layer}")
        index = self.hidden_layers.index(layer)
        dtype, states = self._typed("hidden")
        if dtype == "BF16":
            bits: NDArray[np.uint32] = states[index].astype(np.uint32) << 16
            return bits.view(np.float32)
        if dtype == "I8":
            scale: NDArray[np.float32] = self.stored("hidden.scale")[index][:, None]
            dequantized: NDArray[np.float32] = np.multiply(states[index], scale, dtype=np.float32)
            return dequantized
        converted: NDArray[np.float32] = states[index].astype(np.float32, copy=False)
        return converted


def _ranges(numbers: list[int]) -> str:
    """Formats sorted numbers as ranges: ``0-3, 7``."""
    parts: list[str] = []
    begin = None
    for index, number in enumerate(numbers):
        begin = number if begin is None else begin
        if index + 1 == len(numbers) or numbers[index + 1] != number + 1:
            parts.append(str(number) if begin == number else f"{begin}-{number}")
            begin = None
    return ", ".join(parts)
