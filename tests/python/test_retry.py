"""A hub that is slow, busy or gone for a moment is waited for; a fake one, without network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import Extract, question_rows
from hallutrace import ExtractConfig, extract
from hallutrace.errors import InputError, ModelError
from hallutrace.model.loading import load
from hallutrace.progress import Silent
from hallutrace.questions import open_questions
from hallutrace.retry import Retry, is_temporary
from hallutrace.store.folder import Run


class Response:
    def __init__(self, status: int, **headers: str) -> None:
        self.status_code, self.headers = status, headers


class HfHubHTTPError(OSError):
    """As the hub's own library raises it."""

    def __init__(self, status: int, **headers: str) -> None:
        super().__init__(f"{status} of the hub")
        self.response = Response(status, **{key.replace("_", "-"): headers[key] for key in headers})


class ReadTimeout(Exception):  # noqa: N818 - as httpx calls it
    """As httpx raises it."""


class OfflineModeIsEnabled(ConnectionError):  # noqa: N818 - likewise
    """As the hub's own library raises it where the user asked for it."""


class Waits:
    """Keeps how long was waited, and what was said about it."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.notes: list[str] = []

    def retry(self, **options: Any) -> Retry:
        return Retry(self.notes.append, self.seconds.append, **options)


@pytest.fixture
def waits() -> Waits:
    return Waits()


def failing_first(errors: list[BaseException], act: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which raises each of these before it acts."""
    left = list(errors)

    def call(*args: Any, **kwargs: Any) -> Any:
        if left:
            raise left.pop(0)
        return act(*args, **kwargs)

    return call


def wrapped(cause: BaseException, error: BaseException) -> BaseException:
    """An error that was raised from another."""
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (HfHubHTTPError(429), True),
        (HfHubHTTPError(503), True),
        (HfHubHTTPError(404), False),
        (HfHubHTTPError(401), False),
        (ReadTimeout("slow"), True),
        (TimeoutError("slow"), True),
        (ConnectionResetError("gone"), True),
        (OfflineModeIsEnabled("asked for"), False),
        (wrapped(ReadTimeout("slow"), OSError("cannot load")), True),
        (wrapped(OfflineModeIsEnabled("asked for"), ConnectionError("cannot reach")), False),
        # The nearest status decides: of a server that answered, all is known.
        (wrapped(ConnectionError("first"), HfHubHTTPError(404)), False),
        (ValueError("no such split"), False),
        (FileNotFoundError("no such file"), False),
    ],
)
def test_what_is_temporary_is_told_by_status_and_kind(error: BaseException, expected: bool) -> None:
    assert is_temporary(error) == expected


def test_waits_double_up_to_a_cap(waits: Waits) -> None:
    act = failing_first([ReadTimeout("slow")] * 5, lambda: 7)
    assert waits.retry(longest_wait=12).call(act, "Loading it") == 7
    assert waits.seconds == [2, 4, 8, 12, 12]
    assert waits.notes[0] == (
        "Loading it: ReadTimeout: slow - trying again in 2 s (attempt 2 of 6; Ctrl-C ends the wait)"
    )
    assert len(waits.notes) == 5


def test_it_ends_with_the_last_error(waits: Waits) -> None:
    errors: list[BaseException] = [HfHubHTTPError(503) for _ in range(9)]
    with pytest.raises(HfHubHTTPError) as raised:
        waits.retry(attempts=3).call(failing_first(errors, lambda: 7), "Loading it")
    assert raised.value is errors[2]
    assert waits.seconds == [2, 4]


def test_permanent_errors_are_raised_at_once(waits: Waits) -> None:
    with pytest.raises(HfHubHTTPError):
        waits.retry().call(failing_first([HfHubHTTPError(404)], lambda: 7), "Loading it")
    assert waits.seconds == []


@pytest.mark.parametrize(
    ("asked", "waited"), [("1", 2), ("30", 30), ("9999", 60), ("Fri, 31 Dec 1999", 2)]
)
def test_a_server_may_ask_for_longer(waits: Waits, asked: str, waited: float) -> None:
    busy = HfHubHTTPError(429, Retry_After=asked)
    assert waits.retry().call(failing_first([busy], lambda: 7), "Loading it") == 7
    assert waits.seconds == [waited]


def test_an_interrupt_ends_a_wait(waits: Waits) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    retry = Retry(waits.notes.append, interrupted)
    with pytest.raises(KeyboardInterrupt):
        retry.call(failing_first([ReadTimeout("slow")], lambda: 7), "Loading it")
    assert len(waits.notes) == 1


