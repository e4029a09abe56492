"""What a run is asked for: every option of ``extract``, checked in one place."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hallutrace.chat_arguments import chat_arguments
from hallutrace.choices import (
    Attention,
    Dtype,
    EdgeDtype,
    Heads,
    HiddenDtype,
    HiddenStates,
    Quantization,
    Rows,
    Switch,
)
from hallutrace.config_file import read_yaml
from hallutrace.errors import InputError
from hallutrace.option_names import parameter
from hallutrace.paths import expanded, expanded_text
from hallutrace.presets import PRESETS

Count = Annotated[int, Field(ge=1)]
SAMPLING = ("top_p", "top_k_sampling", "min_p")  # mean nothing where nothing is sampled

COLUMN_OFF = "none"  # as a column: the field is left out, whatever the source has
LARGEST_SHARD = 12_000  # traces; a header of safetensors has at most 100 MB


def _option(panel: str, default: Any, text: str) -> Any:
    """A field with its help text, and the panel of ``--help`` that it stands in."""
    return Field(default, description=text, json_schema_extra={"panel": panel})


class ExtractConfig(BaseModel):
    """Every setting of an extraction; the command line has an option of the same name for each.

    Unknown fields and values out of range raise :class:`InputError` when made by
    :meth:`from_options`, and pydantic's own error when made directly.

    Examples:
        >>> config = ExtractConfig(model="demo", questions="demo:8", top_k=16)
        >>> config.hidden_states
        'answer'
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    questions: str = _option(
        "Questions",
        "demo",
        "source of the questions: demo (400 questions of the small model), demo:all, "
        "demo:N, a .jsonl, .json, .csv, .tsv or .parquet file, hf:REPO/CONFIG/SPLIT, or "
        "NAME:ARGUMENT of a registered source",
    )
    responses: Path | None = _option(
        "Questions",
        None,
        "file of questions that are answered already; the answers are replayed, not generated",
    )
    response_eos: Switch = _option(
        "Questions",
        "auto",
        "whether responses end with an end-of-sequence token; auto adds it to text, not to "
        "token ids",
    )
    id_column: str | None = _option(
        "Questions",
        None,
        "column of the ids (default: found by its name); none makes ids of question and context",
    )
    question_column: str | None = _option(
        "Questions", None, "column of the questions (default: found by its name)"
    )
    answers_column: str | None = _option(
        "Questions",
        None,
        "column of the right answers (default: found by its name); none leaves them out",
    )
    context_column: str | None = _option(
        "Questions",
        None,
        "column of the contexts (default: found by its name); none leaves them out",
    )
    group_column: str | None = _option(
        "Questions",
        None,
        "column of the groups that splits go by (default: found by its name); none takes the ids",
    )
    response_column: str | None = _option(
        "Questions", None, "column of the responses (default: found by its name)"
    )
    spans_column: str | None = _option(
        "Questions",
        None,
        "column of labelled spans of the responses, such as RAGTruth's labels (default: found by "
        "its name); none leaves them out",
    )
    limit: Count | None = _option(
        "Questions", None, "number of questions to stop after; it may grow later (default: all)"
    )

    model: str = _option(
        "Model",
        "demo",
        "model: its name on the hub, its folder, a .gguf file, or demo; an adapter of peft too",
    )
    revision: str | None = _option(
        "Model", None, "commit, branch or tag of the model on the hub (default: the newest)"
    )
    adapter: str | None = _option(
        "Model", None, "adapter of peft on top of the model: its folder, or its name on the hub"
    )
    dtype: Dtype = _option(
        "Model",
        "auto",
        "type of the weights; auto is float32 on a CPU; on a GPU, or of a quantised "
        "checkpoint, its own",
    )
    quantization: Quantization = _option(
        "Model",
        "none",
        "quantise the weights with bitsandbytes; none leaves a quantised checkpoint as it is",
    )
    device: str = _option(
        "Model",
        "auto",
        "device of the model: auto (cuda, else mps, else cpu), cpu, cuda, cuda:1 or mps",
    )
    device_map: str | None = _option(
        "Model", None, "spread the model over devices with accelerate: auto, balanced or sequential"
    )
    attn_implementation: Attention = _option(
        "Model",
        "auto",
        "attention while answers are generated; auto takes the fastest that the model has. The "
        "replay computes the model's eager attention in any case",
    )
    trust_remote_code: bool = _option(
        "Model", False, "run code that comes with the model; read it first"
    )

    prompt: str | None = _option(
        "Prompt and decoding",
        None,
        "template of a prompt, with {question} and optionally {context}",
    )
    chat: Switch = _option(
        "Prompt and decoding",
        "auto",
        "whether prompts go through the chat template; auto does so if the tokenizer has one",
    )
    chat_template_kwargs: dict[str, Any] = _option(
        "Prompt and decoding",
        {},
        "arguments for the chat template, as YAML: '{enable_thinking: false}'",
    )
    template_date: str | None = _option(
        "Prompt and decoding",
        None,
        "date as 2024-07-26 for a chat template that reads the clock (default: the day "
        "when the run began)",
    )
    stop: tuple[str, ...] = _option(
        "Prompt and decoding", (), "text that ends an answer; may be given several times"
    )
    max_new_tokens: Count = _option(
        "Prompt and decoding", 64, "largest number of tokens of an answer"
    )
    num_beams: Count = _option(
        "Prompt and decoding", 1, "number of beams; 1 is greedy decoding or sampling"
    )
    temperature: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = _option(
        "Prompt and decoding",
        0.0,
        "temperature of sampling, from all tokens unless one of the three below is given; 0 does "
        "not sample",
    )
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = _option(
        "Prompt and decoding", None, "sample from the likeliest tokens that hold this probability"
    )
    top_k_sampling: Count | None = _option(
        "Prompt and decoding", None, "sample from so many of the likeliest tokens"
    )
    min_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = _option(
        "Prompt and decoding",
        None,
        "sample from tokens with at least this share of the probability of the likeliest",
    )
    samples: Count = _option("Prompt and decoding", 1, "number of answers to each question")
    seed: int = _option("Prompt and decoding", 0, "seed of sampling")
    batch_size: Count | Literal["auto"] = _option(
        "Prompt and decoding",
        "auto",
        "number of questions per batch; auto chooses it once, from free memory",
    )

    top_k: Count | None = _option(
        "Attention",
        16,
        "number of largest weights kept in each row of attention; none sets no limit",
    )
    min_weight: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = _option(
        "Attention", 0.0, "least weight of attention kept, from 0 to 1"
    )
    top_mass: Annotated[float, Field(gt=0.0, le=1.0)] | None = _option(
        "Attention",
        None,
        "keep the fewest weights of a row that hold this share of its sum, from 0 to 1",
    )
    heads: Heads = _option(
        "Attention",
        "mean",
        "how heads are combined before weights are dropped; each keeps them apart",
    )
    edge_rows: Rows = _option(
        "Attention", "all", "rows of attention (queries) whose edges are kept"
    )
    edge_dtype: EdgeDtype = _option("Attention", "float16", "type of the stored weights of edges")
    marginal_rows: Rows = _option(
        "Attention",
        "answer",
        "rows of attention (queries) whose previous, entropy and mass are kept",
    )

    alternatives: Annotated[int, Field(ge=0)] = _option(
        "Hidden states and tokens",
        10,
        "number of likeliest tokens kept in the place of each answer token; 0 keeps none",
    )
    hidden_states: HiddenStates = _option(
        "Hidden states and tokens",
        "answer",
        "tokens whose hidden states are kept; they decide the size of a run",
    )
    hidden_layers: str = _option(
        "Hidden states and tokens",
        "all",
        "layers whose hidden states are kept: all, every:N, or numbers such as 0,9,18",
    )
    hidden_dtype: HiddenDtype = _option(
        "Hidden states and tokens",
        "native",
        "type of the stored hidden states; native is the model's",
    )

    out: Path | None = _option("Run", None, "folder of the run (default: runs/NAME-OF-THE-SOURCE)")
    shard_size: Count = _option("Run", 500, "number of questions per shard")
    worker: str | None = _option(
        "Run",
        None,
        "process only every n-th shard, from the i-th (counted from 0) on, given as i/n; "
        "workers share a run",
    )
    overwrite: bool = _option("Run", False, "delete the run that is in the folder first")
    retry_failed: bool = _option("Run", False, "try failed questions again, one at a time")

    @classmethod
    def from_options(
        cls,
        options: dict[str, Any] | None = None,
        *,
        preset: str | None = None,
        config: Path | str | None = None,
    ) -> ExtractConfig:
        """Merges a preset, a YAML file and options; what comes later in this list wins.

        Args:
            options: fields by name.
            preset: name of a preset.
            config: a YAML file with fields by name; it may name a ``preset`` itself.

        Returns:
            The checked configuration.

        Raises:
            InputError: an unknown preset or field, a file that is not YAML, a value out of range.
        """
        written = read_yaml(Path(config)) if config is not None else {}
        preset = preset or written.pop("preset", None)
        written.pop("preset", None)
        if preset is not None and preset not in PRESETS:
            known = ", ".join(sorted(PRESETS))
            raise InputError(f"Expected a preset ({known}), got {preset!r} - choose one of them")
        merged = {**(PRESETS[preset] if preset else {}), **written, **(options or {})}
        try:
            return cls(**merged)
        except ValidationError as error:
            raise InputError(_explain(error)) from None

    @field_validator("hidden_layers", mode="before")
    @classmethod
    def _layers_as_text(cls, value: Any) -> Any:
        return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else value

    @field_validator("hidden_layers")
    @classmethod
    def _layers_are_readable(cls, value: str) -> str:
        select_layers(value, layers=1_000_000)
        return value

    @field_validator("worker")
    @classmethod
    def _worker_is_one_of_several(cls, value: str | None) -> str | None:
        if value is not None:
            number, _, count = value.partition("/")
            if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
                raise ValueError("i/n with i from 0 to n - 1, such as 0/4")
        return value

    @field_validator("question_column", "response_column")
    @classmethod
    def _needed_columns_are_on(cls, value: str | None) -> str | None:
        if value == COLUMN_OFF:
            raise ValueError("the name of a column, which cannot be left out")
        return value

    @field_validator("prompt")
    @classmethod
    def _prompt_asks(cls, value: str | None) -> str | None:
        if value is not None and "{question}" not in value:
            raise ValueError("a template with {question} in it")
        return value

    @field_validator("stop")
    @classmethod
    def _stop_is_said(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "" in value:
            raise ValueError("text that ends an answer (an empty one would end it at once)")
        return value

    @field_validator("out", "responses", mode="before")
    @classmethod
    def _path_of_user(cls, value: Any) -> Any:
        return expanded(value) if isinstance(value, (str, Path)) else value

    @field_validator("questions", "model", "adapter")
    @classmethod
    def _may_be_path_of_user(cls, value: str | None) -> str | None:
        return None if value is None else expanded_text(value)

    @field_validator("template_date", mode="before")
    @classmethod
    def _date_is_one(cls, value: Any) -> Any:
        if value is None:
            return None
        try:
            return date.fromisoformat(str(value)).isoformat()
        except ValueError:
            raise ValueError("a date such as 2024-07-26") from None

    @field_validator("chat_template_kwargs", mode="before")
    @classmethod
    def _kwargs_are_json(cls, value: Any) -> Any:
        return chat_arguments(value)

    @model_validator(mode="after")
    def _decoding_agrees(self) -> ExtractConfig:
        if self.num_beams > 1 and self.temperature > 0:
            raise ValueError(
                f"{parameter('num_beams')} 1 where {parameter('temperature')} is above 0 "
                "(beams do not sample)"
            )
        for name in SAMPLING:
            if self.temperature == 0 and getattr(self, name) is not None:
                raise ValueError(
                    f"{parameter('temperature')} above 0 where {parameter(name)} is given "
                    "(nothing is sampled without it)"
                )
        if self.samples > 1 and self.temperature == 0 and self.samples > self.num_beams:
            raise ValueError(
                f"{parameter('temperature')} above 0 where {parameter('samples')} is above "
                f"{parameter('num_beams')} (without it every sample is the same)"
            )
        if self.shard_size * self.samples > LARGEST_SHARD:
            raise ValueError(
                f"{parameter('shard_size')} x {parameter('samples')} of at most {LARGEST_SHARD:,} "
                "(a header holds no more)"
            )
        return self


def select_layers(choice: str, layers: int) -> list[int]:
    """The layers that ``all``, ``every:N`` or ``0,9,18`` choose.

    Args:
        choice: the option's text.
        layers: how many layers the model has.

    Returns:
        Layer numbers from 0, increasing.

    Raises:
        ValueError: text of another form, or a layer that the model does not have.

    Examples:
        >>> select_layers("every:2", layers=5), select_layers("0,3", layers=5)
        ([0, 2, 4], [0, 3])
    """
    if choice == "all":
        return list(range(layers))
    kind, _, step = choice.partition(":")
    if kind == "every" and step.isdecimal() and int(step) > 0:
        return list(range(0, layers, int(step)))
    chosen = [part.strip() for part in choice.split(",")]
    if not all(part.isdecimal() for part in chosen):
        raise ValueError("all, every:N or layer numbers such as 0,9,18")
    numbers = sorted({int(part) for part in chosen})
    if numbers[-1] >= layers:
        raise ValueError(f"layers below {layers}")
    return numbers


def _explain(error: ValidationError) -> str:
    """The first of pydantic's findings, as expected, got, where, fix."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"][:1])
    if first["type"] == "extra_forbidden":
        return f"Expected a field of ExtractConfig, got `{field}` - see `hallutrace extract --help`"
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if not field:
        return f"Expected {message} - change one of the two"
    name = parameter(field)
    return f"Expected {name} to be {message}, got {first['input']!r} - change {name}"
