"""Detectors: anything that scores a trace for hallucination, by name, fitted, saved and loaded.

``make("lapeigvals")`` gives one, ``load_examples`` the labelled traces that it is fitted on, and
``load(folder)`` one that was saved. Importing this package needs numpy alone; what a
detector learns with (extra ``detect``) loads when it is used.
"""

from __future__ import annotations

from hallutrace.detect.base import Detector, Progress, Silent
from hallutrace.detect.examples import Examples, FeatureCache, load_examples
from hallutrace.detect.registry import load, make, names

__all__ = [
    "Detector",
    "Examples",
    "FeatureCache",
    "Progress",
    "Silent",
    "load",
    "load_examples",
    "make",
    "names",
]
