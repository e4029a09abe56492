"""Named settings for whole experiments."""

from __future__ import annotations

from typing import Any

# The settings of the extraction that hallutrace replaces: TriviaQA over Qwen3-4B in int8, 5 beams.
TRIVIAQA_QWEN3_4B: dict[str, Any] = {
    "questions": "hf:mandarjoshi/trivia_qa/rc.nocontext/train",
    "model": "Qwen/Qwen3-4B-Instruct-2507",
    "quantization": "int8",
    "num_beams": 5,
    "max_new_tokens": 64,
    "seed": 41,
    "shard_size": 500,
}

PRESETS: dict[str, dict[str, Any]] = {"triviaqa-qwen3-4b": TRIVIAQA_QWEN3_4B}

# Configurations of the presets' models, so that `plan` needs no network. Figures from the model's
# published config.json.
MODEL_CONFIGS: dict[str, dict[str, Any]] = {
    "Qwen/Qwen3-4B-Instruct-2507": {
        "model_type": "qwen3",
        "vocab_size": 151_936,
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "tie_word_embeddings": True,
        "max_position_embeddings": 262_144,
        "dtype": "bfloat16",
    },
}