# Where it is used -------------------------------------------------------------------------------


class Streamed:
    """A data set that breaks at some of its rows, each time another error."""

    column_names = None

    def __init__(self, rows: list[dict[str, Any]], breaks: list[tuple[int, BaseException]]) -> None:
        self.info = type("Info", (), {"splits": None})()
        self._rows, self._breaks = rows, breaks
        self._begin = 0

    def skip(self, count: int) -> Streamed:
        other = Streamed(self._rows, self._breaks)
        other._begin = count
        return other

    def __iter__(self) -> Any:
        for at in range(self._begin, len(self._rows)):
            if self._breaks and self._breaks[0][0] == at:
                raise self._breaks.pop(0)[1]
            yield self._rows[at]


def broken(waits: Waits, monkeypatch: pytest.MonkeyPatch, *breaks: Any) -> list[Any]:
    """What comes of a source on a hub that breaks so."""
    import datasets

    data = Streamed(question_rows(5), list(breaks))
    monkeypatch.setattr(
        datasets,
        "load_dataset",
        failing_first([HfHubHTTPError(429), ConnectionError("gone")], lambda *_, **__: data),
    )
    return list(open_questions("hf:owner/name/train", retry=waits.retry()))


def test_a_stream_goes_on_at_the_row_it_broke_at(
    waits: Waits, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first pass looks at the schema, the second is the source's own.
    breaks = [(0, ReadTimeout("slow")), (2, ReadTimeout("slow")), (3, HfHubHTTPError(502))]
    found = broken(waits, monkeypatch, *breaks, (3, HfHubHTTPError(502)))
    assert [(one.id, one.index) for one in found] == [(f"q{at}", at) for at in range(5)]
    assert waits.seconds == [2, 4, 2, 2, 2, 4]
    assert waits.notes[0].startswith("Opening hf:owner/name/train: HfHubHTTPError: 429 of the hub")
    assert waits.notes[3].startswith("Reading row 2 of hf:owner/name/train: ReadTimeout: slow - ")


def test_a_row_that_cannot_be_decoded_is_not_waited_for(
    waits: Waits, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="Expected row 2 of the data set, got ValueError: bytes"):
        broken(waits, monkeypatch, (2, ValueError("bytes")))
    assert waits.seconds == [2, 4]


def test_a_model_is_waited_for(
    checkpoint: Path, waits: Waits, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    for name in ("AutoConfig", "AutoTokenizer", "AutoModelForCausalLM"):
        kind = getattr(transformers, name)
        lost = wrapped(ReadTimeout("slow"), OSError("cannot load"))
        slow = failing_first([lost], kind.from_pretrained)
        monkeypatch.setattr(kind, "from_pretrained", slow)
    loaded = load(ExtractConfig(model=str(checkpoint)), waits.retry())
    assert loaded.layers > 0
    assert [note.partition(":")[0] for note in waits.notes] == [
        f"Loading {what} {checkpoint}"
        for what in ("the configuration of", "the tokenizer of", "the model")
    ]


def test_a_model_that_does_not_come_is_told_at_the_end(
    waits: Waits, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoConfig

    monkeypatch.setattr(
        AutoConfig, "from_pretrained", failing_first([ConnectionError("gone")] * 9, lambda: None)
    )
    with pytest.raises(ModelError, match="got ConnectionError for 'owner/name'"):
        load(ExtractConfig(model="owner/name"), waits.retry())
    assert waits.seconds == [2, 4, 8, 16, 32]


def test_a_run_records_no_failure_of_the_hub(
    run_extract: Extract, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    data = Streamed(question_rows(7), [(5, HfHubHTTPError(429)), (6, ReadTimeout("slow"))])
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: data)
    monkeypatch.setattr("time.sleep", lambda _: None)

    class Notes(Silent):
        notes: list[str] = []  # noqa: RUF012 - of one call

        def note(self, text: str) -> None:
            self.notes.append(text)

    options = {"model": str(checkpoint), "questions": "hf:owner/name/train", "chat": "off"}
    summary = extract(
        ExtractConfig.from_options(options | {"out": tmp_path / "hub", "max_new_tokens": 4}),
        Notes(),
    )
    assert (summary.traces, summary.failures) == (7, 0)
    assert [note.partition(": ")[0] for note in Notes.notes[:3]] == [
        *(f"Reading row {row} of hf:owner/name/train" for row in (5, 6)),
        "Read from hf:owner/name/train",
    ]
    assert Run(tmp_path / "hub").failures.read() == []
