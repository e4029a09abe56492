"""Compares detectors on the same traces, splits and seeds, with controls beside every claim.

Files, in the order of imports: ``rows`` (of the table), ``options``, ``data`` (traces and splits),
``fit_cache`` (results of fits as files), ``fitting`` (one fit), ``processes`` (all fits),
``bootstrap``, ``comparison`` (metrics and tests), ``protocol`` (all of it in order),
``json_report`` and ``table_files``.
"""

from hallutrace.detect.evaluation.data import EvaluationData, shuffled
from hallutrace.detect.evaluation.json_report import to_json
from hallutrace.detect.evaluation.options import EvaluationOptions
from hallutrace.detect.evaluation.protocol import Evaluation, evaluate, inapplicable
from hallutrace.detect.evaluation.rows import CONTROLS, TableRow, parse_options, table_rows
from hallutrace.detect.evaluation.table_files import (
    FILES,
    JSON_FILE,
    remarks,
    table_cells,
    title,
    to_markdown,
    write_report,
)

__all__ = [
    "CONTROLS",
    "FILES",
    "JSON_FILE",
    "Evaluation",
    "EvaluationData",
    "EvaluationOptions",
    "TableRow",
    "evaluate",
    "inapplicable",
    "parse_options",
    "remarks",
    "shuffled",
    "table_cells",
    "table_rows",
    "title",
    "to_json",
    "to_markdown",
    "write_report",
]
