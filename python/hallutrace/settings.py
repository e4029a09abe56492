"""What a configuration comes to once the model is known, and the manifest that records it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hallutrace import batches
from hallutrace.assemble import HiddenChoice
from hallutrace.capture import Reduction
from hallutrace.config import ExtractConfig, select_layers
from hallutrace.errors import InputError
from hallutrace.generate import Decoding
from hallutrace.memory import free_memory
from hallutrace.models import Loaded
from hallutrace.probe import AttentionFacts
from hallutrace.prompts import PromptBuilder
from hallutrace.questions import QuestionSource
from hallutrace.run import Manifest

PLANTED = (
    "The world of the small model is made up, and the signal in its traces is planted: it is "
    "familiarity with the entity asked about, not truth."
)


@dataclass(frozen=True, slots=True)
class Settings:
    """The choices of a run, resolved.

    Attributes:
        decoding: how answers are generated; None where they exist already.
        response_eos: whether an end-of-sequence token is added to those.
        reduction: how attention is reduced.
        hidden: which hidden states are kept.
        edge_dtype: of stored weights.
        batch_size: questions a batch.
        seed: of sampling.
    """

    decoding: Decoding | None
    response_eos: str
    reduction: Reduction
    hidden: HiddenChoice
    edge_dtype: str
    batch_size: int
    seed: int

    @classmethod
    def of(cls, config: ExtractConfig, loaded: Loaded, earlier: Manifest | None) -> Settings:
        """Resolves a configuration for a model.

        Args:
            config: what was asked.
            loaded: the model.
            earlier: the manifest of the run that goes on, if it exists.

        Raises:
            InputError: hidden layers that the model does not have.
        """
        return cls(
            decoding=Decoding.of(config) if config.responses is None else None,
            response_eos=config.response_eos,
            reduction=Reduction(
                top_k=config.top_k,
                min_weight=config.min_weight,
                top_mass=config.top_mass,
                heads=config.heads,
                answer_edges=config.edge_rows == "answer",
                all_marginal_rows=config.marginal_rows == "all",
            ),
            hidden=_hidden(config, loaded),
            edge_dtype=config.edge_dtype,
            batch_size=_batch_size(config, loaded, earlier),
            seed=config.seed,
        )

    @property
    def new_tokens(self) -> int:
        """Tokens that an answer may add to its prompt, as far as that is known beforehand."""
        return self.decoding.max_new_tokens if self.decoding else 1


def manifest_of(
    config: ExtractConfig,
    settings: Settings,
    source: QuestionSource,
    prompts: PromptBuilder,
    loaded: Loaded,
    attention: AttentionFacts,
) -> Manifest:
    """The manifest: an identity of all that decides the bytes, and facts that follow from it."""
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
        "generation_attention": loaded.attention,
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
        return {"responses": True, "end_of_sequence": settings.response_eos}
    return {**settings.decoding.identity(), "eos_token_id": list(loaded.eos_ids)}


def _hidden(config: ExtractConfig, loaded: Loaded) -> HiddenChoice:
    try:
        layers = select_layers(config.hidden_layers, loaded.layers)
    except ValueError as error:
        raise InputError(
            f"Expected `hidden_layers` to be {error}, got {config.hidden_layers!r} for "
            f"{loaded.name} - change --hidden-layers"
        ) from None
    dtype = loaded.dtype if config.hidden_dtype == "native" else config.hidden_dtype
    return HiddenChoice(config.hidden_states, layers, dtype)


def _batch_size(config: ExtractConfig, loaded: Loaded, earlier: Manifest | None) -> int:
    if config.batch_size != "auto":
        return config.batch_size
    if earlier is not None:
        # Resolved once, at the start of the run; the machine that goes on may have other memory.
        return int(earlier.identity["batch_size"])
    device = loaded.device.type
    return batches.auto_batch_size(
        loaded.model.config.get_text_config(),
        beams=max(config.num_beams, config.samples),
        new_tokens=config.max_new_tokens,
        bytes_per_element=loaded.model.dtype.itemsize,
        device=device,
        free=free_memory({str(weight.device) for weight in loaded.model.parameters()}),
    )
