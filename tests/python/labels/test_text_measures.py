"""Judging answers: small oracles, TriviaQA's cases, and what text from anywhere may hold."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hallutrace.label_protocols import JUDGES, find_judge
from hallutrace.text_measures import (
    common_length,
    comparable,
    contains,
    exact,
    f1,
    normalize,
    rouge_l,
)

WORDS = st.lists(st.sampled_from(["red", "fox", "ran", "over", "Ὀδύσσεια", "東京"]), max_size=8)
TEXT = st.text(max_size=30)


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("The Beatles", "beatles"),
        ("  An  apple,\na day ", "apple day"),
        ("Rock 'n' Roll", "rock n roll"),
        ("O’Brien", "o brien"),
        ("snake_case", "snake case"),
        ("U.S.A.", "u s"),  # the last A is an article, as in TriviaQA's script
        ("theatre and other", "theatre and other"),
        ("ÉMILE Zola", "émile zola"),
        ("Άνθρωπος", "άνθρωπος"),
        ("東京", "東京"),
        ("5–4", "5–4"),  # a dash that is not in ASCII stays
        ("The", ""),
        ("?!", ""),
        ("", ""),
    ],
)
def test_normalisation_is_triviaqas(text: str, normalized: str) -> None:
    assert normalize(text, "triviaqa") == normalized


@given(TEXT)
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalize(text, "triviaqa")
    assert normalize(once, "triviaqa") == once
    assert once == " ".join(once.split())


@pytest.mark.parametrize(
    ("answer", "references", "scores"),
    [
        # exact, contains, f1, rouge-l
        ("Paris", ["Paris"], (1, 1, 1, 1)),
        ("the PARIS!", ["paris"], (1, 1, 1, 1)),
        ("It is Paris.", ["Paris", "City of Light"], (0, 1, 1 / 2, 1 / 2)),
        ("Parisian", ["Paris"], (0, 0, 0, 0)),
        ("light city", ["city of light"], (0, 0, 4 / 5, 2 / 5)),
        ("new new york", ["new york"], (0, 1, 4 / 5, 4 / 5)),
        ("in York, or New York", ["New York"], (0, 1, 4 / 7, 4 / 7)),
        ("", ["Paris"], (0, 0, 0, 0)),
        ("the", ["Paris"], (0, 0, 0, 0)),
        ("", ["The", "!"], (0, 0, 0, 0)),
        ("who are they", ["The", "The Who"], (0, 1, 1 / 2, 1 / 2)),
        ("東京 です", ["東京"], (0, 1, 2 / 3, 2 / 3)),  # four characters
        ("anything", [], (0, 0, 0, 0)),
    ],
)
def test_scores(answer: str, references: list[str], scores: tuple[float, ...]) -> None:
    found = [judged(answer, references) for judged in (exact, contains, f1, rouge_l)]
    assert found == pytest.approx(scores, abs=1e-12)
    known = [judge.score("", answer, references) for judge in JUDGES.values()]
    assert known == (pytest.approx(scores) if comparable(references) else [None] * 4)


def plain_f1(said: list[str], wanted: list[str]) -> float:
    """Matches words off against each other, one by one."""
    left, shared = list(wanted), 0
    for word in said:
        if word in left:
            left.remove(word)
            shared += 1
    if not shared:
        return 0.0
    precision, recall = shared / len(said), shared / len(wanted)
    return 2 * precision * recall / (precision + recall)


def plain_common_length(left: list[str], right: list[str]) -> int:
    """The definition, by recursion."""

    @cache
    def common(i: int, j: int) -> int:
        if i == len(left) or j == len(right):
            return 0
        if left[i] == right[j]:
            return 1 + common(i + 1, j + 1)
        return max(common(i + 1, j), common(i, j + 1))

    return common(0, 0)


@given(WORDS, st.lists(WORDS, min_size=1, max_size=3))
def test_scores_are_those_of_the_oracles(said: list[str], references: list[list[str]]) -> None:
    texts = [" ".join(words) for words in references]
    words = [normalize(text).split() for text in texts]
    mine = normalize(" ".join(said)).split()
    wanted = [reference for reference in words if reference]
    assert exact(" ".join(said), texts) == (mine in wanted)
    assert f1(" ".join(said), texts) == pytest.approx(
        max((plain_f1(mine, reference) for reference in wanted), default=0)
    )
    assert rouge_l(" ".join(said), texts) == pytest.approx(
        max(
            (
                2 * plain_common_length(mine, reference) / (len(mine) + len(reference))
                for reference in wanted
            ),
            default=0,
        )
    )
    assert contains(" ".join(said), texts) == any(
        mine[at : at + len(reference)] == reference
        for reference in wanted
        for at in range(len(mine))
    )


@given(WORDS, WORDS)
def test_common_length_is_that_of_the_oracle(left: list[str], right: list[str]) -> None:
    assert common_length(left, right) == plain_common_length(left, right)
    assert common_length(left, right) == common_length(right, left)


def test_common_length_of_long_texts() -> None:
    left = [str(number) for number in range(5000)]
    assert common_length(left, left[::2]) == 2500
    assert common_length(left, left[::-1]) == 1


@given(TEXT, st.lists(TEXT, max_size=3))
def test_any_text_has_scores_in_order(answer: str, references: list[str]) -> None:
    same, within = exact(answer, references), contains(answer, references)
    words, sequence = f1(answer, references), rouge_l(answer, references)
    assert same <= within
    assert 0 <= sequence <= words <= 1
    assert (words == 1) >= same
    for judge in JUDGES.values():
        score = judge.score("", answer, references)
        assert (score is None) == (not comparable(references))


def test_judges_say_what_decides_their_scores() -> None:
    assert list(JUDGES) == ["exact", "contains", "f1", "rouge-l"]
    assert [judge.threshold for judge in JUDGES.values()] == [0.5, 0.5, 0.5, 0.3]
    assert [judge.is_graded for judge in JUDGES.values()] == [False, False, True, True]
    assert all(judge.facts == {"normalization": "unicode-1"} for judge in JUDGES.values())
    other = find_judge("f1", "triviaqa")
    assert (other.facts, other.threshold) == ({"normalization": "triviaqa-1"}, 0.5)
    assert (JUDGES["f1"].label_name, other.label_name) == ("f1", "f1-triviaqa")
