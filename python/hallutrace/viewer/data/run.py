"""The run as a whole, from its manifest, commit records and side files: no shard is read."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hallutrace.errors import DamagedError, NotInRunError
from hallutrace.store import label_files
from hallutrace.store.failures import RETRIED_STAGES, Failure
from hallutrace.store.folder import Run
from hallutrace.viewer.evaluations.verdict import verdict_of
from hallutrace.viewer.viewed_run import ViewedRun

MESSAGE_CHARACTERS = 600


def run_data(viewed: ViewedRun) -> dict[str, Any]:
    """The payload ``run``: what was asked of which model, how far it came, what failed.

    Returns:
        ``name``; ``traces``, ``shards``, ``bytes``, ``counts``, ``identity`` and ``facts`` as
        :meth:`hallutrace.store.reader.TraceStore.info` gives them; ``questions``, how many of them
        have traces; ``labels``, the names of the protocols; ``label_counts`` by name:
        ``hallucinated``, ``right``, ``dropped``, ``unjudged``, ``unlabelled`` and ``parameters``,
        or ``problem``; ``failures``: see :func:`failures_of`; ``environments``: ``shards``,
        ``traces`` and ``values`` (versions, device, threads) of each environment; ``halved``,
        batches that were halved because memory ran out; ``evaluation``: see
        :func:`hallutrace.viewer.evaluations.verdict.verdict_of`, or ``{"problem": message}``, or
        None.

    Examples:
        >>> found = run_data(ViewedRun(hallutrace.open(run)))
        >>> found["labels"], found["label_counts"]["contains"]["unlabelled"]
        (['contains'], 0)
    """
    info = viewed.store.info()
    del info["folder"]
    keys = viewed.store.keys()
    return {
        "name": viewed.store.folder.resolve().name,
        **info,
        "questions": len({id_ for id_, _ in keys}),
        "labels": viewed.labels,
        "label_counts": {name: _label_counts(viewed, name) for name in viewed.labels},
        "failures": failures_of(viewed),
        "environments": _environments(viewed),
        "halved": sum(len(record.halvings) for record in viewed.store.records),
        "evaluation": _evaluation(viewed),
    }


def failures_of(viewed: ViewedRun) -> dict[str, Any]:
    """Rows and questions without a trace.

    Returns:
        ``total``, and ``kinds``, the most frequent first: ``stage``, ``kind`` (type of the error,
        or the beginning of its message), ``count``, ``retried`` (whether another attempt may
        succeed), and of the first one ``id``, ``index`` and ``error``.

    Examples:
        >>> failures_of(ViewedRun(hallutrace.open(run)))
        {'total': 0, 'kinds': []}
    """
    from hallutrace.extraction.summary import still_failing

    failures = still_failing(Run(viewed.store.folder), viewed.store.records)
    counts = Counter(failure.kind for failure in failures)
    first: dict[tuple[str, str], Failure] = {}
    for failure in failures:
        first.setdefault(failure.kind, failure)
    return {
        "total": len(failures),
        "kinds": [
            {
                "stage": stage,
                "kind": name[:MESSAGE_CHARACTERS],
                "count": count,
                "retried": stage in RETRIED_STAGES,
                "id": first[stage, name].id,
                "index": first[stage, name].index,
                "error": first[stage, name].error[:MESSAGE_CHARACTERS],
            }
            for (stage, name), count in counts.most_common()
        ],
    }


def _label_counts(viewed: ViewedRun, name: str) -> dict[str, Any]:
    try:
        rows = label_files.read_rows(viewed.store.folder, name)
        parameters = label_files.read_parameters(viewed.store.folder, name)
    except DamagedError as error:
        return {"problem": str(error)}
    keys = viewed.store.keys()
    known = [rows[key] for key in keys if key in rows]
    counts = label_files.counts_of(known)
    del counts["traces"]
    return {**counts, "unlabelled": len(keys) - len(known), "parameters": parameters}


def _environments(viewed: ViewedRun) -> list[dict[str, Any]]:
    """Each environment in which shards were written, in the order of its first shard."""
    found: list[dict[str, Any]] = []
    for record in viewed.store.records:
        same = next((one for one in found if one["values"] == record.environment), None)
        if same is None:
            same = {"shards": 0, "traces": 0, "values": record.environment}
            found.append(same)
        same["shards"] += 1
        same["traces"] += len(record.keys)
    return found


def _evaluation(viewed: ViewedRun) -> dict[str, Any] | None:
    if viewed.evaluation is None:
        return None
    try:
        return verdict_of(viewed.evaluation_files)
    except (DamagedError, NotInRunError) as error:
        return {"problem": str(error)}
