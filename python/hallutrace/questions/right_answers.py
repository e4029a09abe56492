"""The right answers of a row, however its data set writes them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hallutrace.option_names import parameter
from hallutrace.questions.cell_values import check_utf8, described, reference_text
from hallutrace.questions.columns import KEYS, TARGETS, AnswerColumns, normalized_name
from hallutrace.questions.lists_in_text import parse_list_text
from hallutrace.questions.rows import MismatchError

UNKNOWN_ANSWER = "<unk>"
"""The answer in TriviaQA's test split, whose answers are not published: no reference."""

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
KEY_NAMES = frozenset(map(normalized_name, KEYS))
NO_INDEX = -1
"""The index in rows whose right choice is not published, as in test splits on the hub."""


def right_answers(values: Mapping[str, object], where: AnswerColumns) -> Iterator[str]:
    """The right answers of a row, duplicates included.

    Args:
        values: of the row, by column.
        where: the columns that hold them.

    Raises:
        MismatchError: a value that cannot be read as right answers.
    """
    filled = [name for name in where.columns if values.get(name) is not None]
    for column in filled if where.joined else filled[:1]:
        value = values[column]
        if isinstance(value, str):
            if column == where.split and not value.lstrip().startswith("["):
                value = [part.strip() for part in value.split(";")]
            else:
                value = parse_list_text(value, column)
        if where.choices is not None:
            value = choice_text(value, column, values.get(where.choices), where.choices)
        for item in answers_in(value, column):
            text = reference_text(item, column)
            # A blank reference matches nothing; keeping it would only pass for an answer.
            if text.strip():
                yield check_utf8(text, column)


def wrong_answers(
    values: Mapping[str, object], value: object, column: str, where: AnswerColumns
) -> Iterator[str]:
    """The wrong answers that a row tells of, duplicates included.

    Args:
        values: of the row, by column.
        value: of its column of wrong answers; None where it has none.
        column: of those.
        where: the columns of right answers, which may mark the wrong ones too.

    Raises:
        MismatchError: a value that cannot be read as answers.
    """
    found: list[object] = []
    if isinstance(value, str) and where.split and not value.lstrip().startswith("["):
        value = [part.strip() for part in value.split(";")]
    elif isinstance(value, str):
        value = parse_list_text(value, column)
    if value is not None:
        found += answers_in(value, column)
    for name in where.columns:
        targets = values.get(name)
        if name_of_targets(name) and isinstance(targets, dict):
            found += choices_marked(targets.get("choices"), targets.get("labels"), name, 0)
    for item in found:
        text = reference_text(item, column)
        if text.strip():
            yield check_utf8(text, column)


def name_of_targets(column: str) -> bool:
    """Whether a column holds TruthfulQA's choices with their marks."""
    return normalized_name(column) in map(normalized_name, TARGETS)


def choices_in(values: Mapping[str, object], where: AnswerColumns) -> Choices | None:
    """The choices that a row offers; None where it offers none, or what cannot be read as such."""
    if where.choices is None or values.get(where.choices) is None:
        return None
    try:
        found = choices_of(values[where.choices], where.choices)
        if found is not None:
            for text in (*found.labels, *found.texts):
                check_utf8(text, where.choices)
    except MismatchError:
        return None
    return found


def answers_in(value: object, column: str) -> list[object]:
    """The right answers in a value of a column: a list, an object or a single one."""
    if isinstance(value, list | tuple):
        return list(value)
    if not isinstance(value, dict):
        return [value]
    if "value" in value:  # TriviaQA
        first, more = value["value"], value.get("aliases")
        aliases = more if isinstance(more, list) else [more]
        return [item for item in (first, *aliases) if item != UNKNOWN_ANSWER]
    if "choices" in value and "labels" in value:  # TruthfulQA, multiple choice
        return choices_marked(value["choices"], value["labels"], column)
    for key in ("text", "spans"):  # SQuAD, DROP
        if key in value:
            texts = value[key]
            return texts if isinstance(texts, list) else [texts]
    raise MismatchError(
        f"answers in column `{column}` as an object with `value` and `aliases`, or `text`",
        described(value),
        f"write a list of texts, map another column with {parameter('answers_column')}, or leave "
        f"the answers out with {parameter('answers_column', 'none')}",
    )


