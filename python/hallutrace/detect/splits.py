"""The splits of an evaluation, where detectors are at hand; they live in hallutrace.splits."""

from hallutrace.splits import Split, folds, holdout

__all__ = ["Split", "folds", "holdout"]
