"""The model of a run, loaded when it is first needed, and used for one thing at a time."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hallutrace.config import ExtractConfig
from hallutrace.errors import HallutraceError, IdentityError
from hallutrace.extraction.same_settings import settings_of
from hallutrace.model.loading import Loaded, load
from hallutrace.store.folder import Manifest, differences

Tell = Callable[[str, Any], None]
"""Called with the name of an event and its JSON-able content."""

_LOADING = ("model", "revision", "adapter", "dtype", "quantization")


class BusyError(HallutraceError):
    """The model is in use."""


class StoppedError(HallutraceError):
    """The person who asked wants no more of it."""


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        text: the question.
        context: a text that it is about; None where it stands alone.
        response: token ids of an answer to replay; None where the model is to answer.
    """

    text: str
    context: str | None = None
    response: tuple[int, ...] | None = None


class OwnModel:
    """Loads the model that a run was made with; the one before it goes.

    Args:
        device: that models run on: ``auto``, ``cpu``, ``cuda`` ...
        trust_remote_code: whether code that comes with a model may run.
        prepare: called before a model is loaded.
    """

    def __init__(
        self,
        device: str = "auto",
        trust_remote_code: bool = False,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        self._prepare = prepare
        self._given = {"device": device, "trust_remote_code": trust_remote_code}
        self._lock = threading.Lock()
        self._loaded: tuple[dict[str, Any], Loaded] | None = None

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Within it, nobody else uses the model.

        Raises:
            BusyError: somebody does.
        """
        if not self._lock.acquire(blocking=False):
            raise BusyError(
                "Expected a model that is free, got one that answers another question - wait, or "
                "stop that one"
            )
        try:
            yield
        finally:
            self._lock.release()

    def config(self, manifest: Manifest, question: Question, folder: Path) -> ExtractConfig:
        """The settings by which a question is asked like those of a run.

        Args:
            manifest: of the run.
            question: what is asked.
            folder: for the question's file and the run that answers it.

        Raises:
            InputError: a run of existing answers.
        """
        options = settings_of(manifest.identity, has_context=question.context is not None)
        row: dict[str, Any] = {
            "id": "question",
            "question": question.text,
            "context": question.context,
        }
        source = "questions"
        if question.response is not None:
            source, row["response"] = "responses", list(question.response)
        file = folder / "question.jsonl"
        file.write_text(json.dumps(row) + "\n", encoding="utf-8")
        places = {source: str(file), "out": folder / "run", "batch_size": 1}
        return ExtractConfig.from_options(options | self._given | places)

    def loaded(self, config: ExtractConfig, manifest: Manifest, tell: Tell) -> Loaded:
        """The model; :meth:`in_use` must be open.

        Args:
            config: of :meth:`config`.
            manifest: of the run.
            tell: told when it is loaded.

        Raises:
            ModelError: it cannot be loaded.
            IdentityError: the files of that name hold another model now.
        """
        wanted = {name: getattr(config, name) for name in _LOADING}
        if self._loaded is None or self._loaded[0] != wanted:
            self._loaded = None  # first, so that two are never in memory
            tell("state", {"text": f"Loading the model {config.model} …"})
            self._prepare()
            self._loaded = wanted, load(config)
        loaded = self._loaded[1]
        _check_same(manifest.identity["model"], loaded.identity())
        return loaded


def _check_same(there: dict[str, Any], here: dict[str, Any]) -> None:
    found = [
        one
        for one in differences(there, here)
        # The same files under another name are the same model; leave to run code is none of it.
        if one[0] not in ("name", "base.name", "trust_remote_code")
    ]
    if found:
        fields = "; ".join(f"{name} was {was}, is {now}" for name, was, now in found)
        raise IdentityError(
            f"Expected the model that the run was made with, got another one in {here['name']} "
            f"({fields}) - restore it"
        )
