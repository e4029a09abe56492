"""Labels of a run: which answers are hallucinated, by one protocol or several beside each other.

``labels/NAME.jsonl`` holds a row a trace, in the run's order::

    {"id": "q17", "sample": 0, "label": 1, "score": 0.25}

1 is hallucinated, 0 right, null neither: with a score it was dropped as ambiguous, without one it
could not be judged. ``labels/NAME.json`` beside it says how they came about. Both come from whoever
gave away the run, so nothing in them is believed before it is checked.

Files: ``given`` (labels of a person or a judge), ``protocol`` (text measure and threshold),
``making`` (labels of a run), ``agreement`` (protocols beside each other). The files of labels
themselves are read and written by ``hallutrace.store.label_files``.
"""

from hallutrace.labels.agreement import Agreement, agreement
from hallutrace.labels.making import LabelSummary, label, label_from
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
]
