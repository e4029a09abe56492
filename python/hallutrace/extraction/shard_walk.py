"""Iterates over the shards of a run: claims, extracts and commits each one that is missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

from hallutrace.capture.exactness_check import probe
from hallutrace.config import ExtractConfig
from hallutrace.errors import InputError, ModelError
from hallutrace.extraction.answer_checks import AnswerChecks
from hallutrace.extraction.batch_halving import ShardContext
from hallutrace.extraction.environment import changes, environment
from hallutrace.extraction.resolved_settings import Settings, manifest_of, template_day
from hallutrace.extraction.shard import ShardJob
from hallutrace.extraction.shard_questions import RETRY, ShardQuestions, questions_digest
from hallutrace.extraction.summary import Summary, summarize
from hallutrace.model.loading import Loaded, default_prompt
from hallutrace.model.prompts import PromptBuilder
from hallutrace.option_names import parameter
from hallutrace.progress import Reporter
from hallutrace.questions import (
    Question,
    QuestionSource,
)
from hallutrace.store import expectation
from hallutrace.store.claims import (
    UNKNOWN_COUNT,
    Holder,
    claim,
    running_holder,
    wait_until_claimable,
)
from hallutrace.store.folder import CommitRecord, Run
from hallutrace.store.processes import State
from hallutrace.third_party import refusing


class Extraction:
    """The extraction of one run with a loaded model.

    Args:
        config: the configuration.
        source: the questions.
        run: folder of the run.
        loaded: the model.
        reporter: receives progress and notes.

    Raises:
        InputError: a setting is invalid for the model.
        ModelError: the attention of the model cannot be captured exactly.
    """

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
            loaded.tokenizer,
            default_prompt(config, loaded),
            config.chat,
            config.chat_template_kwargs,
            template_day(config, self._earlier),
        )
        self._settings = Settings.of(
            config, loaded, self._prompts, self._earlier, source.has_responses
        )
        self._questions = ShardQuestions(config, source, run, self._settings.decoding, reporter)
        self._checks = AnswerChecks(self._prompts.notices, config.max_new_tokens)
        with refusing(
            f"a model that takes a few tokens, as {loaded.name}",
            f"try another {parameter('dtype')}",
            ModelError,
        ):
            attention = probe(loaded, hidden=self._settings.hidden.states != "none")
        self._manifest = manifest_of(
            config, self._settings, source, self._prompts, loaded, attention
        )
        self._environment = environment(loaded.device)
        self._new_traces = 0
        self._syncing = 0.0

    def run_all(self) -> Summary:
        """Extracts all shards that are neither committed nor claimed by another process.

        Raises:
            IdentityError: the folder contains a run with other settings.
            InputError: the questions changed, or all questions of a shard failed.
        """
        if self._earlier is not None:
            self._earlier.check_same(self._manifest, self._run.folder)
            self._manifest = self._earlier  # its facts were measured when the run started
        elif not self._run.begin(self._manifest):
            # Another process created the run meanwhile: resolve "auto" settings from its manifest.
            parts = (self._config, self._source, self._run, self._loaded, self._reporter)
            return Extraction(*parts).run_all()
        records = {record.name: record for record in self._run.records()}
        self._run.check_ours_alone(records.values(), self._manifest.fingerprint)
        self._run.tidy(records)
        if changed := changes(self._environment, list(records.values())):
            self._reporter.note(changed)
        retried = self._questions.to_retry(records) if self._config.retry_failed else []
        self._questions.begin_report(records, retried)
        began = time.monotonic()
        if retried:
            self._retry(records, retried)
        claimed_elsewhere = [
            shard
            for shard in self._questions.shards(records)
            if not self._try_shard(*shard, self._settings.batch_size)
        ]
        self._wait_for(claimed_elsewhere)
        expectation.remove(self._run.partial)
        self._checks.judge()
        for line in self._prompts.notices.take():
            self._reporter.note(line)
        return summarize(
            self._run,
            self._source.merged,
            is_retried=self._config.retry_failed,
            new_traces=self._new_traces,
            seconds=time.monotonic() - began,
            syncing=self._syncing,
        )

    def _try_shard(
        self,
        name: str,
        first: int,
        questions: list[Question],
        batch_size: int,
        done: Collection[tuple[str, int]] = (),
    ) -> bool:
        """Extracts and commits one shard; False if another process has claimed it."""
        self._run.make_folders()
        ours = claim(self._run.partial, name, len(questions))
        if isinstance(ours, Holder):
            if ours.questions not in (len(questions), UNKNOWN_COUNT):
                raise InputError(
                    f"Expected {ours.questions} questions in shard {name}, as the process "
                    f"{ours.pid} on {ours.host} has it, got {len(questions)} - give all workers "
                    f"of a run the same {parameter('limit')} and {parameter('shard_size')}"
                )
            self._reporter.note(f"Shard {name} is being made by process {ours.pid} on {ours.host}.")
            return False
        with ours:
            self._run.check_current(self._manifest.fingerprint)
            if self._run.record(name) is None:
                record = self._take_published(name, questions)
                if record is None:
                    record = self._shard(name, first, questions, batch_size, ours.check, done)
                if record is None:
                    return True
                self._new_traces += record.counts["traces"]
            else:
                self._reporter.skip(self._questions.num_answers(questions))
            ours.done = True
        return True

    def _wait_for(self, shards: list[tuple[str, int, list[Question]]]) -> None:
        """Takes over the shards of processes that ended; of unreachable ones after a timeout."""
        for name, first, questions in shards:
            if self._run.record(name) is None:
                holder = running_holder(self._run.partial, name)
                if holder is not None and holder.state() is State.UNKNOWN:
                    self._reporter.note(
                        f"Waiting for a sign of process {holder.pid} on {holder.host}, which "
                        "cannot be seen from here (5 minutes at most)."
                    )
                if wait_until_claimable(self._run.partial, name) and self._try_shard(
                    name, first, questions, self._settings.batch_size
                ):
                    continue
            self._reporter.skip(self._questions.num_answers(questions))

    def _shard(
        self,
        name: str,
        first: int,
        questions: list[Question],
        batch_size: int,
        check: Callable[[], object],
        done: Collection[tuple[str, int]] = (),
    ) -> CommitRecord | None:
        """Extracts and commits one shard; None if all questions of a retry shard failed."""
        job = self._job(name, first, questions, batch_size, check, done)
        job.run(batch_size, self._reporter)
        check()
        if not job.tally.traces and first < 0:
            job.forget()
            (self._run.partial / f"{name}.safetensors").unlink(missing_ok=True)
            return None
        # A shard may lack traces if it has one question, or is a later one without valid questions.
        needs_traces = len(questions) > 1 and (first == 0 or job.tally.unexpected_failures)
        if not job.tally.traces and needs_traces:
            job.forget()
            raise InputError(
                f"Expected traces in shard {name}, got none: all {len(questions)} questions "
                f"failed, the first with: {job.tally.first_error} - "
                f"see {self._run.folder / 'failures.jsonl'}"
            )
        record = job.finish()
        began = time.monotonic()
        check()
        self._run.commit(record)  # the record is small: the commit takes the time of its syncs
        self._syncing += job.syncing + time.monotonic() - began
        job.forget()
        return record

    def _job(
        self,
        name: str,
        first: int,
        questions: list[Question],
        batch_size: int,
        check: Callable[[], object],
        done: Collection[tuple[str, int]],
    ) -> ShardJob:
        """Opens the file of a shard, or continues it."""
        digest = questions_digest(questions)
        fingerprint = self._manifest.fingerprint
        draft = CommitRecord(
            name=name,
            first=first,
            questions=len(questions),
            digest=digest,
            fingerprint=fingerprint,
            environment=self._environment,
        )
        context = ShardContext(
            self._loaded,
            self._settings,
            self._run.failures.add if first >= 0 else self._run.failures.add_again,
            check,
            self._checks,
            done,
        )
        identity = f"{fingerprint}/{digest}/{batch_size}"
        return ShardJob(draft, questions, self._run.folder, identity, self._prompts, context)

    def _take_published(self, name: str, questions: Sequence[Question]) -> CommitRecord | None:
        """Commits a finished shard whose process was killed before its commit; None if none exists.

        The digest of a retry shard is not checked, because its set of questions may have changed.
        """
        record = self._run.take_published(name, self._manifest.fingerprint)
        if record is not None:
            if record.first >= 0:
                self._questions.check_digest(record, questions)
            self._run.commit(record)
            self._reporter.skip(self._questions.num_answers(questions))
        return record

    def _retry(self, records: dict[str, CommitRecord], questions: list[Question]) -> None:
        """Retries failed questions in a new shard, with a batch size of 1.

        Nothing is committed if all of them fail; the summary lists the remaining failures.
        """
        done = {(key[0], key[1]) for record in records.values() for key in record.keys}
        numbers = [int(name.removeprefix(RETRY)) for name in records if name.startswith(RETRY)]
        self._try_shard(f"{RETRY}{max(numbers, default=-1) + 1:05d}", -1, questions, 1, done)
