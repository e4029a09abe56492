"""Labelled spans of an answer: from characters, as sources give them, to the tokens they cover.

A token is covered by a span if they share a character other than white space: tokenizers disagree
on whether ``" Paris"`` has its space, and the space before a span or after it states nothing. A
token that is a part of a character has all of that character.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hallutrace.errors import InputError
from hallutrace.questions import Response, Span

Range = tuple[int, int]  # of characters: begin, end


@dataclass(frozen=True, slots=True)
class AnswerSpan:
    """A labelled span of an answer.

    Attributes:
        start: its first character in the answer's text, from 0.
        end: the character after its last.
        label: as the source has it.
        tokens: the first answer token that it covers and the one after the last, from 0.
    """

    start: int
    end: int
    label: str
    tokens: Range


def check_spans(spans: Sequence[Span], length: int) -> None:
    """Refuses spans that no text of this length has.

    Raises:
        InputError: naming the first.
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
    """Places spans of a response in the answer that was made of it.

    Args:
        tokenizer: of transformers.
        response: as the source gave it: text, or ids of tokens.
        spans: of its text.
        tokens: of the answer: the first ones of the response, and perhaps an end.
        answer: text of the answer: of the response, without white space around it and without
            what follows the end of an answer.

    Returns:
        The spans with their characters in ``answer``, those beyond it left out.

    Raises:
        InputError: spans that the response does not have, or a tokenizer whose tokens do not tell
            where they are.
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
        start, end = (min(max(at - first, 0), len(answer)) for at in (span.start, span.end))
        if start < end or span.start == span.end:
            covered = covered_tokens(text, ranges[: len(tokens)], (start + first, end + first))
            placed.append(AnswerSpan(start, end, span.label, covered))
    return tuple(placed)


def covered_tokens(text: str, ranges: Sequence[Range], span: Range) -> Range:
    """The first token that a span covers and the one after the last.

    Args:
        text: that tokens and span are of.
        ranges: characters of each token, in order.
        span: characters of the span.

    Example:
        >>> covered_tokens("to Paris", [(0, 2), (2, 5), (5, 8)], (3, 8))
        (1, 3)
    """
    covered, before = [], 0
    for at, (begin, end) in enumerate(ranges):
        if text[max(begin, span[0]) : min(end, span[1])].strip():
            covered.append(at)
        elif end <= span[0]:
            before = at + 1
    return (covered[0], covered[-1] + 1) if covered else (before, before)


def token_ranges(tokenizer: Any, response: Response) -> tuple[str, list[Range]]:
    """The text of a response, and the characters of each of its tokens.

    Args:
        tokenizer: of transformers.
        response: text, whose tokens the tokenizer places; or ids, which are decoded.
    """
    if isinstance(response, str) and tokenizer.is_fast:
        encoded = tokenizer(response, add_special_tokens=False, return_offsets_mapping=True)
        return response, [(begin, end) for begin, end in encoded["offset_mapping"]]
    if isinstance(response, str):
        response = tuple(tokenizer(response, add_special_tokens=False)["input_ids"])
    return _decoded_ranges(tokenizer, response)


def _decoded_ranges(tokenizer: Any, ids: Sequence[int]) -> tuple[str, list[Range]]:
    """The same of ids, from the text of ever more of them.

    The text of the first tokens may end in what stands for a part of a character; the whole text
    tells how much of it is certain.
    """

    def decoded(count: int) -> str:
        text: str = tokenizer.decode(
            list(ids[:count]), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    whole = decoded(len(ids))
    ranges, certain = [], 0
    for count in range(1, len(ids) + 1):
        text, begin = decoded(count), certain
        while certain < min(len(text), len(whole)) and text[certain] == whole[certain]:
            certain += 1
        is_cut = certain < min(len(text), len(whole))  # the token ends within a character
        ranges.append((begin, certain + is_cut))
    return whole, ranges
