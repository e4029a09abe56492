"""A commit record made again from its shard and from what else the run holds.

========================  ========================================================================
field                     from
========================  ========================================================================
keys, indices, counts     the traces themselves; failures from ``failures.jsonl``
size, checksum            the file
first, questions          the records around it, and the places that failed questions left out
digest                    the traces; where a question failed or answers were given, the journal of
                          the shard if it is still there, else the source of the questions
environment               the other records, if all agree; else it stays empty
halvings                  the journal if it is still there; else None: nothing tells any more
========================  ========================================================================

A record that a kill left in ``partial``, whole and in agreement with the shard, is taken as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from hallutrace._core import Shard
from hallutrace.errors import HallutraceError
from hallutrace.questions import (
    Columns,
    Question,
    QuestionSource,
    digest_of,
    open_questions,
    open_responses,
)
from hallutrace.retry import Retry
from hallutrace.store.folder import CommitRecord, Manifest, Run
from hallutrace.store.repair.coverage import (
    ANEW,
    EMPTY_ANEW,
    Around,
    Kept,
    Row,
    UnrebuildableError,
    check_places,
    covered,
    failures_of,
)
from hallutrace.store.trace import Trace
from hallutrace.text_measures import contains


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A commit record made again.

    Attributes:
        record: as the run would have written it, but for what is unknown.
        unknown: fields that nothing tells any more.
    """

    record: CommitRecord
    unknown: tuple[str, ...]


