"""Labels of a run: which answers are hallucinated, by one or several protocols.

``labels/NAME.jsonl`` has one row per trace, in the run's order::

    {"id": "q17", "sample": 0, "label": 1, "score": 0.25}

1 is hallucinated, 0 right, null neither: with a score it was dropped as ambiguous, without one it
could not be judged. ``labels/NAME.json`` says how the labels were made. Both are validated on read:
the files may be damaged or hostile.

Modules: ``labelling`` (labels of a run), ``from_file`` (labels of a person or a judge),
``thresholds`` (when a score means right), ``registry`` (protocols of your own), ``agreement``
(comparison of protocols). The files themselves are read and written by
``hallutrace.store.label_files``.
"""

from hallutrace.labels.agreement import Agreement, agreement
from hallutrace.labels.labelling import LabelSummary, label, label_from
from hallutrace.labels.registry import register
from hallutrace.store.label_files import Key, TraceLabel, read, read_rows

__all__ = [
    "Agreement",
    "Key",
    "LabelSummary",
    "TraceLabel",
    "agreement",
    "label",
    "label_from",
    "read",
    "read_rows",
    "register",
]
