"""A model that a caller has in memory: checked, described, lent, and given back as it was."""

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

IN_MEMORY = "in memory"  # the commit of a model that was not digested


@contextmanager
def lent(
    model: Any,
    tokenizer: Any,
    note: Callable[[str], None],
    *,
    identify: bool,
) -> Iterator[Loaded]:
    """Within it, a caller's model is ready to be traced; afterwards it is as it was.

    Every module gets its attributes back, also after an error: training mode, buffers, hooks, the
    generation configuration. Parameters are only read. Other threads that trace or generate
    with the same model through hallutrace wait.

    Args:
        model: a causal language model of transformers, or a ``PeftModel`` of one: its adapters act
            as they do now, active, merged or disabled.
        tokenizer: of transformers.
        note: told what a user should know of them.
        identify: whether to digest its weights, which reads all of them once.

    Raises:
        ModelError: something else than such a model and its tokenizer.
    """
    base = base_model(model)
    check_tokenizer(tokenizer)
    with exclusive(base), _as_it_was(base):
        for module in base.modules():
            # Not `eval()`: a module may do more there, such as merging an adapter.
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
    """The model of transformers in what a caller has; adapters of peft are in its layers.

    Raises:
        ModelError: something else, or an adapter that adds tokens of its own.
    """
    peft = sys.modules.get("peft")  # whoever has a model of it has imported it
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
    """Refuses what is no tokenizer of transformers.

    Raises:
        ModelError: saying what it is.
    """
    from transformers import PreTrainedTokenizerBase

    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise ModelError(
            f"Expected `tokenizer`, one of transformers, got {type(tokenizer).__name__} - load it "
            "with AutoTokenizer.from_pretrained"
        )


@contextmanager
def _as_it_was(model: Any) -> Iterator[None]:
    """Gives every module its attributes back, and what those that are dictionaries held.

    These are buffers and hooks among others. transformers installs hooks for attentions with the
    first pass that asks for them, and a rotary embedding may keep frequencies of a long text, which
    were made in inference mode and would fail in training.
    """
    before = [(vars(module), vars(module).copy()) for module in model.modules()]
    held = [
        (value, value.copy())
        for _, attributes in before
        for value in attributes.values()
        if isinstance(value, dict)
    ]
    try:
        yield
    finally:
        for there, copy in [*before, *held]:
            there.clear()
            there.update(copy)
