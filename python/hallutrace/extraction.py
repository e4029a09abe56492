"""The pipeline: a run from questions to committed shards, gone on with where it stopped."""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from hallutrace.claims import UNTOLD, Holder, claim
from hallutrace.config import ExtractConfig
from hallutrace.environment import environment
from hallutrace.errors import InputError
from hallutrace.failures import RETRIED_STAGES, Failure
from hallutrace.models import Loaded, default_prompt, load
from hallutrace.patience import Patience
from hallutrace.probe import probe
from hallutrace.progress import Reporter, Silent
from hallutrace.prompts import PromptBuilder
from hallutrace.questions import (
    BadRow,
    Columns,
    Question,
    QuestionSource,
    digest_of,
    open_questions,
    open_responses,
)
from hallutrace.run import CommitRecord, Run
from hallutrace.settings import Settings, manifest_of
from hallutrace.shard_job import ShardJob
from hallutrace.summary import Summary


def extract(config: ExtractConfig | None = None, reporter: Reporter | None = None) -> Summary:
    """Extracts a run, or goes on with it.

    Args:
        config: what to do; the default is the small model on 400 of its own questions.
        reporter: told of progress; the default says nothing.

    Returns:
        What was done; open the run with ``hallutrace.open(summary.folder)``.

    Raises:
        InputError: questions, options or folder that cannot be used.
        IdentityError: the folder holds a run with other settings.
        ModelError: a model that cannot be loaded or captured.
        StorageError: the file system refused.
    """
    config = config or ExtractConfig()
    reporter = reporter or Silent()
    patience = Patience(reporter.note)
    source = open_source(config, patience)
    run = Run(config.out or Path("runs") / source.name)
    run.check_ours()
    loaded = load(config, patience)
    # Only now: what is there is not given up for a model that does not load.
    if config.overwrite and run.folder.exists():
        run.check_ours()
        shutil.rmtree(run.folder)
    return Extraction(config, source, run, loaded, reporter).run_all()


def open_source(config: ExtractConfig, patience: Patience | None = None) -> QuestionSource:
    """The questions, or the responses, that a configuration names."""
    columns = Columns(
        id=config.id_column,
        question=config.question_column,
        answers=config.answers_column,
        context=config.context_column,
        group=config.group_column,
        response=config.response_column,
    )
    if config.responses is not None:
        return open_responses(str(config.responses), columns)
    return open_questions(config.questions, columns, patience)


