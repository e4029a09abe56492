"""The making of one shard: its questions in batches, answered, replayed, reduced and written."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hallutrace._core import ShardWriter
from hallutrace.capture import replay
from hallutrace.errors import InputError
from hallutrace.extraction import batching, trace_arrays
from hallutrace.extraction.answer_checks import AnswerChecks
from hallutrace.extraction.counts import Tally
from hallutrace.extraction.resolved import Settings
from hallutrace.model import answer_ends, generate
from hallutrace.model.answer_ends import Answer, AnswerEnds
from hallutrace.model.free_memory import is_out_of_memory, release_cached_memory
from hallutrace.model.loading import Loaded
from hallutrace.model.prompts import Prompt, PromptBuilder
from hallutrace.progress import Reporter
from hallutrace.questions import Question
from hallutrace.store.failures import Failure
from hallutrace.store.records import CommitRecord
from hallutrace.text_measures import contains
from hallutrace.third_party import is_fatal, reason_of, traceback_of, without_frames


@dataclass(frozen=True, slots=True)
class _Item:
    """A question with its prompt, its place in the shard, and the answers that exist already."""

    place: int
    question: Question
    prompt: Prompt
    given: list[tuple[int, Answer]]


# An answer on its way: its question, which sample, and what was said.
_Answered = tuple[_Item, int, Answer]


class ShardJob:
    """Extracts one shard.

    Args:
        record: what is known of the shard; sampling is seeded by its name.
        questions: all questions of the shard.
        run: folder of the run.
        identity: all that decides the shard's bytes; a shard begun as another is discarded.
        loaded: the model.
        prompts: makes prompts of questions.
        settings: the run's choices.
        fail: given every failure.
        check: raises where the shard is no longer this process's; called before anything of it is
            made durable.
        checks: shown what is generated.
        done: question id and sample of traces that other shards hold; they are not written again.
    """

    def __init__(
        self,
        record: CommitRecord,
        questions: Sequence[Question],
        run: Path,
        identity: str,
        loaded: Loaded,
        prompts: PromptBuilder,
        settings: Settings,
        fail: Callable[[Failure], object],
        check: Callable[[], object],
        checks: AnswerChecks,
        done: Collection[tuple[str, int]] = (),
    ) -> None:
        self.tally = Tally()
        self._record = record
        self._seed_number = _seed_number(record.name)
        self._questions = questions
        self._loaded = loaded
        self._prompts = prompts
        self._settings = settings
        self._fail_with = fail
        self._check = check
        self._checks = checks
        self._ends = AnswerEnds(loaded, settings.stop)
        self._done = done
        decoding = settings.decoding
        self._samples = (
            decoding.samples if decoding else max(len(question.responses) for question in questions)
        )
        self._counting = self.tally
        self._writer = ShardWriter(
            run,
            record.name,
            identity,
            len(questions) * self._samples,
            record.description(),
            edge_weight=settings.edge_dtype,
            hidden=settings.hidden.dtype,
        )

    def run(self, batch_size: int, reporter: Reporter) -> None:
        """Answers, replays and writes all questions, batch after batch, from where it stopped."""
        items = self._items()
        self._say(reporter)
        lengths = [len(item.prompt.tokens) for item in items]
        done = [Tally.from_note(note) for note in self._writer.notes()]
        for tally in done:
            self.tally.add(tally)
        planned = list(enumerate(batching.plan_batches(lengths, batch_size)))[len(done) :]
        left = sum(
            self._answers_of(items[place].question) for _, places in planned for place in places
        )
        reporter.skip(sum(map(self._answers_of, self._questions)) - left)
        for number, places in planned:
            batch = [items[place] for place in places]
            self._counting = Tally()
            self._batch(batch, number)
            self._check()
            self._writer.end_batch(self._counting.to_note())
            self.tally.add(self._counting)
            now = self._counting
            answers = sum(self._answers_of(item.question) for item in batch)
            reporter.advance(now.traces, now.answer_tokens, now.failures, answers)
            self._say(reporter)

    def _answers_of(self, question: Question) -> int:
        """How many answers a question is to have."""
        return self._samples if self._settings.decoding else len(question.responses)

    def finish(self) -> CommitRecord:
        """Publishes the shard; its record is to be committed."""
        self._check()
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
        """Forgets how far the shard came: it is committed, or it is to begin anew."""
        self._writer.forget()

    @property
    def syncing(self) -> float:
        """Seconds spent waiting for the disk to sync."""
        return self._writer.syncing

    def _say(self, reporter: Reporter) -> None:
        for line in self._prompts.notices.take():
            reporter.note(line)

    def _items(self) -> list[_Item]:
        """The questions with their prompts; those too long for the model are failures."""
        room = (self._loaded.longest or 2**31) - self._settings.new_tokens
        items = []
        for place, question in enumerate(self._questions):
            try:
                prompt = self._prompts.build(question)
                answer_ends.check_tokens(
                    self._loaded, prompt.tokens, "use the tokenizer that the model was trained with"
                )
                if len(prompt.tokens) > room:
                    raise InputError(
                        f"Expected a prompt of at most {room} tokens, got {len(prompt.tokens)} - "
                        "shorten it, lower --max-new-tokens, or choose a model for longer inputs"
                    )
            except BaseException as error:
                if is_fatal(error):
                    raise
                self._fail(question, None, "prompt", error)
                continue
            given = self._given(question, len(prompt.tokens))
            if given or self._settings.decoding:
                items.append(_Item(place, question, prompt, given))
        return items

    def _given(self, question: Question, prompt_tokens: int) -> list[tuple[int, Answer]]:
        """The answers that exist already, by sample; those that cannot be replayed are failures."""
        if self._settings.decoding:
            return []
        room = (self._loaded.longest or 2**31) - prompt_tokens
        answers = []
        for sample, response in enumerate(question.responses):
            try:
                answer = answer_ends.given(
                    self._ends,
                    self._loaded,
                    response,
                    self._settings.response_eos,
                    self._settings.response_end,
                    question.spans[sample] if question.spans else (),
                )
                if len(answer.tokens) > room:
                    raise InputError(
                        f"Expected a response of at most {room} tokens, got {len(answer.tokens)} - "
                        "shorten it, or choose a model for longer inputs"
                    )
            except BaseException as error:
                if is_fatal(error):
                    raise
                self._fail(question, sample, "response", error)
                continue
            answers.append((sample, answer))
        return answers

    def _batch(self, batch: list[_Item], number: int, first: int = 0) -> None:
        """Answers, replays and writes a batch; halved where that fails, down to one question.

        So one question whose text or tokens make a library fail costs itself alone. What is halved
        is recorded: the parts are batches of other questions, and differ in the last bits.

        Args:
            batch: the questions.
            number: of the batch in the shard.
            first: place of the first of them in the whole batch.
        """
        stage = "generate"
        try:
            answered = self._answers(batch, number, first)
            stage = "replay"
            replayed = self._replay(answered)
        except BaseException as error:
            if is_fatal(error):
                raise
            told = traceback_of(error)
            failed = without_frames(error)  # they would keep the tensors of what failed alive
        else:
            self._loaded.check_in_place()
            self._check()  # what was suspended was so in all likelihood above
            for (item, sample, answer), result in zip(answered, replayed, strict=True):
                self._append(item, sample, answer, result)
            return
        release_cached_memory()
        if len(batch) == 1:
            stage = "memory" if is_out_of_memory(failed) else stage
            self._fail(batch[0].question, None, stage, failed, told)
            return
        half = (len(batch) + 1) // 2
        self._counting.halvings.append([number, half])
        self._batch(batch[:half], number, first)
        self._batch(batch[half:], number, first + half)

    def _answers(self, batch: list[_Item], number: int, first: int) -> list[_Answered]:
        """The answers of a batch: generated, or those that exist."""
        decoding = self._settings.decoding
        if decoding is None:
            return [(item, sample, answer) for item in batch for sample, answer in item.given]
        seed = generate.batch_seed(self._settings.seed, self._seed_number, number, first)
        prompts = [item.prompt.tokens for item in batch]
        answers = generate.generate(self._loaded, prompts, decoding, seed)
        return [
            (item, sample, answer)
            for item, several in zip(batch, answers, strict=True)
            for sample, answer in enumerate(several)
        ]

    def _replay(self, answered: list[_Answered]) -> list[replay.Replayed]:
        texts = [
            replay.Text(
                item.prompt.tokens + answer.tokens, len(item.prompt.tokens), item.prompt.boundaries
            )
            for item, _, answer in answered
        ]
        hidden = self._settings.hidden
        return replay.replay(
            self._loaded,
            texts,
            self._settings.reduction,
            hidden_layers=hidden.layers if hidden.states != "none" else (),
            hidden_rows=hidden.rows,
            alternatives=self._settings.alternatives,
        )

    def _append(self, item: _Item, sample: int, answer: Answer, replayed: replay.Replayed) -> None:
        """Writes one trace, and counts it."""
        question, hidden = item.question, self._settings.hidden
        if (question.id, sample) in self._done:
            return
        self._see(question, answer)
        ends = answer.tokens[-1] in self._loaded.eos_ids
        tokens = item.prompt.tokens + answer.tokens
        try:
            arrays = trace_arrays.arrays_of(replayed, tokens, ends, hidden)
        except InputError as error:  # numbers that are none
            self._fail(question, sample, "replay", error)
            return
        arrays["meta"] = trace_arrays.meta_of(question, item.prompt, answer, sample, hidden)
        number = item.place * self._samples + sample
        try:
            self._writer.append(number, question.id, sample, arrays)
        except InputError as error:
            self._fail(question, sample, "write", error)
            return
        tally = self._counting
        tally.traces += 1
        tally.answer_tokens += len(answer.tokens)
        tally.keys.append((number, question.id, sample, question.index))
        if question.references:
            tally.judged += 1
            tally.right += contains(answer.text, question.references)

    def _see(self, question: Question, answer: Answer) -> None:
        if self._settings.decoding is not None and not self._checks.is_judged:
            written = answer_ends.decode(self._loaded, answer.tokens, special=True)
            self._checks.see(question.question, answer, written)

    def _fail(
        self,
        question: Question,
        sample: int | None,
        stage: str,
        error: BaseException,
        told: str = "",
    ) -> None:
        """Records a failure; ``told`` is its traceback, where ``error`` lost it."""
        reason = str(error) if is_out_of_memory(error) else reason_of(error)
        reason = " ".join(reason.split())
        told = told or traceback_of(error)
        self._counting.failed(stage, reason)
        self._fail_with(Failure(question.id, sample, question.index, stage, reason, traceback=told))


def _seed_number(name: str) -> int:
    """A number for each shard, those of retried questions apart from the others."""
    kind, _, number = name.rpartition("-")
    return int(number) + (1_000_000_000 if kind else 0)
