"""One trace, read lazily from its shard."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace._core import Shard
from hallutrace.attention.edges import EdgeList
from hallutrace.errors import DamagedError, InputError
from hallutrace.model.answer_spans import AnswerSpan
from hallutrace.questions import Generator
from hallutrace.store.folder import Manifest

# numpy has no bfloat16; its bits are read as these.
_DTYPES: dict[str, np.dtype[Any]] = {
    "I64": np.dtype("<i8"),
    "F32": np.dtype("<f4"),
    "I32": np.dtype("<i4"),
    "U32": np.dtype("<u4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "U16": np.dtype("<u2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
}

# What a trace's meta has.
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
    """The K likeliest tokens in the place of each of A answer tokens, the likeliest first.

    Attributes:
        tokens: int32 [A, K], ids; of equally likely ones the lower comes first.
        logprobs: float32 [A, K], log-probabilities as float16 keeps them, nats, temperature 1.
    """

    tokens: NDArray[np.int32]
    logprobs: NDArray[np.float32]


class Trace:
    """Everything kept of one question and its answer.

    Arrays are read when asked for, checked against their checksums the first time, and are views
    of the mapped file where their type allows.

    Args:
        shard: the open shard.
        position: of the trace in it.
        manifest: of the run.
        origin: where the shard lies and when its data is checked, for other processes to open it
            anew; None for a trace that stays in this one.

    Attributes:
        shard: the open shard.
        position: of the trace in it.

    Example:
        >>> trace = hallutrace.open(run)[0]
        >>> trace.layer(0).shape[1] == len(trace.tokens)
        True
        >>> len(trace.logprob) == len(trace.answer_tokens)
        True
    """

    def __init__(
        self,
        shard: Shard,
        position: int,
        manifest: Manifest,
        origin: tuple[Path, str] | None = None,
    ) -> None:
        self.shard = shard
        self.position = position
        self._manifest = manifest
        self._origin = origin

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as its place: another process opens the shard anew."""
        if self._origin is None:
            raise InputError(
                "Expected a trace of an open run to pickle, got one of a shard alone or in memory "
                "- take it from hallutrace.open(run)"
            )
        path, verify = self._origin
        return _reopened, (path.absolute(), verify, self.position, self._manifest)

    def __eq__(self, other: object) -> bool:
        """Whether it is the same trace of the same run, however often it was read."""
        if not isinstance(other, Trace):
            return NotImplemented
        return (self.id, self.sample) == (
            other.id,
            other.sample,
        ) and self._manifest == other._manifest

    def __hash__(self) -> int:
        return hash((self.id, self.sample))

    def __repr__(self) -> str:
        answer = self.answer if len(self.answer) <= 60 else self.answer[:57] + "..."
        return f"Trace({self.id!r}, sample {self.sample}, {len(self.tokens)} tokens: {answer!r})"

    # Text -------------------------------------------------------------------------------------

    @cached_property
    def meta(self) -> dict[str, Any]:
        """All text of the trace, by name."""
        content = self.stored("meta").tobytes()
        # Unless it was told not to, the core has checked that it is JSON with the trace's key; a
        # stranger's may still lack the rest.
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
        """Which answer of its question, from 0."""
        return int(self.meta["sample"])

    @property
    def group(self) -> str:
        """What splits into train and test go by."""
        return str(self.meta["group"])

    @property
    def index(self) -> int:
        """Row of the question in its source, from 0."""
        return int(self.meta["index"])

    @property
    def question(self) -> str:
        """The question, without template."""
        return str(self.meta["question"])

    @property
    def context(self) -> str | None:
        """The context of the question, if it has one."""
        context: str | None = self.meta["context"]
        return context

    @property
    def prompt(self) -> str:
        """What the model read."""
        return str(self.meta["prompt"])

    @property
    def answer(self) -> str:
        """What the model said, without special tokens."""
        return str(self.meta["answer"])

    @property
    def references(self) -> list[str]:
        """Right answers, as the source gives them."""
        return list(self.meta["references"])

    @property
    def choices(self) -> dict[str, str]:
        """Label and text of each choice that the question offers; empty where there are none."""
        return dict(self.meta.get("choices", []))

    @property
    def incorrect_answers(self) -> list[str]:
        """Wrong answers that the source knows."""
        return list(self.meta.get("incorrect_answers", []))

    @property
    def generator(self) -> Generator | None:
        """What made an answer that was given, as far as its source says."""
        made = self.meta.get("generator")
        return None if made is None else Generator(made.get("model"), made.get("temperature"))

    @property
    def spans(self) -> list[AnswerSpan]:
        """Spans of the answer that the source of a given answer labelled, in its order."""
        return [
            AnswerSpan(one["start"], one["end"], one["label"], (one["tokens"][0], one["tokens"][1]))
            for one in self.meta.get("spans", [])
        ]

    @property
    def finish_reason(self) -> str:
        """``eos``, ``stop``, ``length``, or ``given``."""
        return str(self.meta["finish_reason"])

    @property
    def prompt_length(self) -> int:
        """Tokens of the prompt, P."""
        return int(self.meta["prompt_length"])

    @property
    def segments(self) -> list[int]:
        """Key positions where the segments of ``marginals.mass`` begin, the first one left out."""
        return list(self.meta["segments"])

    # Tokens -----------------------------------------------------------------------------------

    @property
    def tokens(self) -> NDArray[np.int32]:
        """Ids of prompt and answer, int32 [N]."""
        return self.stored("tokens")

    @property
    def answer_tokens(self) -> NDArray[np.int32]:
        """Ids of the answer, int32 [A], end-of-sequence included if it came."""
        return self.tokens[self.prompt_length :]

    @property
    def logprob(self) -> NDArray[np.float32]:
        """Log-probability of each answer token, float32 [A], nats, temperature 1."""
        return self.stored("logprob")

    @property
    def token_entropy(self) -> NDArray[np.float32]:
        """Entropy of the distribution each answer token was drawn from, float32 [A], nats."""
        return self.stored("token_entropy")

    @property
    def logsumexp(self) -> NDArray[np.float32]:
        """Of the logits that each answer token was drawn from, float32 [A].

        The logit of a token is its log-probability plus this.
        """
        return self.stored("logsumexp")

    @property
    def alternatives(self) -> Alternatives:
        """The likeliest tokens in the place of each answer token, with their log-probabilities.

        Raises:
            InputError: a run without them.
        """
        if self.shard.tensor(self.position, "alternatives.token") is None:
            raise InputError(
                "Expected a trace with the likeliest tokens of each place, got one without - "
                "extract with --alternatives 10"
            )
        logprobs = self.stored("alternatives.logprob").astype(np.float32)
        return Alternatives(self.stored("alternatives.token"), logprobs)

    # Attention --------------------------------------------------------------------------------

    @property
    def manifest(self) -> Manifest:
        """Of the run it is in."""
        return self._manifest

    @property
    def layers(self) -> list[int]:
        """Numbers of the layers whose attention is kept."""
        return list(self._manifest.facts["captured_layers"])

    @cached_property
    def marginals(self) -> StoredMarginals:
        """Exact per-head summaries of the attention before pruning."""
        return StoredMarginals(self)

    def layer(self, layer: int) -> EdgeList:
        """The attention graph of one layer.

        Args:
            layer: number in the model, from 0.

        Returns:
            Edges of all N queries; one head where heads were combined. ``retained`` is known for
            rows whose mass is stored (the answer rows, unless the run kept all) and NaN for the
            others, and for all where heads were combined by their maximum. Weights are those stored
            (float16 unless the run kept float32), so pruning them again can meet ties that
            rounding made.

        Raises:
            InputError: a layer whose attention was not captured.
            DamagedError: bytes that do not match their checksum.
        """
        layers: list[int] = self._manifest.facts["captured_layers"]
        if layer not in layers:
            raise InputError(
                f"Expected a layer with captured attention ({_spans(layers)}), got {layer}"
            )
        at = layers.index(layer)
        heads = self._manifest.facts["heads"][at]
        combine = self._manifest.identity["sparsification"]["heads"]
        indptr, keys, weights, retained, shape, first = self.shard.layer(
            self.position, at, heads, combine
        )
        return EdgeList(indptr, keys, weights, shape, first, retained)

    # Hidden states ----------------------------------------------------------------------------

    @property
    def hidden_layers(self) -> list[int]:
        """Numbers of the layers whose hidden states are kept."""
        kept = self.meta["hidden"]
        return list(kept["layers"]) if kept else []

    @property
    def hidden_tokens(self) -> list[str] | range:
        """What the rows of :meth:`hidden` are: positions of tokens, or names of pooled vectors."""
        kept = self.meta["hidden"]
        tokens = kept["tokens"] if kept else []
        return range(*tokens) if tokens and isinstance(tokens[0], int) else list(tokens)

    def hidden(self, layer: int) -> NDArray[np.float32]:
        """Hidden states of one layer: the output of its block, the last one after the final norm.

        Args:
            layer: number in the model, from 0.

        Returns:
            float32 [tokens kept, width]; :attr:`hidden_tokens` says which tokens.

        Raises:
            InputError: a layer, or a run, without hidden states.
            DamagedError: bytes that do not match their checksum.
        """
        if layer not in self.hidden_layers:
            kept = _spans(self.hidden_layers) or "none: extract with --hidden-states answer"
            raise InputError(f"Expected a layer with hidden states ({kept}), got {layer}")
        at = self.hidden_layers.index(layer)
        dtype, states = self._typed("hidden")
        if dtype == "BF16":
            bits: NDArray[np.uint32] = states[at].astype(np.uint32) << 16
            return bits.view(np.float32)
        if dtype == "I8":
            scale: NDArray[np.float32] = self.stored("hidden.scale")[at][:, None]
            narrow: NDArray[np.float32] = np.multiply(states[at], scale, dtype=np.float32)
            return narrow
        wide: NDArray[np.float32] = states[at].astype(np.float32, copy=False)
        return wide

    # Bytes ------------------------------------------------------------------------------------

    def _typed(self, name: str) -> tuple[str, NDArray[Any]]:
        found = self.shard.tensor(self.position, name)
        if found is None:
            raise InputError(f"Expected a trace with `{name}`, got one without")
        dtype, shape, raw = found
        array: NDArray[Any] = raw.view(_DTYPES[dtype]).reshape(shape)
        return dtype, array

    def stored(self, name: str) -> NDArray[Any]:
        """An array as it lies in the shard, by its name in the format: a view, not converted."""
        return self._typed(name)[1]


