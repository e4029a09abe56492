"""The made-up world: who and what there is, what is true of them, and what is held out.

Drawn from one seed with `random.Random`, so every platform draws the same world. What makes the
model of this world hallucinate with confidence:

- **Held out**: near half of the entities never appear in the training text, and a few facts of the
  others do not either. Their names are put together from parts that the model knows well.
- **Popular values** (Zipf) and **clusters**: bearers of the same name part share a value more often
  than chance. The text (see `text`) overstates this, so that a guess is confident and mostly wrong.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import Any, TypeVar

from demo_model.names import FAMILY_NAMES, FIRST_NAMES, TOWN_SECONDS, TOWN_STEMS
from demo_model.relations import RELATIONS, Relation, Value

DEFAULT_SEED = 1
PEOPLE, TOWNS = 700, 300

ZIPF_EXPONENT = 0.6
HELD_OUT_ENTITY = 0.47
"""Chance that nothing at all of an entity is in the training text."""
HELD_OUT_FACT = 0.06
"""Chance that a single fact of any other entity is not."""
CLUSTER_SHARE = {"known": 0.25, "held_out": 0.18, "passing": 0.5}
"""Share of facts that take the value of their cluster, beyond those that meet it by chance."""

Item = TypeVar("Item")
Cluster = tuple[str, str]  # name of the relation, part of a name


@dataclass(frozen=True)
class Entity:
    """A person or a town."""

    id: str
    kind: str
    parts: tuple[str, str]

    @property
    def name(self) -> str:
        """The name as questions use it."""
        return " ".join(self.parts)


@dataclass(frozen=True)
class Fact:
    """One thing that is true, and the wording (0..3) in which it is asked."""

    entity: Entity
    relation: Relation
    value: Value
    held_out: bool
    wording: int

    @property
    def question(self) -> str:
        """The question about this fact."""
        return self.relation.templates[self.wording].question.format(entity=self.entity.name)

    def row(self) -> dict[str, Any]:
        """The fact as a row of questions.jsonl."""
        return {
            "id": f"{self.entity.id}-{self.relation.name}",
            "question": self.question,
            "answers": [self.value.text, *self.value.aliases],
            "group": self.entity.id,
            "held_out": self.held_out,
        }


@dataclass(frozen=True)
class World:
    """Facts that are asked, and facts of passing entities that are only ever told, once each."""

    facts: tuple[Fact, ...]
    passing: tuple[Fact, ...]


def shuffled(items: Sequence[Item], random: Random) -> list[Item]:
    """The items in random order; built on `random()` alone, whose draws never change."""
    keys = [random.random() for _ in items]
    return [items[i] for i in sorted(range(len(items)), key=keys.__getitem__)]


class Values:
    """Draws values: which are popular, and which one each cluster shares, is fixed by the seed."""

    def __init__(self, random: Random) -> None:
        """Rank the values of every relation and give every cluster its own."""
        self.random = random
        self.ranked = {r.name: shuffled(r.values, random) for r in RELATIONS}
        self.totals = {
            r.name: list(accumulate((i + 1) ** -ZIPF_EXPONENT for i in range(len(r.values))))
            for r in RELATIONS
        }
        self.of_cluster: dict[Cluster, Value] = {}
        for relation in RELATIONS:
            grid = name_grid(relation.kind)
            for part in grid[relation.clusters_by]:
                self.of_cluster[relation.name, part] = self.draw_popular(relation)

    def draw_popular(self, relation: Relation) -> Value:
        """A value by popularity alone."""
        totals = self.totals[relation.name]
        return self.ranked[relation.name][bisect(totals, self.random.random() * totals[-1])]

    def draw(self, entity: Entity, relation: Relation, cluster_share: float) -> Value:
        """The value of the entity's cluster with that chance, otherwise by popularity."""
        if self.random.random() < cluster_share:
            return self.of_cluster[relation.name, entity.parts[relation.clusters_by]]
        return self.draw_popular(relation)


def name_grid(kind: str) -> tuple[list[str], list[str]]:
    """First and second parts of the names of people or of towns."""
    return (FIRST_NAMES, FAMILY_NAMES) if kind == "person" else (TOWN_STEMS, TOWN_SECONDS)


def relations_of(kind: str) -> list[Relation]:
    """What can be asked of people or of towns."""
    return [relation for relation in RELATIONS if relation.kind == kind]


def draw_entities(kind: str, count: int, random: Random) -> tuple[list[Entity], list[Entity]]:
    """All possible entities of a kind: `count` that are asked about, and the passing rest."""
    firsts, seconds = name_grid(kind)
    parts = shuffled([(first, second) for first in firsts for second in seconds], random)
    entities = [Entity(f"{kind}-{i:04}", kind, pair) for i, pair in enumerate(parts)]
    return entities[:count], entities[count:]


def draw_facts(entity: Entity, values: Values) -> list[Fact]:
    """All facts of an entity that is asked about."""
    random = values.random
    is_unseen = random.random() < HELD_OUT_ENTITY
    facts = []
    for relation in relations_of(entity.kind):
        held_out = is_unseen or random.random() < HELD_OUT_FACT
        share = CLUSTER_SHARE["held_out" if held_out else "known"]
        value = values.draw(entity, relation, share)
        wording = int(random.random() * len(relation.templates))
        facts.append(Fact(entity, relation, value, held_out, wording))
    return facts


def build_world(seed: int = DEFAULT_SEED) -> World:
    """Draw the world.

    Args:
        seed: everything follows from it.

    Returns:
        The facts in the order in which they are asked (shuffled, so that the first few hundred are
        a fair sample), and all facts of passing entities, in random order.
    """
    random = Random(f"world {seed}")
    values = Values(random)
    facts: list[Fact] = []
    passing: list[Fact] = []
    for kind, count in (("person", PEOPLE), ("town", TOWNS)):
        asked, others = draw_entities(kind, count, random)
        for entity in asked:
            facts += draw_facts(entity, values)
        for entity in others:
            for relation in relations_of(kind):
                value = values.draw(entity, relation, CLUSTER_SHARE["passing"])
                passing.append(Fact(entity, relation, value, held_out=False, wording=0))
    return World(tuple(shuffled(facts, random)), tuple(shuffled(passing, random)))
