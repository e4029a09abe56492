"""Which column of a source holds the question, the answers and so on, found by its name.

Names are compared without case, spaces, dots and underscores: `Best Answer`, `best_answer` and
`bestAnswer` are one. Values are never used to guess: a data set that is not known here has no
right answers until `--answers-column` names them, and a warning says so.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from hallutrace.option_names import parameter
from hallutrace.questions.cell_values import name_list
from hallutrace.questions.rows import OFF, Columns, MismatchError

CANDIDATES: dict[str, tuple[str, ...]] = {
    "question": ("question", "query", "prompt", "question_stem"),
    "id": ("id", "question_id", "qid", "query_id"),
    "context": ("context", "knowledge", "passage"),
    "group": ("group",),
    "response": ("response", "responses", "completion", "output", "generated_answer"),
    "spans": ("spans", "hallucination_spans"),
    "model": ("model", "generator", "model_name"),
    "temperature": ("temperature",),
    "incorrect answers": (
        "incorrect_answers",
        "incorrect_answer",
        "wrong_answers",
        "wrong_answer",
        "false_answers",
        "hallucinated_answer",
        "distractors",
    ),
}
"""Names of columns that are understood without options, best first."""

RIGHT = (
    "right_answer",
    "right_answers",
    "correct_answer",
    "correct_answers",
    "reference_answer",
    "reference_answers",
    "gold_answer",
    "gold_answers",
    "golden_answers",
    "ground_truth",
    "ground_truths",
    "possible_answers",
)
"""Columns of right answers, whatever other columns there are."""

ANSWERS = ("answers", "answer")
"""Columns of right answers; `answer` unless another column says whether it is right."""

REFERENCES = ("references", "reference")
"""Columns of right answers where no other is: beside an `answer` they may be sources."""

OF_RESPONSES = ("response", "spans", "model", "temperature")
"""Fields of sources with responses alone."""

VERDICTS = (
    "hallucination",
    "hallucinated",
    "has_hallucination",
    "is_hallucination",
    "is_hallucinated",
    "hallucination_label",
    "label",
    "labels",
    "correct",
    "is_correct",
    "correctness",
    "verdict",
)
"""Columns that say whether `answer` is right: HaluEval's samples, HaluBench, WikiQA."""

CHOICES = ("choices", "options")
KEYS = ("answer_key", "answer_idx", "answer_index", "correct_option", "correct", "gold")
"""Which of the choices is right: a label or an index."""

TARGETS = ("mc1_targets", "mc2_targets")
"""TruthfulQA's choices, each with 1 where it is right."""


@dataclass(frozen=True, slots=True)
class AnswerColumns:
    """Where the right answers of a row are.

    Attributes:
        columns: that hold them; none where they are turned off.
        joined: whether they are taken from all of these, else from the first that has a value.
        choices: column of choices, of which the answer may be a label or an index.
        split: column whose text holds several answers with semicolons between them, as in the
            file that TruthfulQA publishes.
        judged: a column of answers that are not all right, and the column that says which are.
    """

    columns: tuple[str, ...]
    joined: bool = False
    choices: str | None = None
    split: str | None = None
    judged: tuple[str, str] | None = None

    def names(self) -> frozenset[str]:
        """Every column that may be read."""
        return frozenset((*self.columns, *([self.choices] if self.choices else [])))


@dataclass(frozen=True, slots=True)
class ColumnLayout:
    """The columns of a source.

    Attributes:
        fields: by field, columns to be tried in order: the first with a value counts.
        answers: where the right answers are.
        present: the columns that the first rows have.
    """

    fields: dict[str, tuple[str, ...]]
    answers: AnswerColumns
    present: tuple[str, ...]

    def names(self) -> frozenset[str]:
        """Every column that may be read."""
        fields = (name for names in self.fields.values() for name in names)
        return frozenset(fields) | self.answers.names()


def normalized_name(name: str) -> str:
    """A column's name without what people write in different ways.

    Examples:
        >>> normalized_name("Best Answer") == normalized_name("best_answer")
        True
    """
    return re.sub(r"[\W_]+", "", name.casefold())


