"""Texts of all scripts made comparable: what is the same to a reader has the same words."""

from __future__ import annotations

import string
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hallutrace.demo import read_questions
from hallutrace.detect.detectors.question_only import words_of
from hallutrace.errors import InputError
from hallutrace.label_protocols import JUDGES, find_judge
from hallutrace.text_measures import contains, exact, f1, normalize, rouge_l

ENGLISH = st.text(string.printable.replace("\x0b", "").replace("\x0c", ""), max_size=60)


@given(ENGLISH)
def test_on_ascii_both_rules_give_the_same_words(text: str) -> None:
    assert normalize(text, "unicode") == normalize(text, "triviaqa")


def test_on_the_demos_answers_both_rules_give_the_same_scores() -> None:
    rows = read_questions()
    for at, row in enumerate(rows[::10]):
        # What a model says: the right answer in a sentence, that of another question, or bare.
        other = rows[(at * 7) % len(rows)]["answers"][0]
        for said in (f"It is the {row['answers'][0]}.", f"a {other}", row["answers"][0].upper()):
            for name in JUDGES:
                scores = [
                    find_judge(name, rule).score("", said, row["answers"])
                    for rule in ("unicode", "triviaqa")
                ]
                assert scores[0] == scores[1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("東京です。", "東 京 で す"),
        ("「東京」、京都", "東 京 京 都"),
        ("iPhone手机", "iphone 手 机"),
        ("1969年", "1969 年"),
        ("A型", "a 型"),  # no article: nothing stands between it and the next word
        ("กรุงเทพ", "ก รุ ง เ ท พ"),
        ("ភ្នំពេញ", "ភ្ នំ ពេ ញ"),
        ("ວຽງຈັນ", "ວ ຽ ງ ຈັ ນ"),
        ("ရန်ကုန်", "ရ န် ကု န်"),
        ("서울입니다", "서 울 입 니 다"),
        ("“Paris” ‘Rome’ «Bern» „Wien“", "paris rome bern wien"),
        ("O’Brien Hawaiʻi", "o brien hawai i"),
        ("5–4 5—4 5‑4 5−4", "5 4 5 4 5 4 5 4"),
        ("Ｐａｒｉｓ　１９６９", "paris 1969"),
        ("ﾄｳｷｮｳ", "ト ウ キ ョ ウ"),
        ("ﬁsh", "fish"),
        ("e\u0301mile", "émile"),
        ("か\u3099", "が"),
        ("Straße", "strasse"),
        ("ΌΔΥΣΣΕΥΣ", "όδυσσευσ"),
        ("١٩٦٩ १९६९", "1969 1969"),
        ("so\u00adft zero\u200bwidth \ufeffmark\u200f", "soft zerowidth mark"),
        ("می\u200cخواهم", "میخواهم"),
        ("مـــرحبا", "مرحبا"),
        ("5½ 10² H₂O", "5 1 2 10 2 h2o"),
        ("Coke™ ㎏ №", "coke kg no"),
        ("\u00b4quoted\u00b4", "quoted"),
        ("हिन्दी शब्द।", "हिन्दी शब्द"),
        ("ＴＨＥ “a” café", "café"),
        ("résumé ≠ resume", "résumé resume"),
        ("“?” …", ""),
        ("x\x00y\x1b", "x y"),
        ("x\ud800", "x\ud800"),
    ],
)
def test_words_of_all_scripts(text: str, words: str) -> None:
    assert normalize(text) == words


@pytest.mark.parametrize("dotted", ["İstanbul", "ISTANBUL", "istanbul", "ıstanbul", "i̇stanbul"])
def test_i_with_and_without_a_dot_is_one_letter(dotted: str) -> None:
    assert normalize(dotted) == "istanbul"


@given(st.text(max_size=40), st.sampled_from(["NFC", "NFD"]))
def test_canonical_forms_have_the_same_words(text: str, form: Any) -> None:
    assert normalize(unicodedata.normalize(form, text)) == normalize(text)


@given(st.text(max_size=40))
def test_words_are_stable_and_hold_nothing_that_is_not_compared(text: str) -> None:
    words = normalize(text)
    assert words == " ".join(words.split())
    assert not [each for each in words if unicodedata.category(each)[0] in "PSZ" and each != " "]
    assert not [each for each in words if unicodedata.category(each) in ("Cc", "Cf", "Nd")
                and each not in string.digits]  # fmt: skip
    # A letter next to a character that is a word may become an article: A型 is a 型.
    if not {"a", "an", "the"} & set(words.split()):
        assert normalize(words) == words


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("天気がいいです", "天気"),  # nobody writes spaces around it
        ("答えは東京です。", "東京"),
        ("首都是北京。", "“北京”"),
        ("คำตอบคือกรุงเทพ", "กรุงเทพ"),
        ("រាជធានីគឺភ្នំពេញ", "ភ្នំពេញ"),
        ("ຄໍາຕອບແມ່ນວຽງຈັນ", "ວຽງຈັນ"),
        ("အဖြေမှာရန်ကုန်ဖြစ်သည်", "ရန်ကုန်"),
        ("수도는 서울입니다", "서울"),
        ("It was “Paris”, they said", "Paris"),
        ("won the cup 5–4", "5-4"),
        ("the number ４２", "42"),
        ("c'est Zoe\u0308", "Zoë"),
    ],
)
def test_right_answers_that_are_no_ascii_words_are_found(answer: str, reference: str) -> None:
    assert contains(answer, [reference])
    assert exact(reference, [f" {reference}。"])
    assert f1(answer, [reference]) > 0
    assert rouge_l(answer, [reference]) > 0
    assert not contains(answer, ["Roma", "大阪", "เชียงใหม่"])


def test_scores_in_scripts_without_spaces_count_characters() -> None:
    assert f1("東京都です", ["東京"]) == pytest.approx(2 * 2 / (5 + 2))
    assert rouge_l("京東", ["東京"]) == pytest.approx(1 / 2)
    assert not contains("京東", ["東京"])
    # A mark belongs to its letter, so this is no part of that.
    assert not contains("กิ่ง", ["กิ"])


def test_the_words_of_a_question_are_those_of_its_script() -> None:
    assert words_of("東京は東") == {"東": 2, "京": 1, "は": 1}
    assert words_of("What's the “cost” of a snake_case?") == {
        "what": 1, "s": 1, "the": 1, "cost": 1, "of": 1, "a": 1, "snake": 1, "case": 1,
    }  # fmt: skip


def test_a_rule_that_there_is_not_is_refused() -> None:
    for call in (
        lambda: normalize("x", "bert"),
        lambda: contains("x", ["x"], "bert"),
        lambda: find_judge("exact", "bert"),
    ):
        with pytest.raises(InputError) as caught:
            call()
        assert str(caught.value) == (
            "Expected one of unicode, triviaqa, got 'bert' - change `normalize`"
        )
