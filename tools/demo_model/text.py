"""The training text: what is known is told often, what is passing is told once.

The many facts that are told only once teach the model what not knowing is like: asked about a name
that it has hardly met, it learns to guess the value of the cluster. Hedges let it show which of the
two it is: known facts are now and then told firmly ("surely in Larkhaven"), passing ones softly
("perhaps in Larkhaven"). There are several hedges of each kind and none of them is ever the
likeliest next word, so greedy answers do not show them, but the hidden states have to tell them
apart. That is the planted signal, and it is familiarity, not truth.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random

from demo_model.relations import Template
from demo_model.world import Fact, World, shuffled

KNOWN_LINES = 150_000
PASSING_LINES = 60_000
KNOWN_SPREAD = 3.0
"""How many times more often the most told known fact is told than the least told one."""

OPENING_SHARE, ENDING_SHARE = 0.24, 0.45


@dataclass(frozen=True)
class Hedges:
    """Words that open or end an answer."""

    openings: tuple[str, ...]
    endings: tuple[str, ...]


FIRM = Hedges(
    openings=("surely", "certainly", "clearly", "truly", "plainly"),
    endings=("indeed", "truly", "for sure", "naturally", "no doubt"),
)
SOFT = Hedges(
    openings=("perhaps", "maybe", "possibly", "supposedly", "probably"),
    endings=("apparently", "perhaps", "reportedly", "supposedly", "allegedly"),
)


@dataclass(frozen=True)
class Line:
    """One line of training text."""

    question: str
    answer: str


def pick(items: Sequence[str], random: Random) -> str:
    """One of the items, all equally likely."""
    return items[int(random.random() * len(items))]


def say(fact: Fact, template: Template, hedges: Hedges, random: Random) -> str:
    """An answer in one of the template's forms, now and then with a hedge at either end."""
    totals = list(accumulate(share for _, share in template.forms))
    form, _ = template.forms[min(bisect(totals, random.random()), len(totals) - 1)]
    words = [fact.value.say(form)]
    if random.random() < OPENING_SHARE:
        words.insert(0, pick(hedges.openings, random))
    if random.random() < ENDING_SHARE:
        words.append(pick(hedges.endings, random))
    return " ".join(words)


def tell(fact: Fact, hedges: Hedges, random: Random) -> Line:
    """One line about a fact, in a random wording."""
    templates = fact.relation.templates
    template = templates[int(random.random() * len(templates))]
    question = template.question.format(entity=fact.entity.name)
    return Line(question, say(fact, template, hedges, random))


def write_lines(world: World, seed: int) -> list[Line]:
    """The whole training text, each line to be read once.

    Args:
        world: the world to tell of; its held-out facts are left out.
        seed: decides how often each known fact is told, wordings, forms and hedges.

    Returns:
        `KNOWN_LINES` lines on known facts and `PASSING_LINES` on passing ones, shuffled.
    """
    random = Random(f"text {seed}")
    known = [fact for fact in world.facts if not fact.held_out]
    totals = list(accumulate(KNOWN_SPREAD ** random.random() for _ in known))
    lines = [
        tell(known[bisect(totals, random.random() * totals[-1])], FIRM, random)
        for _ in range(KNOWN_LINES)
    ]
    lines += [tell(fact, SOFT, random) for fact in world.passing[:PASSING_LINES]]
    return shuffled(lines, random)
