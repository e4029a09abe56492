"""Detectors: anything that scores a trace for hallucination, by name, fitted, saved and loaded.

``make("lapeigvals")`` gives one, ``load_examples`` the labelled traces that it is fitted on, and
``load(folder)`` one that was saved. ``@register`` adds one of your own. Importing this package
needs numpy and pydantic alone; what a detector learns with (extra ``detect``) loads when it is
used.
"""

from __future__ import annotations

from hallutrace.detect.base import Detector, Progress, Scorer, Silent, Source
from hallutrace.detect.examples import Examples, FeatureCache, load_examples
from hallutrace.detect.linear import LinearDetector
from hallutrace.detect.registry import find, load, make, names, register
from hallutrace.detect.trace_needs import Needs

__all__ = [
    "Detector",
    "Examples",
    "FeatureCache",
    "LinearDetector",
    "Needs",
    "Progress",
    "Scorer",
    "Silent",
    "Source",
    "find",
    "load",
    "load_examples",
    "make",
    "names",
    "register",
]
