"""A report as Markdown, short enough for a model card."""

from typing import Any

from piu_lora.evidence.report.tables import (
    Table, accuracy_table, attack_table, leak_table, likeness_table, quality_table, verification_table,
)  # fmt: skip
from piu_lora.evidence.report.wording import NOT_MEASURED, number, outcome

__all__ = ["report_markdown"]

_SPECIAL = {"\\": "\\\\", "|": "\\|", "<": "&lt;", ">": "&gt;", "`": "\\`", "*": "\\*", "_": "\\_", "[": "\\[", "]": "\\]", "\n": " ", "\r": " "}


def report_markdown(document: dict[str, Any]) -> str:
    """Verdict, figures by recognizer and group, verification, Leak@k, quality and attacks, as GitHub-flavoured Markdown.

    Args:
        document: a valid report (``validate``); its public form leaves the same out here.
    """
    adapter, base = document["adapter"], document["base"]
    parts = ["# Report", f"Adapter `{_code(adapter['id'])}` ({_text(adapter['method'])}) for base `{_code(base['id'])}`.", *_verdict(document["verdict"])]
    evaluation, audit = document.get("evaluation"), document.get("audit")
    if evaluation is not None:
        parts += _evaluation(evaluation)
    if audit is not None:
        parts += ["## Attacks", f"Verification at FAR {audit['far']:g}, budget {_text(audit['budget'])}.", _table(attack_table(audit))]
        findings = [f"- **{_text(attack['label'])}** ({outcome(attack)[1]}): {_text(attack['finding'])}" for attack in audit["attacks"]]
        parts += ["\n".join(findings)] if findings else []
    return "\n\n".join(parts) + "\n"


def _verdict(verdict: dict[str, Any] | None) -> list[str]:
    if verdict is None:
        return ["## Verdict: not judged"]
    lines = verdict["lines"]
    missed = sum(not line["passed"] for line in lines)
    words = "passed" if verdict["passed"] else "falls short"
    rows = tuple(
        ("yes" if line["passed"] else "**no**", _text(line["recognizer"] or "–"), _text(line["text"] + (f" ({line['reason']})" if line["reason"] else "")),
         number(line["value"]), f"{'≤' if line['relation'] == '<=' else '≥'} {line['limit']:g}")
        for line in lines
    )  # fmt: skip
    table = Table(("met", "recognizer", "condition", "value", "limit"), rows, 3)
    told = f"{len(lines) - missed} of {len(lines)} conditions are met (policy: {_text(verdict['policy'])})."
    return [f"## Verdict: {words}", told, _table(table, escaped=True)]


def _evaluation(evaluation: dict[str, Any]) -> list[str]:
    seen = evaluation["recognizers"]
    return [
        "## Figures",
        f"{number(evaluation['images'])} images; 95 % intervals in brackets; p of the paired difference. ISM is the mean cosine with the reference.",
        _table(likeness_table(seen)),
        _table(accuracy_table(seen)),
        "## Verification",
        "Share of images that verify as the person they were made for, before → after.",
        _table(verification_table(seen)),
        "Leak@k: chance that at least one of k images verifies as the forgotten person.",
        _table(leak_table(seen)),
        "## Quality",
        _table(quality_table(evaluation["quality"])),
    ]


def _table(table: Table, escaped: bool = False) -> str:
    if not table.rows:
        return f"{NOT_MEASURED.capitalize()}."
    keep = (lambda cell: cell) if escaped else _text
    lines = [table.head, tuple(":--" if place < table.words else "--:" for place in range(len(table.head))), *(tuple(keep(cell) for cell in row) for row in table.rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(words: str) -> str:
    """Words that stay words: no markup, no HTML, no new cell."""
    return "".join(_SPECIAL.get(letter, letter) for letter in words)


def _code(words: str) -> str:
    return words.replace("`", "'").replace("\n", " ").replace("|", "\\|")
