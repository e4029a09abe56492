"""Where an answer ends, in tokens: one definition for generation, for cutting and for responses.

An answer ends with its first end-of-sequence token, which is part of it, or where its tokens first
spell a stop string, whatever comes first; what follows is never kept. Stop strings are looked for
in the answer alone, never in the prompt. One that spells a special token, such as ``<|end|>``, is
looked for with special tokens written out, so that it is found as a token and as characters; any
other in the text without them, so that ``end`` is not found in ``<|end|>``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hallutrace.errors import InputError
from hallutrace.model.answer_spans import AnswerSpan, place_spans
from hallutrace.model.loading import Loaded
from hallutrace.model.special_tokens import special_texts
from hallutrace.questions import Span
from hallutrace.third_party import refusing

_SLACK = 8  # tokens that may spell nothing within a stop string


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Attributes:
        tokens: ids, the end-of-sequence token included if it came; at least one.
        text: the answer as text, without special tokens and without a stop string.
        finish_reason: ``eos``, ``stop`` (a stop string), ``length`` or ``given``.
        spans: of it, that the source of a given answer labelled.
    """

    tokens: list[int]
    text: str
    finish_reason: str
    spans: tuple[AnswerSpan, ...] = ()


class AnswerEnds:
    """Where answers of a model end.

    Args:
        loaded: the model; its ends and its tokenizer.
        stop: strings that end an answer.
    """

    def __init__(self, loaded: Loaded, stop: Sequence[str] = ()) -> None:
        self._loaded = loaded
        marks = special_texts(loaded.tokenizer) if stop else []
        # Each with whether it is looked for among special tokens.
        self._stop = {word: any(mark in word for mark in marks) for word in stop}
        # Every token spells a byte at least, but for a few.
        longest = max((len(word.encode("utf-8", "replace")) for word in self._stop), default=0)
        self._window = longest + _SLACK

    def stops(self, tokens: Sequence[int]) -> bool:
        """Whether the last of an answer's tokens completes a stop string."""
        return bool(self._completed(tokens))

    def _completed(self, tokens: Sequence[int]) -> list[str]:
        """The stop strings that a text holds which ends with these tokens.

        Only the last tokens are decoded at first, so that a long answer costs no more per token.
        """
        tail = self._texts(tokens[-self._window :])
        if not any(word in tail[special] for word, special in self._stop.items()):
            return []
        text = self._texts(tokens)
        return [word for word, special in self._stop.items() if word in text[special]]

    def _texts(self, tokens: Sequence[int]) -> dict[bool, str]:
        """The text of tokens, without special tokens and with them, as far as it is needed."""
        return {
            special: decode(self._loaded, tokens, special) for special in {*self._stop.values()}
        }

    def cut(self, tokens: Sequence[int]) -> Answer:
        """The answer in tokens that may go on after its end.

        A stop string is cut in tokens: those that hold nothing but it and what follows are
        dropped, the one in which it begins stays if it also holds answer. An answer that begins
        with it keeps one token.
        """
        ids = list(tokens)
        for count, token in enumerate(ids, 1):
            if token in self._loaded.eos_ids:
                return Answer(ids[:count], self._text(ids[:count]), "eos")
            words = self._completed(ids[:count]) if self._stop else []
            if words:
                parts = [self._before(word, ids[:count]) for word in words]
                return min(parts, key=lambda part: (len(part.tokens), len(part.text)))
        return Answer(ids, self._text(ids), "length")

    def _before(self, word: str, ids: list[int]) -> Answer:
        """The answer in tokens of which the last completes a stop string."""
        special = self._stop[word]
        text = self._decoded(ids, special).partition(word)[0]
        kept = 1
        while kept < len(ids) and not self._decoded(ids[:kept], special).startswith(text):
            kept += 1
        plain = self._decoded(ids[:kept])
        # Characters of the stop string that the last token kept holds.
        beyond = len(self._decoded(ids[:kept], special)) - len(text)
        if beyond > 0 and plain != self._decoded(ids[: kept - 1]):
            plain = plain[:-beyond]
        return Answer(ids[:kept], plain.strip(), "stop")

    def _decoded(self, ids: Sequence[int], special: bool = False) -> str:
        return decode(self._loaded, ids, special)

    def _text(self, ids: Sequence[int]) -> str:
        return decode(self._loaded, ids).strip()