class Extraction:
    """One call of :func:`extract`, with its model in memory."""

    def __init__(
        self,
        config: ExtractConfig,
        source: QuestionSource,
        run: Run,
        loaded: Loaded,
        reporter: Reporter,
    ) -> None:
        self._config = config
        self._source = source
        self._run = run
        self._loaded = loaded
        self._reporter = reporter
        self._earlier = run.manifest() if run.exists() else None
        self._prompts = PromptBuilder(
            loaded.tokenizer, default_prompt(config), config.chat, config.chat_template_kwargs
        )
        self._settings = Settings.of(config, loaded, self._earlier)
        facts = probe(loaded, hidden=self._settings.hidden.states != "none")
        self._manifest = manifest_of(config, self._settings, source, self._prompts, loaded, facts)
        self._environment = environment(loaded.device)
        self._new = 0
        self._syncing = 0.0

    def run_all(self) -> Summary:
        """All shards that are not committed yet, and that no other process works on."""
        if self._earlier is not None:
            self._earlier.check_same(self._manifest, self._run.folder)
        elif not self._run.begin(self._manifest):
            # Another process began the run meanwhile, and resolved what was left to the machine.
            parts = (self._config, self._source, self._run, self._loaded, self._reporter)
            return Extraction(*parts).run_all()
        self._run.begin(self._manifest)
        records = {record.name: record for record in self._run.records()}
        self._run.tidy(records)
        self._warn_of_environment(list(records.values()))
        done = sum(record.counts["traces"] for record in records.values())
        self._reporter.begin(self._total(), done)
        began = time.monotonic()
        if self._config.retry_failed:
            self._retry(records)
        for name, first, questions in self._shards(records):
            self._claimed(name, first, questions, self._settings.batch_size)
        return self._summary(time.monotonic() - began)

    def _shards(
        self, records: dict[str, CommitRecord]
    ) -> Iterator[tuple[str, int, list[Question]]]:
        """The shards still to do, with their questions; committed ones are checked and passed."""
        worker, _, workers = (self._config.worker or "0/1").partition("/")
        questions = self._questions()
        first = number = 0
        while True:
            name = f"{number:05d}"
            committed = records.get(name) or self._run.record(name)
            size = committed.questions if committed else self._config.shard_size
            some = list(islice(questions, size))
            if committed:
                self._check_digest(committed, some)
            elif some and number % int(workers) == int(worker):
                yield name, first, some
            if len(some) < size:
                return
            first += len(some)
            number += 1

    def _claimed(
        self,
        name: str,
        first: int,
        questions: list[Question],
        batch_size: int,
        done: Collection[tuple[str, int]] = (),
    ) -> None:
        """Extracts and commits one shard, unless another process is at it or was first."""
        mine = claim(self._run.partial, name, len(questions))
        if isinstance(mine, Holder):
            if mine.questions not in (len(questions), UNTOLD):
                raise InputError(
                    f"Expected {mine.questions} questions in shard {name}, as the process "
                    f"{mine.pid} on {mine.host} has it, got {len(questions)} - give all workers of "
                    "a run the same --limit and --shard-size"
                )
            self._reporter.note(f"Shard {name} is being made by process {mine.pid} on {mine.host}.")
            return
        with mine:
            if self._run.record(name) is None:
                record = self._shard(name, first, questions, batch_size, done)
                if record is None:
                    return
                self._new += record.counts["traces"]
            mine.done = True

    def _questions(self) -> Iterator[Question]:
        """Good questions up to the limit; bad rows are recorded as they are met."""
        taken = 0
        for row in self._source:
            if isinstance(row, BadRow):
                # Every worker meets every row, and one of them records it.
                if (self._config.worker or "0/1").startswith("0/"):
                    self._run.failures.add(Failure(row.id, None, row.index, "question", row.error))
                continue
            yield row
            taken += 1
            if taken == self._config.limit:
                return

    def _check_digest(self, record: CommitRecord, questions: Sequence[Question]) -> None:
        if record.digest != _digest(questions):
            raise InputError(
                f"Expected the questions that shard {record.name} of {self._run.folder} was made "
                "of, got others (the source changed, or --limit shrank) - choose another --out, or "
                "start over with --overwrite"
            )

    def _shard(
        self,
        name: str,
        first: int,
        questions: list[Question],
        batch_size: int,
        done: Collection[tuple[str, int]] = (),
    ) -> CommitRecord | None:
        """Extracts and commits one shard; None where questions tried again all failed again."""
        digest = _digest(questions)
        job = ShardJob(
            name,
            questions,
            self._run.folder,
            f"{self._manifest.fingerprint}/{digest}/{batch_size}",
            self._loaded,
            self._prompts,
            self._settings,
            self._run.failures.add if first >= 0 else self._run.failures.add_again,
            done,
        )
        job.run(batch_size, self._reporter)
        tally = job.tally
        # A few bad questions that fill a shard are no reason to stop; a model that broke is.
        several = len(questions) > 1 and (first == 0 or tally.broken)
        if not tally.traces and first < 0:
            job.forget()
            (self._run.partial / f"{name}.safetensors").unlink(missing_ok=True)
            return None
        if not tally.traces and several:
            job.forget()
            raise InputError(
                f"Expected traces in shard {name}, got none: all {len(questions)} questions "
                f"failed, the first with: {tally.first_error} - "
                f"see {self._run.folder / 'failures.jsonl'}"
            )
        size, checksum = job.finish()
        keys = sorted(tally.keys)
        record = CommitRecord(
            name=name,
            first=first,
            questions=len(questions),
            digest=digest,
            keys=[[id_, sample] for _, id_, sample, _ in keys],
            indices=[index for _, _, _, index in keys],
            size=size,
            checksum=checksum,
            fingerprint=self._manifest.fingerprint,
            counts=tally.counts(),
            environment=self._environment,
            halvings=tally.halvings,
        )
        began = time.monotonic()
        self._run.commit(record)  # small, so that this is the time of its syncs
        self._syncing += job.syncing + time.monotonic() - began
        job.forget()
        return record

    def _retry(self, records: dict[str, CommitRecord]) -> None:
        """Tries failed questions again, one at a time, in a shard of their own.

        Where all of them fail again nothing is committed; the summary says what still fails.
        """
        done = {(key[0], key[1]) for record in records.values() for key in record.keys}
        open_failures = self._failures(records.values())
        failed = {failure.id for failure in open_failures if failure.stage in RETRIED_STAGES}
        again = [question for question in self._questions() if question.id in failed]
        if again:
            number = sum(name.startswith("retry-") for name in records)
            name = f"retry-{number:05d}"
            self._claimed(name, -1, again, 1, done)

    def _total(self) -> int | None:
        counts = [count for count in (self._source.total, self._config.limit) if count is not None]
        return min(counts) * self._config.samples if counts else None

    def _warn_of_environment(self, records: list[CommitRecord]) -> None:
        here = self._environment
        # A record that was rebuilt may not know its environment.
        others = (record.environment for record in reversed(records))
        there = next((other for other in others if other not in (here, {})), here)
        changed = [
            f"{name}: {there.get(name)} -> {here.get(name)}"
            for name in sorted({*there, *here})
            if there.get(name) != here.get(name)
        ]
        if changed:
            self._reporter.note(
                "Warning: shards of this run were made in another environment, so the last bits "
                f"may differ ({'; '.join(changed)})"
            )

    def _failures(self, records: Iterable[CommitRecord]) -> list[Failure]:
        """The failures that no later attempt has made good."""
        done = {(key[0], key[1]) for record in records for key in record.keys}
        failures = self._run.failures.read()
        return [failed for failed in failures if (failed.id, failed.sample or 0) not in done]

    def _summary(self, seconds: float) -> Summary:
        records = self._run.records()
        failing = self._failures(records)

        def total(name: str) -> int:
            return sum(record.counts[name] for record in records)

        return Summary(
            folder=self._run.folder,
            traces=total("traces"),
            new_traces=self._new,
            failures=len(failing),
            failing=tuple(failing) if self._config.retry_failed else (),
            merged=self._source.merged,
            right=total("right") / total("judged") if total("judged") else None,
            bytes=sum(record.size for record in records),
            seconds=seconds,
            syncing=self._syncing,
        )


def _digest(questions: Sequence[Question]) -> str:
    return digest_of(question.digest() for question in questions)
