"""Class labels of `datasets`: stored as numbers, read as the names of the classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hallutrace.questions.rows import MismatchError

NO_CLASS = -1
"""The number in rows whose class is not published, as in test splits."""


def class_names(features: Mapping[str, Any]) -> dict[str, list[str]]:
    """The names of classes, by the columns that hold a class or a list of them.

    Args:
        features: of a data set, in the form of `Features.to_dict()`.

    Examples:
        >>> class_names({"label": {"_type": "ClassLabel", "names": ["no", "yes"]}})
        {'label': ['no', 'yes']}
    """
    found = {}
    for column, feature in features.items():
        inner = feature[0] if isinstance(feature, list) and feature else feature
        if isinstance(inner, dict) and isinstance(inner.get("feature"), dict):
            inner = inner["feature"]
        if isinstance(inner, dict) and inner.get("_type") == "ClassLabel":
            found[column] = [str(name) for name in inner.get("names") or []]
    return found


def with_class_names(
    values: dict[str, object] | MismatchError, classes: Mapping[str, list[str]]
) -> dict[str, object] | MismatchError:
    """A row with the names of its classes instead of their numbers.

    Examples:
        >>> with_class_names({"label": 1}, {"label": ["no", "yes"]})
        {'label': 'yes'}
    """
    if isinstance(values, MismatchError) or not classes:
        return values
    try:
        return {
            column: _named(value, classes[column]) if classes.get(column) else value
            for column, value in values.items()
        }
    except IndexError as error:
        return MismatchError("a class that the data set names", str(error), "fix the row")


def _named(value: object, names: list[str]) -> object:
    if isinstance(value, list):
        return [_named(one, names) for one in value]
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if value == NO_CLASS:
        return None
    if not 0 <= value < len(names):
        raise IndexError(f"number {value} of {len(names)}")
    return names[value]
