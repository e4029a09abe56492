"""Estimates the size, memory and duration of a run.

Sizes and memory follow from the shape of the model; the duration is measured on one batch.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, get_args

from hallutrace.choices import HiddenStates
from hallutrace.config import ExtractConfig, select_layers
from hallutrace.extraction.batch_planning import cache_bytes_per_token
from hallutrace.model.files import ModelName
from hallutrace.presets import MODEL_CONFIGS

HIDDEN_CHOICES: tuple[HiddenStates, ...] = get_args(HiddenStates)
HEADER_BYTES = 3072  # reserved for each trace in the header of its shard
META_BYTES = 1024  # text of a trace: question, prompt, answer, references


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The dimensions of a model that determine sizes.

    Attributes:
        layers: number of blocks.
        attention_layers: number of layers whose attention is captured.
        heads: query heads per layer.
        value_heads: key-value heads per layer.
        hidden_size: dimension of a hidden state.
        parameters: number of parameters of the model.
        embedding: parameters of input and output embeddings, which are not quantised.
        dtype_bytes: bytes per element of the checkpoint.
        is_quantized: whether the checkpoint is quantised.
        config: text configuration of transformers.
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
    """Size of a run with one value of ``hidden_states``.

    Attributes:
        hidden_states: ``none``, ``pooled``, ``answer`` or ``all``.
        edges, marginals, tokens, hidden: bytes per trace.
        trace: bytes per trace, with text and header.
        run: bytes of the run; None if the number of questions is unknown.
    """

    hidden_states: HiddenStates
    edges: int
    marginals: int
    tokens: int
    hidden: int
    trace: int
    run: int | None


def model_shape(asked: ModelName) -> ModelShape:
    """The shape of a model from its configuration; loads no weights, and presets need no network.

    Args:
        asked: the model; the shape of an adapter is that of its base model.

    Raises:
        ModelError: there is no such model, or it is not a causal language model.

    Examples:
        >>> model_shape(ModelName("demo")).attention_layers
        4
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from hallutrace.model.library_errors import loading
    from hallutrace.model.loading import load_config

    if asked.name in MODEL_CONFIGS:
        preset = dict(MODEL_CONFIGS[asked.name])
        config = AutoConfig.for_model(preset.pop("model_type"), **preset)
    else:
        config = load_config(asked)
    text = config.get_text_config()
    with loading(asked.name), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=asked.trust_remote_code)
    embeddings = {
        id(module): module
        for module in (model.get_input_embeddings(), model.get_output_embeddings())
    }
    kinds = getattr(text, "layer_types", None) or ["full_attention"] * text.num_hidden_layers
    dtype = getattr(config, "dtype", None) or getattr(text, "dtype", None) or torch.float32
    dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    # Tied embeddings share a weight, which counts once.
    embedding_sizes = {
        id(weight): weight.numel()
        for module in embeddings.values()
        for weight in module.parameters()
    }
    return ModelShape(
        layers=text.num_hidden_layers,
        attention_layers=sum("attention" in kind and "linear" not in kind for kind in kinds),
        heads=text.num_attention_heads,
        value_heads=getattr(text, "num_key_value_heads", None) or text.num_attention_heads,
        hidden_size=text.hidden_size,
        parameters=sum(weight.numel() for weight in model.parameters()),
        embedding=sum(embedding_sizes.values()),
        dtype_bytes=dtype.itemsize,
        is_quantized=getattr(config, "quantization_config", None) is not None,
        config=text,
    )


def plan(
    config: ExtractConfig, shape: ModelShape, prompt: int, answer: int, questions: int | None
) -> list[RunSize]:
    """The size of a run for each value of ``hidden_states``.

    Args:
        config: the configuration of the run; its ``hidden_states`` is ignored.
        shape: the shape of the model.
        prompt: tokens of a prompt.
        answer: tokens of an answer.
        questions: number of questions of the run; None if unknown.

    Examples:
        >>> config, shape = ExtractConfig(), model_shape(ModelName("demo"))
        >>> sizes = plan(config, shape, prompt=50, answer=10, questions=None)
        >>> [size.hidden_states for size in sizes], sizes[0].hidden
        (['none', 'pooled', 'answer', 'all'], 0)
    """
    edges = edge_bytes(config, shape, prompt, answer)
    marginals = marginal_bytes(config, shape, prompt, answer)
    # Ids of all tokens; three scores per answer token; id and score of each alternative.
    tokens = 4 * (prompt + answer) + (4 * 3 + (4 + 2) * config.alternatives) * answer
    sizes = []
    for choice in HIDDEN_CHOICES:
        hidden = hidden_bytes(config, shape, choice, prompt, answer)
        trace = edges + marginals + tokens + hidden + META_BYTES + HEADER_BYTES
        run = None if questions is None else trace * questions * config.samples
        sizes.append(RunSize(choice, edges, marginals, tokens, hidden, trace, run))
    return sizes


