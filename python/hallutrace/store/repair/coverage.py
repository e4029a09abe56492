"""Which questions a shard covers, told without its commit record.

A shard's traces are numbered by the places of their questions, so a gap between two numbers is a
question that failed, and ``failures.jsonl`` says which. How many questions come before the shard,
and where it ends, the records of the other shards say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hallutrace.errors import InputError
from hallutrace.store.failures import RETRIED_STAGES, Failure
from hallutrace.store.folder import CommitRecord

EMPTY_ANEW = "the same `hallutrace extract` makes the shard anew"
ANEW = "move the shard away, and the same `hallutrace extract` makes it anew"
RETRY = "retry-"

Row = tuple[int, str]  # index in the source, question id


class UnrebuildableError(InputError):
    """A record that cannot be made again; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What the traces of a shard tell, in the order of their numbers.

    Attributes:
        keys: question id and sample of each.
        indices: row in the source of each.
        numbers: of each within the shard.
        questions: index in the source and digest of each question with a trace, by id.
        counts: as a commit record has them, but for failures.
    """

    keys: list[tuple[str, int]]
    indices: list[int]
    numbers: list[int]
    questions: dict[str, tuple[int, bytes]]
    counts: dict[str, int]

    def rows(self) -> list[Row]:
        """Row and id of each question with a trace."""
        return [(index, id_) for id_, (index, _) in self.questions.items()]


@dataclass(frozen=True, slots=True)
class Around:
    """What is known of the rest of the run.

    Attributes:
        records: of the other shards, by name.
        failures: of the run.
        shard_size: questions of a shard that nothing cuts short.
        begun: shards that are not committed, by number: where they are finished, the row of their
            first trace and how many questions of theirs failed before it; else None.
        row_of: row in the source of its n-th good question; asks the source.
    """

    records: Mapping[str, CommitRecord]
    failures: Sequence[Failure]
    shard_size: int
    begun: Mapping[int, tuple[int, int] | None]
    row_of: Callable[[int], int]

    def numbered(self) -> dict[int, CommitRecord]:
        """The records of shards in the source's order, by number."""
        return {int(name): one for name, one in self.records.items() if not is_retry(name)}


def is_retry(name: str) -> bool:
    """Whether a shard is of questions that were tried again."""
    return name.startswith(RETRY)