def _reopened(path: Path, verify: str, position: int, manifest: Manifest) -> Trace:
    """A trace that was pickled."""
    shard = _shard(path, verify, path.stat().st_mtime_ns if path.exists() else 0)
    return Trace(shard, position, manifest, (path, verify))


@lru_cache(maxsize=8)
def _shard(path: Path, verify: str, changed: int) -> Shard:
    """A shard for all traces of it that come one by one; another file is opened anew."""
    return Shard(path, verify=verify)


class StoredMarginals:
    """The marginals of a trace, float32, for all captured layers in order.

    H is the largest number of heads of a layer; layers with fewer are padded with zeros. N tokens,
    R rows: the answer rows P-1..N-1, or all N where the run kept them.
    """

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    @property
    def log_diagonal(self) -> NDArray[np.float32]:
        """[layers, H, 2], mean of ln(max(diagonal, 2^-126)) over prompt and over answer rows."""
        return self._wide("log_diagonal")

    @property
    def log_square(self) -> NDArray[np.float32]:
        """[layers, H, 2], mean of ln(max(square, 2^-126)) over prompt and over answer rows."""
        return self._wide("log_square")

    @property
    def diagonal(self) -> NDArray[np.float32]:
        """[layers, H, N], what each token gives itself."""
        return self._wide("diagonal")

    @property
    def received_mean(self) -> NDArray[np.float32]:
        """[layers, H, N], mean of what the later rows that produced something give each token."""
        return self._wide("received_mean")

    @property
    def previous(self) -> NDArray[np.float32]:
        """[layers, H, R], what each row gives the token before its own."""
        return self._wide("previous")

    @property
    def entropy(self) -> NDArray[np.float32]:
        """[layers, H, R], entropy of each row, nats."""
        return self._wide("entropy")

    @property
    def mass(self) -> NDArray[np.float32]:
        """[layers, H, R, segments], what each row gives each segment of the keys."""
        return self._wide("mass")

    @property
    def square(self) -> NDArray[np.float32]:
        """[layers, H, R], sum of the squared weights of each row (Head Entropy)."""
        return self._wide("square")

    @property
    def rough(self) -> NDArray[np.float32]:
        """[layers, H, R, segments], norm of the second differences along the keys of a segment.

        Zeros stand around each segment, see :class:`hallutrace.Marginals`.
        """
        return self._wide("rough")

    @property
    def value_norm(self) -> NDArray[np.float32]:
        """[layers, value heads, N], L2 norm of each token's value vector."""
        return self._wide("value_norm")

    def _wide(self, name: str) -> NDArray[np.float32]:
        stored = self._trace.stored(f"marginals.{name}")
        wide: NDArray[np.float32] = stored.astype(np.float32, copy=False)
        return wide


def _spans(numbers: list[int]) -> str:
    """Numbers with runs drawn together: ``0-3, 7``."""
    parts: list[str] = []
    begin = None
    for at, number in enumerate(numbers):
        begin = number if begin is None else begin
        if at + 1 == len(numbers) or numbers[at + 1] != number + 1:
            parts.append(str(number) if begin == number else f"{begin}-{number}")
            begin = None
    return ", ".join(parts)
