"""The verdict of the example report."""

from typing import Any


def verdict() -> dict[str, Any]:
    rows = [
        (
            "forget_ism",
            "conditioning",
            "likeness (ISM) of the forgotten person, after / before",
            0.155,
            0.5,
            "<=",
            "",
        ),
        (
            "recognised",
            "conditioning",
            "images of the forgotten person still recognised (AccU)",
            0.0,
            0.05,
            "<=",
            "",
        ),
        (
            "verified",
            "conditioning",
            "images of the forgotten person that verify at a false-accept rate of 0.001",
            0.021,
            0.05,
            "<=",
            "",
        ),
        (
            "random_ism",
            "conditioning",
            "likeness (ISM) of retained people, after / before",
            0.972,
            0.95,
            ">=",
            "",
        ),
        (
            "nearest_ism",
            "conditioning",
            "likeness (ISM) of the nearest neighbours, after / before",
            0.914,
            0.9,
            ">=",
            "",
        ),
        (
            "forget_ism",
            "evaluating",
            "likeness (ISM) of the forgotten person, after / before",
            0.288,
            0.5,
            "<=",
            "",
        ),
        (
            "verified",
            "evaluating",
            "images of the forgotten person that verify at a false-accept rate of 0.001",
            0.12,
            0.05,
            "<=",
            "",
        ),
        (
            "nearest_verified",
            "evaluating",
            "images of the nearest neighbours that verify, after / before",
            0.941,
            0.9,
            ">=",
            "",
        ),
        (
            "sharpness",
            "",
            "sharpness of images of the forgotten person, after / before",
            0.931,
            0.7,
            ">=",
            "",
        ),
        (
            "kid",
            "",
            "KID of everybody else, after - before, x 1000",
            None,
            5.0,
            "<=",
            "there are no photographs to compare with",
        ),
    ]
    lines = []
    for name, recognizer, text, value, limit, relation, reason in rows:
        passed = value is not None and (value <= limit if relation == "<=" else value >= limit)
        lines.append(
            {
                "name": name,
                "recognizer": recognizer,
                "text": text,
                "value": value,
                "limit": limit,
                "relation": relation,
                "passed": passed,
                "reason": reason,
            }
        )
    return {"passed": all(line["passed"] for line in lines), "policy": "default", "lines": lines}
