"""Normalisation of texts before they are compared: TriviaQA's rule, and one for all scripts.

Both give words with single spaces between them, and agree on ASCII text. On other text they differ:

=================================== ======================= ================================
text                                ``triviaqa``            ``unicode`` (the default)
=================================== ======================= ================================
東京です。 (no spaces in the script)   one word, 。 kept         東 京 で す
“Paris” «Paris» 5–4                 marks kept              paris, paris, 5 4
Ｐａｒｉｓ ﬁsh (full width, ligature)   kept                    paris fish
é as one character or as two        two different words     the same word
STRASSE and Straße, İstanbul        different               strasse, istanbul
١٩٦٩ (digits of another script)      kept                    1969
zero-width characters, soft hyphens kept                    left out
=================================== ======================= ================================
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable

Normalize = Callable[[str], str]
"""A text as its words, with single spaces between them."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation + "‘’´`", " "))


def normalize_triviaqa(text: str) -> str:
    """Lower case, without ASCII punctuation and articles.

    Args:
        text: any text.

    Source:
        Joshi et al. 2017, TriviaQA, evaluation script (normalisation of answers).

    Examples:
        >>> normalize_triviaqa("The Eiffel-Tower")
        'eiffel tower'
    """
    words = _ARTICLES.sub(" ", text.lower().replace("_", " ").translate(_PUNCTUATION))
    return " ".join(words.split())


def normalize_unicode(text: str) -> str:
    """TriviaQA's rule for the scripts and the typography of all languages.

    1. Characters that are not seen are left out (category Cf, variation selectors, fillers); other
       control characters separate words.
    2. Compatibility forms and combining marks become one form (NFKC), and case is folded. Latin i
       with and without a dot are one letter in either case: which of them is the other's capital
       depends on the language.
    3. Punctuation and symbols separate words (categories P and S), as do the letters that are used
       as apostrophes; digits become ASCII.
    4. The words a, an and the are left out.
    5. Characters of scripts that are written without spaces become words of their own, each with
       its combining marks. So do syllables of Korean, which joins particles to words. A reference
       is therefore found inside a longer word too, such as 印度 in 印度尼西亚.

    Args:
        text: any text.

    Source:
        Ours. NFKC and case folding are those of the Unicode standard, of the version that this
        Python has. Characters as words for Chinese are those of MLQA's and DRCD's evaluation.

    Examples:
        >>> normalize_unicode("«İstanbul» 東京")
        'istanbul 東 京'
    """
    if text.isascii() and text.isprintable():
        return normalize_triviaqa(text)
    return " ".join(split_words(text, articles=False))


def split_words(text: str, *, articles: bool = True) -> list[str]:
    """The words of a text of any script, as :func:`normalize_unicode` has them.

    Args:
        text: any text.
        articles: whether a, an and the are among them.

    Examples:
        >>> split_words("The 10² of ½")
        ['the', '10', '2', 'of', '1', '2']
    """
    plain = unicodedata.normalize("NFC", text).translate(_BEFORE)
    plain = _POWER.sub(" ", _VULGAR.sub(r" \g<0> ", plain))
    folded = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", plain)).casefold()
    one_i = _DOTTED.sub("i", unicodedata.normalize("NFKC", folded))
    seen = unicodedata.normalize("NFKC", one_i).translate(_AFTER)
    return [
        part
        for word in _STRAY_MARKS.sub(" ", seen).split()
        if articles or word not in _ARTICLE_WORDS
        for part in _PARTS.findall(word)
    ]


_ARTICLE_WORDS = frozenset(("a", "an", "the"))

# Written without spaces (line breaking class SA of the Unicode standard, Chinese and Japanese), or
# with particles joined to words (Korean). Ranges are those of blocks; NFKC has made half-width and
# compatibility forms, and letters of Korean, into these.
_UNSPACED = "".join(
    f"{chr(first)}-{chr(last)}"
    for first, last in (
        (0x0E00, 0x0EFF),  # Thai, Lao
        (0x1000, 0x109F),  # Myanmar
        (0x1100, 0x11FF),  # Korean letters that make no syllable
        (0x1780, 0x17FF),  # Khmer
        (0x1950, 0x19DF),  # Tai Le, New Tai Lue
        (0x19E0, 0x19FF),  # Khmer symbols
        (0x1A20, 0x1AAF),  # Tai Tham
        (0x2E80, 0x2FDF),  # radicals
        (0x3005, 0x3007),  # ideographic iteration mark, closing mark, zero
        (0x3021, 0x3029),  # Hangzhou numerals
        (0x3031, 0x303C),
        (0x3041, 0x3098),  # Hiragana; the marks of voiced sounds come after it
        (0x309B, 0x30FF),  # Katakana
        (0x3100, 0x312F),  # Bopomofo
        (0x31A0, 0x31BF),
        (0x31F0, 0x31FF),  # Katakana extensions
        (0x3400, 0x4DBF),  # ideographs, extension A
        (0x4E00, 0x9FFF),  # ideographs
        (0xA9E0, 0xA9FF),  # Myanmar extension B
        (0xAA60, 0xAADF),  # Myanmar extension A, Tai Viet
        (0xAC00, 0xD7A3),  # Korean syllables
        (0xF900, 0xFAFF),
        (0x11700, 0x1174F),  # Ahom
        (0x1AFF0, 0x1B16F),  # Kana extensions
        (0x20000, 0x3FFFF),  # ideographs, extensions B and later
    )
)
# What is left and is neither a letter, a digit nor a space is a combining mark.
_PARTS = re.compile(rf"[{_UNSPACED}][^\w\s]*|[^{_UNSPACED}]+")
_STRAY_MARKS = re.compile(r"(?<!\S)[\u0300-\u036f\u3099\u309a]+")
_DOTTED = re.compile("ı|i\u0307+")
_VULGAR = re.compile("[¼-¾⅐-⅞↉]")  # fractions: 5½ is 5 1/2, not 51/2
_POWER = re.compile(r"(?<=[0-9])(?=[²³¹⁰⁴-⁹⁺⁻])")  # 10² is 10^2, not 102

_APOSTROPHES = "\u02b9\u02ba\u02bb\u02bc\u02bd\u02be\u02bf\u02c8\u02ca\u02cb\ua78b\ua78c\u055a"
_LETTERED = "™℠"  # marks that NFKC writes in letters
_UNSEEN = "\u034f\u0640\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0"
"""Fillers and joiners that are not of category Cf; U+0640 stretches Arabic words."""


class _Table(dict[int, "str | None"]):
    """What :meth:`str.translate` makes of each character, found out once for each.

    Args:
        decide: gives the replacement of a character; None where it is left out.
    """

    def __init__(self, decide: Callable[[str], str | None]) -> None:
        super().__init__()
        self._decide = decide

    def __missing__(self, code: int) -> str | None:
        self[code] = found = self._decide(chr(code))
        return found


def _before(character: str) -> str | None:
    """Before NFKC, which makes ´ a space with a mark on it and ™ two letters."""
    category = unicodedata.category(character)
    if category == "Cf" or character in _UNSEEN or "VARIATION SELECTOR" in _name(character):
        return None
    if category == "Cc" or character in _APOSTROPHES or character in _LETTERED:
        return " "
    if category[0] in "PS":
        # ㎏ and № are symbols that stand for letters.
        meant = unicodedata.normalize("NFKC", character)
        return character if any(map(str.isalnum, meant)) else " "
    return character


def _after(character: str) -> str | None:
    """After NFKC: what it has made of compatibility forms may be punctuation again."""
    category = unicodedata.category(character)
    if character in _UNSEEN:
        return None
    if category == "Nd":
        return str(unicodedata.decimal(character))
    is_between = category[0] in "PSZ" or category == "Cc" or character in _APOSTROPHES
    return " " if is_between else character


def _name(character: str) -> str:
    return unicodedata.name(character, "")


_BEFORE, _AFTER = _Table(_before), _Table(_after)

NORMALIZATIONS: dict[str, tuple[str, Normalize]] = {
    "unicode": ("unicode-1", normalize_unicode),
    "triviaqa": ("triviaqa-1", normalize_triviaqa),
}
"""By name: the version that is kept beside labels, which grows with any change, and the rule."""

DEFAULT = "unicode"
