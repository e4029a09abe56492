"""Data sets as they are published, and what is understood of them: columns and right answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hallutrace.errors import InputError
from hallutrace.questions import BadRow, Columns, Question, open_questions, open_responses
from hallutrace.questions.cell_values import number_text
from hallutrace.questions.lists_in_text import parse_list_text
from hallutrace.questions.rows import BY_SCHEMA, MismatchError

OFF = "none"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(rows: Sequence[dict[str, Any]], name: str = "q.jsonl") -> str:
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    Path(name).write_text("".join(lines), encoding="utf-8")
    return name


def write_csv(rows: Sequence[dict[str, Any]], name: str = "q.csv") -> str:
    pandas = pytest.importorskip("pandas")
    pandas.DataFrame(rows).to_csv(name, index=False)
    return name


def only(row: dict[str, Any], columns: Columns = BY_SCHEMA) -> Question:
    """The question in a file with one row."""
    (found,) = open_questions(write([row]), columns)
    assert isinstance(found, Question), found
    return found


# Right answers ------------------------------------------------------------------------------------

PUBLISHED: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "HaluEval qa": (
        {"knowledge": "k", "right_answer": "r", "hallucinated_answer": "h"},
        ("r",),
    ),
    "HaluEval qa_samples": ({"knowledge": "k", "answer": "h", "hallucination": "yes"}, ()),
    "HaluBench": ({"id": "1", "passage": "p", "answer": "h", "label": "FAIL"}, ()),
    "WikiQA": ({"question_id": "Q1", "document_title": "t", "answer": "h", "label": 0}, ()),
    "judged by a person": ({"answer": "h", "is_correct": False}, ()),
    "a response that is judged": ({"answer": "r", "response": "h", "label": 1}, ("r",)),
    "right answer beside a judged one": (
        {"answer": "h", "right_answer": "r", "hallucination": "yes"},
        ("r",),
    ),
    "TruthfulQA generation": (
        {
            "type": "Adversarial",
            "best_answer": "b",
            "correct_answers": ["b", "c; d"],
            "incorrect_answers": ["w"],
        },
        ("b", "c; d"),
    ),
    "TruthfulQA as published": (
        {
            "Type": "Adversarial",
            "Best Answer": "b; c",
            "Correct Answers": "b; c",
            "Incorrect Answers": "w; v",
        },
        ("b; c", "b", "c"),
    ),
    "TruthfulQA multiple choice": (
        {
            "mc1_targets": {"choices": ["a", "w"], "labels": [1, 0]},
            "mc2_targets": {"choices": ["a", "b", "w"], "labels": [1, 1, 0]},
        },
        ("a", "b"),
    ),
    "ARC": (
        {"id": "M1", "choices": {"text": ["w", "r"], "label": ["A", "B"]}, "answerKey": "B"},
        ("r",),
    ),
    "ARC with numbers": (
        {"id": "M1", "choices": {"text": ["r", "w"], "label": ["1", "2"]}, "answerKey": "1"},
        ("r",),
    ),
    "ARC whose choices read like keys": (
        {"choices": {"text": ["K", "A"], "label": ["A", "B"]}, "answerKey": "A"},
        ("K",),
    ),
    "CommonsenseQA": (
        {
            "question_concept": "c",
            "choices": {"label": ["A", "B"], "text": ["w", "r"]},
            "answerKey": "B",
        },
        ("r",),
    ),
    "CommonsenseQA test": (
        {"choices": {"label": ["A", "B"], "text": ["w", "r"]}, "answerKey": ""},
        (),
    ),
    "MMLU": ({"subject": "s", "choices": ["w", "0", "r"], "answer": 2}, ("r",)),
    "MMLU with letters": ({"Choices": ["w", "v", "r"], "Answer": "C"}, ("r",)),
    "MMLU without the answer": ({"choices": ["w", "v"], "answer": -1}, ()),
    "MMLU-Pro": ({"options": ["w", "r"], "answer": "B", "answer_index": 1}, ("r",)),
    "MedQA": (
        {"options": {"A": "w", "B": "r"}, "answer": "r", "answer_idx": "B"},
        ("r",),
    ),
    "AQuA": ({"options": ["A)21", "B)23"], "correct": "B"}, ("23",)),
    "RACE": ({"article": "a", "options": ["r", "w"], "answer": "A"}, ("r",)),
    "choices as text": ({"choices": "['w' 'r']", "answer": "1"}, ("r",)),
    "an answer in words beside choices": (
        {"choices": ["left", "right"], "answer": "right"},
        ("right",),
    ),
    "PopQA": (
        {"id": 1, "subj": "s", "prop": "p", "obj": "r", "possible_answers": '["r", "rr"]'},
        ("r", "rr"),
    ),
    "PopQA without lists": ({"subj": "s", "prop": "p", "obj": "r"}, ("r",)),
    "SQuAD": ({"answers": {"text": ["a", "b"], "answer_start": [1, 2]}}, ("a", "b")),
    "SQuAD 2": ({"answers": {"text": [], "answer_start": []}}, ()),
    "TriviaQA": ({"answer": {"value": "a", "aliases": ["b"], "type": "x"}}, ("a", "b")),
    "NQ-open": ({"answer": ["a", "b"]}, ("a", "b")),
    "HotpotQA": ({"answer": "a", "type": "bridge", "level": "hard"}, ("a",)),
    "MuSiQue": ({"answer": "a", "answer_aliases": ["b"]}, ("a", "b")),
    "BoolQ": ({"passage": "p", "answer": True}, ("yes",)),
    "SciQ": (
        {"distractor1": "w", "distractor2": "v", "correct_answer": "r", "support": "s"},
        ("r",),
    ),
    "WebQuestions": ({"url": "u", "answers": ["a", "b"]}, ("a", "b")),
    "DROP": (
        {"answers_spans": {"spans": ["4", "four"], "types": ["number", "span"]}},
        ("4", "four"),
    ),
    "NarrativeQA": ({"answers": [{"text": "a", "tokens": ["a"]}, {"text": "b"}]}, ("a", "b")),
    "GSM8K": ({"answer": "2 and 2.\nSo\n#### 4"}, ("4",)),
    "FlashRAG": ({"golden_answers": ["a", "b"]}, ("a", "b")),
    "sources beside the answer": ({"answer": "a", "references": ["http://b"]}, ("a",)),
    "references alone": ({"references": ["a"]}, ("a",)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_right_answers_of_data_sets(name: str) -> None:
    row, references = PUBLISHED[name]
    assert only({"question": "who?", **row}).references == references


def test_openbookqa_and_questions_within_objects() -> None:
    choices = {"text": ["r", "w"], "label": ["A", "B"]}
    row = {"question_stem": "who?", "choices": choices, "answerKey": "A"}
    assert (only(row).question, only(row).references) == ("who?", ("r",))
    assert only({"question": {"stem": "who?", "choices": []}}).question == "who?"
    assert only({"question": {"text": "who?", "tokens": ["who"]}}).question == "who?"


@pytest.mark.parametrize(
    ("row", "got"),
    [
        ({"choices": ["a", "b"], "answer": 2}, "the number 2, which is none of the choices"),
        ({"choices": ["a", "b"], "answer": "C"}, "the text 'C', which is none of the choices"),
        (
            {"choices": ["1", "2"], "answer": "1"},
            "the text '1', which is the text '1' or the text '2'",
        ),
        ({"choices": ["a", "b"], "answer": "c d"}, "the text 'c d', which is none of the choices"),
        ({"choices": "a or b", "answer": "B"}, "the text 'B', which is the text 'a or b'"),
    ],
)
def test_answers_that_choose_nothing_are_named(row: dict[str, Any], got: str) -> None:
    write([{"question": "?", "choices": ["a", "b"], "answer": 0}, {"question": "who?", **row}])
    first, second = open_questions("q.jsonl")
    assert isinstance(first, Question) and first.references == ("a",)
    assert isinstance(second, BadRow)
    assert second.error == (
        "Expected the label, the index (from 0) or the text of one choice of column `choices` in "
        f"column `answer`, got {got}, in q.jsonl, line 2 - fix the row, map another column with "
        "`answers_column`, or leave the answers out with `answers_column='none'`"
    )


def test_class_labels_are_their_names(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "question": datasets.Value("string"),
            "choices": datasets.Sequence(datasets.Value("string")),
            "answer": datasets.ClassLabel(names=["A", "B", "C"]),
        }
    )
    rows = {"question": ["a", "b"], "choices": [["1", "2", "0"]] * 2, "answer": [2, -1]}
    Path("data").mkdir()
    written = datasets.Dataset.from_dict(rows, features=features)
    written.to_parquet("data/test.parquet")
    # As a file the numbers have to be read as the names that `datasets` wrote beside them.
    for spec in ("data/test.parquet", "hf:./data/default/test"):
        assert [q.references for q in open_questions(spec)] == [("0",), ()]


def test_classes_without_choices(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "question": datasets.Value("string"),
            "answer": datasets.ClassLabel(names=["Mercury", "Venus"]),
        }
    )
    written = datasets.Dataset.from_dict({"question": ["a"], "answer": [1]}, features=features)
    written.to_parquet("planets.parquet")
    (found,) = open_questions("planets.parquet")
    assert isinstance(found, Question) and found.references == ("Venus",)


# Numbers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1969, "1969"),
        (1969.0, "1969"),
        (-0.0, "0"),
        (2.5, "2.5"),
        (10**40, "1" + "0" * 40),
        (1e22, "1e+22"),
        (0.10000000149011612, "0.1"),
        (0.1, "0.1"),
        (Decimal("1969.00"), "1969"),
        (Decimal("2.50"), "2.50"),
        (
            Decimal("12345678901234567890123456789012345678"),
            "12345678901234567890123456789012345678",
        ),
    ],
)
def test_numbers_as_text(number: Any, text: str) -> None:
    assert number_text(number) == text


def test_whole_numbers_of_parquet_with_gaps() -> None:
    pandas = pytest.importorskip("pandas")
    rows = {"id": [7, None, 9], "question": ["a", "b", "c"], "answer": [1969, None, 3]}
    pandas.DataFrame(rows).to_parquet("q.parquet")
    found = list(open_questions("q.parquet"))
    assert [q.references for q in found] == [("1969",), (), ("3",)]
    assert [found[0].id, found[2].id] == ["7", "9"]


def test_whole_numbers_that_pandas_wrote_as_floats() -> None:
    rows = {"id": [7, None, 9], "question": ["a", "b", "c"], "answer": [1969, 4, None]}
    text = Path(write_csv(rows)).read_text()  # type: ignore[arg-type]
    assert "7.0,a,1969.0" in text
    source = open_questions("q.csv")
    found = list(source)
    assert [q.references for q in found] == [("1969",), ("4",), ()]
    assert [found[0].id, found[2].id] == ["7", "9"]
    assert "1969.0 in `answer`, `id` as 1969" in source.describe()[0]


def test_cells_stay_as_they_are_written_elsewhere() -> None:
    Path("q.csv").write_text("question,answer\na,2.0\nb,2.5\nc,two\n")
    assert [q.references for q in open_questions("q.csv")] == [("2.0",), ("2.5",), ("two",)]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_not_finite_are_bad_rows(number: str) -> None:
    Path("q.jsonl").write_text(f'{{"question": "a"}}\n{{"question": "b", "answer": {number}}}\n')
    _, second = open_questions("q.jsonl")
    assert isinstance(second, BadRow) and "got the number" in second.error


# Lists as text ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '["a", "b\'s"]',
        "['a', \"b's\"]",
        "['a' \"b's\"]",
        "['a'\n \"b's\"]",
        " ['a', None, \"b's\"] ",
        '{"text": ["a", "b\'s"]}',
        "{'text': ['a', \"b's\"], 'answer_start': [1, 2]}",
    ],
)
def test_lists_as_text_whatever_the_file(text: str) -> None:
    pandas = pytest.importorskip("pandas")
    rows = [{"question": "who?", "answers": text}]
    frame = pandas.DataFrame(rows)
    frame.to_csv("q.csv", index=False)
    frame.to_csv("q.tsv", index=False, sep="\t")
    frame.to_parquet("q.parquet")
    Path("q.json").write_text(json.dumps(rows))
    write(rows)
    for name in ("q.csv", "q.tsv", "q.parquet", "q.json", "q.jsonl"):
        (found,) = open_questions(name)
        assert isinstance(found, Question)
        assert found.references == ("a", "b's"), name


def test_lists_that_numpy_printed_in_a_csv() -> None:
    """What pandas writes of a Parquet file with lists: without commas, as arrays print."""
    pandas = pytest.importorskip("pandas")
    pandas.DataFrame({"question": ["who?"], "answers": [["New York", "it's NY"]]}).to_parquet("p")
    pandas.read_parquet("p").to_csv("q.csv", index=False)
    assert "['New York' \"it's NY\"]" in Path("q.csv").read_text().replace('""', '"')
    (found,) = open_questions("q.csv")
    assert isinstance(found, Question) and found.references == ("New York", "it's NY")


@pytest.mark.parametrize(
    "text", ["[a, b]", "['a", "['a', 'b' ...", '{"text": ["a"', "[array(['a'], dtype=object)]"]
)
def test_text_between_brackets_that_is_no_list_is_named(text: str) -> None:
    write([{"question": "a", "answer": "x"}, {"question": "b", "answer": text}])
    _, second = open_questions("q.jsonl")
    assert isinstance(second, BadRow)
    assert second.error.startswith(
        f"Expected a list or an object in column `answer`, as the text begins with `{text[0]}`, got"
    )


@pytest.mark.parametrize("text", ["[1] says so", "{x} of y", "[sic", "a [b]", "[", "(a, b)"])
def test_texts_with_brackets_stay_texts(text: str) -> None:
    assert only({"question": "a", "answer": text}).references == (text,)


printable = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@settings(deadline=None)
@given(st.lists(printable, min_size=1, max_size=5))
def test_lists_survive_being_printed(texts: list[str]) -> None:
    numpy = pytest.importorskip("numpy")
    for printed in (json.dumps(texts), repr(texts), str(numpy.array(texts, dtype=object))):
        assert parse_list_text(printed, "answers") == texts


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_a_text_a_list_or_named(text: str) -> None:
    try:
        value = parse_list_text(text, "answers")
    except MismatchError:
        return
    assert value == text or isinstance(value, list | dict)


# Contexts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("context", "text"),
    [
        ("c", "c"),
        (
            {"title": ["T", "U"], "sentences": [["One.", " Two."], ["Three."]]},
            "T: One. Two.\n\nU: Three.",
        ),
        ([["T", ["One.", " Two."]], ["U", ["Three."]]], "T: One. Two.\n\nU: Three."),
        (["One.", "Two."], "One.\n\nTwo."),
        ([{"title": "T", "text": "One."}, {"text": "Two."}], "T: One.\n\nTwo."),
        ({"contexts": ["One.", "Two."], "labels": ["A", "B"]}, "One.\n\nTwo."),
        ({"title": [], "sentences": []}, None),
        ([], None),
        (" ", None),
        (None, None),
    ],
)
def test_contexts(context: Any, text: str | None) -> None:
    assert only({"question": "who?", "context": context}).context == text


@pytest.mark.parametrize(
    "context", [{"a": "b"}, 5, ["a", 5], [["T", 5]], {"title": ["T"], "sentences": []}]
)
def test_contexts_that_cannot_be_read_leave_a_way_out(context: Any) -> None:
    row = {"question": "who?", "context": context}
    with pytest.raises(InputError, match="`context_column='none'`"):
        open_questions(write([row]))
    assert only(row, Columns(context=OFF)).context is None


# Columns ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Question", "QUESTION", "question ", "Question_"])
def test_case_and_spaces_of_names_do_not_matter(name: str) -> None:
    row = {name: "who?", "Right Answer": "r", "questionId": 3, "Passage": "p"}
    assert only(row) == Question("3", "who?", ("r",), "p", 0, "3")


def test_columns_that_differ_in_case_alone() -> None:
    assert only({"Question": "no", "question": "who?"}).question == "who?"
    with pytest.raises(InputError) as caught:
        open_questions(write([{"Question": "a", "QUESTION": "b"}]))
    assert str(caught.value) == (
        "Expected one column `question`, got `Question`, `QUESTION`, in q.jsonl - name the one "
        "that counts with `question_column`"
    )


def test_a_column_that_is_mapped_is_nothing_else() -> None:
    """Responses that are their own right answers would all be right."""
    write([{"question": "who?", "answer": "me", "context": "c"}])
    (said,) = open_responses("q.jsonl", Columns(response="answer"))
    assert isinstance(said, Question)
    assert (said.references, said.responses) == ((), ("me",))
    (found,) = open_questions("q.jsonl", Columns(answers="context"))
    assert isinstance(found, Question)
    assert (found.references, found.context) == (("c",), None)
    with pytest.raises(InputError, match="got `answer` for both, in"):
        open_responses("q.jsonl", Columns(response="answer", answers="answer"))


FULL = {
    "id": "i",
    "question": "who?",
    "answers": ["a"],
    "context": "c",
    "group": "g",
}


@pytest.mark.parametrize(
    ("field", "left"),
    [
        ("answers", Question("i", "who?", (), "c", 0, "g")),
        ("context", Question("i", "who?", ("a",), None, 0, "g")),
        ("group", Question("i", "who?", ("a",), "c", 0, "i")),
    ],
)
def test_any_column_can_be_turned_off(field: str, left: Question) -> None:
    columns = Columns(**{field: OFF})
    assert only(FULL, columns) == left
    identity = open_questions(write([FULL]), columns).identity()
    assert identity["columns"] == {field: "none"}


def test_ids_turned_off_are_made_of_the_content() -> None:
    assert only(FULL, Columns(id=OFF)).id == only({"question": "who?", "context": "c"}).id


def test_default_ids_are_the_same_whatever_else_is_in_the_file() -> None:
    first = only({"question": "who?", "answer": "a"}).id
    write([{"question": "other?"}, {"question": "who?", "answer": "b", "extra": 1}])
    assert list(open_questions("q.jsonl"))[1].id == first == "q36471f120f9d2fc3"
    assert only({"question": "who?", "context": "c"}).id != first


@pytest.mark.parametrize(("one", "other"), [(1, "1"), (1, 1.0), ("1", 1.0), (2**60, str(2**60))])
def test_ids_that_are_one_as_text_contradict(one: Any, other: Any) -> None:
    write([{"id": one, "question": "a"}, {"id": other, "question": "b"}])
    first, second = open_questions("q.jsonl")
    assert isinstance(first, Question) and first.id == str(one)
    assert isinstance(second, BadRow) and "one content for the id" in second.error


@pytest.mark.parametrize("name", [1.5, 2.0**60, float("nan"), ["a"], True, "x" * 501])
def test_ids_that_are_none_are_named(name: Any) -> None:
    write([{"id": "a", "question": "a"}, {"id": name, "question": "b"}])
    _, second = open_questions("q.jsonl")
    assert isinstance(second, BadRow)
    assert second.error.endswith("or leave it out with `id_column='none'`")


# What is said -------------------------------------------------------------------------------------


def test_what_was_understood() -> None:
    rows = [{**FULL, "id": "a", "extra": 1, "url": "u"}, {**FULL, "id": "b", "answers": []}]
    assert open_questions(write(rows)).describe() == [
        "Read from q.jsonl: question from `question`; id from `id`; context from `context`; "
        "group from `group`; right answers from `answers`; not read: `extra`, `url`.",
        "Right answers in 1 of the first 2 rows.",
    ]


def test_no_right_answers_are_a_warning() -> None:
    assert open_questions(write([{"question": "who?", "gold_text": "a"}])).describe() == [
        "Read from q.jsonl: question from `question`; ids made of question and context; "
        "not read: `gold_text`.",
        "Warning: no right answers in the first 1 rows of q.jsonl, so a person or a judge has to "
        "label what is answered. Name their column with `answers_column`, or say that there are "
        "none with `answers_column='none'`.",
    ]
    source = open_questions("q.jsonl", Columns(answers=OFF))
    assert source.describe()[1] == "No right answers, as `answers_column='none'` says."


def test_judged_answers_are_responses() -> None:
    row = {"knowledge": "k", "question": "who?", "answer": "h", "hallucination": "yes"}
    said = open_questions(write([row])).describe()[1]
    assert (
        "`answer` is not taken for one, as `hallucination` says whether it is right: replay it "
        "with `responses`, or take it all the same with `answers_column='answer'`."
    ) in said
    source = open_responses("q.jsonl")
    (found,) = source
    assert isinstance(found, Question)
    assert (found.references, found.responses) == ((), ("h",))
    assert "response from `answer`" in source.describe()[0]
    assert only(row, Columns(answers="answer")).references == ("h",)


@pytest.mark.parametrize(
    ("answers", "note"),
    [
        ([True, False], "All are yes or no (true and false are read so)."),
        (["True", "false"], "All are the words true or false: ask for these with `prompt`."),
        (["yes", "Paris"], ""),
    ],
)
def test_right_answers_of_two_words(answers: list[Any], note: str) -> None:
    rows = [{"question": f"{at}?", "answer": answer} for at, answer in enumerate(answers)]
    said = open_questions(write(rows)).describe()[1]
    assert said == f"Right answers in 2 of the first 2 rows. {note}".strip()


def test_responses_of_a_csv_that_python_printed() -> None:
    rows = [{"question": "who?", "response": ["me", "you"]}]
    (found,) = open_responses(write_csv(rows))
    assert isinstance(found, Question) and found.responses == ("me", "you")