def edge_bytes(config: ExtractConfig, shape: ModelShape, prompt: int, answer: int) -> int:
    """Bytes of the edges of a trace; an upper bound if rules besides top-k remove edges.

    The arguments are those of :func:`plan`.
    """
    tokens = prompt + answer
    graphs = shape.attention_layers * (shape.heads if config.heads == "each" else 1)
    first = prompt - 1 if config.edge_rows == "answer" else 0
    edges = sum(min(row + 1, config.top_k or row + 1) for row in range(first, tokens))
    weight = 4 if config.edge_dtype == "float32" else 2
    key = 2 if tokens <= 65_536 else 4
    return graphs * (edges * (weight + key) + 4 * (tokens + 1) + 8) + 8


def marginal_bytes(config: ExtractConfig, shape: ModelShape, prompt: int, answer: int) -> int:
    """Bytes of the marginals of a trace without a context.

    The arguments are those of :func:`plan`.
    """
    tokens, segments = prompt + answer, 3
    rows = tokens if config.marginal_rows == "all" else answer + 1
    by_head = 4 * 4 + 2 * (2 * tokens + rows * (3 + 2 * segments))
    return shape.attention_layers * (shape.heads * by_head + 2 * shape.value_heads * tokens)


def hidden_bytes(
    config: ExtractConfig, shape: ModelShape, choice: str, prompt: int, answer: int
) -> int:
    """Bytes of the hidden states of a trace.

    The arguments are those of :func:`plan`; ``choice`` is the value of ``hidden_states``.
    """
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
    """Memory that an extraction needs, in bytes, by use.

    Args:
        config: the configuration of the run.
        shape: the shape of the model.
        prompt: tokens of a prompt.
        answer: tokens of an answer.
        batch: questions per batch.

    Returns:
        Bytes of the weights, key-value cache, logits, one attention block and hidden states.

    Examples:
        >>> config = ExtractConfig(model="demo")
        >>> needs = memory(config, model_shape(ModelName.of(config)), 40, 12, batch=8)
        >>> sorted(needs)
        ['attention block', 'cache', 'hidden states', 'logits', 'weights']
    """
    size = _dtype_bytes(config, shape)
    bytes_per_linear = {"int8": 1.0, "nf4": 0.56}.get(config.quantization, float(size))
    weights = int((shape.parameters - shape.embedding) * bytes_per_linear) + shape.embedding * size
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
    """Bytes per element of the model's floating-point type on this machine."""
    from hallutrace.model.devices import computes_in_float32, resolve_device

    if config.dtype != "auto":
        return 4 if config.dtype == "float32" else 2
    is_wide = config.device_map is None and computes_in_float32(resolve_device(config.device))
    is_quantized = config.quantization != "none" or shape.is_quantized
    return 4 if is_wide and not is_quantized else shape.dtype_bytes


@dataclass(frozen=True, slots=True)
class Measured:
    """Measurements of one batch.

    Attributes:
        questions: questions of the batch.
        traces: written traces; samples multiply them, failures reduce them.
        seconds: duration from the prompts to the committed shard.
        trace_bytes: mean bytes per trace.
        prompt, answer: mean tokens of a prompt and of an answer.

    Examples:
        >>> Measured(4, 4, 2.0, 9e4, 30.0, 8.0).seconds_of(400)
        200.0
    """

    questions: int
    traces: int
    seconds: float
    trace_bytes: float
    prompt: float
    answer: float

    def seconds_of(self, questions: int) -> float:
        """Estimated duration in seconds of a run of ``questions`` questions."""
        return self.seconds / self.questions * questions


def measure(config: ExtractConfig, questions: int) -> Measured:
    """Extracts one batch into a temporary folder; loading the model is not timed.

    Args:
        config: the configuration of the run.
        questions: questions of the batch.

    Raises:
        HallutraceError: as :func:`hallutrace.extract` does.

    Examples:
        >>> measure(ExtractConfig(questions="demo:2", device="cpu"), questions=2).traces
        2
    """
    from hallutrace.extraction.pipeline import extract
    from hallutrace.store.reader import open_run

    with tempfile.TemporaryDirectory() as folder:
        one_shard = {"out": Path(folder) / "run", "limit": questions, "shard_size": questions}
        single_worker = {"worker": None, "overwrite": False, "retry_failed": False}
        summary = extract(config.model_copy(update=one_shard | single_worker))
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
