"""What a JSON Schema asks of a value, in words for an error message."""

from collections.abc import Mapping
from typing import Any

__all__ = ["bounds_in_words", "type_in_words"]

_TYPE_NAMES = {"integer": "int", "number": "float", "string": "str", "boolean": "bool"}
_BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")


def type_in_words(schema: Mapping[str, Any]) -> str:
    """``int``, ``one of ['a', 'b']``, ``a list of numbers``."""
    if "anyOf" in schema:
        return " or ".join(map(type_in_words, schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return f"one of {schema.get('enum', [schema.get('const')])}"
    if schema.get("type") == "array":
        return "a list of strings" if schema["items"].get("type") == "string" else "a list of numbers"
    return _TYPE_NAMES.get(schema.get("type", ""), "another value")


def bounds_in_words(schema: Mapping[str, Any]) -> str:
    """``1 or more``, ``0 <= value < 1``, ``some of ['a', 'b']``."""
    if "anyOf" in schema:
        return " or ".join(map(bounds_in_words, schema["anyOf"]))
    if schema.get("type") == "array":
        return _items_in_words(schema["items"])
    low, above, high, below = (schema.get(name) for name in _BOUNDS)
    least = _joined(low, "{} <=", above, "{} <")
    most = _joined(high, "<= {}", below, "< {}")
    if least and most:
        return f"{least} value {most}"
    if least:
        return _joined(low, "{} or more", above, "more than {}")
    if most:
        return _joined(high, "{} or less", below, "less than {}")
    return type_in_words(schema) if "const" in schema or "enum" in schema else "a finite number"


def _items_in_words(items: Mapping[str, Any]) -> str:
    if "enum" in items:
        return f"some of {items['enum']}"
    return f"{bounds_in_words(items)} each" if items.keys() & set(_BOUNDS) else "at least one"


def _joined(closed: float | None, closed_form: str, opened: float | None, open_form: str) -> str:
    if closed is not None:
        return closed_form.format(closed)
    return "" if opened is None else open_form.format(opened)
