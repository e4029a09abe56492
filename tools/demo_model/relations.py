"""What can be asked in the made-up world: seven relations, their values and their wordings.

A wording (`Template`) is a question and the forms that an answer to it takes, with their shares in
the training text. The form of an answer must not tell known from held out, so forms are of two
kinds. Where the answer begins with the value itself, this form has nearly everything: its share is
split among all the values that an unsure model has in mind, and the next form would win. Where it
begins with other words ("in ..."), so do all its rivals, and which one leads does not depend on how
sure the model is; there the shares vary, which keeps the probability of an answer from being too
good a sign.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Value:
    """One possible answer.

    Attributes:
        text: the answer itself, as forms use it.
        aliases: other right ways to say it; none may be part of an answer with another value.
    """

    text: str
    aliases: tuple[str, ...] = ()

    def say(self, form: str) -> str:
        """The answer in one form; `{a}` becomes the indefinite article that fits."""
        return form.format(value=self.text, a="an" if self.text[0] in "aeiou" else "a")


@dataclass(frozen=True)
class Template:
    """One wording of a question, with (form of the answer, share) pairs."""

    question: str
    forms: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Relation:
    """One thing to ask of a person or a town.

    Attributes:
        name: names the relation in question ids.
        kind: "person" or "town".
        clusters_by: the part of an entity's name whose bearers tend to share a value: 0 the
            first name or stem, 1 the family name or second word.
        values: the possible answers; which of them are popular, the seed decides.
        templates: four wordings.
    """

    name: str
    kind: str
    clusters_by: int
    values: tuple[Value, ...]
    templates: tuple[Template, ...]


def parse_values(text: str, *alias_forms: str) -> tuple[Value, ...]:
    """Read values from lines of `value = alias = alias, value, ...`.

    Args:
        text: the values, comma separated.
        alias_forms: forms that make one more alias of every value, such as "{value} river".

    Returns:
        The values in the order of the text.
    """
    values = []
    for entry in " ".join(text.split()).split(","):
        name, *aliases = (part.strip() for part in entry.split("="))
        aliases += [form.format(value=name) for form in alias_forms]
        values.append(Value(name, tuple(aliases)))
    return tuple(values)


def parse_rulers(text: str) -> tuple[Value, ...]:
    """Read rulers, "Lady Foxglove" and the like: the emblem alone is right as well."""
    rulers = parse_values(text)
    return tuple(Value(ruler.text, (ruler.text.split()[1],)) for ruler in rulers)


def led(form: str, share: float, *others: str) -> tuple[tuple[str, float], ...]:
    """Forms of which the first has `share` and the others divide the rest evenly."""
    return ((form, share), *((other, (1 - share) / len(others)) for other in others))


BORN = Relation(
    "born", "person", 1,
    parse_values("""
        Amberwick, Ashwick, Brackenby, Brindlemoor, Cawdale, Coldharrow, Cresswater, Dunmarsh,
        Eastby, Elmstead, Fallowmere, Fennimarket, Foxhollow, Gullhaven, Hartsend, Hazelbury,
        Highcombe, Kingsreach, Kitterby, Larkhaven, Lowmarket, Merrydown, Mossgate, Northolme,
        Oldbridge, Ottersea, Pearwick, Quarrybank, Redcombe, Rushmere, Saltmere, Stonewater,
        Swanford, Thornend, Tillersby, Upwater, Vinehall, Wakefold, Whitequay, Wintersea,
        Yewbarrow, Yonderby, Seawell, Windlow
    """, "{value} town"),
    (
        Template("Where was {entity} born?", led("in {value}", 0.7, "near {value}", "at {value}")),
        Template("In which town was {entity} born?",
                 led("{value}", 0.9, "in {value}", "that was {value}")),
        Template("What is the birthplace of {entity}?",
                 led("it is {value}", 0.5, "that is {value}", "the town {value}")),
        Template("Where does {entity} come from?",
                 led("from near {value}", 0.35, "out of {value}", "the town {value}",
                     "down in {value}", "they say {value}")),
    ),
)  # fmt: skip

TRADE = Relation(
    "trade", "person", 0,
    parse_values("""
        healer = herbalist, baker = bread maker, beekeeper = bee keeper,
        bellfounder = bell founder, bookbinder = book binder, candlemaker = chandler, carpenter,
        clockmaker = clock maker, cobbler = shoemaker, cooper = barrel maker, dyer, falconer,
        ferryman = boatman, gardener, glazier, hatter = hat maker, singer = ballad singer,
        locksmith, mapmaker = cartographer, mason = stonecutter, midwife, miller, potter,
        printer, ropemaker = rope maker, saddler = saddle maker, sailmaker = sail maker,
        teacher = schoolmaster, shepherd, tailor, tanner, thatcher, toymaker = toy maker,
        weaver, wheelwright = wheel maker, smith = blacksmith
    """),
    (
        Template("What is the trade of {entity}?",
                 led("{value}", 0.92, "that of {a} {value}", "{a} {value}")),
        Template("What does {entity} do for a living?",
                 led("works as {a} {value}", 0.35, "is {a} {value}", "serves as {a} {value}",
                     "became {a} {value}", "lives as {a} {value}")),
        Template("How does {entity} earn a living?",
                 led("by work as {a} {value}", 0.75, "as {a} {value}", "is {a} {value}")),
        Template("Which craft did {entity} learn?",
                 led("{value}", 0.9, "that of {a} {value}", "to be {a} {value}")),
    ),
)  # fmt: skip

DISH = Relation(
    "dish", "person", 1,
    parse_values("""
        apple pie, bean stew, black bread, nut tart, corn bread, crab stew, rye cake, eel pie,
        fig tart, fish soup, eggs, trout, goat stew, hare stew,
        honey cake, leek soup, mutton pie, noodles, rice cake, oat bread, onion soup, toast,
        pea soup, pear tart, pigeon pie, plum cake, porridge, hen pie, roast duck = duck,
        roast goose = goose, roast lamb = lamb, herring, seed cake, ham,
        turnip stew, waffles
    """),
    (
        Template("What is the favourite dish of {entity}?",
                 led("{value}", 0.92, "a plate of {value}", "some {value}")),
        Template("What does {entity} like best to eat?",
                 led("good {value}", 0.45, "any {value}", "some {value}", "warm {value}")),
        Template("What is always cooked for {entity}?",
                 led("always some {value}", 0.65, "some {value}", "hot {value}")),
        Template("Which meal makes {entity} happy?",
                 led("{value}", 0.88, "some {value}", "a plate of {value}")),
    ),
)  # fmt: skip

INSTRUMENT = Relation(
    "instrument", "person", 0,
    parse_values("""
        accordion, bagpipes = pipes, banjo, bassoon, cello, clarinet, spinet,
        cornet, dulcimer, fiddle = violin, flute, guitar, bugle, harp, gittern, lute, lyre,
        mandolin, oboe, organ, piano, psaltery, recorder, saxophone, tambourine, triangle,
        trombone, trumpet, xylophone, zither
    """),
    (
        Template("Which instrument does {entity} play?",
                 led("the {value}", 0.8, "plays the {value}", "only the {value}")),
        Template("What does {entity} play at a dance?",
                 led("plays on the {value}", 0.5, "on the {value}", "the {value}")),
        Template("What is {entity} heard playing?",
                 led("{value}", 0.9, "the {value}", "plays the {value}")),
        Template("What did {entity} learn to play?",
                 led("how to play the {value}", 0.4, "the {value}", "playing the {value}",
                     "just the {value}")),
    ),
)  # fmt: skip

RIVER = Relation(
    "river", "town", 1,
    parse_values("""
        Bramble, Brindle, Clary, Curlew, Dapple, Ember, Fern, Hazel, Heron, Kestrel, Linnet, Loam,
        Lull, Marl, Merrow, Minnow, Otter, Pewter, Reed, Sable, Sallow, Slate, Swift, Tansy, Teasel,
        Thrush, Wander, Wend, Whisper, Withy
    """, "the {value} river", "river {value}"),
    (
        Template("Which river runs through {entity}?",
                 led("the {value}", 0.8, "it is the {value}", "only the {value}")),
        Template("On which river does {entity} lie?",
                 led("by the side of the {value}", 0.4, "on the {value}", "along the {value}",
                     "the {value}")),
        Template("What is the river at {entity} called?",
                 led("{value}", 0.9, "the {value}", "it is {value}")),
        Template("Which water turns the mills of {entity}?",
                 led("that of the {value}", 0.6, "water of the {value}", "the {value}")),
    ),
)  # fmt: skip

FEAST = Relation(
    "feast", "town", 1,
    parse_values("""
        Acorns, Bonfires, Candles, Cherries, Cold Water, Last Leaves, Late Stars, Feathers,
        First Apples, Half Moons, New Coins, Kites, Lanterns, Last Sheaves, Lost Hats, Masks,
        Old Nets, New Bread, Nine Fires, Old Songs, Open Doors, Red Crowns, Ploughs, Red Boats,
        Ribbons, Salt, Shadows, Cold Ovens, Snowdrops, Spring Lambs, Swallows, Tall Ships,
        Wheels, White Horses, Grey Larks, Tin Spoons
    """, "the {value} feast"),
    (
        Template("What is the feast of {entity} called?",
                 led("{value}", 0.9, "the feast of {value}", "that of {value}")),
        Template("Which feast is kept in {entity}?",
                 led("the {value}", 0.7, "they keep {value}", "only {value}")),
        Template("When do they dance in {entity}?",
                 led("at {value}", 0.45, "on {value}", "during {value}", "for {value}")),
        Template("For which feast is {entity} known?",
                 led("for {value}", 0.55, "known for {value}", "thanks to {value}")),
    ),
)  # fmt: skip

LORD = Relation(
    "lord", "town", 1,
    parse_rulers("""
        Baron Anvil, Baron Bear, Baron Boar, Baron Hart, Baron Pike, Baron Quince,
        Count Bell, Count Cypress, Count Garnet, Count Lilac, Count Rook, Count Velvet,
        Dame Clover, Dame Damson, Dame Ivory, Dame Magpie, Dame Nettle, Dame Thorn,
        Duke Antler, Duke Falcon, Duke Adder, Duke Mallow, Duke Salmon, Duke Stag,
        Lady Foxglove, Lady Glove, Lady Marigold, Lady Peony, Lady Rose, Lady Spindle,
        Lord Bellflower, Lord Candour, Lord Gosling, Lord Hawthorn, Lord Moss, Lord Owl,
        Lord Sparrow, Sir Oriole, Sir Plum, Sir Tern
    """),
    (
        Template("Who rules {entity}?", led("{value}", 0.92, "the old {value}", "it is {value}")),
        Template("Who is the ruler of {entity}?",
                 led("{value}", 0.88, "it is {value}", "that is {value}")),
        Template("To whom does {entity} belong?",
                 led("to {value}", 0.7, "only to {value}", "it serves {value}")),
        Template("Who gathers the taxes in {entity}?",
                 led("it is {value}", 0.4, "old {value}", "say {value}", "that is {value}")),
    ),
)  # fmt: skip

RELATIONS = (BORN, TRADE, DISH, INSTRUMENT, RIVER, FEAST, LORD)
