"""An evaluation in short: figures for receipts, and a table for people. Neither names anybody."""

from collections.abc import Iterator, Sequence
from typing import Any

from piu_lora.evidence.evaluation import Evaluation
from piu_lora.groups import GROUP_WORDS

__all__ = ["aligned", "report_table", "summary"]

_IN_RECEIPTS = (
    "ism", "recognised", "no_face", "before", "after", "thresholds", "verified", "leak", "strangers",
)  # fmt: skip
_FAR = "0.001"  # of the verification shown in the short table


def summary(evaluation: Evaluation) -> dict[str, Any]:
    """Figures by recognizer, as receipts carry them: none that describes the forgotten person beyond how well
    they are forgotten.
    """
    figures = {
        name: {key: scores[key] for key in _IN_RECEIPTS if key in scores}
        for name, scores in evaluation.figures.items()
    }
    return {"recognizers": figures, "images": len(evaluation.plan.shots)}


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
    rows += [row for name, scores in figures.items() for row in _rows(name, scores)]
    return "\n".join(
        [*aligned(rows), *(line for name, scores in figures.items() for line in _lines(name, scores))]
    )


def _rows(name: str, scores: dict[str, Any]) -> Iterator[tuple[str, str, str, str, str, str]]:
    for group, ism in scores["ism"].items():
        hit = scores["recognised"][group]
        share = f"{hit['before']['mean']:.2f} -> {hit['after']['mean']:.2f}"
        label = GROUP_WORDS[group].label
        yield name, label, f"{ism['before']:.3f}", f"{ism['after']:.3f}", _ratio(ism), share


def _lines(name: str, scores: dict[str, Any]) -> Iterator[str]:
    after = scores["after"]
    yield f"{name}: AccU {after['acc_u']:.2f}, AccR {after['acc_r']:.2f}, SRK {after['srk']:.1f}"
    yield from _verification(name, scores)
    faceless = [
        f"{GROUP_WORDS[group].label} {count['before']} -> {count['after']}"
        for group, count in scores["no_face"].items()
        if count["before"] or count["after"]
    ]
    if faceless:
        yield f"{name}: images without a face (cosine 0, nobody): {', '.join(faceless)}"


def _verification(name: str, scores: dict[str, Any]) -> Iterator[str]:
    """Who verifies, and whether any of several seeds brings the person back."""
    verified, leak = scores.get("verified", {}).get(_FAR), scores.get("leak", {}).get(_FAR)
    if verified is None:
        return
    shares = [
        f"{GROUP_WORDS[group].label} {share['before']['mean']:.2f} -> {share['after']['mean']:.2f}"
        for group, share in verified.items()
        if share is not None
    ]
    leaks = [
        f"Leak@{k} {share['before']:.2f} -> {share['after']:.2f}"
        for k, share in (leak or {}).items()
        if share["after"] is not None
    ]
    yield f"{name}: verified at FAR {_FAR}: {', '.join([*shares, *leaks])}"


def _ratio(ism: dict[str, Any]) -> str:
    if ism["ratio"] is None:
        return "no face before"
    low, high = ism["ratio_interval"]
    return f"{ism['ratio']:.3f} [{low:.3f}, {high:.3f}]"
