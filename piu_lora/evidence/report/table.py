"""The short report of an evaluation in an adapter folder: report.json of its first format, and a table for
people. It names nobody.
"""

import json
from collections.abc import Sequence
from typing import Any

from piu_lora.evidence.evaluation import Evaluation

__all__ = ["TABLE_FORMAT", "aligned", "report_json", "report_table", "summary"]

TABLE_FORMAT = "piu_lora.report/1"
_KEPT = ("ism", "recognised", "no_face", "before", "after", "thresholds", "verified", "leak", "strangers")
_FAR = "0.001"  # of the verification shown in the short table
_PEOPLE = {
    "forget": "forgotten",
    "random": "retained, random",
    "nearest": "retained, nearest",
    "anchor": "anchor",
    "decoy": "decoys",
}


def summary(evaluation: Evaluation) -> dict[str, Any]:
    """Figures by recognizer, as receipts carry them: none that describes the forgotten person beyond how well
    they are forgotten.
    """
    figures = {
        name: {key: seen[key] for key in _KEPT if key in seen} for name, seen in evaluation.figures.items()
    }
    return {"recognizers": figures, "images": len(evaluation.plan.shots)}


def report_json(evaluation: Evaluation, settings: dict[str, Any]) -> str:
    """The report as JSON text."""
    document = {"format": TABLE_FORMAT, "settings": settings, **summary(evaluation)}
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a plain-text table; the first row is its head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return [lines[0], "  ".join("-" * width for width in widths).rstrip(), *lines[1:]]


def report_table(figures: dict[str, Any]) -> str:
    """ISM before and after by group, then the accuracies, for every recognizer; plain text, aligned."""
    rows = [("recognizer", "people", "ISM before", "ISM after", "after/before [95 %]", "recognised")]
    for name, scores in figures.items():
        for group in scores["ism"]:
            ism, hit = scores["ism"][group], scores["recognised"][group]
            share = f"{hit['before']['mean']:.2f} -> {hit['after']['mean']:.2f}"
            rows.append(
                (name, _PEOPLE[group], f"{ism['before']:.3f}", f"{ism['after']:.3f}", _ratio(ism), share)
            )
    lines = aligned(rows)
    for name, scores in figures.items():
        after = scores["after"]
        lines.append(f"{name}: AccU {after['acc_u']:.2f}, AccR {after['acc_r']:.2f}, SRK {after['srk']:.1f}")
        lines += _verification(name, scores)
        faceless = [
            f"{_PEOPLE[group]} {count['before']} -> {count['after']}"
            for group, count in scores["no_face"].items() if count["before"] or count["after"]
        ]  # fmt: skip
        if faceless:
            lines.append(f"{name}: images without a face (cosine 0, nobody): {', '.join(faceless)}")
    return "\n".join(lines)


def _verification(name: str, scores: dict[str, Any]) -> list[str]:
    """Who verifies, and whether any of several seeds brings the person back."""
    verified, leak = scores.get("verified", {}).get(_FAR), scores.get("leak", {}).get(_FAR)
    if verified is None:
        return []
    shares = [
        f"{_PEOPLE[group]} {seen['before']['mean']:.2f} -> {seen['after']['mean']:.2f}"
        for group, seen in verified.items()
        if seen is not None
    ]
    leaks = [
        f"Leak@{k} {found['before']:.2f} -> {found['after']:.2f}"
        for k, found in (leak or {}).items()
        if found["after"] is not None
    ]
    return [f"{name}: verified at FAR {_FAR}: {', '.join([*shares, *leaks])}"]


def _ratio(ism: dict[str, Any]) -> str:
    if ism["ratio"] is None:
        return "no face before"
    low, high = ism["ratio_interval"]
    return f"{ism['ratio']:.3f} [{low:.3f}, {high:.3f}]"
