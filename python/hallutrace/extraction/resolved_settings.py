"""Resolves a configuration for a loaded model and builds the manifest of the run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

from hallutrace.capture.exactness_check import AttentionFacts
from hallutrace.capture.replay import Reduction
from hallutrace.choices import EdgeDtype
from hallutrace.config import ExtractConfig, select_layers
from hallutrace.errors import InputError
from hallutrace.extraction import batch_planning
from hallutrace.extraction.trace_arrays import HiddenChoice
from hallutrace.model.answer_ends import is_round_trip, response_end, vocabulary_of
from hallutrace.model.free_memory import free_memory
from hallutrace.model.generate import Decoding
from hallutrace.model.loading import Loaded
from hallutrace.model.padding_check import sees_padding
from hallutrace.model.prompts import PromptBuilder
from hallutrace.option_names import parameter
from hallutrace.questions import QuestionSource
from hallutrace.store.folder import Manifest

PLANTED = (
    "The world of the small model is made up, and the signal in its traces is planted: it is "
    "familiarity with the entity asked about, not truth."
)


@dataclass(frozen=True, slots=True)
class Settings:
    """The resolved settings of a run.

    Attributes:
        decoding: how answers are generated; None if the answers exist.
        response_eos: whether an end-of-sequence token is appended to existing answers.
        response_end: id of that token; None if answers are generated or no token is appended.
        stop: strings that end a generated or existing answer.
        reduction: how attention is reduced.
        hidden: which hidden states are stored.
        alternatives: number of most likely tokens stored for each answer token.
        edge_dtype: dtype of the stored edge weights.
        batch_size: questions per batch.
        seed: seed of sampling.
    """

    decoding: Decoding | None
    response_eos: str
    response_end: int | None
    stop: tuple[str, ...]
    reduction: Reduction
    hidden: HiddenChoice
    alternatives: int
    edge_dtype: EdgeDtype
    batch_size: int
    seed: int

    @classmethod
    def of(
        cls,
        config: ExtractConfig,
        loaded: Loaded,
        prompts: PromptBuilder,
        earlier: Manifest | None,
        is_replay: bool,
    ) -> Settings:
        """Resolves a configuration for a model.

        Args:
            config: the configuration.
            loaded: the model.
            prompts: builds the prompts of the run.
            earlier: the manifest of the run that is resumed; None for a new run.
            is_replay: whether the answers exist, so that none is generated.

        Raises:
            InputError: the model does not support the hidden layers, alternatives, beams, answer
                length or batch size.
        """
        if not is_replay:
            _check_decoding(config, loaded, prompts)
        return cls(
            decoding=None if is_replay else Decoding.of(config),
            response_eos=config.response_eos,
            response_end=_response_end(config, loaded, prompts) if is_replay else None,
            stop=config.stop,
            reduction=Reduction(
                top_k=config.top_k,
                min_weight=config.min_weight,
                top_mass=config.top_mass,
                heads=config.heads,
                answer_edges=config.edge_rows == "answer",
                all_marginal_rows=config.marginal_rows == "all",
            ),
            hidden=_hidden(config, loaded),
            alternatives=_alternatives(config, loaded),
            edge_dtype=config.edge_dtype,
            batch_size=_batch_size(config, loaded, earlier, is_replay),
            seed=config.seed,
        )

    @property
    def new_tokens(self) -> int:
        """Tokens that a prompt must leave for its answer.

        1 for existing answers, whose lengths are checked one by one.
        """
        return self.decoding.max_new_tokens if self.decoding else 1


def template_day(config: ExtractConfig, earlier: Manifest | None) -> date | None:
    """The date passed to chat templates that contain the current date; None for today.

    A resumed run uses the date on which it was started, so that its prompts stay the same.

    Args:
        config: the configuration.
        earlier: the manifest of the run that is resumed; None for a new run.

    Examples:
        >>> template_day(ExtractConfig(template_date="2026-01-31"), None)
        datetime.date(2026, 1, 31)
    """
    recorded = earlier.identity["prompt"].get("date") if earlier else None
    day = config.template_date or recorded
    return date.fromisoformat(day) if day else None


def manifest_of(
    config: ExtractConfig,
    settings: Settings,
    source: QuestionSource,
    prompts: PromptBuilder,
    loaded: Loaded,
    attention: AttentionFacts,
) -> Manifest:
    """The manifest of a run: the settings that determine its traces, and properties of the model.

    Args:
        config: the configuration.
        settings: the resolved configuration.
        source: the questions.
        prompts: builds the prompts.
        loaded: the model.
        attention: the properties of its captured attention.
    """
    identity = {
        "model": loaded.identity(),
        "source": source.identity(),
        "prompt": prompts.identity(),
        "decoding": _decoding(settings, loaded),
        "sparsification": {
            "top_k": config.top_k,
            "min_weight": config.min_weight,
            "top_mass": config.top_mass,
            "heads": config.heads,
            "edge_rows": config.edge_rows,
            "edge_dtype": config.edge_dtype,
        },
        "marginal_rows": config.marginal_rows,
        "alternatives": config.alternatives,
        "hidden": {
            "states": settings.hidden.states,
            "layers": settings.hidden.layers,
            "dtype": settings.hidden.dtype,
        },
        "shard_size": config.shard_size,
        "batch_size": settings.batch_size,
        "seed": config.seed,
    }
    facts: dict[str, Any] = {
        "layers": loaded.layers,
        "hidden_size": loaded.hidden_size,
        "captured_layers": attention.layers,
        "heads": attention.heads,
        "value_heads": attention.value_heads,
        "windows": attention.windows,
        "replay_deviation": attention.deviation,
    }
    if loaded.is_dequantized:
        facts["dequantized"] = True
    if loaded.name == "demo":
        facts["note"] = PLANTED
    return Manifest(identity, facts)


def _decoding(settings: Settings, loaded: Loaded) -> dict[str, Any]:
    if settings.decoding is None:
        return {
            "responses": True,
            "end_of_sequence": settings.response_eos,
            "end_of_sequence_token": settings.response_end,
            "stop": list(settings.stop),
        }
    return {
        **settings.decoding.identity(),
        "eos_token_id": list(loaded.eos_ids),
        "attention": loaded.attention,
    }


def _response_end(config: ExtractConfig, loaded: Loaded, prompts: PromptBuilder) -> int | None:
    """The token to append to existing answers; None if ``response_eos`` is off."""
    if config.response_eos == "off":
        return None
    turn_end = next((token for token in prompts.turn_end() if token in loaded.eos_ids), None)
    return response_end(loaded, turn_end)


def _check_decoding(config: ExtractConfig, loaded: Loaded, prompts: PromptBuilder) -> None:
    """Checks the decoding options against the model; notes stop strings without effect.

    Raises:
        InputError: there are more beams than tokens in the vocabulary, or answers may be longer
            than the model allows.
    """
    vocabulary = vocabulary_of(loaded)
    if config.num_beams > vocabulary:
        raise InputError(
            f"Expected `num_beams` of at most {vocabulary} (the vocabulary of {loaded.name}), got "
            f"{config.num_beams} - change {parameter('num_beams')}"
        )
    limit = loaded.context_length
    if limit is not None and config.max_new_tokens >= limit:
        raise InputError(
            f"Expected `max_new_tokens` below {limit} (the most tokens that {loaded.name} "
            f"takes, prompt included), got {config.max_new_tokens} - change "
            f"{parameter('max_new_tokens')}"
        )
    for text in config.stop:
        if not is_round_trip(loaded, text):
            prompts.notices.add(
                f"stop {text}",
                f"the tokenizer of {loaded.name} cannot write {text!r}, so "
                f"{parameter('stop', text)} ends no answer.",
            )


def _hidden(config: ExtractConfig, loaded: Loaded) -> HiddenChoice:
    try:
        layers = select_layers(config.hidden_layers, loaded.layers)
    except ValueError as error:
        raise InputError(
            f"Expected `hidden_layers` to be {error}, got {config.hidden_layers!r} for "
            f"{loaded.name} - change {parameter('hidden_layers')}"
        ) from None
    dtype = loaded.dtype if config.hidden_dtype == "native" else config.hidden_dtype
    return HiddenChoice(config.hidden_states, layers, dtype)


def _alternatives(config: ExtractConfig, loaded: Loaded) -> int:
    vocabulary = vocabulary_of(loaded)
    if config.alternatives > vocabulary:
        raise InputError(
            f"Expected `alternatives` of at most {vocabulary} (the vocabulary of {loaded.name}), "
            f"got {config.alternatives} - change `alternatives`"
        )
    return config.alternatives


def _batch_size(
    config: ExtractConfig, loaded: Loaded, earlier: Manifest | None, is_replay: bool
) -> int:
    if config.batch_size != "auto":
        size = config.batch_size
    elif earlier is not None:
        # The size of the first start: free memory may differ now, and the size changes the bytes.
        size = int(earlier.identity["batch_size"])
    else:
        size = _largest_batch(config, loaded)
    if size > 1 and not is_replay and sees_padding(loaded):
        if config.batch_size == "auto" and earlier is None:
            return 1
        raise InputError(
            f"Expected a batch size of 1 for {loaded.name}, whose answers depend on the padding "
            f"of its batch, got {size} - use {parameter('batch_size', 1)}"
        )
    return size


def _largest_batch(config: ExtractConfig, loaded: Loaded) -> int:
    device = loaded.device.type
    return batch_planning.auto_batch_size(
        loaded.model.config.get_text_config(),
        beams=max(config.num_beams, config.samples),
        new_tokens=config.max_new_tokens,
        bytes_per_element=loaded.model.dtype.itemsize,
        device=device,
        free=free_memory({str(weight.device) for weight in loaded.model.parameters()}),
    )
