import functools
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest

from piu_lora.errors import BadInput
from piu_lora.evidence.report import publishable, report_html, report_markdown, report_of
from tests.evidence.report.example import document, pictures, report

pytestmark = pytest.mark.usefixtures("remembered")
VOID = {"meta", "img", "br", "hr", "input", "link"}


class Page(HTMLParser):
    """Checks that tags are balanced, and keeps them and the words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


@functools.cache
def example_page() -> str:
    """The page of the example, drawn once."""
    return report_html(report(), pictures())


def test_the_page_is_balanced_and_whole() -> None:
    page = Page(example_page())
    headings = [tag for tag, _ in page.tags if tag == "h1"]
    assert headings == ["h1"]
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert ids == [
        "verdict",
        "pictures",
        "figures",
        "verification",
        "neighbours",
        "quality",
        "sweeps",
        "attacks",
        "environment",
    ]
    assert sum(tag == "img" for tag, _ in page.tags) == 1
    assert (
        sum(tag == "svg" and attrs.get("role") == "img" for tag, attrs in page.tags)
        == 2 + 1 + 2 + 2 + 2 + 4 + 6 + 4
    )


def test_nothing_is_fetched_and_nothing_runs() -> None:
    text = example_page()
    page = Page(text)
    assert {tag for tag, _ in page.tags} & {
        "script",
        "link",
        "iframe",
        "object",
        "embed",
        "form",
        "base",
    } == set()
    for _, attrs in page.tags:
        assert not any(name.startswith("on") for name in attrs)
        for name in ("src", "href", "action", "poster", "data"):
            assert name not in attrs or str(attrs[name]).startswith("data:image/png;base64,")
    assert not re.search(r"url\(|@import|https?://", text)
    policy = next(
        attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    assert str(policy).startswith("default-src 'none'")


def test_every_colour_of_a_chart_is_a_variable_of_both_schemes() -> None:
    text = example_page()
    used = set(re.findall(r"var\(--([a-z-]+)\)", text))
    light, dark = (
        set(re.findall(r"--([a-z-]+):", block))
        for block in re.findall(r":root \{(.*?)\n *\}", text, re.S)[:2]
    )
    assert used <= light
    assert light == dark


def test_verdict_lines_say_value_limit_and_reason() -> None:
    page = Page(example_page())
    assert "Falls short" in page.words
    assert "8 of 10 conditions are met" in page.words
    assert "0.120at most 0.05" in page.words
    assert "0.972at least 0.95" in page.words
    assert "there are no photographs to compare with" in page.words


def test_a_passed_and_an_unjudged_report() -> None:
    made = document()
    made["verdict"]["lines"] = made["verdict"]["lines"][:2]
    made["verdict"]["passed"] = True
    assert "Passed" in Page(report_html(report_of(made))).words
    assert "Not judged" in Page(report_html(report(verdict=None))).words


@pytest.mark.parametrize("absent", [("evaluation",), ("audit",), ("evaluation", "audit")])
def test_sections_may_be_absent(absent: tuple[str, ...]) -> None:
    page = Page(
        report_html(report_of({key: value for key, value in document().items() if key not in absent}))
    )
    ids = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    assert ("attacks" in ids) == ("audit" not in absent)
    assert ("figures" in ids) == ("evaluation" not in absent)


def test_the_public_page_has_no_person_in_it() -> None:
    page = Page(report_html(publishable(report()), pictures()))
    ids = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    assert not ids & {"pictures", "neighbours"}
    assert "trained on" not in page.words
    assert "on one person" not in page.words


HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=y>{{ 7*7 }}{% raw %}"


def spoil(part: Any, keys: set[str]) -> Any:
    """Every text that is free to say anything says something hostile."""
    if isinstance(part, dict):
        return {
            key: HOSTILE if key in keys and isinstance(value, str) else spoil(value, keys)
            for key, value in part.items()
        }
    return [spoil(value, keys) for value in part] if isinstance(part, list) else part


def spoiled() -> dict[str, Any]:
    """A private report in which every free text is hostile."""
    words = {
        "policy",
        "text",
        "reason",
        "label",
        "question",
        "budget",
        "criterion",
        "finding",
        "title",
        "x",
        "y",
        "unit",
        "features",
        "platform",
        "device",
        "method",
        "id",
        "rule",
        "refused",
    }
    made = spoil(document(), words)
    for seen in made["evaluation"]["recognizers"].values():
        for threshold in seen["thresholds"].values():
            threshold["refused"] = "" if threshold["cosine"] is not None else HOSTILE
        seen["neighbours"]["labels"] = [HOSTILE] * 8
    made["evaluation"]["notes"] = [HOSTILE]
    made["evaluation"]["recognizers"][HOSTILE] = made["evaluation"]["recognizers"].pop("evaluating")
    made["environment"]["libraries"][HOSTILE] = HOSTILE
    for attack in made["audit"]["attacks"]:
        attack["columns"] = [HOSTILE for _ in attack["columns"]]
        attack["rows"] = [[HOSTILE for _ in row] for row in attack["rows"]]
        for curve in attack["curves"]:
            for series in curve["series"]:
                series["name"] = HOSTILE
    return made


def test_hostile_words_stay_words() -> None:
    page = Page(report_html(report_of(spoiled())))
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert page.words.count(HOSTILE) > 60


def nulls(part: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value, of a list that of the first."""
    if path:
        yield path
    if isinstance(part, dict):
        for key, value in part.items():
            yield from nulls(value, (*path, key))
    elif isinstance(part, list) and part:
        yield from nulls(part[0], (*path, 0))