def covered(name: str, kept: Kept, samples: int | None, around: Around) -> tuple[int, list[Row]]:
    """Number of the first question a shard covers (-1: tried again), and all of them in order.

    Args:
        name: of the shard.
        kept: what its traces tell.
        samples: answers of a question; None where they were given and their number varies.
        around: the rest of the run.

    Raises:
        UnrebuildableError: the questions cannot be told for certain.
    """
    if is_retry(name):
        return -1, _tried_again(name, kept, around)
    number, numbered = int(name), around.numbered()
    size = around.shard_size
    # As `extract` counts: a shard that is not committed covers as many as it may.
    first = sum(numbered[at].questions if at in numbered else size for at in range(number))
    failed = _failed_nearby(number, kept, numbered, around.failures)
    least, most = min(kept.indices), max(kept.indices)
    ahead = [row for row in failed if row[0] < least]
    if ahead and samples is None:
        begin = around.row_of(first)
        ahead = [row for row in ahead if row[0] >= begin]
    elif ahead and samples is not None:
        # The gap before the first trace says how many of them are this shard's.
        ahead = ahead[len(ahead) - min(kept.numbers[0] // samples, len(ahead)) :]
    within = [row for row in failed if least < row[0] < most]
    behind = [row for row in failed if row[0] > most]
    known = len(kept.questions) + len(ahead) + len(within)
    later = min((at for at in numbered if at > number), default=None)
    if later is None:
        behind, certain = _before_begun(number, behind, around.begun)
        room = len(behind)
        certain = known + room <= size and (certain or known == size)
    else:
        room = numbered[later].first - (later - number - 1) * size - first - known
        certain = 0 <= room <= len(behind)
    if not certain:
        raise UnrebuildableError(
            f"Expected traces and failures that tell the questions of {name}, got "
            f"{len(kept.questions)} questions with traces and {len(failed)} that failed nearby - "
            f"{ANEW}"
        )
    return first, sorted([*kept.rows(), *ahead, *within, *behind[:room]])


def _before_begun(
    number: int, behind: list[Row], begun: Mapping[int, tuple[int, int] | None]
) -> tuple[list[Row], bool]:
    """What failed behind a shard's traces, less what is a later shard's; whether that is sure."""
    following = min((at for at in begun if at > number), default=None)
    if following is None or not behind:
        return behind, True
    begins = begun[following]
    if following > number + 1 or begins is None:
        return behind, False
    row, ahead = begins
    between = [one for one in behind if one[0] < row]
    return between[: max(0, len(between) - ahead)], len(between) >= ahead


def check_places(name: str, kept: Kept, rows: Sequence[Row], samples: int | None) -> None:
    """Holds the numbers of a shard's traces against its questions.

    Raises:
        UnrebuildableError: a question in another place.
    """
    places = {id_: place for place, (_, id_) in enumerate(rows)}
    if samples is None:
        at = [places[id_] for id_, _ in kept.keys]
        agrees = at == sorted(at)
    else:
        agrees = kept.numbers == [places[id_] * samples + sample for id_, sample in kept.keys]
    if not agrees:
        raise UnrebuildableError(
            f"Expected failures that fill the gaps between the traces of {name}, got others in "
            f"failures.jsonl - restore that file from a copy, or {ANEW}"
        )


def failures_of(name: str, kept: Kept, rows: Sequence[Row], failures: Sequence[Failure]) -> int:
    """Failures of a shard: of whole questions, and of single samples."""
    ids, traced = {id_ for _, id_ in rows}, set(kept.keys)
    attempts = 2 if is_retry(name) else 1
    return sum(
        failure.id in ids
        and failure.stage != "question"
        and failure.attempts >= attempts
        # What failed before a kill may have succeeded after it.
        and (failure.id, failure.sample) not in traced
        and not (failure.sample is None and failure.id in kept.questions)
        for failure in failures
    )


def _failed_nearby(
    number: int,
    kept: Kept,
    numbered: Mapping[int, CommitRecord],
    failures: Sequence[Failure],
) -> list[Row]:
    """Questions without a trace, between the traces of the shards before and after, in order."""
    before = [max(one.indices) for at, one in numbered.items() if at < number and one.indices]
    after = [min(one.indices) for at, one in numbered.items() if at > number and one.indices]
    begin, end = max(before, default=-1), min(after, default=float("inf"))
    if not begin < min(kept.indices) <= max(kept.indices) < end:
        raise UnrebuildableError(
            f"Expected rows of the source between those of the shards around {number:05d}, got "
            "others - it is of another run or another place; move it away"
        )
    failed = {
        (failure.index, failure.id)
        for failure in failures
        if failure.id is not None
        and failure.stage != "question"
        and failure.id not in kept.questions
        and begin < failure.index < end
    }
    return sorted(failed)


def _tried_again(name: str, kept: Kept, around: Around) -> list[Row]:
    """The questions that had failed when a shard of retried ones was made."""
    done = {(key[0], key[1]) for at, one in around.records.items() if at < name for key in one.keys}
    again = {
        (failure.index, failure.id)
        for failure in around.failures
        if failure.id is not None
        and failure.stage in RETRIED_STAGES
        and failure.attempts > 1
        and (failure.id, failure.sample or 0) not in done
    }
    rows = set(kept.rows())
    if again - rows and any(is_retry(at) and at > name for at in around.records):
        raise UnrebuildableError(
            f"Expected one attempt at what still fails, got more after {name}, so nothing tells "
            "which questions it tried - delete its file, and try again with --retry-failed"
        )
    return sorted(rows | again)
