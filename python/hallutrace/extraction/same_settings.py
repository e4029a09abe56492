"""The options of ``extract`` by which a question is asked like those of a run that exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hallutrace.errors import InputError
from hallutrace.option_names import parameter

_COMMIT = re.compile("[0-9a-f]{40}")  # of the hub; digests of folders and files look otherwise


def settings_of(identity: dict[str, Any], has_context: bool) -> dict[str, Any]:
    """Options of `extract` by which a question is asked like the questions of a run.

    Args:
        identity: of the run.
        has_context: whether the question comes with a context.

    Raises:
        InputError: a run of existing answers; it does not say how they were generated.

    Examples:
        >>> identity = hallutrace.open(run).manifest.identity
        >>> settings_of(identity, has_context=False)["max_new_tokens"]
        64
    """
    model, prompt, decoding = identity["model"], identity["prompt"], identity["decoding"]
    sparsification, hidden = identity["sparsification"], identity["hidden"]
    if decoding.get("responses"):
        raise InputError(
            "Expected a detector trained on answers that a model generated, got one of a run of "
            f"existing answers ({parameter('responses')}) - extract the question's answer with "
            f"{parameter('responses')}, and score that run"
        )
    # An adapter that is a folder goes on the base model that it was on, wherever that is now.
    adapter = model["name"] if model["base"] and Path(model["name"]).is_dir() else None
    named = model["base"] if adapter else model
    is_commit = _COMMIT.fullmatch(str(named["commit"])) is not None
    layers = hidden["layers"]
    quantization = model["quantization"]
    return {
        "model": named["name"],
        "revision": named["commit"] if is_commit and not Path(named["name"]).exists() else None,
        "adapter": adapter,
        "dtype": model["dtype"],
        # Other names are those of checkpoints that are quantised themselves.
        "quantization": quantization if quantization in ("int8", "nf4") else "none",
        "prompt": prompt["template_with_context" if has_context else "template"],
        "chat": "on" if prompt["chat"] else "off",
        "chat_template_kwargs": prompt["chat_template_kwargs"],
        "template_date": prompt.get("date"),
        "max_new_tokens": decoding["max_new_tokens"],
        "num_beams": decoding["num_beams"],
        **_sampling(decoding),
        "stop": tuple(decoding["stop"]),
        "seed": identity["seed"],
        **{
            name: sparsification[name]
            for name in ("top_k", "min_weight", "top_mass", "heads", "edge_rows", "edge_dtype")
        },
        "alternatives": identity.get("alternatives", 0),
        "marginal_rows": identity["marginal_rows"],
        "hidden_states": hidden["states"],
        "hidden_layers": ",".join(map(str, layers)) if layers else "all",
        "hidden_dtype": "native" if hidden["dtype"] == model["dtype"] else hidden["dtype"],
    }


def _sampling(decoding: dict[str, Any]) -> dict[str, Any]:
    """The options of sampling that the resolved decoding of a run came from."""
    if not decoding["do_sample"]:
        return {"temperature": 0.0}
    return {
        "temperature": decoding["temperature"],
        "top_p": decoding["top_p"] if decoding["top_p"] < 1 else None,
        "top_k_sampling": decoding["top_k"] or None,
        "min_p": decoding["min_p"],
    }
