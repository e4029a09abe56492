"""What a detector reads of a trace, and how far a run has it: exactly, nearly, or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hallutrace.detect.options import HiddenVector
from hallutrace.errors import InputError
from hallutrace.listed_names import listed
from hallutrace.option_names import parameter
from hallutrace.store.folder import Manifest
from hallutrace.store.stored_marginals import StoredMarginals

OF_ROWS = frozenset({"previous", "entropy", "mass", "square", "rough"})
"""Marginals of each row, which a run may keep for the answer rows alone."""

IN_FLOAT32 = frozenset({"log_diagonal", "log_square"})
"""Marginals that are stored as they were computed; the others are rounded to float16."""


@dataclass(frozen=True)
class Needs:
    """What a detector reads of a trace, beside its text and its token probabilities.

    Attributes:
        hidden: hidden vectors by name; ``answer`` stands for those of each answer token, ``all``
            for those of each token.
        hidden_layers: numbers of the layers whose hidden states it reads; None for all.
        marginals: exact per-head summaries of the attention, by name.
        all_rows: whether marginals of rows are read for the prompt's rows too.
        layers: numbers of the layers whose attention it reads; None for all.
        edges: how many of the largest weights of each row it reads, ``all`` for every weight; None
            where it reads no edges.
        heads: whether it reads the edges of each head; else heads may have been combined.
        logsumexp: whether it reads ``trace.logsumexp``, the log of the partition function of each
            answer token's distribution.
        alternatives: how many of the likeliest tokens of each answer token it reads.
        samples: answers of each question that it compares.
        takes_less: whether it can do with hidden states, marginals or edges of fewer tokens, and
            with fewer alternatives.

    Raises:
        InputError: a marginal that there is not.

    Examples:
        >>> str(Needs(hidden=("last_answer",), marginals=("mass",)))
        'hidden states (last_answer), marginals (mass)'
    """

    hidden: tuple[HiddenVector | Literal["answer", "all"], ...] = ()
    hidden_layers: tuple[int, ...] | None = None
    marginals: tuple[str, ...] = ()
    all_rows: bool = False
    layers: tuple[int, ...] | None = None
    edges: int | Literal["all"] | None = None
    heads: bool = False
    logsumexp: bool = False
    alternatives: int = 0
    samples: int = 1
    takes_less: bool = False

    def __post_init__(self) -> None:
        known = [name for name in vars(StoredMarginals) if not name.startswith("_")]
        unknown = [name for name in self.marginals if name not in known]
        if unknown:
            raise InputError(
                f"Expected marginals among {', '.join(known)}, got {', '.join(unknown)} - "
                "change what the detector needs"
            )

    def __str__(self) -> str:
        parts = []
        if self.hidden:
            parts.append(f"hidden states ({', '.join(self.hidden)})")
        if self.marginals:
            rows = ", all rows" if self.all_rows else ""
            parts.append(f"marginals ({', '.join(self.marginals)}{rows})")
        if self.edges is not None:
            heads = " of each head" if self.heads else ""
            parts.append(f"edges ({self.edges} a row{heads})")
        if self.logsumexp:
            parts.append("logsumexp of each answer token")
        if self.alternatives:
            parts.append(f"alternatives ({self.alternatives} an answer token)")
        if self.samples > 1:
            parts.append(f"{self.samples} answers of each question")
        return ", ".join(parts) or "text and token probabilities"


@dataclass(frozen=True)
class Shortfall:
    """Something that a run does not have as a detector needs it.

    Attributes:
        expected: what is needed.
        got: what the run has.
        fix: how to have it.
        is_refused: whether the detector cannot be used; else what it reads is near.
    """

    expected: str
    got: str
    fix: str
    is_refused: bool = False


@dataclass(frozen=True)
class Suitability:
    """How far a detector can be used on a run.

    Attributes:
        status: ``exact`` where the run has all that the detector reads as it was computed, ``near``
            where some of it is rounded, fewer or combined, ``refused`` where something is missing.
        reasons: what is not as the detector needs it, and how to have it so.
    """

    status: Literal["exact", "near", "refused"]
    reasons: tuple[str, ...] = ()


def shortfalls(needs: Needs, manifest: Manifest) -> list[Shortfall]:
    """What a run does not have as a detector needs it, what refuses it first.

    Args:
        needs: of the detector.
        manifest: of the run.
    """
    found = [
        *_of_hidden(needs, manifest),
        *_of_layers(needs, manifest),
        *_of_marginals(needs, manifest.identity),
        *_of_edges(needs, manifest.identity.get("sparsification", {})),
        *_of_alternatives(needs, manifest.identity.get("alternatives", 0)),
        *_of_samples(needs, manifest.identity.get("decoding", {})),
    ]
    return sorted(found, key=lambda one: not one.is_refused)


def _of_hidden(needs: Needs, manifest: Manifest) -> Iterator[Shortfall]:
    if not needs.hidden:
        return
    kept, dtype = manifest.identity["hidden"], manifest.identity["hidden"]["dtype"]
    states, there = kept["states"], kept["layers"]
    if states == "none":
        fix = f"extract it again with {parameter('hidden_states', 'answer')}"
        yield Shortfall("hidden states", "none", fix, is_refused=True)
        return
    missing = [layer for layer in needs.hidden_layers or () if layer not in there]
    if missing:
        fix = f"choose among those, or extract with {parameter('hidden_layers', 'all')}"
        expected = f"layers with hidden states ({listed(there)})"
        yield Shortfall(expected, listed(missing), fix, is_refused=True)
    elif needs.hidden_layers is None and len(there) < manifest.facts["layers"]:
        got = f"those of {len(there)} of {manifest.facts['layers']}"
        fix = f"extract with {parameter('hidden_layers', 'all')}"
        yield Shortfall("hidden states of all layers", got, fix)
    for wanted, enough in (("all", ("all",)), ("answer", ("answer", "all"))):
        if wanted in needs.hidden and states not in enough:
            which = "each token" if wanted == "all" else "each answer token"
            fix = f"extract with {parameter('hidden_states', wanted)}"
            yield Shortfall(f"hidden states of {which}", states, fix, not needs.takes_less)
    computed = manifest.identity["model"].get("dtype", dtype)
    if dtype not in (computed, "float32"):
        fix = f"extract with {parameter('hidden_dtype', 'native')}"
        yield Shortfall(f"hidden states in {computed}", f"them rounded to {dtype}", fix)


def _of_layers(needs: Needs, manifest: Manifest) -> Iterator[Shortfall]:
    if not needs.marginals and needs.edges is None:
        return
    there = list(manifest.facts["captured_layers"])
    missing = [layer for layer in needs.layers or () if layer not in there]
    if missing:
        fix = "choose among those"
        expected = f"layers whose attention was captured ({listed(there)})"
        yield Shortfall(expected, listed(missing), fix, is_refused=True)
    elif needs.layers is None and len(there) < manifest.facts["layers"]:
        got = f"that of {len(there)} of {manifest.facts['layers']}; the others have none"
        yield Shortfall("attention of all layers", got, "take another model for the same as there")


def _of_marginals(needs: Needs, identity: Mapping[str, Any]) -> Iterator[Shortfall]:
    of_rows = [name for name in needs.marginals if name in OF_ROWS]
    if needs.all_rows and of_rows and identity.get("marginal_rows") != "all":
        fix = f"extract with {parameter('marginal_rows', 'all')}"
        expected = f"{listed(of_rows)} of all rows"
        yield Shortfall(expected, "those of the answer rows", fix, not needs.takes_less)
    rounded = [name for name in needs.marginals if name not in IN_FLOAT32]
    if rounded:
        fix = "runs keep them so"
        yield Shortfall(f"{listed(rounded)} in float32", "them rounded to float16", fix)


def _of_edges(needs: Needs, kept: Mapping[str, Any]) -> Iterator[Shortfall]:
    if needs.edges is None:
        return
    top_k, heads = kept.get("top_k"), kept.get("heads", "mean")
    wanted = "all weights" if needs.edges == "all" else f"the {needs.edges} largest weights"
    rules = [f"{name} {value}" for name, value in _rules(kept).items()]
    if needs.edges != "all" and top_k is not None and top_k >= needs.edges:
        rules = [rule for rule in rules if not rule.startswith("top_k")]
    if rules:
        rule = parameter("top_k", None) if needs.edges == "all" else "a larger rule"
        fix = f"extract with {rule}"
        yield Shortfall(f"{wanted} of each row", f"those of {listed(rules)}", fix)
    if needs.heads and heads != "each":
        got = f"heads combined to their {heads}"
        yield Shortfall("the edges of each head", got, f"extract with {parameter('heads', 'each')}")
    if kept.get("edge_rows", "all") != "all":
        fix = f"extract with {parameter('edge_rows', 'all')}"
        yield Shortfall("edges of all rows", "those of the answer", fix)
    if kept.get("edge_dtype", "float16") == "float16":
        fix = f"extract with {parameter('edge_dtype', 'float32')}"
        yield Shortfall("edges in float32", "them rounded to float16", fix)


def _rules(kept: Mapping[str, Any]) -> dict[str, Any]:
    """The rules that took edges away."""
    idle = {"top_k": (None,), "min_weight": (None, 0), "top_mass": (None, 1)}
    return {name: kept.get(name) for name, none in idle.items() if kept.get(name) not in none}


def _of_alternatives(needs: Needs, kept: int) -> Iterator[Shortfall]:
    # Every trace has `logsumexp`, as it was computed: it never falls short.
    if not needs.alternatives:
        return
    if kept < needs.alternatives:
        fix = f"extract with {parameter('alternatives', needs.alternatives)}"
        expected = f"the {needs.alternatives} likeliest tokens of each answer token"
        is_refused = not kept or not needs.takes_less
        yield Shortfall(expected, f"{kept}" if kept else "none", fix, is_refused)
    if kept:
        expected = "log-probabilities of alternatives in float32"
        yield Shortfall(expected, "them rounded to float16", "runs keep them so")


def _of_samples(needs: Needs, decoding: Mapping[str, Any]) -> Iterator[Shortfall]:
    samples = decoding.get("samples", 1)
    if needs.samples > samples and not decoding.get("responses"):
        fix = f"extract with {parameter('samples', needs.samples)} and a {parameter('temperature')}"
        expected = f"{needs.samples} answers of each question"
        yield Shortfall(expected, f"{samples}", fix, is_refused=True)
