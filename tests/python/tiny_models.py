"""Tiny random models of many architectures, and a tokenizer for them: made in memory, seeded.

Nothing in them is trained, yet their attention is sharp: queries and keys are drawn large, biases
and norms get noise, windows are far shorter than a test's text, sinks and softcaps matter. A tracer
that forgets one of these is off by much, not by a rounding error.
"""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, processors
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

VOCABULARY = 128
PAD, BOS, EOS, UNKNOWN = 0, 1, 2, 3
WINDOW = 8
"""Keys that a sliding layer sees: less than any test's text is long."""

SLIDING, FULL, LINEAR = "sliding_attention", "full_attention", "linear_attention"

SPECIAL: dict[str, Any] = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}

# Heads x head_dim is not the hidden size, so that a mix-up of the two shows.
COMMON: dict[str, Any] = SPECIAL | {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "initializer_range": 0.15,
}
# Of architectures that derive the size of a head from the hidden size.
DERIVED = {name: value for name, value in COMMON.items() if name != "head_dim"} | {
    "hidden_size": 64
}
# Of those without grouped heads.
UNGROUPED = {name: value for name, value in DERIVED.items() if name != "num_key_value_heads"}
GPT: dict[str, Any] = SPECIAL | {
    "vocab_size": VOCABULARY,
    "n_embd": 64,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 256,
    "initializer_range": 0.15,
}
YARN: dict[str, Any] = {
    "rope_type": "yarn",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
EXPERTS: dict[str, Any] = {"moe_intermediate_size": 32, "num_experts_per_tok": 2}

CONFIGS: dict[str, dict[str, Any]] = {
    "llama": COMMON,
    "qwen2": DERIVED
    | {"use_sliding_window": True, "sliding_window": WINDOW}
    | {"max_window_layers": 1},
    "qwen3": COMMON,
    "qwen3_moe": COMMON | EXPERTS | {"num_experts": 4, "mlp_only_layers": [0]},
    "qwen3_next": COMMON
    | EXPERTS
    | {
        "num_hidden_layers": 4,
        "layer_types": [LINEAR, FULL, LINEAR, FULL],
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "num_experts": 4,
        "shared_expert_intermediate_size": 32,
    },
    "mistral": COMMON | {"sliding_window": WINDOW},
    "gemma2": COMMON
    | {"sliding_window": WINDOW, "layer_types": [SLIDING, FULL, SLIDING]}
    | {"query_pre_attn_scalar": 16, "attn_logit_softcapping": 5.0},
    "gemma3": COMMON
    | {"sliding_window": WINDOW, "layer_types": [SLIDING, FULL, SLIDING]}
    | {"query_pre_attn_scalar": 16},
    "phi": DERIVED,
    "phi3": DERIVED | {"sliding_window": WINDOW},
    "gpt2": GPT,
    "gpt_neox": UNGROUPED,
    "gpt_oss": COMMON
    | {"sliding_window": WINDOW, "layer_types": [SLIDING, FULL, SLIDING]}
    | {"num_local_experts": 4, "num_experts_per_tok": 2}
    | {"rope_parameters": YARN | {"rope_theta": 150_000.0, "truncate": False}},
    "olmo2": DERIVED,
    "opt": SPECIAL
    | {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "word_embed_proj_dim": 64,
        "ffn_dim": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "init_std": 0.15,
    },
    "granite": DERIVED | {"attention_multiplier": 0.2},
    "cohere2": DERIVED
    | {"sliding_window": WINDOW, "layer_types": [SLIDING, FULL, SLIDING], "logit_scale": 1.0},
    "smollm3": DERIVED | {"no_rope_layers": [1, 0, 1]},
    "deepseek_v3": UNGROUPED
    | EXPERTS
    | {
        "num_key_value_heads": 4,
        "q_lora_rank": 24,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 12,
        "n_routed_experts": 4,
        "n_group": 2,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        # These scale the scores too.
        "rope_parameters": YARN | {"mscale": 1.0, "mscale_all_dim": 1.0},
    },
    "glm4": COMMON | {"attention_bias": True},
    "exaone4": DERIVED | {"sliding_window": WINDOW, "layer_types": [SLIDING, FULL, SLIDING]},
    "stablelm": DERIVED | {"use_qkv_bias": True},
    "starcoder2": DERIVED | {"sliding_window": WINDOW},
    "bloom": SPECIAL | {"vocab_size": VOCABULARY, "hidden_size": 64, "n_layer": 2, "n_head": 4},
    "falcon": UNGROUPED | {"num_hidden_layers": 2, "new_decoder_architecture": False},
    "mpt": SPECIAL
    | {"vocab_size": VOCABULARY, "d_model": 64, "n_layers": 2, "n_heads": 4, "max_seq_len": 256},
}

UNSUPPORTED: tuple[str, ...] = ("bloom", "falcon", "mpt")
"""Architectures whose attention does not go through the interface: nothing can be captured."""

ARCHITECTURES: tuple[str, ...] = tuple(name for name in CONFIGS if name not in UNSUPPORTED)
"""Architectures that can be traced."""

MULTIMODAL = "gemma3_multimodal"
"""Also a name for `tiny_model`: text and images, the text's configuration nested in another."""


def tiny_config(architecture: str) -> Any:
    """The configuration of a tiny model; KeyError for a name that is none."""
    if architecture == MULTIMODAL:
        vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
        vision |= {"num_attention_heads": 2, "image_size": 16, "patch_size": 8}
        return AutoConfig.for_model(
            "gemma3",
            text_config=CONFIGS["gemma3"],
            vision_config=vision,
            mm_tokens_per_image=4,
            boi_token_index=4,
            eoi_token_index=5,
            image_token_index=6,
            **SPECIAL,
        )
    kind = "gemma3_text" if architecture == "gemma3" else architecture
    return AutoConfig.for_model(kind, **CONFIGS[architecture])


def tiny_model(architecture: str, seed: int = 0) -> PreTrainedModel:
    """A random causal model: float32, eval, on the CPU.

    Args:
        architecture: one of `ARCHITECTURES` or `UNSUPPORTED`, or "gemma3_multimodal".
        seed: of all its weights; the caller's random state is left alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(tiny_config(architecture), dtype=torch.float32)
        _sharpen(model)
    return model.eval()


@torch.no_grad()
def _sharpen(model: PreTrainedModel) -> None:
    """Make attention peaked, and everything count that is zero or one at the start."""
    projections = ("q_proj", "k_proj", "qkv_proj", "query_key_value", "c_attn")
    # Of latent attention; what queries are made from is small, keys share their matrix with values.
    latent = ("q_b_proj", "kv_b_proj")
    for name, weight in model.named_parameters():
        path = name.split(".")
        if path[-1] == "sinks":
            weight.normal_(mean=1.0, std=1.0)
        elif path[-1] == "bias" or "norm" in path[-2] or path[-2].startswith("ln_"):
            weight.add_(torch.randn_like(weight) * 0.1)
            if path[-2] in ("q_norm", "k_norm"):
                weight.mul_(1.5).add_(0.5)
        elif any(part in projections for part in path):
            weight.mul_(1.8)
        elif any(part in latent for part in path):
            weight.mul_(3.0)


def tiny_tokens(count: int = 1, length: int = 30, seed: int = 0) -> torch.Tensor:
    """Random token ids [count, length], int64, special tokens left out."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(UNKNOWN + 1, VOCABULARY, (count, length), generator=generator)


CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "[{{ message['role'] }}] {{ message['content'] }}\n"
    "{% endfor %}{% if add_generation_prompt %}[assistant] "
    "{% if enable_thinking is not defined or enable_thinking %}(think) {% endif %}{% endif %}"
)
"""Begins with the token that begins a sequence, as those of real models do; thinks unless told
not to (`enable_thinking=False`)."""

