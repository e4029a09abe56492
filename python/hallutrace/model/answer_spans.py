"""Labelled spans of an answer: maps character spans to the tokens that they cover.

A span covers a token if they share a character other than white space: tokenizers differ in whether
the token ``" Paris"`` includes its space, and a space at either end of a span carries no content. A
token that holds some bytes of a character counts as holding the whole character.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hallutrace.errors import InputError
from hallutrace.questions import Response, Span

Range = tuple[int, int]  # begin and end, exclusive


@dataclass(frozen=True, slots=True)
class AnswerSpan:
    """A labelled span of an answer.

    Attributes:
        start: index of its first character in the answer's text, from 0.
        end: index after its last character.
        label: the label from the data source.
        tokens: indices of the answer tokens that it covers: the first, and the one after the last.
    """

    start: int
    end: int
    label: str
    tokens: Range


def check_spans(spans: Sequence[Span], length: int) -> None:
    """Raises :class:`InputError` for the first span outside a text of ``length`` characters.

    Raises:
        InputError: a span is out of range or ends before it starts.
    """
    for span in spans:
        if not 0 <= span.start <= span.end <= length:
            raise InputError(
                f"Expected spans within the {length:,} characters of the response, each ending "
                f"where it begins or later, got {span.start} to {span.end} ({span.label}) - "
                "mend the row"
            )


def place_spans(
    tokenizer: Any, response: Response, spans: Sequence[Span], tokens: Sequence[int], answer: str
) -> tuple[AnswerSpan, ...]:
    """Maps spans of a response to the answer that was made of it.

    Args:
        tokenizer: a transformers tokenizer.
        response: the given response, text or token ids.
        spans: character spans of the response's text.
        tokens: token ids of the answer: a prefix of the response's tokens, possibly with an
            appended end-of-sequence token.
        answer: text of the answer: the response's text, truncated at the end of the answer and
            stripped of white space.

    Returns:
        The spans with character indices in ``answer``; spans outside it are dropped.

    Raises:
        InputError: a span is outside the response, or the tokens do not decode to the response.
    """
    if not spans:
        return ()
    text, ranges = token_ranges(tokenizer, response)
    check_spans(spans, len(text))
    first = len(text) - len(text.lstrip())
    if not text.startswith(answer, first):
        raise InputError(
            f"Expected tokens that spell the response, got {answer[:40]!r} for {text[:40]!r} - "
            "leave its spans out, or give a response that the tokenizer keeps as it is"
        )
    placed = []
    for span in spans:
        start, end = (min(max(i - first, 0), len(answer)) for i in (span.start, span.end))
        if start < end or span.start == span.end:
            covered = covered_tokens(text, ranges[: len(tokens)], (start + first, end + first))
            placed.append(AnswerSpan(start, end, span.label, covered))
    return tuple(placed)


def covered_tokens(text: str, ranges: Sequence[Range], span: Range) -> Range:
    """Indices of the first token that a span covers and of the one after the last.

    If it covers no token, both are the index of the first token that ends after the span's start.

    Args:
        text: the text of the tokens.
        ranges: character range of each token, in order.
        span: character range of the span.

    Examples:
        >>> covered_tokens("to Paris", [(0, 2), (2, 5), (5, 8)], (3, 8))
        (1, 3)
    """
    covered, before = [], 0
    for index, (begin, end) in enumerate(ranges):
        if text[max(begin, span[0]) : min(end, span[1])].strip():
            covered.append(index)
        elif end <= span[0]:
            before = index + 1
    return (covered[0], covered[-1] + 1) if covered else (before, before)


def token_ranges(tokenizer: Any, response: Response) -> tuple[str, list[Range]]:
    """The text of a response and the character range of each of its tokens.

    Args:
        tokenizer: a transformers tokenizer.
        response: text, for which a fast tokenizer gives the offsets; or token ids, which are
            decoded.
    """
    if isinstance(response, str) and tokenizer.is_fast:
        encoded = tokenizer(response, add_special_tokens=False, return_offsets_mapping=True)
        return response, [(begin, end) for begin, end in encoded["offset_mapping"]]
    if isinstance(response, str):
        response = tuple(tokenizer(response, add_special_tokens=False)["input_ids"])
    return _decoded_ranges(tokenizer, response)


def _decoded_ranges(tokenizer: Any, ids: Sequence[int]) -> tuple[str, list[Range]]:
    """The text of token ids and the range of each, from decoding prefixes of increasing length.

    The text of a prefix may end in a replacement character for an incomplete character, so only
    the characters that agree with the whole text count.
    """

    def decoded(count: int) -> str:
        text: str = tokenizer.decode(
            list(ids[:count]), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    whole = decoded(len(ids))
    ranges, agreed = [], 0
    for count in range(1, len(ids) + 1):
        text, begin = decoded(count), agreed
        while agreed < min(len(text), len(whole)) and text[agreed] == whole[agreed]:
            agreed += 1
        is_cut = agreed < min(len(text), len(whole))  # the token ends within a character
        ranges.append((begin, agreed + is_cut))
    return whole, ranges
