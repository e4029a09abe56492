"""Which answer tokens a labelled span of characters covers, whatever tokens are made of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hallutrace.errors import InputError
from hallutrace.model.answer_spans import (
    AnswerSpan,
    covered_tokens,
    place_spans,
    token_ranges,
)
from hallutrace.questions import Span
from tiny_models import tiny_tokenizer
from tiny_tokenizers import of_bytes


def of_words(*, trimmed: bool) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of few words, each with the space before it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "P"), ("ĠP", "a"), ("i", "s"), ("Ġ", "i"), ("Ã", "©"), ("a", "Ã")]
    symbols = ["<eos>", *alphabet, *(left + right for left, right in merges)]
    vocabulary = {symbol: number for number, symbol in enumerate(symbols)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    if trimmed:
        from tokenizers import processors

        tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", clean_up_tokenization_spaces=False
    )


def of_pieces() -> PreTrainedTokenizerFast:
    """A tokenizer as SentencePiece makes them: `▁` for spaces, bytes for what it does not know."""
    pieces = ["<eos>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcPris", "▁P", "▁Pa"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    merges = [("▁", "P"), ("▁P", "a")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", clean_up_tokenization_spaces=False
    )


TOKENIZERS = {
    "bytes": of_bytes(),
    "words": of_words(trimmed=False),
    "trimmed": of_words(trimmed=True),
    "pieces": of_pieces(),
    "tiny": tiny_tokenizer(),
}


def tokens_of(name: str, text: str) -> list[int]:
    return list(TOKENIZERS[name](text, add_special_tokens=False)["input_ids"])


def placed(name: str, text: str, *spans: Span, as_ids: bool = False) -> tuple[AnswerSpan, ...]:
    ids = tokens_of(name, text)
    response = tuple(ids) if as_ids else text
    return place_spans(TOKENIZERS[name], response, spans, ids, text.strip())


@pytest.mark.parametrize("as_ids", [False, True])
@pytest.mark.parametrize("name", ["words", "trimmed"])
def test_a_space_before_a_word_decides_nothing(name: str, as_ids: bool) -> None:
    text = "a Paris is a"
    # a | ĠPa | r | is | Ġ | is | Ġ | a
    whole, with_space, before, after = placed(
        name, text, Span(2, 7, "x"), Span(1, 8, "x"), Span(0, 2, "x"), Span(8, 10, "x"),
        as_ids=as_ids,
    )  # fmt: skip
    assert whole == AnswerSpan(2, 7, "x", (1, 4))
    assert with_space.tokens == (1, 4)
    assert before.tokens == (0, 1)
    assert after.tokens == (5, 6)


@pytest.mark.parametrize("as_ids", [False, True])
def test_a_token_that_cuts_a_character_has_all_of_it(as_ids: bool) -> None:
    # Three bytes each: every token is a third of a character.
    first, second = placed("bytes", "日本", Span(0, 1, "a"), Span(1, 2, "b"), as_ids=as_ids)
    assert (first.tokens, second.tokens) == ((0, 3), (3, 6))
    # a and the first byte of é are one token, é's second byte another.
    (both,) = placed("words", "aéb", Span(1, 2, "x"), as_ids=as_ids)
    assert len(tokens_of("words", "aéb")) in (3, 4)
    begin, end = both.tokens
    assert TOKENIZERS["words"].decode(tokens_of("words", "aéb")[begin:end]).strip("a") == "é"
    (emoji,) = placed("pieces", "a🙂b", Span(1, 2, "x"), as_ids=as_ids)
    covered = tokens_of("pieces", "a🙂b")[slice(*emoji.tokens)]
    assert TOKENIZERS["pieces"].decode(covered) == "🙂"


def test_spans_move_with_white_space_that_an_answer_does_not_keep() -> None:
    text = "  ab "
    spans = placed("bytes", text, Span(0, 5, "all"), Span(3, 4, "b"), Span(0, 1, "space"))
    assert spans == (
        AnswerSpan(0, 2, "all", (2, 4)),
        AnswerSpan(1, 2, "b", (3, 4)),
    )
    # An empty span is one that covers nothing.
    assert placed("bytes", text, Span(3, 3, "none")) == (AnswerSpan(1, 1, "none", (3, 3)),)


def test_spans_beyond_the_end_of_an_answer_are_left_out() -> None:
    ids = tokens_of("bytes", "ab. more")
    spans = (Span(0, 5, "x"), Span(5, 8, "y"))
    assert place_spans(TOKENIZERS["bytes"], "ab. more", spans, ids[:3], "ab.") == (
        AnswerSpan(0, 3, "x", (0, 3)),
    )


@pytest.mark.parametrize("span", [Span(-1, 1, "x"), Span(2, 1, "x"), Span(0, 4, "x")])
def test_spans_that_the_response_does_not_have_are_refused(span: Span) -> None:
    ids = tokens_of("bytes", "abc")
    with pytest.raises(InputError, match="Expected spans within the 3 characters of the response"):
        place_spans(TOKENIZERS["bytes"], tuple(ids), (span,), ids, "abc")


def test_tokens_that_spell_another_text_are_refused() -> None:
    with pytest.raises(InputError, match="Expected tokens that spell the response, got 'xyz'"):
        place_spans(TOKENIZERS["bytes"], "abc", (Span(0, 1, "x"),), [1], "xyz")


texts = st.text(st.sampled_from("abPris é日🙂\n"), min_size=1, max_size=12)


@given(texts, st.sampled_from(["bytes", "words", "trimmed", "pieces"]), st.booleans(), st.data())
def test_every_span_has_the_tokens_that_share_a_character(
    text: str, name: str, as_ids: bool, data: st.DataObject
) -> None:
    ids = tokens_of(name, text)
    whole, ranges = token_ranges(TOKENIZERS[name], tuple(ids) if as_ids else text)
    assert len(ranges) == len(ids)
    begin = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(begin, len(whole)))
    first, last = covered_tokens(whole, ranges, (begin, end))
    assert 0 <= first <= last <= len(ids)
    # Every character of the span that is no space is in one of its tokens, and its first and its
    # last token have such a character.
    shown = {at for at in range(begin, end) if not whole[at].isspace()}
    held = {at for token in range(first, last) for at in range(*ranges[token])}
    assert shown <= held
    for token in (first, last - 1) if first < last else ():
        assert shown & set(range(*ranges[token]))
