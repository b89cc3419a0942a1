import re
from typing import Any

import pytest
from markdown_it import MarkdownIt

from piu_lora.evidence.report import report_markdown, report_of
from tests.evidence.report.example import document, report

PARSER = MarkdownIt("commonmark", {"html": True}).enable("table")


def rows(text: str) -> list[list[str]]:
    return [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")]


def test_every_table_is_even_and_is_read_as_one() -> None:
    text = report_markdown(report())
    html = PARSER.render(text)
    assert html.count("<table>") == 7
    assert "| " not in re.sub(r"<[^>]*>", "", html)
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        assert len({len(row) for row in rows(block)}) == 1


def test_it_holds_verdict_figures_and_attacks() -> None:
    text = report_markdown(report())
    assert "## Verdict: falls short" in text
    assert "8 of 10 conditions are met" in text
    assert "| conditioning | forgotten | 0.71 \\[0.69, 0.73\\] | 0.11 \\[0.08, 0.14\\] |" in text
    assert "| Search for an embedding | attack succeeded | 160 steps x 3 starts | 2 min |" in text
    assert (
        "Not measured (evaluating, FAR 1e-4): 900 impostor pairs cannot show a rate of 0.0001; "
        "at least 30000 are needed" in text
    )


def test_passed_and_not_judged() -> None:
    made = document()
    made["verdict"]["lines"] = made["verdict"]["lines"][:3]
    made["verdict"]["passed"] = True
    assert "## Verdict: passed" in report_markdown(report_of(made))
    assert "## Verdict: not judged" in report_markdown(report(verdict=None))


def test_a_report_without_sections_is_short() -> None:
    made = {key: value for key, value in document().items() if key not in ("evaluation", "audit")}
    assert "## Figures" not in report_markdown(report_of(made))
    assert "## Attacks" not in report_markdown(report_of(made))


HOSTILE = "a|b <script>alert(1)</script> [x](javascript:y) *z* `q`\nnext"


@pytest.mark.parametrize("field", ["policy", "text", "label", "finding", "budget", "recognizer"])
def test_hostile_words_make_no_cell_and_no_markup(field: str) -> None:
    made: dict[str, Any] = document()
    if field == "policy":
        made["verdict"]["policy"] = HOSTILE
    elif field == "text":
        made["verdict"]["lines"][0]["text"] = HOSTILE
    elif field == "recognizer":
        made["evaluation"]["recognizers"][HOSTILE] = made["evaluation"]["recognizers"].pop("conditioning")
    else:
        made["audit"]["attacks"][0][field] = HOSTILE
    html = PARSER.render(report_markdown(report_of(made)))
    assert "<script" not in html
    assert "<a " not in html
    assert "<em>z" not in html
    assert "a|b &lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert html.count("<table>") == 7
