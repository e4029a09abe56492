"""Where an answer ends, in tokens: one rule for stopping, for truncation and for given responses.

An answer ends with its first end-of-sequence token, inclusive, or at its first stop string,
whichever comes first; later tokens are dropped. Stop strings are searched in the answer only, not
in the prompt. A stop string that contains a special token, such as ``<|end|>``, is searched in the
text decoded with special tokens, so that it matches the token and the same characters; any other
is searched in the text without them, so that ``end`` does not match ``<|end|>``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hallutrace.errors import InputError
from hallutrace.model.answer_spans import AnswerSpan, place_spans
from hallutrace.model.loading import Loaded
from hallutrace.model.special_tokens import special_texts
from hallutrace.option_names import parameter
from hallutrace.questions import Span
from hallutrace.third_party import refusing

_EMPTY_TOKENS = 8  # tokens within a stop string that may decode to no text


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Attributes:
        tokens: token ids, at least one, including the end-of-sequence token if there is one.
        text: the decoded answer without special tokens and without the stop string.
        finish_reason: ``eos``, ``stop`` (a stop string), ``length`` or ``given``.
        spans: labelled spans of a given response.
    """

    tokens: list[int]
    text: str
    finish_reason: str
    spans: tuple[AnswerSpan, ...] = ()


class AnswerEnds:
    """Finds where the answers of a model end.

    Args:
        loaded: the model, for its end-of-sequence tokens and its tokenizer.
        stop: strings that end an answer.
    """

    def __init__(self, loaded: Loaded, stop: Sequence[str] = ()) -> None:
        self._loaded = loaded
        marks = special_texts(loaded.tokenizer) if stop else []
        # Each stop string with whether it is searched in the text with special tokens.
        self._stop = {word: any(mark in word for mark in marks) for word in stop}
        # All but a few tokens decode to at least one byte, so this many hold a stop string.
        max_bytes = max((len(word.encode("utf-8", "replace")) for word in self._stop), default=0)
        self._window = max_bytes + _EMPTY_TOKENS

    def stops(self, tokens: Sequence[int]) -> bool:
        """Whether the last of an answer's tokens completes a stop string."""
        return bool(self._completed(tokens))

    def _completed(self, tokens: Sequence[int]) -> list[str]:
        """The stop strings in the text of these tokens.

        The last tokens are decoded first, so that the cost per token does not grow with the answer.
        """
        tail = self._texts(tokens[-self._window :])
        if not any(word in tail[special] for word, special in self._stop.items()):
            return []
        text = self._texts(tokens)
        return [word for word, special in self._stop.items() if word in text[special]]

    def _texts(self, tokens: Sequence[int]) -> dict[bool, str]:
        """The decoded text by whether it has special tokens; only the variants that are needed."""
        return {
            special: decode(self._loaded, tokens, special) for special in {*self._stop.values()}
        }

    def cut(self, tokens: Sequence[int]) -> Answer:
        """Truncates tokens at the end of the answer.

        A stop string is removed in whole tokens: the token in which it begins is kept if it also
        holds text of the answer, tokens after that are dropped. An answer that begins with a stop
        string keeps one token.

        Args:
            tokens: token ids, which may continue after the end of the answer.
        """
        ids = list(tokens)
        for count, token in enumerate(ids, 1):
            if token in self._loaded.eos_ids:
                return Answer(ids[:count], self._text(ids[:count]), "eos")
            words = self._completed(ids[:count]) if self._stop else []
            if words:
                answers = [self._before(word, ids[:count]) for word in words]
                return min(answers, key=lambda answer: (len(answer.tokens), len(answer.text)))
        return Answer(ids, self._text(ids), "length")

    def _before(self, word: str, ids: list[int]) -> Answer:
        """The answer before a stop string that the last token completes."""
        special = self._stop[word]
        text = self._decoded(ids, special).partition(word)[0]
        kept = 1
        while kept < len(ids) and not self._decoded(ids[:kept], special).startswith(text):
            kept += 1
        plain = self._decoded(ids[:kept])
        # Characters of the stop string in the last token kept.
        excess = len(self._decoded(ids[:kept], special)) - len(text)
        if excess > 0 and plain != self._decoded(ids[: kept - 1]):
            plain = plain[:-excess]
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
    """Makes an answer of a given response, truncated at its end.

    Args:
        ends: finds where answers end.
        loaded: the model that replays the response.
        response: text, which is tokenised without special tokens; or token ids, from which trailing
            padding is removed.
        eos: ``on`` appends an end-of-sequence token if there is none, ``off`` never does, ``auto``
            does for text only. None is appended after a stop string, since generation produces
            none there.
        end: the end-of-sequence token to append; None if the model has none.
        spans: labelled spans of the response's text.

    Raises:
        InputError: a token id out of range, no token at all, or a span outside the response.
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
    """The end-of-sequence token to append to a response; None if the model has none.

    Models may have several. In a chat it is the token that the chat template writes after a turn of
    the assistant, which may differ from the tokenizer's (Gemma, Phi-3); else it is the tokenizer's.

    Args:
        loaded: the model.
        turn_end: the token that the chat template writes there; None without a chat template.
    """
    for token in (turn_end, loaded.tokenizer.eos_token_id):
        if token in loaded.eos_ids:
            return token
    return loaded.eos_ids[0] if loaded.eos_ids else None


def is_round_trip(loaded: Loaded, text: str) -> bool:
    """Whether encoding and decoding a text gives the text back.

    Raises:
        InputError: the tokenizer failed.
    """
    with refusing(f"text that the tokenizer of {loaded.name} takes", f"change {parameter('stop')}"):
        # The "x" is there because some tokenizers strip a leading space.
        tokens = loaded.tokenizer("x" + text, add_special_tokens=False)["input_ids"]
        return text in decode(loaded, tokens, special=True)


def vocabulary_of(loaded: Loaded) -> int:
    """Number of token ids that the model can both read and predict."""
    size = int(loaded.model.config.get_text_config().vocab_size)
    embedding = loaded.model.get_input_embeddings()
    return min(size, int(getattr(embedding, "num_embeddings", size)))


def check_tokens(loaded: Loaded, tokens: Sequence[int], fix: str) -> None:
    """Raises :class:`InputError` for the first token id without an embedding.

    Args:
        loaded: the model.
        tokens: token ids.
        fix: what the user can do, for the error message.

    Raises:
        InputError: a token id is negative or too large.
    """
    size = vocabulary_of(loaded)
    for token in tokens:
        if not 0 <= token < size:
            raise InputError(f"Expected token ids below {size}, got {token} - {fix}")


def decode(loaded: Loaded, tokens: Sequence[int], special: bool = False) -> str:
    """Decodes answer tokens; special tokens are included only if ``special``."""
    text: str = loaded.tokenizer.decode(
        list(tokens), skip_special_tokens=not special, clean_up_tokenization_spaces=False
    )
    return text


def _without_padding(loaded: Loaded, tokens: list[int]) -> list[int]:
    """Removes trailing padding, unless the padding token is also an EOS or the unknown token."""
    pad = loaded.tokenizer.pad_token_id
    if pad is None or pad in (*loaded.eos_ids, loaded.tokenizer.unk_token_id):
        return tokens
    count = len(tokens)
    while count and tokens[count - 1] == pad:
        count -= 1
    return tokens[:count]