PAIRS = "th he in er an re on at en nd ti es or te of ed is it al ar st to nt ng se ha as"


def tiny_tokenizer(chat: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer of 128 tokens: ASCII characters and some pairs; round-trips ASCII text.

    It puts `<bos>` before a text unless told not to add special tokens. A pair can also be
    spelled by its characters, so decoding and encoding again may change token ids.

    Args:
        chat: whether it has a chat template, which itself begins with `<bos>`.
    """
    tokens = ["<pad>", "<bos>", "<eos>", "<unk>", "\n", "\t", " "]
    tokens += string.digits + string.ascii_letters + string.punctuation
    merges = [(pair[0], pair[1]) for pair in PAIRS.split()][: VOCABULARY - len(tokens)]
    tokens += ["".join(merge) for merge in merges]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", BOS)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
    if chat:
        fast.chat_template = CHAT_TEMPLATE
    return fast


def save_tiny(
    folder: str | Path, architecture: str = "qwen3", chat: bool = False, seed: int = 0
) -> Path:
    """Save a tiny model and its tokenizer as a checkpoint that the Auto classes load.

    Args:
        folder: made if missing.
        architecture: as in `tiny_model`.
        chat: whether the tokenizer has a chat template.
        seed: of the weights.
    """
    tiny_model(architecture, seed).save_pretrained(folder)
    tiny_tokenizer(chat).save_pretrained(folder)
    return Path(folder)


def tiny_t5(folder: str | Path) -> Path:
    """Save an encoder-decoder model with the same tokenizer, which a tracer must refuse."""
    config = T5Config(
        vocab_size=VOCABULARY,
        d_model=16,
        d_kv=8,
        d_ff=16,
        num_layers=1,
        num_heads=2,
        pad_token_id=PAD,
        eos_token_id=EOS,
        decoder_start_token_id=PAD,
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return Path(folder)