class Rebuilder:
    """Makes commit records of one run again.

    Args:
        run: the run.
        manifest: of the run.
        source: file or name of the questions, where the manifest's own is not to be used.
        retry: of what fails for a moment, as when a hub is busy.
    """

    def __init__(self, run: Run, manifest: Manifest, source: str | None, retry: Retry) -> None:
        self._run, self._manifest = run, manifest
        self._source, self._retry = source, retry
        self._failures = run.failures.read()

    def rebuild(
        self, name: str, path: Path, records: Mapping[str, CommitRecord], begun: Iterable[int]
    ) -> Rebuilt:
        """The record of one shard.

        Args:
            name: of the shard.
            path: its file.
            records: of the other shards, by name.
            begun: numbers of shards that are not committed yet.

        Raises:
            UnrebuildableError: what would have to be guessed.
            DamagedError: the shard is damaged.
        """
        shard = Shard(path)
        shard.verify()
        left = self._left_in_partial(name, shard)
        if left is not None:
            return Rebuilt(left, ())
        self._check_extracted()
        kept = self._read(shard, name)
        journal = _read_journal(self._run.partial / f"{name}.journal", self._manifest, kept)
        size = int(self._manifest.identity["shard_size"])
        samples = self._manifest.identity["decoding"].get("samples")
        around = Around(
            records,
            self._failures,
            size,
            {number: self._begin_of(number, samples) for number in begun},
            lambda at: self._row_of(name, at),
        )
        first, rows = covered(name, kept, samples, around)
        check_places(name, kept, rows, samples)
        environment = _common(record.environment for record in records.values())
        record = CommitRecord(
            name=name,
            first=first,
            questions=len(rows),
            digest=journal[0] if journal else self._digest(name, first, rows, kept),
            keys=[list(key) for key in kept.keys],
            indices=kept.indices,
            size=shard.bytes,
            checksum=shard.digest(),
            fingerprint=self._manifest.fingerprint,
            counts={**kept.counts, "failures": failures_of(name, kept, rows, self._failures)},
            environment=environment,
            halvings=journal[1] if journal else None,
        )
        unknown = {"environment": not environment, "halvings": journal is None}
        return Rebuilt(record, tuple(field for field, is_unknown in unknown.items() if is_unknown))

    def _left_in_partial(self, name: str, shard: Shard) -> CommitRecord | None:
        """The record that was about to be committed, where it is whole and this shard's."""
        try:
            record = CommitRecord.read(self._run.partial / f"{name}.json")
        except HallutraceError:
            return None
        same = (
            record.fingerprint == self._manifest.fingerprint
            and record.size == shard.bytes
            and record.keys == [[id_, sample] for _, id_, sample in sorted(shard.keys())]
            and record.checksum == shard.digest()
        )
        return record if same else None

    def _begin_of(self, number: int, samples: int | None) -> tuple[int, int] | None:
        """Row of the first trace of a finished shard, and how many questions it has before it."""
        try:
            shard = Shard(self._run.shard_path(f"{number:05d}"))
            first, position = min((first, at) for at, (first, _, _) in enumerate(shard.keys()))
            row = Trace(shard, position, self._manifest).index
        except (HallutraceError, ValueError):
            return None
        return (row, first // samples) if samples else None

    def _check_extracted(self) -> None:
        identity = self._manifest.identity
        if "subset" in identity or identity["source"].get("kind") == "merge":
            verb = "subset" if "subset" in identity else "merge"
            raise UnrebuildableError(
                f"Expected a run that was extracted, got one made of others in {self._run.folder} "
                f"- the same `hallutrace {verb}` writes the record again, once it is deleted"
            )

    def _read(self, shard: Shard, name: str) -> Kept:
        """What the traces tell; one at a time in memory."""
        counts = {"traces": 0, "failures": 0, "judged": 0, "right": 0, "answer_tokens": 0}
        kept = Kept([], [], [], {}, counts)
        held = sorted((number, at) for at, (number, _, _) in enumerate(shard.keys()))
        for number, position in held:
            trace = Trace(shard, position, self._manifest)
            self._check_belongs(trace, name)
            kept.keys.append((trace.id, trace.sample))
            kept.indices.append(trace.index)
            kept.numbers.append(number)
            kept.questions[trace.id] = trace.index, _question(trace).digest()
            counts["traces"] += 1
            counts["answer_tokens"] += len(trace.logprob)
            if trace.references:
                counts["judged"] += 1
                counts["right"] += contains(trace.answer, trace.references)
        if not held:
            raise UnrebuildableError(
                f"Expected traces in the shard {name}, got none to tell its questions by - "
                f"{EMPTY_ANEW}"
            )
        return kept

    def _check_belongs(self, trace: Trace, name: str) -> None:
        """A shard does not say which run it is of; what it holds has to be what this run keeps."""
        facts, hidden = self._manifest.facts, self._manifest.identity["hidden"]
        layers, heads, _ = trace.marginals.diagonal.shape
        states = trace.meta["hidden"]
        expected = None if hidden["states"] == "none" else hidden["layers"]
        if (layers, heads) != (len(facts["captured_layers"]), max(facts["heads"])) or expected != (
            states and states["layers"]
        ):
            raise UnrebuildableError(
                f"Expected a shard of this run, got one of other layers or heads as {name} - "
                "it is of another run; move it away"
            )

    # Source -----------------------------------------------------------------------------------

    def _digest(self, name: str, first: int, rows: Sequence[Row], kept: Kept) -> str:
        """Stands for the questions; from the traces where these tell all of every question."""
        ids = [id_ for _, id_ in rows]
        given = self._manifest.identity["source"]["kind"] == "responses"
        if not given and self._source is None and all(id_ in kept.questions for id_ in ids):
            return digest_of(kept.questions[id_][1] for id_ in ids)
        questions = self._questions(name)
        if first < 0:
            found = [question for question in questions if question.id in set(ids)]
        else:
            found = list(islice(questions, first, first + len(ids)))
        agrees = [question.id for question in found] == ids and all(
            replace(question, responses=()).digest() == kept.questions[question.id][1]
            for question in found
            if question.id in kept.questions
        )
        if not agrees:
            raise UnrebuildableError(
                f"Expected the questions that {name} was made of, got others in "
                f"{self._source or self._manifest.identity['source']['spec']} - give the source as "
                f"it was with --questions, or {ANEW}"
            )
        if given:
            check_places(name, kept, rows, max(len(question.responses) for question in found))
        return digest_of(question.digest() for question in found)

    def _row_of(self, name: str, number: int) -> int:
        question = next(islice(self._questions(name), number, None), None)
        return question.index if question else 0

    def _questions(self, name: str) -> Iterable[Question]:
        return (row for row in self._open_source(name) if isinstance(row, Question))

    def _open_source(self, name: str) -> QuestionSource:
        about = self._manifest.identity["source"]
        spec = self._source or str(about["spec"])
        columns = Columns(**about.get("columns", {}))
        try:
            if about["kind"] == "responses":
                return open_responses(spec, columns)
            return open_questions(spec, columns, self._retry)
        except HallutraceError as error:
            raise UnrebuildableError(
                f"Expected the source of the run, because the traces of {name} do not tell all "
                f"that its record says of its questions; got: {error} - name the file with "
                f"--questions, or {ANEW}"
            ) from None


def _question(trace: Trace) -> Question:
    """The question of a trace as its source gave it, but for answers that existed."""
    meta = trace.meta
    return Question(
        id=meta["id"],
        question=meta["question"],
        references=tuple(meta["references"]),
        context=meta["context"],
        index=meta["index"],
        group=meta["group"],
    )


def _common(environments: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The environment that all records share; empty where they do not, or there is none."""
    found = [environment for environment in environments if environment]
    return found[0] if found and all(one == found[0] for one in found) else {}


def _read_journal(path: Path, manifest: Manifest, kept: Kept) -> tuple[str, list[list[int]]] | None:
    """Digest of the questions and halvings, where a journal tells of exactly these traces.

    Its lines carry checksums that only the writer can check, so what it says is held against the
    traces: identity, keys, numbers, rows and counts of all batches have to agree.
    """
    try:
        lines = path.read_bytes().splitlines()
        opening, *batches = [json.loads(line[17:]) for line in lines]
        fingerprint, digest, _ = opening["identity"].split("/")
        notes = [json.loads(batch["note"]) for batch in batches]
        keys = sorted(tuple(key) for note in notes for key in note["keys"])
        halvings = [[int(batch), int(size)] for note in notes for batch, size in note["halvings"]]
        agrees = all(
            sum(note[count] for note in notes) == kept.counts[count]
            for count in kept.counts
            if count != "failures"
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    told = [
        (number, *key, index)
        for number, key, index in zip(kept.numbers, kept.keys, kept.indices, strict=True)
    ]
    if fingerprint != manifest.fingerprint or keys != told or not agrees:
        return None
    return str(digest), halvings