def small() -> dict[str, Any]:
    """A document with one recognizer, rate and sweep: every kind of value once or twice."""
    made = document()
    del made["audit"]
    evaluation = made["evaluation"]
    seen = evaluation["recognizers"].pop("conditioning")
    for part in ("thresholds", "verified", "leak", "bystanders", "strangers"):
        seen[part] = {"0.001": seen[part]["0.001"]}
    for part in (seen["ism"], seen["recognised"], seen["no_face"], seen["verified"]["0.001"]):
        del part["anchor"], part["nearest"]
    seen["scores"] = {
        key: values[:3] if key == "bins" else values[:2] for key, values in seen["scores"].items()
    }
    seen["neighbours"] = {"labels": ["forgotten"], "before": [[0.7]], "after": [[0.1]]}
    evaluation["recognizers"] = {"conditioning": seen}
    evaluation["sweeps"] = evaluation["sweeps"][:1]
    evaluation["sweeps"][0]["points"] = evaluation["sweeps"][0]["points"][:2]
    evaluation["quality"]["face_quality"] = {"model": "a model", **evaluation["quality"]["sharpness"]}
    return made


@pytest.mark.slow
def test_whatever_may_be_null_is_shown_as_not_measured() -> None:
    tried = 0
    for path in nulls(small()["evaluation"]):
        made = small()
        part = made["evaluation"]
        for step in path[:-1]:
            part = part[step]
        part[path[-1]] = None
        try:
            tried_report = report_of(made)
        except BadInput:
            continue
        tried += 1
        for text in (report_html(tried_report), report_markdown(tried_report)):
            assert not re.search(r"\bNone\b|\bnan\b", text), path
    assert tried > 80


def test_everything_null_at_once_is_a_page_too() -> None:
    made = document()
    for seen in made["evaluation"]["recognizers"].values():
        for part in ("verified", "leak", "bystanders", "strangers", "ism"):
            seen[part] = dict.fromkeys(seen[part])
        seen["before"] = seen["after"] = None
        seen["thresholds"] = {
            far: {"cosine": None, "pairs": None, "refused": "too few"} for far in seen["thresholds"]
        }
        seen["scores"] = seen["neighbours"] = None
    made["evaluation"] |= {"agreement": None, "quality": None, "sweeps": [], "seconds": None}
    empty = report_of(made)
    words = Page(report_html(empty)).words
    assert "None" not in words
    assert words.count("not measured") > 60
    assert "0.00" not in words.split("Key figures")[1].split("Attacks")[0].replace("0.0001", "").replace(
        "0.00 ", ""
    )
    assert "too few" in words
    assert report_markdown(empty).count("not measured") > 40
