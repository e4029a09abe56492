"""Detectors beside each other: same traces, same splits, same seeds, controls beside every claim.

Rooms: ``plan`` (rows, seeds, fits), ``material`` (traces and their parts), ``outcomes`` (what a fit
gave, on the disk), ``bench`` (one fit), ``runner`` (all of them, in several processes),
``bootstrap``, ``comparison`` (figures and tests), ``protocol`` (all of it in order), ``record``
(JSON), ``report`` (table, CSV). Imports flow plan, material ◄ outcomes ◄ bench ◄ runner ◄ protocol
◄ record ◄ report, and bootstrap ◄ comparison ◄ protocol.
"""

from hallutrace.detect.evaluation.material import Material, shuffled
from hallutrace.detect.evaluation.plan import CONTROLS, Plan, Row, parse_options, table_rows
from hallutrace.detect.evaluation.protocol import Evaluation, evaluate, inapplicable
from hallutrace.detect.evaluation.record import to_json
from hallutrace.detect.evaluation.report import (
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
    "Material",
    "Plan",
    "Row",
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
