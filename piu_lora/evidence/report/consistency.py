"""What a schema cannot say of a report: lengths that belong together, ends in order, a verdict that follows
from its lines.
"""

import math
from collections.abc import Iterator
from typing import Any

__all__ = ["contradictions", "not_finite"]

Finding = tuple[str, str]


def walk(value: Any, path: str = "$") -> Iterator[tuple[str, Any]]:
    """Every value with its JSON path, containers before what they hold."""
    yield path, value
    if isinstance(value, dict):
        for key, part in value.items():
            yield from walk(part, f"{path}.{key}" if str(key).isidentifier() else f"{path}[{key!r}]")
    elif isinstance(value, list | tuple):
        for place, part in enumerate(value):
            yield from walk(part, f"{path}[{place}]")


def not_finite(document: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Numbers that JSON cannot hold."""
    for path, value in walk(document):
        if isinstance(value, float) and not math.isfinite(value):
            yield path, value


def contradictions(document: dict[str, Any]) -> Iterator[Finding]:
    """Where a document of the right form contradicts itself: the path and what is wrong."""
    yield from _verdict(document["verdict"])
    evaluation, audit = document.get("evaluation"), document.get("audit")
    for name in ("settings", "environment"):
        for path, value in walk(document[name], f"$.{name}"):
            if isinstance(value, bytes):
                yield path, "is bytes, expected JSON values"
    if evaluation is not None:
        yield from _intervals(evaluation)
        for name, seen in evaluation["recognizers"].items():
            yield from _recognizer(seen, f"$.evaluation.recognizers.{name}")
    for place, attack in enumerate(audit["attacks"] if audit else ()):
        yield from _attack(attack, f"$.audit.attacks[{place}]")


def _verdict(verdict: dict[str, Any] | None) -> Iterator[Finding]:
    if verdict is None:
        return
    for place, line in enumerate(verdict["lines"]):
        path, value = f"$.verdict.lines[{place}]", line["value"]
        if value is None:
            if line["passed"]:
                yield f"{path}.passed", "is true, expected false: what was not measured fails"
            if not line["reason"]:
                yield f"{path}.reason", "is empty, expected why there is no value"
        elif line["passed"] != (
            value <= line["limit"] if line["relation"] == "<=" else value >= line["limit"]
        ):
            yield (
                f"{path}.passed",
                f"is {line['passed']}, but {value} {line['relation']} {line['limit']} says otherwise",
            )
    if verdict["passed"] != (bool(verdict["lines"]) and all(line["passed"] for line in verdict["lines"])):
        yield "$.verdict.passed", f"is {verdict['passed']}, which its lines do not say"


def _intervals(evaluation: dict[str, Any]) -> Iterator[Finding]:
    for path, value in walk(evaluation, "$.evaluation"):
        if path.endswith("interval") and value is not None and value[0] > value[1]:
            yield path, f"is {list(value)}, expected the low end first"


def _recognizer(seen: dict[str, Any], path: str) -> Iterator[Finding]:
    for far, threshold in seen["thresholds"].items():
        if (threshold["cosine"] is None) != bool(threshold["refused"]):
            yield f"{path}.thresholds['{far}']", "must have either a cosine or, in refused, why there is none"
    scores = seen.get("scores")
    if scores is not None:
        for name, density in scores.items():
            if name != "bins" and density is not None and len(density) != len(scores["bins"]) - 1:
                yield (
                    f"{path}.scores.{name}",
                    f"has {len(density)} values, expected one for each of {len(scores['bins']) - 1} bins",
                )
    table = seen.get("neighbours")
    if table is not None:
        size = len(table["labels"])
        for name in ("before", "after"):
            if any(len(row) != size for row in table[name]) or len(table[name]) != size:
                yield f"{path}.neighbours.{name}", f"is not {size} by {size}, as its labels are"


def _attack(attack: dict[str, Any], path: str) -> Iterator[Finding]:
    for place, row in enumerate(attack["rows"]):
        if len(row) != len(attack["columns"]):
            yield (
                f"{path}.rows[{place}]",
                f"has {len(row)} cells, expected one for each of {len(attack['columns'])} columns",
            )
    for place, curve in enumerate(attack["curves"]):
        for number, series in enumerate(curve["series"]):
            for name in ("y", "low", "high"):
                values = series.get(name)
                if values is not None and len(values) != len(series["x"]):
                    where = f"{path}.curves[{place}].series[{number}].{name}"
                    yield where, f"has {len(values)} values, expected one for each of {len(series['x'])} x"
    if attack["succeeded"] is None and not attack["finding"]:
        yield f"{path}.finding", "is empty, expected why the attack could not be tried"