def given(
    ends: AnswerEnds,
    loaded: Loaded,
    response: str | tuple[int, ...],
    eos: str,
    end: int | None,
    spans: Sequence[Span] = (),
) -> Answer:
    """An answer that exists already; what follows its end is dropped.

    Args:
        ends: where answers end.
        loaded: the model that replays it.
        response: text, tokenised as it stands without special tokens; or ids, of which padding at
            the end is dropped.
        eos: ``on`` ends it with an end-of-sequence token if it has none, ``off`` never does,
            ``auto`` does so for text alone. A response that ends with a stop string gets none, as
            generation gives none.
        end: the token that is added; None where the model has none.
        spans: of the response's text, that its source labelled.

    Raises:
        InputError: ids that the model does not have, no token at all, or spans that the response
            does not have.
    """
    is_text = isinstance(response, str)
    tokens = list(
        loaded.tokenizer(response, add_special_tokens=False)["input_ids"] if is_text else response
    )
    check_tokens(loaded, tokens, "give ids of this model's tokenizer, or text")
    answer = ends.cut(tokens if is_text else _without_padding(loaded, tokens))
    tokens, text, reason = answer.tokens, answer.text, answer.finish_reason
    if reason == "length":
        text = str(response).strip() if is_text else text
        reason = "given"
        if end is not None and (eos == "on" or (eos == "auto" and is_text)):
            tokens, reason = [*tokens, end], "eos"
    if not tokens:
        raise InputError(f"Expected a response of at least one token, got {response!r}")
    placed = place_spans(loaded.tokenizer, response, spans, answer.tokens, text)
    return Answer(tokens, text, reason, placed)


def response_end(loaded: Loaded, turn_end: int | None) -> int | None:
    """The end-of-sequence token that a response gets.

    Models may have several. In a chat it is the one that the chat template puts after a turn of
    the assistant, which the tokenizer's need not be (Gemma, Phi-3); elsewhere the tokenizer's.

    Args:
        loaded: the model.
        turn_end: what the chat template puts there; None outside of a chat.
    """
    for token in (turn_end, loaded.tokenizer.eos_token_id):
        if token in loaded.eos_ids:
            return token
    return loaded.eos_ids[0] if loaded.eos_ids else None


def can_be_said(loaded: Loaded, text: str) -> bool:
    """Whether the tokenizer has tokens that spell a text.

    Raises:
        InputError: the tokenizer failed.
    """
    with refusing(f"text that the tokenizer of {loaded.name} takes", "change --stop"):
        # After another character, for some tokenizers strip the space that a text begins with.
        tokens = loaded.tokenizer("x" + text, add_special_tokens=False)["input_ids"]
        return text in decode(loaded, tokens, special=True)


def vocabulary_of(loaded: Loaded) -> int:
    """How many token ids the model takes and gives."""
    size = int(loaded.model.config.get_text_config().vocab_size)
    embedding = loaded.model.get_input_embeddings()
    return min(size, int(getattr(embedding, "num_embeddings", size)))


def check_tokens(loaded: Loaded, tokens: Sequence[int], fix: str) -> None:
    """Refuses ids that the model has no embedding for.

    Raises:
        InputError: naming the first of them.
    """
    size = vocabulary_of(loaded)
    for token in tokens:
        if not 0 <= token < size:
            raise InputError(f"Expected token ids below {size}, got {token} - {fix}")


def decode(loaded: Loaded, tokens: Sequence[int], special: bool = False) -> str:
    """Text of answer tokens, special ones left out unless asked for."""
    text: str = loaded.tokenizer.decode(
        list(tokens), skip_special_tokens=not special, clean_up_tokenization_spaces=False
    )
    return text


def _without_padding(loaded: Loaded, tokens: list[int]) -> list[int]:
    """Ids without the padding at their end, where that is not also an end or the unknown token."""
    pad = loaded.tokenizer.pad_token_id
    if pad is None or pad in (*loaded.eos_ids, loaded.tokenizer.unk_token_id):
        return tokens
    count = len(tokens)
    while count and tokens[count - 1] == pad:
        count -= 1
    return tokens[:count]
