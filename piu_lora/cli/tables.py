"""Figures of an evaluation or an audit, as tables for people."""

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

from piu_lora.cli.output import Part, Table
from piu_lora.groups import GROUP_WORDS

if TYPE_CHECKING:
    from piu_lora.evidence import Evaluation
    from piu_lora.evidence.report.sections import Audit
    from piu_lora.evidence.report.sections import Evaluation as EvaluationSection

__all__ = ["audit_parts", "evaluation_parts", "expected_parts", "markdown_parts"]

_FAR = "0.001"  # of the verification shown in the short table


def evaluation_parts(figures: dict[str, Any]) -> list[Part]:
    """ISM before and after by group, then the accuracies, for every recognizer."""
    head = ("recognizer", "people", "ISM before", "ISM after", "after/before [95 %]", "recognised")
    rows = [row for name, scores in figures.items() for row in _rows(name, scores)]
    return [Table(head, rows), *(line for name, scores in figures.items() for line in _lines(name, scores))]


def expected_parts(evaluation: "Evaluation | EvaluationSection | None") -> list[Part]:
    """What the geometry predicts for unseen photographs; nothing where it was not asked."""
    if evaluation is None or evaluation.expected is None:
        return []
    from piu_lora.jobs.evaluation.expected import expected_words

    return [expected_words(evaluation.expected)]


def audit_parts(section: "Audit") -> list[Part]:
    """What each attack came to."""
    outcomes = {True: "yes", False: "no", None: "not tried"}
    rows = [
        (attack.name, outcomes[attack.succeeded], f"{attack.seconds or 0:.0f}", attack.budget)
        for attack in section.attacks
    ]
    findings = [f"{attack.name}: {attack.finding}" for attack in section.attacks]
    limits = f"FAR {section.far:g}, {section.seconds or 0:.0f} s"
    return [Table(("attack", "succeeded", "seconds", "budget"), rows), "", *findings, "", limits]


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


def markdown_parts(text: str) -> Iterator[Part]:
    """Markdown with its tables as tables, and everything else as it is."""
    for is_table, lines in groupby(text.splitlines(), key=lambda line: line.startswith("|")):
        if not is_table:
            yield from lines
            continue
        head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
        yield Table(head, rows)