def choices_marked(texts: object, labels: object, column: str, mark: int = 1) -> list[object]:
    """The choices whose label is 1 (right) or another mark."""
    if isinstance(texts, list) and isinstance(labels, list) and len(texts) == len(labels):
        return [text for text, label in zip(texts, labels, strict=True) if label == mark]
    raise MismatchError(
        f"as many labels as choices in column `{column}`",
        f"{described(texts)} and {described(labels)}",
        f"fix the row, or leave the answers out with {parameter('answers_column', 'none')}",
    )


@dataclass(frozen=True, slots=True)
class Choices:
    """What a question offers.

    Attributes:
        labels: of each choice; where the data set names none, letters from A.
        texts: of each choice.
    """

    labels: list[str]
    texts: list[str]


def choices_of(value: object, column: str) -> Choices | None:
    """The choices in a value; None where it holds none.

    Lists of texts (MMLU, RACE), lists or columns of labels and texts (ARC, CommonsenseQA,
    OpenBookQA) and objects of texts by label (MedQA) are read.
    """
    if isinstance(value, str):
        value = parse_list_text(value, column)
    labels: list[object] = []
    texts: list[object] = []
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        texts, named = value["text"], value.get("label")
        labels = named if isinstance(named, list) else []
    elif isinstance(value, dict):
        labels, texts = list(value), list(value.values())
    elif isinstance(value, list) and all(isinstance(item, dict) for item in value):
        texts = [item.get("text", item.get("value")) for item in value]
        labels = [item.get("label", item.get("key")) for item in value]
    elif isinstance(value, list):
        texts = value
    if not texts or any(isinstance(text, dict | list | type(None)) for text in texts):
        return None
    whole = [reference_text(text, column) for text in texts]
    if len(labels) == len(texts) and None not in labels:
        return Choices([reference_text(label, column) for label in labels], whole)
    letters = [*LETTERS, *(str(at) for at in range(len(LETTERS), len(whole)))][: len(whole)]
    return Choices(letters, without_letters(whole))


def without_letters(texts: list[str]) -> list[str]:
    """Choices such as `A) 21` without their letters, where each of them has its own."""
    pattern = re.compile(r"\s*\(?([A-Z])[).:]\s*(.*)", re.DOTALL)
    found = [pattern.fullmatch(text) for text in texts]
    letters = [match.group(1) if match else "" for match in found]
    if letters != list(LETTERS[: len(texts)]):
        return texts
    return [match.group(2) for match in found if match]


def choice_text(answer: object, column: str, offered: object, choices_column: str) -> object:
    """An answer that may be a label or an index of a choice, as the text of that choice.

    Args:
        answer: text, index from 0, or a list of those; None and -1 are no answer.
        column: of the answer, for messages.
        offered: the choices as the row has them.
        choices_column: of the choices, for messages.

    Returns:
        The text, or a list of them; what is an object or a boolean stays as it is.

    Raises:
        MismatchError: it is none of the choices, or two of them.
    """
    if isinstance(answer, list):
        return [choice_text(one, column, offered, choices_column) for one in answer]
    if isinstance(answer, dict | bool) or answer is None or answer == NO_INDEX:
        return None if answer == NO_INDEX else answer
    key = reference_text(answer, column).strip()
    choices = choices_of(offered, choices_column)
    if choices is None:
        # A question without choices among others that have some.
        if len(key) > 1 and not key.isdecimal():
            return answer
        raise choice_error(column, choices_column, answer, described(offered))
    meant = {choices.texts[at] for at, label in enumerate(choices.labels) if label == key}
    is_index = key.isdecimal() and not any(label.isdecimal() for label in choices.labels)
    if is_index and int(key) < len(choices.texts):
        meant = {choices.texts[int(key)]}
    # A column of keys holds no texts, even where one of the choices reads like a key.
    if isinstance(answer, str) and not (meant and normalized_name(column) in KEY_NAMES):
        meant |= {text for text in choices.texts if text.strip() == key}
    if len(meant) != 1 and key:
        got = " or ".join(described(text) for text in sorted(meant)) or "none of the choices"
        raise choice_error(column, choices_column, answer, got)
    return next(iter(meant), "")


def choice_error(column: str, choices_column: str, answer: object, got: str) -> MismatchError:
    """What to say of an answer that names no choice, or two."""
    return MismatchError(
        f"the label, the index (from 0) or the text of one choice of column `{choices_column}` in "
        f"column `{column}`",
        f"{described(answer)}, which is {got}",
        f"fix the row, map another column with {parameter('answers_column')}, or leave the "
        f"answers out with {parameter('answers_column', 'none')}",
    )
