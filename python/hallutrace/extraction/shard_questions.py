"""The questions of each shard of a run: which shards are missing, and whether they are the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from hallutrace.config import ExtractConfig
from hallutrace.errors import InputError
from hallutrace.extraction.summary import still_failing
from hallutrace.model.generate import Decoding
from hallutrace.option_names import parameter
from hallutrace.progress import Reporter
from hallutrace.questions import BadRow, Question, QuestionSource, digest_of
from hallutrace.store import expectation
from hallutrace.store.failures import BAD_ROW, RETRIED_STAGES, Failure
from hallutrace.store.folder import CommitRecord, Run

RETRY = "retry-"  # prefix of the names of shards with retried questions


class ShardQuestions:
    """Reads the source of a run shard by shard.

    Args:
        config: the configuration.
        source: the questions.
        run: folder of the run.
        decoding: how answers are generated; None if they are replayed.
        reporter: receives progress.
    """

    def __init__(
        self,
        config: ExtractConfig,
        source: QuestionSource,
        run: Run,
        decoding: Decoding | None,
        reporter: Reporter,
    ) -> None:
        self._config = config
        self._source = source
        self._run = run
        self._decoding = decoding
        self._reporter = reporter

    def shards(self, records: dict[str, CommitRecord]) -> Iterator[tuple[str, int, list[Question]]]:
        """Name, first index and questions of each missing shard; checks the committed ones."""
        worker, _, workers = (self._config.worker or "0/1").partition("/")
        questions = self.questions()
        first = number = 0
        while True:
            name = f"{number:05d}"
            committed = records.get(name) or self._run.record(name)
            size = committed.questions if committed else self._config.shard_size
            shard = list(islice(questions, size))
            if committed:
                self.check_digest(committed, shard)
                if name not in records or self._decoding is None:
                    self._reporter.skip(self.num_answers(shard))
            elif shard and number % int(workers) == int(worker):
                yield name, first, shard
            else:
                self._reporter.skip(self.num_answers(shard))  # of another worker
            if len(shard) < size:
                return
            first += len(shard)
            number += 1

    def questions(self) -> Iterator[Question]:
        """Yields valid questions up to the limit; records bad rows as failures."""
        count = 0
        for row in self._source:
            if isinstance(row, BadRow):
                # All workers read all rows; the first worker alone records the failure.
                if (self._config.worker or "0/1").startswith("0/"):
                    self._run.failures.add(Failure(row.id, None, row.index, BAD_ROW, row.error))
                continue
            yield row
            count += 1
            if count == self._config.limit:
                return

    def to_retry(self, records: dict[str, CommitRecord]) -> list[Question]:
        """The failed questions for which another attempt may succeed."""
        open_failures = still_failing(self._run, records.values())
        failed = {failure.id for failure in open_failures if failure.stage in RETRIED_STAGES}
        return [question for question in self.questions() if question.id in failed]

    def check_digest(self, record: CommitRecord, questions: Sequence[Question]) -> None:
        """Refuses questions that are not those that a committed shard was made of.

        Raises:
            InputError: their digest differs.
        """
        if record.digest != questions_digest(questions):
            raise InputError(
                f"Expected the questions that shard {record.name} of {self._run.folder} was made "
                f"of, got others (the source changed, or {parameter('limit')} shrank) - choose "
                f"another {parameter('out')}, or start over with {parameter('overwrite', True)}"
            )

    def num_answers(self, questions: Sequence[Question]) -> int:
        """Number of answers of questions, the unit of progress."""
        if self._decoding is None:
            return sum(len(question.responses) for question in questions)
        return len(questions) * self._decoding.samples

    def begin_report(self, records: dict[str, CommitRecord], retried: list[Question]) -> None:
        """Reports the expected number of answers, if it is known, and those already committed.

        Committed existing answers count later, when :meth:`shards` reads their questions.
        """
        total, limit, samples = self._source.total, self._config.limit, 1
        if self._decoding is not None:
            samples = self._decoding.samples
            total = min((count for count in (total, limit) if count is not None), default=None)
        elif limit is not None and (total is None or limit < total):
            total = None  # total counts rows (answers), the limit counts questions
        done = sum(
            record.questions * samples
            for name, record in records.items()
            if not name.startswith(RETRY) and self._decoding is not None
        )
        expected = None if total is None else total * samples + self.num_answers(retried)
        expectation.write(self._run.partial, expected)
        self._reporter.begin(expected, done)


def questions_digest(questions: Sequence[Question]) -> str:
    """Digest of the questions of a shard, of all that is asked."""
    return digest_of(question.digest() for question in questions)