class PresentColumns:
    """The columns that the first rows have.

    Args:
        columns: their names.
        filled: those that hold a value in one of these rows.
        mapped: those that the user named for a field; no other field is found in them.
    """

    def __init__(
        self, columns: Iterable[str], filled: Collection[str], mapped: Collection[str]
    ) -> None:
        self.columns, self._filled = list(dict.fromkeys(columns)), filled
        self._mapped = mapped
        self._by_name: dict[str, list[str]] = {}
        for name in self.columns:
            if name not in mapped:
                self._by_name.setdefault(normalized_name(name), []).append(name)

    def later(self, here: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
        """Columns that are here, then all names that later rows may have."""
        return tuple(name for name in dict.fromkeys((*here, *names)) if name not in self._mapped)

    def find(self, names: Iterable[str], field: str, filled: bool = False) -> list[str]:
        """The columns of these names, in their order.

        Args:
            names: candidates.
            field: what they are for, in messages.
            filled: leave out columns without a value.

        Raises:
            MismatchError: two columns differ in case or underscores alone.
        """
        found = []
        for candidate in names:
            same = self._by_name.get(normalized_name(candidate), [])
            same = [name for name in same if name in self._filled] if filled else same
            same = [name for name in same if name == candidate] or same
            if len(same) > 1:
                raise MismatchError(
                    f"one column `{candidate}`",
                    name_list(same),
                    f"name the one that counts with {parameter(f'{field}_column')}",
                )
            found += same
        return found


def find_columns(
    mapped: Columns, columns: Iterable[str], filled: Collection[str], responses: bool
) -> ColumnLayout:
    """Decide which columns are read, from the first rows of a source.

    Args:
        mapped: columns that the user named.
        columns: those that the first rows have.
        filled: those of them that hold a value in one of these rows.
        responses: whether the source must have responses.

    Returns:
        The layout. A field that the first rows lack is looked for by all its names later on.

    Raises:
        MismatchError: a mapped column is missing or mapped twice, there is no question or
            response, or two columns have one name.
    """
    present = PresentColumns(columns, filled, mapped.given().values())
    if mapped.answers == mapped.response not in (None, OFF):
        raise MismatchError(
            "right answers and responses in columns of their own",
            f"`{mapped.answers}` for both",
            f"change {parameter('answers_column')}, or leave the answers out with "
            f"{parameter('answers_column', 'none')}",
        )
    for field, name in mapped.given().items():
        if name != OFF and name not in present.columns:
            raise MismatchError(
                f"the column `{name}`, as {parameter(f'{field}_column')} says",
                f"the columns {name_list(present.columns)}",
                f"name one of those with {parameter(f'{field}_column')}",
            )
    fields = {
        field: _columns_of(field, mapped, present)
        for field in CANDIDATES
        if responses or field not in OF_RESPONSES
    }
    return ColumnLayout(fields, _answer_columns(mapped, present), tuple(present.columns))


def _columns_of(field: str, mapped: Columns, present: PresentColumns) -> tuple[str, ...]:
    """The columns of one field."""
    name = getattr(mapped, field, None)
    if name is not None:
        return () if name == OFF else (name,)
    candidates = CANDIDATES[field]
    here = present.find(candidates, field)
    if not here and field == "response" and _verdict(present):
        # An answer with a verdict is a response that was judged.
        here = present.find(["answer"], field)
    if not here and field in ("question", "response"):
        raise MismatchError(
            f"a column {' or '.join(f'`{known}`' for known in candidates)}",
            f"the columns {name_list(present.columns)}",
            f"name one of those with {parameter(f'{field}_column')}",
        )
    best = [known for known in here if known in present.find(candidates, field, filled=True)]
    return tuple((best or here)[:1]) or present.later((), candidates)


def _answer_columns(mapped: Columns, present: PresentColumns) -> AnswerColumns:
    """Where the right answers are; the kinds of data sets in the order of how sure they are."""

    def filled(*names: str) -> list[str]:
        return present.find(names, "answers", filled=True)

    choices = next(iter(filled(*CHOICES)), None)
    best, correct = filled("best_answer"), filled("correct_answers")
    split = correct[0] if best and correct else None
    if mapped.answers is not None:
        named = () if mapped.answers == OFF else (mapped.answers,)
        return AnswerColumns(named, choices=choices if named else None, split=split)
    if split:
        return AnswerColumns((best[0], split), joined=True, split=split)
    if right := filled(*RIGHT, "best_answer"):
        return AnswerColumns(tuple(right[:1]), choices=choices)
    if targets := filled(*TARGETS):
        return AnswerColumns(tuple(targets), joined=True)
    if choices and (keys := filled(*KEYS)):
        return AnswerColumns(tuple(keys[:1]), choices=choices)
    if choices and (label := filled(*ANSWERS, "label")):
        return AnswerColumns(tuple(label[:1]), choices=choices)
    answers, verdict = filled(*ANSWERS), _verdict(present)
    judged = None
    if answers and verdict and normalized_name(answers[0]) == "answer":
        judged, answers = (answers[0], verdict), []
    if answers:
        aliases = filled("answer_aliases")
        return AnswerColumns((answers[0], *aliases), joined=bool(aliases))
    if others := filled(*REFERENCES, "answers_spans"):
        return AnswerColumns(tuple(others[:1]), judged=judged)
    if len(fact := filled("subj", "prop", "obj")) == 3:
        return AnswerColumns((fact[2],), judged=judged)
    # Nothing yet: later rows may have what the first ones lack.
    names = (*RIGHT, *(REFERENCES if judged else (*ANSWERS, *REFERENCES)))
    return AnswerColumns(present.later(present.find(names, "answers"), names), judged=judged)


def _verdict(present: PresentColumns) -> str | None:
    """The column that judges `answer`; none where it may judge a response beside it."""
    if present.find(CANDIDATES["response"], "response", filled=True):
        return None
    return next(iter(present.find(VERDICTS, "answers", filled=True)), None)
