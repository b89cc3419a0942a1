"""The short report of an evaluation in an adapter folder: report.json of its first format, and a table for people. It names nobody."""

import json
from collections.abc import Sequence
from typing import Any

from piu_lora.evidence.evaluation import Evaluation
from piu_lora.evidence.plan import GROUPS

__all__ = ["TABLE_FORMAT", "aligned", "missed", "report_json", "report_table", "summary"]

TABLE_FORMAT = "piu_lora.report/1"
_PEOPLE = {"forget": "forgotten", "random": "retained, random", "nearest": "retained, nearest", "anchor": "anchor"}


def summary(evaluation: Evaluation) -> dict[str, Any]:
    """Figures by recognizer; what goes into receipt and report."""
    return {"recognizers": evaluation.figures, "images": len(evaluation.plan.shots)}


def report_json(evaluation: Evaluation, settings: dict[str, Any]) -> str:
    """The report as JSON text."""
    document = {"format": TABLE_FORMAT, "settings": settings, **summary(evaluation)}
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a plain-text table; the first row is its head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [lines[0], "  ".join("-" * width for width in widths).rstrip(), *lines[1:]]


def report_table(figures: dict[str, Any]) -> str:
    """ISM before and after by group, then the accuracies, for every recognizer; plain text, aligned."""
    rows = [("recognizer", "people", "ISM before", "ISM after", "after/before [95 %]", "recognised")]
    for name, scores in figures.items():
        for group in GROUPS:
            ism, hit = scores["ism"][group], scores["recognised"][group]
            share = f"{hit['before']['mean']:.2f} -> {hit['after']['mean']:.2f}"
            rows.append((name, _PEOPLE[group], f"{ism['before']:.3f}", f"{ism['after']:.3f}", _ratio(ism), share))
    lines = aligned(rows)
    for name, scores in figures.items():
        after = scores["after"]
        lines.append(f"{name}: AccU {after['acc_u']:.2f}, AccR {after['acc_r']:.2f}, SRK {after['srk']:.1f}")
        found = [(group, count["before"], count["after"]) for group, count in scores["no_face"].items()]
        faceless = [f"{_PEOPLE[group]} {before} -> {after}" for group, before, after in found if before or after]
        if faceless:
            lines.append(f"{name}: images without a face (cosine 0, nobody): {', '.join(faceless)}")
    return "\n".join(lines)


def _ratio(ism: dict[str, Any]) -> str:
    if ism["ratio"] is None:
        return "no face before"
    low, high = ism["ratio_interval"]
    return f"{ism['ratio']:.3f} [{low:.3f}, {high:.3f}]"


def missed(figures: dict[str, Any], *, forget_ratio: float | None, acc_u: float | None, retain_ratio: float | None) -> list[str]:
    """Thresholds that any recognizer's figures miss, one line each.

    Args:
        forget_ratio: highest allowed forget ISM after / before.
        acc_u: highest allowed share of recognised forget images.
        retain_ratio: lowest allowed retain ISM after / before, over random and nearest.
    """
    lines = []
    for name, scores in figures.items():
        ratios = {group: scores["ism"][group]["ratio"] for group in GROUPS}
        if None in ratios.values():
            lines.append(f"{name}: a group has no face in any image before, so nothing can be said of it")
            continue
        if forget_ratio is not None and ratios["forget"] > forget_ratio:
            lines.append(f"{name}: forget ISM is {ratios['forget']:.3f} x its value before, above {forget_ratio}")
        if acc_u is not None and scores["after"]["acc_u"] > acc_u:
            lines.append(f"{name}: AccU is {scores['after']['acc_u']:.3f}, above {acc_u}")
        if retain_ratio is not None:
            lines += [
                f"{name}: {_PEOPLE[group]} ISM is {ratios[group]:.3f} x its value before, below {retain_ratio}"
                for group in ("random", "nearest") if ratios[group] < retain_ratio
            ]  # fmt: skip
    return lines
