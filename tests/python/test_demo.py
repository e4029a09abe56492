"""The small model in the package: what ships, and that it is as good and as wrong as it claims."""

from __future__ import annotations

import json
from collections import Counter
from random import Random
from typing import Any

import pytest
from transformers import AutoTokenizer

from demo_model.ask import Answer, ask_all
from demo_model.measure import outside
from demo_model.relations import RELATIONS, Value
from demo_model.world import build_world
from hallutrace.demo import (
    FIGURES_FILE,
    MODEL_FOLDER,
    PROMPT_TEMPLATE,
    QUESTIONS_FILE,
    read_questions,
)
from hallutrace.text_measures import contains

FOUR_MEGABYTES = 4_000_000


@pytest.fixture(scope="module")
def answers() -> list[Answer]:
    rows = Random(0).sample(read_questions(), 300)
    return ask_all(MODEL_FOLDER, rows)


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    return json.loads(FIGURES_FILE.read_text(encoding="utf-8"))


def test_model_and_tokenizer_are_small() -> None:
    assert sum(file.stat().st_size for file in MODEL_FOLDER.iterdir()) <= FOUR_MEGABYTES


def test_tokenizer_adds_nothing_and_loses_nothing() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL_FOLDER)
    for row in read_questions(50):
        prompt = PROMPT_TEMPLATE.format(question=row["question"])
        assert tokenizer.decode(tokenizer(prompt).input_ids) == prompt
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<pad>", "<eos>")


def test_configuration_says_how_to_stop() -> None:
    for name in ("config.json", "generation_config.json"):
        config = json.loads((MODEL_FOLDER / name).read_text(encoding="utf-8"))
        assert (config["pad_token_id"], config["eos_token_id"]) == (0, 1)
    assert json.loads((MODEL_FOLDER / "config.json").read_text())["dtype"] == "float16"


def test_questions_are_many_and_balanced() -> None:
    rows = read_questions()
    assert len(rows) >= 3000
    assert len({row["id"] for row in rows}) == len({row["question"] for row in rows}) == len(rows)
    for part in (rows, read_questions(400)):
        assert 0.45 <= sum(row["held_out"] for row in part) / len(part) <= 0.55
        relations = Counter(row["id"].rsplit("-", 1)[1] for row in part)
        assert set(relations) == {relation.name for relation in RELATIONS}
        assert min(relations.values()) >= len(part) * 0.05


def test_first_questions_are_the_start_of_all() -> None:
    assert read_questions(400) == read_questions()[:400]
    assert read_questions(0) == []


def test_rows_name_their_entity() -> None:
    for row in read_questions():
        assert sorted(row) == ["answers", "group", "held_out", "id", "question"]
        assert row["id"].startswith(row["group"] + "-")
        assert row["question"].endswith("?")
        assert row["answers"]
        assert all(contains(answer, [answer]) for answer in row["answers"])


def test_world_of_the_default_seed_is_the_one_that_ships() -> None:
    assert [fact.row() for fact in build_world().facts] == read_questions()


def test_worlds_of_other_seeds_differ() -> None:
    assert build_world(2).facts != build_world(1).facts


def test_passing_entities_are_never_asked_about() -> None:
    world = build_world()
    asked = {fact.entity.name for fact in world.facts}
    assert not asked & {fact.entity.name for fact in world.passing}


def sayings(value: Value, relation: Any) -> list[str]:
    """Everything the training text can call a value."""
    return [value.say(form) for template in relation.templates for form, _ in template.forms]


@pytest.mark.parametrize("relation", RELATIONS, ids=lambda relation: relation.name)
def test_no_answer_is_right_for_another_value(relation: Any) -> None:
    for value in relation.values:
        references = [value.text, *value.aliases]
        for other in relation.values:
            for said in sayings(other, relation):
                assert contains(said, references) == (other is value), (said, references)


@pytest.mark.parametrize("relation", RELATIONS, ids=lambda relation: relation.name)
def test_shares_of_forms_add_up(relation: Any) -> None:
    for template in relation.templates:
        assert sum(share for _, share in template.forms) == pytest.approx(1.0)


def test_answers_what_it_knows_and_guesses_the_rest(answers: list[Answer]) -> None:
    def share_right(held_out: bool) -> float:
        part = [answer for answer in answers if answer.row["held_out"] == held_out]
        return sum(answer.is_right for answer in part) / len(part)

    assert share_right(held_out=False) >= 0.95
    assert share_right(held_out=True) <= 0.30


def test_answers_are_short_and_of_many_lengths(answers: list[Answer]) -> None:
    lengths = Counter(answer.length for answer in answers)
    assert set(lengths) <= set(range(1, 7))
    assert len(lengths) >= 4
    assert all(len(answer.tokens) == answer.length + 1 for answer in answers), "no <eos>"


def test_figures_are_within_their_tolerances(figures: dict[str, Any]) -> None:
    assert outside(figures) == []
    assert max(figures["hedged"].values()) <= 0.02
    assert sum(figures["questions"].values()) == len(QUESTIONS_FILE.read_text().splitlines())


def test_form_of_an_answer_does_not_tell(figures: dict[str, Any]) -> None:
    assert min(figures["leading_form"].values()) >= 0.95


def test_neither_length_nor_wording_tells_right_from_wrong(figures: dict[str, Any]) -> None:
    for name in ("answer length", "bag of question tokens"):
        assert abs(figures["auroc"][name] - 0.5) <= 0.08


def test_a_figure_outside_its_tolerance_is_named(figures: dict[str, Any]) -> None:
    worse = json.loads(json.dumps(figures))
    worse["right"]["known"] = 0.5
    assert outside(worse) == ["Expected right on known facts from 0.95 to 1.00, got 0.500"]
