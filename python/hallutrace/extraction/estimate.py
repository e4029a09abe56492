"""What a run will cost: bytes and memory from shapes alone, time once a batch was timed."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from hallutrace.config import ExtractConfig, select_layers
from hallutrace.extraction.batch_planning import cache_bytes_per_token
from hallutrace.model.files import ModelName
from hallutrace.presets import MODEL_CONFIGS

HIDDEN_CHOICES = ("none", "pooled", "answer", "all")
HEADER_BYTES = 3072  # reserved for each trace in the header of its shard
META_BYTES = 1024  # text of a trace: question, prompt, answer, references


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What of a model decides sizes.

    Attributes:
        layers: blocks.
        attention_layers: those whose attention is kept.
        heads: query heads.
        value_heads: key-value heads.
        hidden_size: width of a hidden state.
        parameters: of the whole model.
        embedding: of them, those of input and output embeddings, which quantisation leaves alone.
        dtype_bytes: of an element of the checkpoint.
        is_quantized: whether the checkpoint is quantised itself.
        config: of transformers.
    """

    layers: int
    attention_layers: int
    heads: int
    value_heads: int
    hidden_size: int
    parameters: int
    embedding: int
    dtype_bytes: int
    is_quantized: bool
    config: Any


@dataclass(frozen=True, slots=True)
class RunSize:
    """Bytes of a run with one choice of hidden states.

    Attributes:
        hidden_states: the choice.
        edges, marginals, tokens, hidden: bytes per trace.
        trace: bytes per trace, with text and header.
        run: bytes of the whole run; None where the number of questions is not known.
    """

    hidden_states: str
    edges: int
    marginals: int
    tokens: int
    hidden: int
    trace: int
    run: int | None


