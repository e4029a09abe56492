"""Every causal architecture of the installed transformers as a tiny random model, by one recipe.

A configuration's own defaults are made small by the names of their fields: widths, heads, layers,
experts, vocabularies, and above all windows, chunks and index sizes, so that a short text is longer
than all of them. Lists with an entry for each layer keep their kinds of layers, in turns.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tiny_models import BOS, EOS, PAD, VOCABULARY

EVERY: tuple[str, ...] = tuple(sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))

# Those that cannot be built here, for reasons that are not ours.
OUTSIDE: dict[str, str] = {
    "gemma3n": "its vision tower needs the packages timm and pillow",
    "gemma4_assistant": "it drafts for another model, whose keys and values it reads",
    "gemma4_unified_assistant": "it drafts for another model, whose keys and values it reads",
    "musicgen": "transformers builds it from the configuration of its decoder alone",
    "musicgen_melody": "transformers builds it from the configuration of its decoder alone",
}

# Encoders that are causal models only if their configuration says so: as they are, and as decoders.
AS_DECODER = " is_decoder"
ENCODERS: tuple[str, ...] = tuple(
    kind for kind in EVERY if getattr(CONFIG_MAPPING[kind], "is_decoder", True) is False
)

LAYERS, WIDTH, HEADS, KEY_HEADS, HEAD, ROPE = 4, 64, 4, 2, 16, 8
WINDOW = 8

EVERY_ROW = (*EVERY, *(kind + AS_DECODER for kind in ENCODERS))

# The first pattern that a field's whole name matches decides; a value of None keeps the default.
SMALL: tuple[tuple[str, Any], ...] = (
    # With few heads many keys have an index of exactly zero, and which of them is in the top k then
    # depends on the padding, in the model itself.
    (r"index_n_heads", 32),
    (r"(unpadded_|text_|decoder_)?vocab_size(_per_layer_input)?", VOCABULARY),
    (r"pad_token_id", PAD),
    (r"(bos|decoder_start)_token_id", BOS),
    (r"eos_token_id", EOS),
    (r"num_(hidden_|encoder_|decoder_)?layers|n_layers?|(en|de)coder_layers|depth", LAYERS),
    (
        r"(hidden_size(_global)?|adapter_(in|out)_dim|adapter_input_size|d_model|n_embd|word_embed_proj_dim|embed_dim|emb_dim|lru_width)",
        WIDTH,
    ),
    (r".*(num|n|encoder|decoder|swa_num)_(attention_)?(heads?)|attention_heads", HEADS),
    (r"head_dim|swa_head_dim|dim_head|attention_head_(dim|size)|d_head|d_kv|kv_channels", HEAD),
    (r"qk_nope_head_dim|qk_rope_head_dim", ROPE),
    (r"v_head_dim", 12),
    (r"kv_lora_rank|o_lora_rank", 16),
    (r"q_lora_rank", 24),
    (
        r".*(intermediate_size|ffn_dim|ffn_hidden_size|dim_ff|dff|n_inner|d_ff|intermediate_size_mlp)",
        64,
    ),
    (r"n_shared_experts|num_shared_experts|moe_num_shared_experts", None),
    (r"num_expert_group|n_group", 2),
    (r"topk_group", 1),
    (r".*experts_per_tok(en)?|moe_top_?k|moe_k", 2),
    (r".*(num_|n_)(local_|routed_)?experts|zero_expert_num", 4),
    (r"max_position_embeddings|n_positions|n_ctx|max_seq_len|context_length", 256),
    (r"max_window_layers", 1),
    (r".*window.*|attention_chunk_size|index_topk|local_attention", WINDOW),
    (r"index_head_dim", 16),
    (r"index_block_size", 4),
    (r"index_topk_blocks", 2),
    (r"linear_num_key_heads", 2),
    (r"linear_num_value_heads|linear_num_heads", 4),
    (r"linear_.*head_dim", 8),
)

MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_chunk_size": 16}
FULL, SLIDING, LINEAR = "full_attention", "sliding_attention", "linear_attention"
DECODER = {"is_decoder": True}
ROTARY = {"rope_type": "default", "rope_theta": 10_000.0}

QWEN4 = {
    "indexer_n_heads": 32,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 16,
    "indexer_budget": 8,
    "indexer_compress_ratio": 2,
}

# What the recipe alone does not get right; "_config" reaches into nested configurations.
OVERRIDES: dict[str, dict[str, Any]] = {
    "bamba": MAMBA | {"attn_layer_indices": [1, 3]},
    "codegen": {"rotary_dim": 8},
    "cohere_compass_text": {
        "layer_types": [SLIDING, FULL, SLIDING, FULL],
        "rope_parameters": {SLIDING: ROTARY, FULL: ROTARY},
    },
    "dbrx": {
        "ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2},
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10_000.0, "clip_qkv": 8.0},
    },
    "deepseek_v2": {"num_experts_per_tok": 2, "n_group": 2, "topk_group": 1},
    "blt": {"encoder_hash_byte_group_vocab": 64},
    "dory": {"layer_types": [SLIDING, FULL, SLIDING, FULL]}
    | {"n_input_layers": 1, "n_recurrent_layers": 2, "n_output_layers": 1},
    "dots1": {"n_routed_experts": 4, "n_group": 2, "topk_group": 1, "num_experts_per_tok": 2}
    | {"n_shared_experts": 1, "first_k_dense_replace": 1},
    "falcon_h1": MAMBA | {"mamba_d_ssm": 128},
    "gemma3n_text": {
        "layer_types": [SLIDING, FULL, SLIDING, FULL, SLIDING, FULL],
        "num_hidden_layers": 6,
        "intermediate_size": [64] * 6,
        "activation_sparsity_pattern": [0.5, 0.0, 0.5, 0.0, 0.5, 0.0],
        "hidden_size_per_layer_input": 16,
        "num_kv_shared_layers": 2,
    },
    "gptj": {"rotary_dim": 8},
    "granite": {"attention_multiplier": 0.25},
    "granite_swa": {"attention_multiplier": 0.25},
    "granitemoe": {"attention_multiplier": 0.25},
    "granitemoe_swa": {"attention_multiplier": 0.25},
    "granitemoeshared": {"attention_multiplier": 0.25},
    "granitemoehybrid": MAMBA
    | {"attention_multiplier": 0.25, "layers_block_type": ["mamba", "attention"] * 2},
    "inkling2_loop_text": {"n_layers_per_attn_res_block": 1, "loop_layer_index_start": 1}
    | {"loop_layer_index_end": 3},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", FULL, "conv", FULL]},
    "longcat_flash": {"qk_head_dim": 2 * ROPE},
    "mamba2": {"num_heads": 8, "head_dim": 16},
    "nemotron": {"num_key_value_heads": 2},
    "nemotron_h": {
        "mamba_num_heads": 8,
        "n_groups": 2,
        "layers_block_type": [LINEAR, FULL, "moe", FULL],
    },
    "qwen4_exp_text": QWEN4,
    "qwen4_exp": {"text_config": QWEN4},
    "reformer": DECODER | {"axial_pos_shape": [8, 32], "axial_pos_embds_dim": [16, 48]},
    "xlstm": {"embedding_dim": 64, "num_blocks": 4, "num_heads": 4},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"attention_hidden_size": 128, "attention_head_dim": 32, "mamba_dt_rank": 8}
    | {"layers_block_type": [LINEAR, "hybrid", LINEAR, "hybrid"]},
    "zamba2": {"attention_hidden_size": 128, "attention_head_dim": 32, "mamba_headdim": 16}
    | {"layers_block_type": [LINEAR, "hybrid", LINEAR, "hybrid"], "hybrid_layer_ids": [1, 3]}
    | {"n_mamba_heads": 8, "kv_channels": 32, "num_query_groups": 4, "chunk_size": 16},
    "zaya": {"num_experts_per_tok": 1},
}


def small_value(name: str, default: Any, config: dict[str, Any]) -> Any:
    """A field's value in a tiny configuration."""
    layers = next(
        (config[key] for key in ("num_hidden_layers", "n_layer", "num_layers") if key in config),
        None,
    )
    if isinstance(default, list) and layers and len(default) == layers:
        kinds = list(dict.fromkeys(map(_frozen, default)))
        return [_thawed(_small_number(name, kinds[at % len(kinds)])) for at in range(LAYERS)]
    if isinstance(default, list) and default and all(type(entry) is int for entry in default):
        return [entry for entry in default if entry < LAYERS] if _is_places(name) else default
    if name in ("num_key_value_heads", "kv_n_heads", "num_kv_heads", "swa_num_key_value_heads"):
        heads = config.get("swa_num_attention_heads" if "swa" in name else "num_attention_heads")
        grouped = isinstance(heads, int) and isinstance(default, int) and default < heads
        return KEY_HEADS if grouped else HEADS
    if name == "head_dim" and default == config.get("qk_rope_head_dim"):
        return ROPE  # of latent attention, where only this part of a head is rotated
    return _small_number(name, default)


