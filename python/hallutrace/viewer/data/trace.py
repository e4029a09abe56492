"""One trace: its tokens and what is known of each, its texts, labels and scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace.errors import DamagedError, HallutraceError, NotInRunError
from hallutrace.escaping import visible
from hallutrace.store.trace import Trace
from hallutrace.viewer.data.trace_marginals import layer_means, marginal_titles
from hallutrace.viewer.data.trace_risk import trace_risk
from hallutrace.viewer.evaluations.scores import evaluation_scores
from hallutrace.viewer.token_texts import ids_as_text
from hallutrace.viewer.viewed_run import ViewedRun

TEXT = 2000  # characters of a text that a page shows
TOKEN = 64  # characters of a token
LIST = 50  # elements of a list


def trace_data(viewed: ViewedRun, *, trace: str | None = None) -> dict[str, Any]:
    """Everything of a trace but its edges and its single heads.

    Args:
        viewed: the run, with its evaluation and its detector.
        trace: key of a trace, see :attr:`ViewedRun.key_texts`; the first if None.

    Returns:
        - ``key``, ``position`` in the run, ``count`` of its traces, ``previous`` and ``next``: the
          keys beside it, None at an end.
        - ``texts``: ``question``, ``context``, ``answer``, each ``{"text", "length"}`` with at most
          2,000 characters, or None; ``references``, ``incorrect``, ``choices``, ``spans``, each
          ``{"items", "count"}`` with at most 50 of them.
        - ``finish_reason``, ``prompt_length`` P, ``segments``, ``rows_from``: the first row of
          attention that has marginals.
        - ``tokens``, see :func:`token_data`.
        - ``logprob`` and ``entropy`` float32 [A], nats.
        - ``alternatives``: ``{"token", "logprob"}``, uint32 (places in ``tokens.texts``) and
          float32 [A, K]; None if the run has none.
        - ``layers``, ``heads`` of each, ``combine``: how heads were kept (``mean``, ``max``,
          ``each``); ``marginals``: titles by name; ``means``: by name float16 [layers, N], or
          [layers, rows with marginals].
        - ``labels`` by protocol: 1 hallucinated, 0 right, -1 neither; ``labels_problem``: what is
          damaged of them, or None.
        - ``scores`` by label of the detector: mean over the seeds of the evaluation, None if it did
          not score the trace; ``scores_problem``: why they could not be read, or None.
        - ``risk``, see :func:`hallutrace.viewer.data.trace_risk.trace_risk`.
        - ``edges_control``, see :func:`edges_control`.

    Raises:
        NotInRunError: no such trace, or a run without traces.
        DamagedError: the trace is damaged.

    Examples:
        >>> found = trace_data(ViewedRun(hallutrace.open(run)))
        >>> len(found["logprob"]) + found["prompt_length"] == len(found["tokens"]["ids"])
        True
    """
    keys = viewed.key_texts
    if not keys:
        raise NotInRunError("This run has no traces yet: `hallutrace extract` makes them")
    position = 0 if trace is None else viewed.position(trace)
    found = viewed.store[position]
    names = marginal_titles(found)
    return {
        "key": keys[position],
        "position": position,
        "count": len(keys),
        "previous": keys[position - 1] if position else None,
        "next": keys[position + 1] if position + 1 < len(keys) else None,
        "texts": _texts(found),
        "finish_reason": found.finish_reason,
        "prompt_length": found.prompt_length,
        "segments": found.segments,
        "rows_from": len(found.tokens) - found.marginals.entropy.shape[2],
        **token_data(viewed, found),
        "logprob": found.logprob,
        "entropy": found.token_entropy,
        "layers": found.layers,
        "heads": found.manifest.facts["heads"],
        "combine": found.manifest.identity["sparsification"]["heads"],
        "marginals": names,
        "means": {name: layer_means(found, name) for name in names},
        **_labels(viewed, position),
        **_scores(viewed, position),
        "risk": trace_risk(viewed, found),
        "edges_control": edges_control(viewed),
    }


def token_data(viewed: ViewedRun, trace: Trace) -> dict[str, Any]:
    """The tokens of a trace and their alternatives, with their texts.

    Args:
        viewed: the run.
        trace: of the run.

    Returns:
        ``tokens``: ``ids`` int32 [N]; ``at`` uint32 [N], the place of each token's text in
        ``texts``; ``texts``, each once, at most 64 characters, with escapes for characters that
        cannot be seen; ``are_known``: False where the tokenizer is not at hand, and ids stand for
        texts. ``alternatives`` as in :func:`trace_data`.
    """
    kept = trace.alternatives if trace.shard.tensor(trace.position, "alternatives.token") else None
    ids = trace.tokens
    all_ids = ids if kept is None else np.concatenate([ids, kept.tokens.ravel()])
    unique, inverse = np.unique(all_ids, return_inverse=True)
    at: NDArray[np.uint32] = inverse.ravel().astype(np.uint32)
    written = (viewed.texts_of or ids_as_text)(unique.tolist())
    tokens = {
        "ids": ids,
        "at": at[: len(ids)],
        "texts": [_short(visible(one[: 4 * TOKEN]), TOKEN) for one in written],
        "are_known": viewed.texts_of is not None,
    }
    if kept is None:
        return {"tokens": tokens, "alternatives": None}
    places = at[len(ids) :].reshape(kept.tokens.shape)
    return {"tokens": tokens, "alternatives": {"token": places, "logprob": kept.logprobs}}


def edges_control(viewed: ViewedRun) -> list[dict[str, Any]]:
    """What shuffled edges did to the graph models of the evaluation: does it matter who looks at whom?

    Args:
        viewed: the run, with its evaluation.

    Returns:
        For each graph model whose edges were shuffled: ``model``, ``auroc``, ``shuffled`` (AUROC),
        ``difference`` of the two with ``low``, ``high`` and ``p``, as in ``evaluation.json``.
        Empty without an evaluation, or if it has no such control.

    Examples:
        >>> edges_control(ViewedRun(hallutrace.open(run)))
        []
    """  # noqa: E501
    if viewed.evaluation is None:
        return []
    try:
        content = viewed.evaluation_json
        rows = {row["label"]: row for row in content["detectors"] if row["status"] == "done"}
        tests = {(one["one"], one["other"]): one for one in content["against_edges"]}
    except (HallutraceError, KeyError):
        return []  # the view of the detectors says what is wrong with it
    found = []
    for (model, other), test in tests.items():
        is_shuffled = rows.get(other, {}).get("options", {}).get("edges") == "shuffled"
        if is_shuffled and model in rows:
            found.append(
                {
                    "model": model,
                    "auroc": rows[model]["auroc"]["value"],
                    "shuffled": rows[other]["auroc"]["value"],
                    "difference": test["value"],
                    **{name: test[name] for name in ("low", "high")},
                    "p": test["p_corrected"],
                }
            )
    return found


def _labels(viewed: ViewedRun, position: int) -> dict[str, Any]:
    found: dict[str, int] = {}
    problem = None
    for name in viewed.labels:
        try:
            found[name] = int(viewed.label_values(name)[position])
        except DamagedError as error:
            problem = str(error)
    return {"labels": found, "labels_problem": problem}


def _scores(viewed: ViewedRun, position: int) -> dict[str, Any]:
    if viewed.evaluation is None:
        return {"scores": {}, "scores_problem": None}
    try:
        series = evaluation_scores(viewed).series
    except HallutraceError as error:
        return {"scores": {}, "scores_problem": str(error)}
    means = {label: float(rows[:, position].mean()) for label, rows in series.items()}
    return {"scores": means, "scores_problem": None}


def _texts(trace: Trace) -> dict[str, Any]:
    spans = [
        {"tokens": list(one.tokens), "label": _short(one.label, 200)} for one in trace.spans[:LIST]
    ]
    choices = [f"{label}: {text}" for label, text in trace.choices.items()]
    return {
        "question": _bounded(trace.question),
        "context": None if trace.context is None else _bounded(trace.context),
        "answer": _bounded(trace.answer),
        "references": _bounded_list(trace.references),
        "incorrect": _bounded_list(trace.incorrect_answers),
        "choices": _bounded_list(choices),
        "spans": {"items": spans, "count": len(trace.spans)},
    }


def _bounded_list(texts: Sequence[str]) -> dict[str, Any]:
    return {"items": [_bounded(one) for one in texts[:LIST]], "count": len(texts)}


def _bounded(text: str) -> dict[str, Any]:
    return {"text": text[:TEXT], "length": len(text)}


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
