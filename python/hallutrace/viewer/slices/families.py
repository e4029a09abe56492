"""Parts of a run by what is known of its traces: each family puts a trace into at most one part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hallutrace.errors import HallutraceError
from hallutrace.viewer.data.trace_list import UNREADABLE, TraceColumns, trace_columns
from hallutrace.viewer.slices.hidden_clusters import hidden_clusters
from hallutrace.viewer.viewed_run import ViewedRun

FIRST_WORDS = 10  # the most frequent ones have a part each
PARTS = 4  # of a quantity, by its quantiles
NOWHERE = -1


@dataclass(frozen=True)
class Family:
    """A way to part the traces.

    Attributes:
        name: such as `length of the answer`.
        parts: what each part is called in a table.
        clauses: what its traces are, as in "41 of 60 misses are traces CLAUSE".
        of: int64 [traces], the part of each trace, -1 where it is in none.
    """

    name: str
    parts: list[str]
    clauses: list[str]
    of: NDArray[np.int64]


@lru_cache(maxsize=4)
def families(viewed: ViewedRun) -> tuple[list[Family], list[str]]:
    """All families that the run has, and a sentence for each that it has not.

    Args:
        viewed: the run.

    Examples:
        >>> found, missing = families(ViewedRun(hallutrace.open(run)))
        >>> found[0].name, len(found[0].of)
        ('length of the answer', 8)
    """
    columns = trace_columns(viewed)
    found = [*_of_columns(columns), *_of_training(viewed)]
    missing = []
    if len(viewed.labels) > 1:
        found.append(agreement([viewed.label_values(name) for name in viewed.labels]))
    else:
        missing.append(
            "Agreement of labels takes two protocols: `hallutrace label RUN --by f1` makes another."
        )
    try:
        clusters = hidden_clusters(viewed, columns.groups)
        name = f"cluster of hidden states (layer {clusters.layer}, {clusters.token})"
        found.append(
            Family(
                name,
                [f"cluster {at + 1}, such as “{text}”" for at, text in enumerate(clusters.typical)],
                [f"in cluster {at + 1} of the hidden states" for at in range(clusters.count)],
                clusters.of,
            )
        )
    except (HallutraceError, ImportError) as error:
        missing.append(f"Clusters of hidden states: {error}")
    return [one for one in found if (one.of >= 0).any()], missing


def _of_columns(columns: TraceColumns) -> list[Family]:
    is_read = np.array([reason != UNREADABLE for reason in columns.finish_reasons], bool)
    words = frequent(columns.first_words, FIRST_WORDS)
    kinds = frequent(columns.question_types, PARTS * PARTS)
    answers = frequent(columns.answer_types, PARTS * PARTS)
    reasons = frequent(columns.finish_reasons, PARTS * PARTS)
    many = "whose question begins with another word"
    return [
        whole_numbers("length of the answer", "with answers of {}", columns.answer_tokens, is_read),
        whole_numbers("length of the prompt", "with prompts of {}", columns.prompt_tokens, is_read),
        _named(
            "first word of the question",
            words,
            lambda one: f"“{one}”",
            lambda one: f"whose question begins with “{one}”" if one else many,
        ),
        _named("type of question", kinds, str, lambda one: f"whose question asks “{one}”"),
        _named(
            "type of right answer", answers, str, lambda one: f"whose right answer is {_a(one)}"
        ),
        _named("end of the answer", reasons, str, lambda one: f"whose answer ended by {one}"),
        quantiles("mean entropy (nats)", "with a mean entropy of {} nats", columns.mean_entropy),
    ]


def _a(kind: str) -> str:
    return {"yes or no": "yes or no", "other": "of another type"}.get(kind, f"a {kind}")


def frequent(texts: Sequence[str], most: int) -> tuple[list[str], NDArray[np.int64]]:
    """The most frequent texts, and the index of each text among them; -1 for an empty one.

    Where there are more texts than ``most``, the last name is empty and stands for all others.

    Examples:
        >>> frequent(["b", "a", "b", "c", "d", "d", ""], 2)
        (['b', 'd', ''], array([ 0,  2,  0,  2,  1,  1, -1]))
    """
    counts = Counter(text for text in texts if text)
    names = sorted(counts, key=lambda text: (-counts[text], text))
    names = names if len(names) <= most else [*names[:most], ""]
    index = {name: at for at, name in enumerate(names)} | {"": NOWHERE}
    return names, np.array([index.get(text, len(names) - 1) for text in texts], np.int64)


def _named(
    name: str,
    found: tuple[list[str], NDArray[np.int64]],
    part: Callable[[str], str],
    clause: Callable[[str], str],
) -> Family:
    names, of = found
    parts = [part(one) if one else "any other" for one in names]
    return Family(name, parts, [clause(one) for one in names], of)


def whole_numbers(
    name: str, clause: str, values: NDArray[np.uint32], is_read: NDArray[np.bool_]
) -> Family:
    """Parts of about equal size by a number of tokens.

    Args:
        name: of the family.
        clause: with braces for the number.
        values: uint32 [traces].
        is_read: bool [traces], which have a value.
    """
    known = values[is_read].astype(np.int64)
    if not len(known):
        return Family(name, [], [], np.full(len(values), NOWHERE))
    cuts = np.quantile(known, np.arange(1, PARTS) / PARTS, method="lower")
    cuts = np.unique(cuts[cuts < known.max()])  # the last number of each part but the last
    of_known = np.searchsorted(cuts, known, "left")
    inside = [known[of_known == part] for part in range(len(cuts) + 1)]
    texts = [_range(int(one.min()), int(one.max())) for one in inside]
    of = np.where(is_read, np.searchsorted(cuts, values.astype(np.int64), "left"), NOWHERE)
    return Family(name, texts, [clause.format(text) for text in texts], of)


def _range(first: int, last: int) -> str:
    noun = "token" if last == 1 else "tokens"
    return f"{first:,} {noun}" if first == last else f"{first:,} to {last:,} tokens"


def quantiles(name: str, clause: str, values: NDArray[np.float32]) -> Family:
    """Parts of about equal size by a real number; traces without one are in none.

    Args:
        name: of the family.
        clause: with braces for the range.
        values: float32 [traces].
    """
    known = values[np.isfinite(values)].astype(np.float64)
    if not len(known):
        return Family(name, [], [], np.full(len(values), NOWHERE))
    edges = np.unique(np.quantile(known, np.arange(1, PARTS) / PARTS))
    ends = [known.min(), *edges.tolist(), known.max()]
    texts = [f"{low:.3g} to {high:.3g}" for low, high in pairwise(ends)]
    of = np.where(np.isfinite(values), np.searchsorted(edges, values, "right"), NOWHERE)
    return Family(name, texts, [clause.format(text) for text in texts], of.astype(np.int64))


def agreement(labels: Sequence[NDArray[np.int8]]) -> Family:
    """Whether the protocols agree on a trace.

    Args:
        labels: of each protocol, int8 [traces], -1 none.
    """
    table = np.stack(labels)
    has_none = (table < 0).any(axis=0)
    differ = (table == 1).any(axis=0) & (table == 0).any(axis=0)
    return Family(
        "agreement of labels",
        ["all protocols agree", "protocols disagree", "a protocol has no label"],
        [
            "on which all protocols agree",
            "on which protocols disagree",
            "to which a protocol gives no label",
        ],
        np.where(differ, 1, np.where(has_none, 2, 0)).astype(np.int64),
    )


def _of_training(viewed: ViewedRun) -> list[Family]:
    """Whether the model saw the fact in its training, which is known of the small model alone."""
    if viewed.store.manifest.identity.get("source", {}).get("kind") != "demo":
        return []
    from hallutrace.demo import read_questions

    held_out = {str(row["id"]): bool(row["held_out"]) for row in read_questions()}
    keys = viewed.store.keys()
    of = np.array([held_out.get(id_, NOWHERE) for id_, _ in keys], np.int64)
    clauses = ["whose fact the model saw in training", "whose fact was held out of training"]
    return [Family("training of the model", ["seen", "held out"], clauses, of)]
