"""Use of a caller's model: checks it, describes it and restores its state afterwards."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hallutrace.errors import ModelError
from hallutrace.model.adapters import check_kind
from hallutrace.model.checkpoint import check_config, config_quantization, quantization_name
from hallutrace.model.loading import Loaded, describe
from hallutrace.model.locks import exclusive
from hallutrace.model.object_digest import digest_object
from hallutrace.model.remote_code import code_digest
from hallutrace.model.vocabulary import check_vocabulary, embedding_rows, vocabulary_notes

IN_MEMORY = "in memory"  # the commit of a model without a digest


@contextmanager
def lent(
    model: Any,
    tokenizer: Any,
    note: Callable[[str], None],
    *,
    identify: bool,
) -> Iterator[Loaded]:
    """A context in which a caller's model can be traced; its state is restored on exit.

    The attributes of every module are restored, also after an error: training mode, buffers, hooks
    and the generation configuration. Parameters are not modified. Other threads that trace or
    generate with the same model through hallutrace wait.

    Args:
        model: a transformers causal language model, or a ``PeftModel`` of one; its adapters stay
            active, merged or disabled as they are.
        tokenizer: a transformers tokenizer.
        note: called with warnings about the model and tokenizer for the user.
        identify: whether to digest the weights, which reads all of them once.

    Raises:
        ModelError: not a supported model, or not its tokenizer.
    """
    base = base_model(model)
    check_tokenizer(tokenizer)
    with exclusive(base), _restored(base):
        for module in base.modules():
            # Not `eval()`, which modules may override, for example to merge an adapter.
            module.training = False
        name = base.name_or_path or type(base).__name__
        check_config(base.config, name)
        rows = embedding_rows(base)
        check_vocabulary(tokenizer, rows, name)
        quantization = config_quantization(base.config)
        code = code_digest(base, tokenizer)
        loaded = describe(
            base,
            tokenizer,
            name,
            digest_object(base, tokenizer) if identify else IN_MEMORY,
            quantization="none" if quantization is None else quantization_name(quantization),
            trust_remote_code=code is not None,
            code=code,
        )
        for line in vocabulary_notes(tokenizer, rows, loaded.eos_ids):
            note(line)
        yield loaded


def base_model(model: Any) -> Any:
    """The transformers model in a caller's model; PEFT adapters stay in its layers.

    Raises:
        ModelError: not a causal language model, weights are not in memory, or an adapter adds
            tokens.
    """
    peft = sys.modules.get("peft")  # without the import there can be no model of peft
    if peft is not None and isinstance(model, peft.PeftModel):
        for adapter, config in model.peft_config.items():
            check_kind(config, adapter)
        model = model.get_base_model()
    elif peft is not None and isinstance(model, peft.PeftMixedModel):
        model = model.base_model.model
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel) or model.get_output_embeddings() is None:
        raise ModelError(
            f"Expected `model`, a causal language model of transformers or a PeftModel of one, got "
            f"{type(model).__module__}.{type(model).__name__} - load it with "
            "AutoModelForCausalLM.from_pretrained"
        )
    if any(weight.is_meta for weight in model.parameters()):
        raise ModelError(
            "Expected a model whose weights are in memory, got some on the device meta (not "
            "loaded, or left on the disk by accelerate) - load it without them"
        )
    return model


def check_tokenizer(tokenizer: Any) -> None:
    """Raises :class:`ModelError` for an object that is not a transformers tokenizer."""
    from transformers import PreTrainedTokenizerBase

    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise ModelError(
            f"Expected `tokenizer`, one of transformers, got {type(tokenizer).__name__} - load it "
            "with AutoTokenizer.from_pretrained"
        )


@contextmanager
def _restored(model: Any) -> Iterator[None]:
    """A context that restores the attributes of every module, and the items of dict attributes.

    Dict attributes hold buffers and hooks, among others. transformers installs hooks in the first
    forward pass that returns attentions, and a rotary embedding may keep the frequencies of a long
    text, which are inference tensors and would fail in training.
    """
    attributes = [(vars(module), vars(module).copy()) for module in model.modules()]
    items = [
        (value, value.copy())
        for _, copy in attributes
        for value in copy.values()
        if isinstance(value, dict)
    ]
    try:
        yield
    finally:
        for original, copy in [*attributes, *items]:
            original.clear()
            original.update(copy)
