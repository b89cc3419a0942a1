"""What the page answers first."""

import re

from piu_lora.evidence.policy import EvaluationLimits
from piu_lora.evidence.report import report_html, report_of
from piu_lora.evidence.report.answers import answers_of
from piu_lora.evidence.report.document import Verdict, VerdictLine
from tests.evidence.report.example import document, pictures, report


def line(name: str, value: float | None) -> VerdictLine:
    return VerdictLine.judged(name, 0.5, "<=", value, text=name)


def test_every_limit_speaks_to_one_question() -> None:
    names = [*EvaluationLimits.model_fields, "cone.radius"]
    verdict = Verdict(passed=True, policy="all", lines=tuple(line(name, 0.1) for name in names))
    forgotten, unharmed, believed = ([one.name for one in answer.lines] for answer in answers_of(verdict))
    assert forgotten == ["forget_ism", "recognised", "verified", "leak", "no_face", "cone.radius"]
    assert believed == ["seen_before", "strangers", "doubles"]
    assert set(forgotten) | set(unharmed) | set(believed) == set(names)


def test_one_missed_line_is_a_no_and_none_is_not_judged() -> None:
    lines = (line("verified", 0.9), line("forget_ism", 0.1), line("kid", None))
    verdict = Verdict(passed=False, policy="p", lines=lines)
    assert [answer.word for answer in answers_of(verdict)] == ["No", "Not shown", "Not judged"]
    assert answers_of(verdict)[0].count == "1 of 2 conditions are met"
    assert [answer.word for answer in answers_of(None)] == ["Not judged"] * 3


def test_missed_lines_are_open_and_met_ones_folded() -> None:
    page = report_html(report(), pictures())
    top = page[page.index('id="verdict"') : page.index('id="pictures"')]
    folded = "".join(re.findall(r"<details>.*?</details>", top, re.S))
    assert top.count('class="missed"') == 2
    assert top.count('class="met"') == 8
    assert folded.count('class="met"') == 8
    assert 'class="missed"' not in folded


def test_the_pictures_come_right_after_the_answers() -> None:
    made = document()
    made["verdict"]["lines"] = [entry for entry in made["verdict"]["lines"] if entry["passed"]]
    made["verdict"]["passed"] = True
    page = report_html(report_of(made), pictures())
    between = re.sub(
        r"<details>.*?</details>", "", page[page.index('id="verdict"') : page.index("<img")], flags=re.S
    )
    assert "<li" not in between
