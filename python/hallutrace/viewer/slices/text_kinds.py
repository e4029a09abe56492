"""Of what kind a question or an answer is, from its words alone; rules for English text."""

from __future__ import annotations

import re

WORD_CHARACTERS = 24  # of a first word that is kept
_READ = 4000  # characters of a text that are looked at

_WORD = re.compile(r"\w[\w'’-]*")
_QUESTION_TYPES = (
    ("how many", re.compile(r"\bhow (?:many|much|often|long|old|far|tall|big|high)\b", re.I)),
    ("who", re.compile(r"\b(?:who|whom|whose)\b", re.I)),
    ("when", re.compile(r"\bwhen\b|\b(?:what|which|in what|in which) (?:year|date|day)\b", re.I)),
    ("where", re.compile(r"\bwhere\b|\b(?:what|which) (?:city|country|town|place)\b", re.I)),
    ("why", re.compile(r"\bwhy\b", re.I)),
    ("how", re.compile(r"\bhow\b", re.I)),
    ("which", re.compile(r"\bwhich\b", re.I)),
    ("what", re.compile(r"\bwhat\b", re.I)),
)
_YES_NO_START = re.compile(
    r"^\W*(?:is|are|was|were|do|does|did|can|could|has|have|had|will|would|should|may|might)\b",
    re.I,
)
_YES_NO = re.compile(r"^\W*(?:yes|no|true|false)\W*$", re.I)
_DATE = re.compile(
    r"\b(?:january|february|march|april|may|june|july|august|september|october|november|december|"
    r"monday|tuesday|wednesday|thursday|friday|saturday|sunday)\b.*\d|"
    r"\d.*\b(?:january|february|march|april|may|june|july|august|september|october|november|"
    r"december)\b|\b\d{4}-\d{2}-\d{2}\b|\b\d{1,2}/\d{1,2}/\d{2,4}\b|"
    r"^\W*(?:in )?(?:1\d{3}|20\d{2})(?:s| ad| bc)?\W*$",
    re.I,
)
_NUMBER_WORDS = (
    "zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|"
    "sixteen|seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|"
    "hundred|thousand|million|billion"
)
_NUMBER = re.compile(rf"^\W*(?:\d[\d.,\s]*|(?:{_NUMBER_WORDS})\b)", re.I)
_SMALL_WORDS = re.compile(
    r"\b(?:a|an|and|da|de|del|der|di|du|el|la|le|of|on|the|to|van|von)\b", re.I
)


def first_word(question: str) -> str:
    """The first word, in lower case; empty where there is none.

    Examples:
        >>> first_word("  Who wrote it?")
        'who'
    """
    found = _WORD.search(question[:_READ])
    return found[0].lower()[:WORD_CHARACTERS] if found else ""


def question_type(question: str) -> str:
    """Which of `how many`, `who`, `when`, `where`, `why`, `how`, `which`, `what`, `yes or no`.

    The first of them that the question has, of `how many` to `what`; a question that begins with
    a verb such as `is` is `yes or no`; anything else is `other`.

    Examples:
        >>> question_type("In which year did she die?"), question_type("Is it far?")
        ('when', 'yes or no')
    """
    text = question[-_READ:]
    if _YES_NO_START.match(text):
        return "yes or no"
    return next((name for name, pattern in _QUESTION_TYPES if pattern.search(text)), "other")


def answer_type(answer: str) -> str:
    """`yes or no`, `date`, `number`, `name` or `other`.

    A name is a text of at most six words, each of which begins with a capital letter, but for
    words such as `of`.

    Examples:
        >>> [answer_type(text) for text in ("No.", "4 May 1970", "1,200 km", "Bank of Rome", "red")]
        ['yes or no', 'date', 'number', 'name', 'other']
    """
    text = answer[:_READ].strip()
    for name, pattern in (("yes or no", _YES_NO), ("date", _DATE), ("number", _NUMBER)):
        if pattern.search(text):
            return name
    words = _WORD.findall(_SMALL_WORDS.sub(" ", text))
    is_name = 0 < len(words) <= 6 and all(word[0].isupper() for word in words)
    return "name" if is_name else "other"
