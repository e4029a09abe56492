"""Extracts one shard: builds prompts, runs the batches and finishes the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hallutrace._core import ShardWriter
from hallutrace.errors import InputError
from hallutrace.extraction import batch_planning
from hallutrace.extraction.batch_halving import BatchRunner, PromptedQuestion, ShardContext
from hallutrace.extraction.counts import Tally
from hallutrace.model import answer_ends
from hallutrace.model.answer_ends import Answer, AnswerEnds
from hallutrace.model.prompts import PromptBuilder
from hallutrace.option_names import parameter
from hallutrace.progress import Reporter
from hallutrace.questions import Question
from hallutrace.store.records import CommitRecord
from hallutrace.third_party import is_fatal


class ShardJob:
    """Extracts one shard.

    Args:
        record: commit record without the results; its shard name is part of the sampling seed.
        questions: all questions of the shard.
        run: folder of the run.
        identity: string of all that determines the bytes of the shard; an unfinished shard with
            another identity is discarded.
        prompts: builds the prompts.
        context: the model, the settings, and who is told of failures.
    """

    def __init__(
        self,
        record: CommitRecord,
        questions: Sequence[Question],
        run: Path,
        identity: str,
        prompts: PromptBuilder,
        context: ShardContext,
    ) -> None:
        self.tally = Tally()
        self._record = record
        self._questions = questions
        self._prompts = prompts
        self._context = context
        self._settings = settings = context.settings
        self._ends = AnswerEnds(context.loaded, settings.stop)
        decoding = settings.decoding
        self._samples = (
            decoding.samples if decoding else max(len(question.responses) for question in questions)
        )
        self._writer = ShardWriter(
            run,
            record.name,
            identity,
            len(questions) * self._samples,
            record.description(),
            edge_weight=settings.edge_dtype,
            hidden=settings.hidden.dtype,
        )
        number = _seed_number(record.name)
        self._batches = BatchRunner(context, self._writer, number, self._samples)

    def run(self, batch_size: int, reporter: Reporter) -> None:
        """Runs all batches that the journal of the shard does not contain yet."""
        items = self._items()
        self._report_notices(reporter)
        lengths = [len(item.prompt.tokens) for item in items]
        done = [Tally.from_note(note) for note in self._writer.notes()]
        for tally in done:
            self.tally.add(tally)
        batches = list(enumerate(batch_planning.plan_batches(lengths, batch_size)))[len(done) :]
        remaining = sum(
            self._num_answers(items[index].question) for _, indices in batches for index in indices
        )
        reporter.skip(sum(map(self._num_answers, self._questions)) - remaining)
        for number, indices in batches:
            batch = [items[index] for index in indices]
            tally = Tally()
            self._batches.run(batch, number, tally)
            self._context.check()
            self._writer.end_batch(tally.to_note())
            self.tally.add(tally)
            answers = sum(self._num_answers(item.question) for item in batch)
            reporter.advance(tally.traces, tally.answer_tokens, tally.failures, answers)
            self._report_notices(reporter)

    def _num_answers(self, question: Question) -> int:
        """Number of answers of a question, generated or existing."""
        return self._samples if self._settings.decoding else len(question.responses)

    def finish(self) -> CommitRecord:
        """Finishes the file of the shard and returns its record, which the caller commits."""
        self._context.check()
        keys = sorted(self.tally.keys)
        indices, counts = [index for *_, index in keys], self.tally.counts()
        halvings = self.tally.halvings
        size, checksum = self._writer.finish(counts, indices, halvings)
        return replace(
            self._record,
            keys=[[id_, sample] for _, id_, sample, _ in keys],
            indices=indices,
            size=size,
            checksum=checksum,
            counts=counts,
            halvings=halvings,
        )

    def forget(self) -> None:
        """Deletes the journal, after the commit or to discard an unfinished shard."""
        self._writer.forget()

    @property
    def syncing(self) -> float:
        """Seconds spent waiting for the disk to sync."""
        return self._writer.syncing

    def _report_notices(self, reporter: Reporter) -> None:
        for line in self._prompts.notices.take():
            reporter.note(line)

    def _items(self) -> list[PromptedQuestion]:
        """Builds the prompts; a prompt that fails or is too long is recorded as a failure."""
        max_tokens = (self._context.loaded.context_length or 2**31) - self._settings.new_tokens
        items = []
        for index, question in enumerate(self._questions):
            try:
                prompt = self._prompts.build(question)
                answer_ends.check_tokens(
                    self._context.loaded,
                    prompt.tokens,
                    "use the tokenizer that the model was trained with",
                )
                if len(prompt.tokens) > max_tokens:
                    raise InputError(
                        f"Expected a prompt of at most {max_tokens} tokens, got "
                        f"{len(prompt.tokens)} - shorten it, lower {parameter('max_new_tokens')}, "
                        "or choose a model for longer inputs"
                    )
            except BaseException as error:
                if is_fatal(error):
                    raise
                self._context.record_failure(self.tally, question, None, "prompt", error)
                continue
            given = self._given(question, len(prompt.tokens))
            if given or self._settings.decoding:
                items.append(PromptedQuestion(index, question, prompt, given))
        return items

    def _given(self, question: Question, prompt_tokens: int) -> list[tuple[int, Answer]]:
        """The existing answers with sample numbers; invalid ones are recorded as failures."""
        if self._settings.decoding:
            return []
        max_tokens = (self._context.loaded.context_length or 2**31) - prompt_tokens
        answers = []
        for sample, response in enumerate(question.responses):
            try:
                answer = answer_ends.given(
                    self._ends,
                    self._context.loaded,
                    response,
                    self._settings.response_eos,
                    self._settings.response_end,
                    question.spans[sample] if question.spans else (),
                )
                if len(answer.tokens) > max_tokens:
                    raise InputError(
                        f"Expected a response of at most {max_tokens} tokens, got "
                        f"{len(answer.tokens)} - shorten it, or choose a model for longer inputs"
                    )
            except BaseException as error:
                if is_fatal(error):
                    raise
                self._context.record_failure(self.tally, question, sample, "response", error)
                continue
            answers.append((sample, answer))
        return answers


def _seed_number(name: str) -> int:
    """The number in a shard name; offset for retry shards, so that their seeds differ."""
    kind, _, number = name.rpartition("-")
    return int(number) + (1_000_000_000 if kind else 0)