def _is_places(name: str) -> bool:
    return name.endswith(("layers", "idxs", "layer_ids"))


def _frozen(entry: Any) -> Any:
    return tuple(entry) if isinstance(entry, list) else entry


def _thawed(entry: Any) -> Any:
    return list(entry) if isinstance(entry, tuple) else entry


def _small_number(name: str, default: Any) -> Any:
    is_token = name.endswith("token_id") and default is not None
    if not is_token and (type(default) is not int or default <= 0):
        return default
    for pattern, small in SMALL:
        if re.fullmatch(pattern, name):
            return default if small is None else small
    if name.endswith(("token_id", "token_index")) and isinstance(default, int):
        return VOCABULARY - 1 - sum(map(ord, name)) % 20
    return default


def small_fields(config: dict[str, Any]) -> dict[str, Any]:
    """The fields of a configuration made small, those of nested ones too."""
    fields = {}
    for name, default in config.items():
        if name == "per_layer_config":
            if "layer_types" in config:
                fields[name] = _small_layers(config)
        elif isinstance(default, dict) and name.endswith("_config"):
            fields[name] = small_fields(default)
        elif name not in ("transformers_version", "id2label", "label2id", "architectures", "dtype"):
            fields[name] = small_value(name, default, config)
    return fields


def _small_layers(config: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Fields of some layers, for the same kinds of layers."""
    before = config["layer_types"]
    kinds = {before[int(at)]: own for at, own in config["per_layer_config"].items()}
    after = small_value("layer_types", before, config)
    return {at: _small_own(kinds[kind]) for at, kind in enumerate(after) if kind in kinds}


def _small_own(own: dict[str, Any]) -> dict[str, Any]:
    small = {name: _small_number(name, value) for name, value in own.items()}
    if own.get("num_key_value_heads") == own.get("num_attention_heads"):
        small |= {"num_key_value_heads": HEADS} if "num_attention_heads" in own else {}
    return small | ({"head_dim": 2 * HEAD} if "head_dim" in own else {})


def small_config(kind: str) -> Any:
    """A tiny configuration of a model type."""
    kind, as_decoder, _ = kind.partition(AS_DECODER)
    cls = CONFIG_MAPPING[kind]
    fields = small_fields(cls().to_dict())
    for name, value in OVERRIDES.get(kind, {}).items():
        nested = isinstance(fields.get(name), dict) and name.endswith("_config")
        fields[name] = fields[name] | value if nested else value
    fields.pop("model_type", None)
    if as_decoder:
        fields |= DECODER
    return cls(**fields)


def small_model(kind: str, temper: str) -> PreTrainedModel:
    """A random model: float32, eval, on the CPU; `sharp` ones have peaked attention."""
    config = small_config(kind)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for name, weight in model.named_parameters():
            _temper(name, weight, temper)
    return model.eval()


def _temper(name: str, weight: torch.Tensor, temper: str) -> None:
    if not weight.is_floating_point() or weight.numel() < 2:
        return
    if float(weight.std()) == 0:  # zeros and ones: what they do must show
        weight.add_(torch.randn_like(weight) * 0.1)
    if temper == "calm" and re.search(r"(q|k|query|key)_(layer)?norm", name):
        weight.mul_(0.25)  # models that normalise queries and keys are sharp without training
    if temper == "sharp" and weight.dim() > 1:
        weight.mul_(min(20.0, 0.15 / float(weight.std())))
        if re.search(r"q_proj|k_proj|qkv_proj|query|key|c_attn|q_b_proj|kv_b_proj", name):
            weight.mul_(1.8)
