"""Generates, replays and writes one batch of questions; a batch that fails is halved."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from hallutrace._core import ShardWriter
from hallutrace.capture import replay
from hallutrace.errors import InputError
from hallutrace.extraction import trace_arrays
from hallutrace.extraction.answer_checks import AnswerChecks
from hallutrace.extraction.counts import Tally
from hallutrace.extraction.resolved_settings import Settings
from hallutrace.model import answer_ends, generate
from hallutrace.model.answer_ends import Answer
from hallutrace.model.free_memory import is_out_of_memory, release_cached_memory
from hallutrace.model.loading import Loaded
from hallutrace.model.prompts import Prompt
from hallutrace.questions import Question
from hallutrace.store.failures import Failure
from hallutrace.text_measures import contains
from hallutrace.third_party import is_fatal, reason_of, traceback_of, without_frames


@dataclass(frozen=True, slots=True)
class PromptedQuestion:
    """A question and its prompt.

    Attributes:
        index: index of the question in the shard.
        question: the question.
        prompt: its prompt.
        given: sample number and answer of each existing answer; empty if answers are generated.
    """

    index: int
    question: Question
    prompt: Prompt
    given: list[tuple[int, Answer]]


# Question, sample number, answer.
_Answered = tuple[PromptedQuestion, int, Answer]


@dataclass(frozen=True, slots=True)
class ShardContext:
    """What the extraction of a shard works with.

    Attributes:
        loaded: the model.
        settings: the resolved settings of the run.
        fail: called with each failure.
        check: raises if this process no longer holds the claim on the shard; called before each
            durable write.
        checks: receives the generated answers.
        done: question id and sample of each trace in another shard; these are not written again.
    """

    loaded: Loaded
    settings: Settings
    fail: Callable[[Failure], object]
    check: Callable[[], object]
    checks: AnswerChecks
    done: Collection[tuple[str, int]] = ()

    def record_failure(
        self,
        tally: Tally,
        question: Question,
        sample: int | None,
        stage: str,
        error: BaseException,
        traceback_text: str = "",
    ) -> None:
        """Records and counts a failure.

        Args:
            tally: counts it.
            question: the question that failed.
            sample: number of the answer; None if the whole question failed.
            stage: ``prompt``, ``response``, ``generate``, ``replay``, ``memory`` or ``write``.
            error: the error.
            traceback_text: traceback of ``error``; needed if its frames were removed.
        """
        reason = str(error) if is_out_of_memory(error) else reason_of(error)
        reason = " ".join(reason.split())
        traceback_text = traceback_text or traceback_of(error)
        tally.failed(stage, reason)
        self.fail(
            Failure(question.id, sample, question.index, stage, reason, traceback=traceback_text)
        )


class BatchRunner:
    """Writes the traces of a shard batch by batch.

    Args:
        context: what the shard is extracted with.
        writer: writer of the shard.
        seed_number: number of the shard, part of the sampling seed.
        samples: largest number of answers of a question of the shard.
    """

    def __init__(
        self, context: ShardContext, writer: ShardWriter, seed_number: int, samples: int
    ) -> None:
        self._context = context
        self._loaded = context.loaded
        self._settings = context.settings
        self._writer = writer
        self._seed_number = seed_number
        self._samples = samples

    def run(self, batch: list[PromptedQuestion], number: int, tally: Tally, first: int = 0) -> None:
        """Generates, replays and writes a batch; halves it on an error, down to one question.

        Halving limits a failure to the question that causes it. Halvings are recorded, because
        the last bits of a result depend on the other questions of its batch.

        Args:
            batch: the questions.
            number: number of the batch in the shard.
            tally: counts traces, failures and halvings.
            first: index of ``batch[0]`` in the batch before halving.
        """
        stage = "generate"
        try:
            answered = self._answers(batch, number, first)
            stage = "replay"
            replayed = self._replay(answered)
        except BaseException as error:
            if is_fatal(error):
                raise
            traceback_text = traceback_of(error)
            failed = without_frames(error)  # frames would keep the tensors of the batch in memory
        else:
            self._loaded.check_in_place()
            self._context.check()  # another process may have taken over the shard meanwhile
            for (item, sample, answer), result in zip(answered, replayed, strict=True):
                self._append(item, sample, answer, result, tally)
            return
        release_cached_memory()
        if len(batch) == 1:
            stage = "memory" if is_out_of_memory(failed) else stage
            self._context.record_failure(
                tally, batch[0].question, None, stage, failed, traceback_text
            )
            return
        half = (len(batch) + 1) // 2
        tally.halvings.append([number, half])
        self.run(batch[:half], number, tally, first)
        self.run(batch[half:], number, tally, first + half)

    def _answers(self, batch: list[PromptedQuestion], number: int, first: int) -> list[_Answered]:
        """Generates the answers of a batch, or returns the existing ones."""
        decoding = self._settings.decoding
        if decoding is None:
            return [(item, sample, answer) for item in batch for sample, answer in item.given]
        seed = generate.batch_seed(self._settings.seed, self._seed_number, number, first)
        prompts = [item.prompt.tokens for item in batch]
        answers = generate.generate(self._loaded, prompts, decoding, seed)
        return [
            (item, sample, answer)
            for item, samples in zip(batch, answers, strict=True)
            for sample, answer in enumerate(samples)
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

    def _append(
        self,
        item: PromptedQuestion,
        sample: int,
        answer: Answer,
        replayed: replay.Replayed,
        tally: Tally,
    ) -> None:
        """Writes and counts one trace."""
        question, hidden = item.question, self._settings.hidden
        if (question.id, sample) in self._context.done:
            return
        self._check_answer(question, answer)
        ends = answer.tokens[-1] in self._loaded.eos_ids
        tokens = item.prompt.tokens + answer.tokens
        try:
            arrays = trace_arrays.arrays_of(replayed, tokens, ends, hidden)
        except InputError as error:  # NaN or infinity
            self._context.record_failure(tally, question, sample, "replay", error)
            return
        arrays["meta"] = trace_arrays.meta_of(question, item.prompt, answer, sample, hidden)
        number = item.index * self._samples + sample
        try:
            self._writer.append(number, question.id, sample, arrays)
        except InputError as error:
            self._context.record_failure(tally, question, sample, "write", error)
            return
        tally.traces += 1
        tally.answer_tokens += len(answer.tokens)
        tally.keys.append((number, question.id, sample, question.index))
        if question.references:
            tally.with_references += 1
            tally.right_answers += contains(answer.text, question.references)

    def _check_answer(self, question: Question, answer: Answer) -> None:
        checks = self._context.checks
        if self._settings.decoding is not None and not checks.is_judged:
            written = answer_ends.decode(self._loaded, answer.tokens, special=True)
            checks.see(question.question, answer, written)
