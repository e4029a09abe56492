"""PEFT adapters: finding them, checking them and loading them onto their base model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hallutrace.errors import ModelError
from hallutrace.listed_names import first_listed
from hallutrace.model.files import ADAPTER_CONFIG, Files, ModelName
from hallutrace.option_names import parameter


def adapter_config(where: str, revision: str | None) -> dict[str, Any] | None:
    """Reads the configuration of an adapter.

    Args:
        where: folder or file, or name on the hub.
        revision: commit, branch or tag on the hub.

    Returns:
        The content of ``adapter_config.json``; None if there is no such file.

    Raises:
        ModelError: the file is invalid, or weights of a whole model are in the same folder.
    """
    from transformers.utils.peft_utils import find_adapter_config_file

    if Path(where).is_file():
        return None
    path = find_adapter_config_file(where, revision=revision)
    if path is None:
        return None
    try:
        content = json.loads(Path(path).read_bytes())
        if not isinstance(content, dict):
            raise ValueError("no fields by name")
    except ValueError as error:
        raise ModelError(
            f"Expected the configuration of an adapter in {path}, got {error} - fix the file"
        ) from None
    if any(_weights(Path(path).parent)):
        raise ModelError(
            f"Expected a model or an adapter, got both in {where} - move {ADAPTER_CONFIG} and the "
            f"adapter's weights into a folder of their own, and give that as {parameter('model')}"
        )
    return content


def _weights(folder: Path) -> Iterator[Path]:
    """Weight files of a whole model in a folder."""
    for pattern in ("model*.safetensors", "pytorch_model*.bin"):
        yield from folder.glob(pattern)


def base_of(
    requested: ModelName, where: str, adapter: Mapping[str, Any] | None
) -> tuple[str, str | None]:
    """The base model to load: folder, file or name on the hub, and its revision on the hub.

    Args:
        requested: the requested model.
        where: folder, file or name on the hub that ``requested.name`` resolves to.
        adapter: the configuration of the adapter; None without one.

    Raises:
        ModelError: the named adapter or its base model was not found, or the base model is itself
            an adapter.
    """
    if requested.adapter is not None:
        if adapter is None:
            raise ModelError(
                f"Expected an adapter of peft in {requested.adapter!r}, got no {ADAPTER_CONFIG} - "
                f"change {parameter('adapter')}"
            )
        if adapter_config(where, requested.revision) is not None:
            raise ModelError(
                f"Expected a model under the adapter {requested.adapter!r}, got another adapter "
                f"({where}) - change {parameter('model')}"
            )
        return where, requested.revision
    if adapter is None:
        return where, requested.revision
    base, revision = adapter.get("base_model_name_or_path"), adapter.get("revision")
    name = requested.name
    fix = (
        f"write its folder or its name on the hub into {ADAPTER_CONFIG}, or give it as "
        f"{parameter('model')} beside {parameter('adapter', name)}"
    )
    if not isinstance(base, str) or not base:
        raise ModelError(
            f"Expected the base model of the adapter {name!r} in its {ADAPTER_CONFIG}, got "
            f"none under base_model_name_or_path - {fix}"
        )
    if not Path(base).exists() and (base[0] in "./~" or base.count("/") > 1):
        raise ModelError(
            f"Expected the base model of the adapter {name!r} at {base}, got no such folder - {fix}"
        )
    if adapter_config(base, revision) is not None:
        raise ModelError(
            f"Expected a model under the adapter {name!r}, got another adapter ({base}) - "
            "merge that one into its model first"
        )
    return base, revision


def with_adapter(model: Any, adapter: Files, name: str) -> Any:
    """Adds a PEFT adapter to the layers of a model, without merging, so that logits equal PEFT's.

    Args:
        model: the base model; modified in place.
        adapter: files of the adapter.
        name: the adapter's name, as the user gave it, for error messages.

    Returns:
        The transformers model with the adapter layers in it.

    Raises:
        ModelError: the adapter does not fit the model, or its type cannot be traced.
    """
    from peft import PeftConfig, PeftModel

    folder = Path(adapter.location)
    if folder.is_dir() and not any(folder.glob("adapter_model.*")):
        raise ModelError(
            f"Expected the weights of the adapter in {folder}, got no adapter_model.safetensors - "
            "copy it there"
        )
    config = PeftConfig.from_pretrained(adapter.location, **adapter.arguments)
    check_kind(config, name)
    adapted = PeftModel.from_pretrained(model, adapter.location, config=config, **adapter.arguments)
    # Load again for its result: from_pretrained only warns about missing weights and ignores
    # unexpected ones.
    info = adapted.load_adapter(adapter.location, "default", **adapter.arguments)
    for keys, problem in (
        (info.missing_keys, "none for"),
        (info.unexpected_keys, "weights that the base model has no place for:"),
    ):
        if keys:
            raise ModelError(
                f"Expected an adapter that fits its base model {model.name_or_path}, got "
                f"{problem} {first_listed(keys)} in {name!r} - check base_model_name_or_path in "
                "its adapter_config.json"
            )
    return adapted.get_base_model()


def check_kind(config: Any, name: str) -> None:
    """Raises :class:`ModelError` for an adapter that is more than weights in the model's layers.

    Args:
        config: the ``PeftConfig``.
        name: the adapter's name, for the error message.

    Raises:
        ModelError: prompt tuning or another method that adds tokens.
    """
    if config.is_prompt_learning or config.is_adaption_prompt:
        raise ModelError(
            f"Expected an adapter of weights such as LoRA, got {config.peft_type.value} in {name!r}"
            " - it adds tokens of its own, which no trace could name; choose another adapter"
        )
