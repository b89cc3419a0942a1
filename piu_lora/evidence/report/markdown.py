"""A report as Markdown, short enough for a model card."""

from typing import Any

from piu_lora.evidence.report import tables
from piu_lora.evidence.report.tables import Table
from piu_lora.evidence.report.wording import NOT_MEASURED, number, outcome

__all__ = ["report_markdown"]

_SPECIAL = {
    "\\": "\\\\",
    "|": "\\|",
    "<": "&lt;",
    ">": "&gt;",
    "`": "\\`",
    "*": "\\*",
    "_": "\\_",
    "[": "\\[",
    "]": "\\]",
    "\n": " ",
    "\r": " ",
}


def report_markdown(document: dict[str, Any]) -> str:
    """Verdict, figures by recognizer and group, verification, Leak@k, quality and attacks, as
    GitHub-flavoured Markdown.

    Args:
        document: a valid report (``validate``); its public form leaves the same out here.
    """
    adapter, base = document["adapter"], document["base"]
    parts = [
        "# Report",
        f"Adapter `{_code(adapter['id'])}` ({_text(adapter['method'])}) for base `{_code(base['id'])}`.",
        *_verdict(document["verdict"]),
    ]
    evaluation, audit = document.get("evaluation"), document.get("audit")
    if evaluation is not None:
        parts += _evaluation(evaluation)
    if audit is not None:
        parts += [
            "## Attacks",
            f"Verification at FAR {audit['far']:g}, budget {_text(audit['budget'])}.",
            _table(tables.attack_table(audit)),
        ]
        findings = [
            f"- **{_text(attack['label'])}** ({outcome(attack)[1]}): {_text(attack['finding'])}"
            for attack in audit["attacks"]
        ]
        parts += ["\n".join(findings)] if findings else []
    return "\n\n".join(parts) + "\n"


def _verdict(verdict: dict[str, Any] | None) -> list[str]:
    if verdict is None:
        return ["## Verdict: not judged"]
    lines = verdict["lines"]
    missed = sum(not line["passed"] for line in lines)
    words = "passed" if verdict["passed"] else "falls short"
    rows = tuple(_line(line) for line in lines)
    table = Table(("met", "recognizer", "condition", "value", "limit"), rows, 3)
    told = f"{len(lines) - missed} of {len(lines)} conditions are met (policy: {_text(verdict['policy'])})."
    return [f"## Verdict: {words}", told, _table(table, escaped=True)]


def _line(line: dict[str, Any]) -> tuple[str, ...]:
    told = line["text"] + (f" ({line['reason']})" if line["reason"] else "")
    limit = f"{'≤' if line['relation'] == '<=' else '≥'} {line['limit']:g}"
    return (
        "yes" if line["passed"] else "**no**",
        _text(line["recognizer"] or "all"),
        _text(told),
        number(line["value"]),
        limit,
    )


def _evaluation(evaluation: dict[str, Any]) -> list[str]:
    seen = evaluation["recognizers"]
    return [
        "## Figures",
        f"{number(evaluation['images'])} images. ISM: mean cosine with the reference. Brackets: 95 %. p: paired difference.",
        _table(tables.likeness_table(seen)),
        _table(tables.accuracy_table(seen)),
        "## Verification",
        "Share of images that verify as the person they were made for, before → after.",
        _table(tables.verification_table(seen)),
        *(f"Not measured ({_text(name)}): {_text(reason)}" for name, reason in tables.refusals(seen)),
        "Leak@k: chance that at least one of k images verifies as the forgotten person; not measured where fewer than k were made.",
        _table(tables.leak_table(seen)),
        "## Quality",
        _table(tables.quality_table(evaluation["quality"])),
    ]


def _table(table: Table, escaped: bool = False) -> str:
    if not table.rows:
        return f"{NOT_MEASURED.capitalize()}."
    keep = (lambda cell: cell) if escaped else _text
    lines = [
        table.head,
        tuple(":--" if place < table.words else "--:" for place in range(len(table.head))),
        *(tuple(keep(cell) for cell in row) for row in table.rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(words: str) -> str:
    """Words that stay words: no markup, no HTML, no new cell."""
    return "".join(_SPECIAL.get(letter, letter) for letter in words)


def _code(words: str) -> str:
    return words.replace("`", "'").replace("\n", " ").replace("|", "\\|")
