"""What a run is asked for: every option of ``extract``, checked in one place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hallutrace.errors import InputError
from hallutrace.presets import PRESETS

Count = Annotated[int, Field(ge=1)]


class ExtractConfig(BaseModel):
    """Every setting of an extraction; the command line has an option of the same name for each.

    Unknown fields and values out of range raise :class:`InputError` when made by
    :meth:`from_options`, and pydantic's own error when made directly.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    questions: str = "demo"
    responses: Path | None = None
    response_eos: Literal["auto", "on", "off"] = "auto"
    id_column: str | None = None
    question_column: str | None = None
    answers_column: str | None = None
    context_column: str | None = None
    group_column: str | None = None
    response_column: str | None = None
    limit: Count | None = None

    model: str = "demo"
    revision: str | None = None
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    quantization: Literal["none", "int8", "nf4"] = "none"
    device: str = "auto"
    device_map: str | None = None

    prompt: str | None = None
    chat: Literal["auto", "on", "off"] = "auto"
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    stop: tuple[str, ...] = ()
    max_new_tokens: Count = 64
    num_beams: Count = 1
    temperature: Annotated[float, Field(ge=0.0)] = 0.0
    samples: Count = 1
    seed: int = 0
    batch_size: Count | Literal["auto"] = "auto"

    top_k: Count | None = 16
    min_weight: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0
    top_mass: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    heads: Literal["mean", "max", "each"] = "mean"
    edge_rows: Literal["all", "answer"] = "all"
    edge_dtype: Literal["float16", "float32"] = "float16"
    marginal_rows: Literal["answer", "all"] = "answer"
    hidden_states: Literal["none", "pooled", "answer", "all"] = "answer"
    hidden_layers: str = "all"
    hidden_dtype: Literal["native", "float16", "bfloat16", "int8"] = "native"

    out: Path | None = None
    shard_size: Annotated[int, Field(ge=1, le=100_000)] = 500
    overwrite: bool = False
    retry_failed: bool = False

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

    @field_validator("prompt")
    @classmethod
    def _prompt_asks(cls, value: str | None) -> str | None:
        if value is not None and "{question}" not in value:
            raise ValueError("a template with {question} in it")
        return value

    @field_validator("chat_template_kwargs", mode="before")
    @classmethod
    def _kwargs_from_text(cls, value: Any) -> Any:
        return yaml.safe_load(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _decoding_agrees(self) -> ExtractConfig:
        if self.num_beams > 1 and self.temperature > 0:
            raise ValueError("num_beams 1 where temperature is above 0 (beams do not sample)")
        if self.samples > 1 and self.temperature == 0 and self.samples > self.num_beams:
            raise ValueError(
                "temperature above 0 where samples is above num_beams "
                "(without it every sample is the same)"
            )
        return self


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a configuration file.

    Raises:
        InputError: no such file, or not a mapping of fields.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"Expected a configuration file, got {error.strerror} at {path} - check --config"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"Expected YAML in {path}, got {reason} - mend the file") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise InputError(
            f"Expected fields by name in {path}, got {type(content).__name__} - "
            "write lines such as `model: NAME`"
        )
    return {name.replace("-", "_"): value for name, value in content.items()}


def select_layers(choice: str, layers: int) -> list[int]:
    """The layers that ``all``, ``every:N`` or ``0,9,18`` choose.

    Args:
        choice: the option's text.
        layers: how many layers the model has.

    Returns:
        Layer numbers from 0, increasing.

    Raises:
        ValueError: text of another form, or a layer that the model does not have.
    """
    if choice == "all":
        return list(range(layers))
    kind, _, step = choice.partition(":")
    if kind == "every" and step.isdigit() and int(step) > 0:
        return list(range(0, layers, int(step)))
    chosen = [part.strip() for part in choice.split(",")]
    if not all(part.isdigit() for part in chosen):
        raise ValueError("all, every:N or layer numbers such as 0,9,18")
    numbers = sorted({int(part) for part in chosen})
    if numbers[-1] >= layers:
        raise ValueError(f"layers below {layers}")
    return numbers


def _explain(error: ValidationError) -> str:
    """The first of pydantic's findings, as expected, got, where, fix."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"][:1])
    option = "--" + field.replace("_", "-")
    if first["type"] == "extra_forbidden":
        return f"Expected a field of ExtractConfig, got `{field}` - see `hallutrace extract --help`"
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if not field:
        return f"Expected {message} - change one of the two"
    return f"Expected `{field}` to be {message}, got {first['input']!r} - change {option}"
