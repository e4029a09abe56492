"""What a report carries of a run, within limits, and what it leaves out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace.errors import DamagedError, NotInRunError
from hallutrace.viewer.data.errors import report_keys as error_keys
from hallutrace.viewer.data.layers import report_keys as layer_keys
from hallutrace.viewer.data.map import report_keys as map_keys
from hallutrace.viewer.data.trace_list import trace_columns, trace_list
from hallutrace.viewer.data.trace_parts import trace_parts
from hallutrace.viewer.data.worst import worst_traces
from hallutrace.viewer.evaluations.scores import evaluation_scores
from hallutrace.viewer.evaluations.verdict import compared
from hallutrace.viewer.payload import pack
from hallutrace.viewer.providers import key_of, payload_of
from hallutrace.viewer.slices.figures import fold_ranks
from hallutrace.viewer.viewed_run import ViewedRun


@dataclass(frozen=True)
class Limits:
    """How much of a run its report carries.

    Attributes:
        listed: traces up to which all are listed.
        worst: traces that are listed of a run with more.
        with_edges: traces that carry their attention graphs.
        edge_bytes: compressed bytes of those; of large graphs fewer traces carry theirs, but one.
        trace_bytes: compressed bytes of what other traces carry: tokens and mean marginals.
    """

    listed: int = 20_000
    worst: int = 500
    with_edges: int = 20
    edge_bytes: int = 6_000_000
    trace_bytes: int = 4_000_000


@dataclass
class Report:
    """What a report carries; :meth:`payloads` gives it and fills in what was left out.

    Attributes:
        viewed: the run, with what was made from it.
        limits: how much of it.
        notes: sentences on what the report does not carry, complete after :meth:`payloads`.
        missing: why a payload is not in the run, by its name, complete after :meth:`payloads`.
    """

    viewed: ViewedRun
    limits: Limits = field(default_factory=Limits)
    notes: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    def payloads(self) -> Iterator[tuple[str, bytes]]:
        """Key and payload of everything; what the run does not have is left out."""
        yield from self._packed([(name, {}) for name in ("run", "distributions", "detectors")])
        listed, worst = self.listed(), self.worst()
        yield "traces", pack(listed)
        carried = [self.viewed.key_texts[one] for one in worst[: self.limits.with_edges]]
        if len(self.viewed.store) > self.limits.with_edges:
            self.notes.append(
                f"{len(carried)} of {len(self.viewed.store):,} traces carry their attention "
                f"graphs: those {self.how_chosen()}."
            )
        yield from self._packed(layer_keys(self.viewed, carried))
        yield from self._packed(error_keys(self.viewed))
        yield from self._packed(map_keys(self.viewed))
        yield from self._traces(carried, listed["key"])

    def _packed(self, asked: Iterable[tuple[str, dict[str, str]]]) -> Iterator[tuple[str, bytes]]:
        """Payloads, without those that the run cannot give; the views say why."""
        left = iter(asked)
        while True:
            name = ""
            try:
                name, parameters = next(left)
                packed = key_of(name, parameters), payload_of(self.viewed, name, parameters)
            except StopIteration:
                return
            except (NotInRunError, DamagedError) as error:
                if not name:
                    return  # what the parts of a damaged trace are cannot be said
                self.missing.setdefault(name, str(error))
            else:
                yield packed

    def worst(self) -> list[int]:
        """Positions of the worst traces, worst first."""
        return self._worst[0]

    def how_chosen(self) -> str:
        """What the worst traces have in common, to follow "those"."""
        return self._worst[1]

    def traces(self, positions: list[int]) -> dict[str, Any]:
        """Columns of some traces."""
        return trace_list(self.viewed, positions)

    @cached_property
    def _worst(self) -> tuple[list[int], str]:
        viewed = self.viewed
        labels = viewed.label_values(None) if viewed.labels else None
        ranks, how = None, "of the lowest mean log-probability"
        if labels is not None and (labels >= 0).any():
            how = "that are hallucinated with the highest mean log-probability"
            if detector := self._detector():
                ranks = self._ranks(detector)
                how = f"whose label and score by {detector} are furthest apart"
        positions = worst_traces(trace_columns(viewed).mean_logprob, labels, ranks)
        return positions[: self.limits.worst].tolist(), how

    def _detector(self) -> str | None:
        """Label of the detector of the highest AUROC that is no control."""
        if self.viewed.evaluation is None:
            return None
        best = compared(self.viewed.evaluation_files.content).best
        return None if best is None else best.label

    def _ranks(self, detector: str) -> NDArray[np.float64]:
        """Rank of each trace's score in its fold, mean over seeds; NaN where it has none."""
        scores = evaluation_scores(self.viewed)
        known = scores.folds >= 0
        ranks = np.full(len(known), np.nan)
        ranks[known] = fold_ranks(scores.series[detector][:, known], scores.folds[known])
        return ranks

    def listed(self) -> dict[str, Any]:
        """The payload `traces`: all, or the worst of a large run."""
        if len(self.viewed.store) <= self.limits.listed:
            return trace_list(self.viewed)
        self.notes.append(
            f"{self.limits.worst} of {len(self.viewed.store):,} traces are listed; "
            "`hallutrace explore` shows all."
        )
        return trace_list(self.viewed, self.worst())

    def _traces(self, carried: list[str], listed: list[str]) -> Iterator[tuple[str, bytes]]:
        """Payloads of single traces: the worst with edges, then others until there is no room."""
        spent, with_edges = 0, 0
        for key in carried:
            if with_edges and spent > self.limits.edge_bytes:
                break
            for name, payload in self._packed(trace_parts(self.viewed, key)):
                spent += len(payload)
                yield name, payload
            with_edges += 1
        if with_edges < len(carried):
            self.notes.append(f"Of these only {with_edges} do, because their graphs are large.")
        in_full = set(carried[:with_edges])
        spent, others = 0, [key for key in listed if key not in in_full]
        for number, key in enumerate(others):
            if spent > self.limits.trace_bytes:
                self.notes.append(
                    f"{number + with_edges:,} of {len(listed):,} listed traces can be opened here; "
                    "`hallutrace explore` opens all."
                )
                break
            for name, payload in self._packed([("trace", {"trace": key})]):
                spent += len(payload)
                yield name, payload
