"""The run as a whole, from its manifest and commit records alone: no shard is read."""

from __future__ import annotations

from typing import Any

from hallutrace.view.viewed_run import ViewedRun


def run_data(viewed: ViewedRun) -> dict[str, Any]:
    """What was asked of which model, and how far it came.

    Returns:
        ``name``, ``traces``, ``shards``, ``bytes``, ``counts``, ``identity`` and ``facts`` as
        :meth:`hallutrace.store.reader.TraceStore.info` gives them, and ``labels``, the names of the
        protocols.

    Examples:
        >>> run_data(ViewedRun(hallutrace.open(run)))["labels"]
        ['contains']
    """
    info = viewed.store.info()
    del info["folder"]
    return {"name": viewed.store.folder.resolve().name, "labels": viewed.labels, **info}