def model_shape(asked: ModelName) -> ModelShape:
    """The shape of a model from its configuration; no weights, and no network for presets.

    Args:
        asked: the model; of an adapter, its base model counts.

    Raises:
        ModelError: no such model, or no causal one.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from hallutrace.model.library_errors import loading
    from hallutrace.model.loading import load_config

    if asked.name in MODEL_CONFIGS:
        known = dict(MODEL_CONFIGS[asked.name])
        config = AutoConfig.for_model(known.pop("model_type"), **known)
    else:
        config = load_config(asked)
    text = config.get_text_config()
    with loading(asked.name), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=asked.trust_remote_code)
    embeddings = {
        id(part): part for part in (model.get_input_embeddings(), model.get_output_embeddings())
    }
    kinds = getattr(text, "layer_types", None) or ["full_attention"] * text.num_hidden_layers
    dtype = getattr(config, "dtype", None) or getattr(text, "dtype", None) or torch.float32
    dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    tied = {
        id(weight): weight.numel() for part in embeddings.values() for weight in part.parameters()
    }
    return ModelShape(
        layers=text.num_hidden_layers,
        attention_layers=sum("attention" in kind and "linear" not in kind for kind in kinds),
        heads=text.num_attention_heads,
        value_heads=getattr(text, "num_key_value_heads", None) or text.num_attention_heads,
        hidden_size=text.hidden_size,
        parameters=sum(weight.numel() for weight in model.parameters()),
        embedding=sum(tied.values()),
        dtype_bytes=dtype.itemsize,
        is_quantized=getattr(config, "quantization_config", None) is not None,
        config=text,
    )


def plan(
    config: ExtractConfig, shape: ModelShape, prompt: int, answer: int, questions: int | None
) -> list[RunSize]:
    """Bytes of every choice of hidden states.

    Args:
        config: the run; its own choice of hidden states does not matter.
        shape: of the model.
        prompt: tokens of a prompt.
        answer: tokens of an answer.
        questions: of the run; None if not known.
    """
    edges = edge_bytes(config, shape, prompt, answer)
    marginals = marginal_bytes(config, shape, prompt, answer)
    # The ids of all tokens; of each answer token its scores, and ids and scores of alternatives.
    tokens = 4 * (prompt + answer) + (4 * 3 + (4 + 2) * config.alternatives) * answer
    sizes = []
    for choice in HIDDEN_CHOICES:
        hidden = hidden_bytes(config, shape, choice, prompt, answer)
        trace = edges + marginals + tokens + hidden + META_BYTES + HEADER_BYTES
        run = None if questions is None else trace * questions * config.samples
        sizes.append(RunSize(choice, edges, marginals, tokens, hidden, trace, run))
    return sizes


def edge_bytes(config: ExtractConfig, shape: ModelShape, prompt: int, answer: int) -> int:
    """Bytes of the edges of a trace; at most, where other rules than top-k prune further."""
    tokens = prompt + answer
    graphs = shape.attention_layers * (shape.heads if config.heads == "each" else 1)
    first = prompt - 1 if config.edge_rows == "answer" else 0
    edges = sum(min(row + 1, config.top_k or row + 1) for row in range(first, tokens))
    weight = 4 if config.edge_dtype == "float32" else 2
    key = 2 if tokens <= 65_536 else 4
    return graphs * (edges * (weight + key) + 4 * (tokens + 1) + 8) + 8


def marginal_bytes(config: ExtractConfig, shape: ModelShape, prompt: int, answer: int) -> int:
    """Bytes of the marginals of a trace without a context."""
    tokens, segments = prompt + answer, 3
    rows = tokens if config.marginal_rows == "all" else answer + 1
    by_head = 4 * 4 + 2 * (2 * tokens + rows * (3 + 2 * segments))
    return shape.attention_layers * (shape.heads * by_head + 2 * shape.value_heads * tokens)


def hidden_bytes(
    config: ExtractConfig, shape: ModelShape, choice: str, prompt: int, answer: int
) -> int:
    """Bytes of the hidden states of a trace."""
    rows = {"none": 0, "pooled": 4, "answer": answer + 1, "all": prompt + answer}[choice]
    layers = len(select_layers(config.hidden_layers, shape.layers))
    size = {"float16": 2, "bfloat16": 2, "int8": 1}.get(
        config.hidden_dtype, _dtype_bytes(config, shape)
    )
    scale = 4 if config.hidden_dtype == "int8" else 0
    return layers * rows * (shape.hidden_size * size + scale)


def memory(
    config: ExtractConfig, shape: ModelShape, prompt: int, answer: int, batch: int
) -> dict[str, int]:
    """Bytes of memory while extracting: weights, generation's cache, the replay's pieces."""
    size = _dtype_bytes(config, shape)
    linear = {"int8": 1.0, "nf4": 0.56}.get(config.quantization, float(size))
    weights = int((shape.parameters - shape.embedding) * linear) + shape.embedding * size
    tokens = prompt + answer
    sequences = batch * max(config.num_beams, config.samples)
    cache = sequences * tokens * cache_bytes_per_token(shape.config, size)
    replayed = batch * config.samples
    block = replayed * shape.heads * min(tokens, 256) * tokens * (size + 4)
    states = prod((replayed, tokens, shape.layers + 1, shape.hidden_size, size))
    logits = sequences * shape.config.vocab_size * 4 * 3
    return {
        "weights": weights,
        "cache": cache,
        "logits": logits,
        "attention block": block,
        "hidden states": states if config.hidden_states != "none" else 0,
    }


def _dtype_bytes(config: ExtractConfig, shape: ModelShape) -> int:
    """Of the model's floating point type on this machine."""
    from hallutrace.model.devices import computes_in_float32, resolve_device

    if config.dtype != "auto":
        return 4 if config.dtype == "float32" else 2
    is_wide = config.device_map is None and computes_in_float32(resolve_device(config.device))
    is_quantized = config.quantization != "none" or shape.is_quantized
    return 4 if is_wide and not is_quantized else shape.dtype_bytes


@dataclass(frozen=True, slots=True)
class Measured:
    """One batch, timed.

    Attributes:
        questions: in the batch.
        traces: of them: several where there are several answers, fewer where some failed.
        seconds: from prompts to a committed shard.
        trace_bytes: of the shard, a trace.
        prompt, answer: tokens, on average.
    """

    questions: int
    traces: int
    seconds: float
    trace_bytes: float
    prompt: float
    answer: float

    def seconds_of(self, questions: int) -> float:
        """How long a run of so many questions takes."""
        return self.seconds / self.questions * questions


def measure(config: ExtractConfig, questions: int) -> Measured:
    """Extracts one batch into a folder that is thrown away; loading the model is not timed.

    Raises:
        HallutraceError: as :func:`hallutrace.extract` does.
    """
    from hallutrace.extraction.pipeline import extract
    from hallutrace.store.reader import open_run

    with tempfile.TemporaryDirectory() as folder:
        one_shard = {"out": Path(folder) / "run", "limit": questions, "shard_size": questions}
        alone = {"worker": None, "overwrite": False, "retry_failed": False}
        summary = extract(config.model_copy(update=one_shard | alone))
        with open_run(summary.folder) as store:
            measured = sum(record.questions for record in store.records)
            lengths = [(trace.prompt_length, len(trace.answer_tokens)) for trace in store]
    count = len(lengths)
    return Measured(
        questions=measured,
        traces=count,
        seconds=summary.seconds,
        trace_bytes=summary.bytes / count,
        prompt=sum(prompt for prompt, _ in lengths) / count,
        answer=sum(answer for _, answer in lengths) / count,
    )
