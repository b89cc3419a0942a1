"""A report as Markdown, short enough for a model card."""

from piu_lora.evidence.report import tables
from piu_lora.evidence.report.document import Report, Verdict, VerdictLine
from piu_lora.evidence.report.sections import Evaluation
from piu_lora.evidence.report.tables import Table
from piu_lora.evidence.report.wording import NOT_MEASURED, number, outcome
from piu_lora.markdown import as_code, as_words

__all__ = ["report_markdown"]


def report_markdown(report: Report) -> str:
    """Verdict, figures by recognizer and group, verification, Leak@k, quality and attacks, as
    GitHub-flavoured Markdown; a public report leaves the same out here.
    """
    adapter, base = report.adapter, report.base
    parts = [
        "# Report",
        f"Adapter `{as_code(adapter.id)}` ({as_words(adapter.method)}) for base `{as_code(base.id)}`.",
        *_verdict(report.verdict),
    ]
    if report.evaluation is not None:
        parts += _evaluation(report.evaluation)
    if report.audit is not None:
        parts += [
            "## Attacks",
            f"Verification at FAR {report.audit.far:g}, budget {as_words(report.audit.budget)}.",
            _table(tables.attack_table(report.audit)),
        ]
        findings = [
            f"- **{as_words(attack.label)}** ({outcome(attack)[1]}): {as_words(attack.finding)}"
            for attack in report.audit.attacks
        ]
        parts += ["\n".join(findings)] if findings else []
    return "\n\n".join(parts) + "\n"


def _verdict(verdict: Verdict | None) -> list[str]:
    if verdict is None:
        return ["## Verdict: not judged"]
    rows = tuple(_line(line) for line in verdict.lines)
    table = Table(("met", "recognizer", "condition", "value", "limit"), rows, 3)
    met = len(verdict.lines) - len(verdict.missed)
    summary = f"{met} of {len(verdict.lines)} conditions are met (policy: {as_words(verdict.policy)})."
    outcome_words = "passed" if verdict.passed else "falls short"
    return [f"## Verdict: {outcome_words}", summary, _table(table, escaped=True)]


def _line(line: VerdictLine) -> tuple[str, ...]:
    condition = line.text + (f" ({line.reason})" if line.reason else "")
    return (
        "yes" if line.passed else "**no**",
        as_words(line.recognizer or "all"),
        as_words(condition),
        number(line.value),
        f"{'≤' if line.relation == '<=' else '≥'} {line.limit:g}",
    )


def _evaluation(evaluation: Evaluation) -> list[str]:
    recognizers = evaluation.recognizers
    return [
        "## Figures",
        f"{number(evaluation.images)} images. ISM: mean cosine with the reference. Brackets: 95 %. "
        "p: paired difference.",
        _table(tables.likeness_table(recognizers)),
        _table(tables.accuracy_table(recognizers)),
        "## Verification",
        "Share of images that verify as the person they were made for, before → after.",
        _table(tables.verification_table(recognizers)),
        *(
            f"Not measured ({as_words(name)}): {as_words(reason)}"
            for name, reason in tables.refusals(recognizers)
        ),
        "Leak@k: chance that at least one of k images verifies as the forgotten person; "
        "not measured where fewer than k were made.",
        _table(tables.leak_table(recognizers)),
        "## Quality",
        _table(tables.quality_table(evaluation.quality)),
    ]


def _table(table: Table, escaped: bool = False) -> str:
    if not table.rows:
        return f"{NOT_MEASURED.capitalize()}."
    shown = (lambda cell: cell) if escaped else as_words
    lines = [
        table.head,
        tuple(":--" if column < table.words else "--:" for column in range(len(table.head))),
        *(tuple(shown(cell) for cell in row) for row in table.rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
