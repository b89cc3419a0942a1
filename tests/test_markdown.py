"""Whatever somebody writes into a receipt or a setting, it stays a word in Markdown."""

import ast
from dataclasses import replace
from pathlib import Path

import pytest
from diffusers import StableDiffusionPipeline
from markdown_it import MarkdownIt

from piu_lora.adapter.card import model_card
from piu_lora.evidence import Cell
from piu_lora.evidence.comparison import FIGURES
from piu_lora.evidence.report import report_markdown, report_of
from piu_lora.jobs.adapters.list import index_adapters, write_index
from piu_lora.jobs.arena.comparison import write_comparison
from piu_lora.markdown import as_code, as_words
from piu_lora.studio.elements import render
from tests.adapter.stacks import write_random
from tests.adapter.test_card import RECEIPT, UNET
from tests.evidence.report.test_html import Page, spoiled

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "a | b",
    "`</code><script>`",
    "a\n\n# head",
    "[x](javascript:alert(1))",
    "*bold* _it_",
    "\\<script>",
    "a\r\n<b>",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_markup_comes_of_words(text: str) -> None:
    rows = f"| head |\n| --- |\n| {as_words(text)} |\n\nBy {as_words(text)} and `{as_code(text)}`.\n"
    page = rendered(rows)
    for mark in ("<script", "<img", "<a ", "<em", "<strong", "<b>", "<h1", "</code><"):
        assert mark not in page
    assert page.count("<tr") == 2
    assert page.count("<td") == 1


# A table of its own, a heading, and whatever a browser would run or fetch.
EVIL = "x\n\n# y <script>alert(1)</script><img src=x onerror=y>|`</code><b>`[a](javascript:b)\"');c{{ 7*7 }}"
ALLOWED = {
    *("h1", "h2", "h3", "p", "ul", "ol", "li", "strong", "code", "pre", "hr", "div", "section", "span"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}


def rendered(text: str) -> str:
    """As GitHub would, did it trust the author."""
    return str(MarkdownIt("commonmark", {"html": True}).enable("table").render(text))


def assert_words_only(page: str) -> None:
    tags = Page(page).tags
    assert {tag for tag, _ in tags} <= ALLOWED
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]


def test_a_report_of_hostile_words() -> None:
    assert_words_only(rendered(report_markdown(report_of(spoiled()))))


def test_a_card_of_hostile_words() -> None:
    base = replace(RECEIPT.base, id=EVIL, family="nobody")
    settings = {"seed": EVIL, "train": {"steps": EVIL}}
    (ism,) = RECEIPT.evaluation["recognizers"].values()
    evaluation = {"recognizers": {EVIL: ism}}
    receipt = replace(RECEIPT, base=base, settings=settings, evaluation=evaluation, method=EVIL)
    text = model_card(receipt, UNET)
    assert_words_only(rendered(text.split("---\n", 2)[2]))
    (line,) = (line for line in text.splitlines() if line.startswith("pipe = load_base("))
    call = ast.parse(line).body[0]
    assert isinstance(call, ast.Assign)
    assert ast.literal_eval(call.value.args[0]) == EVIL  # type: ignore[attr-defined]
    assert "\n# y" not in text


def test_a_list_of_hostile_folders(pipe: StableDiffusionPipeline, tmp_path: Path) -> None:
    name = "<img src=x onerror=y>|`a`[b](c)"
    write_random(pipe, tmp_path / "adapters" / name, 1)
    write_index(index_adapters(tmp_path / "adapters"), tmp_path / "index.md")
    page = rendered((tmp_path / "index.md").read_text())
    assert_words_only(page)
    assert name in Page(page).words


def test_an_arena_of_hostile_methods(tmp_path: Path) -> None:
    figures = {name: dict.fromkeys(FIGURES, 0.5) for name in ("conditioning", EVIL)}
    cells = [Cell(variant, 0, 0, 2.0, None, 1000, figures) for variant in (EVIL, "b")]
    made = write_comparison(tmp_path, cells, 2, EVIL, {EVIL: {EVIL: EVIL}}, {})
    assert_words_only(rendered(made.text))


def test_the_studio_shows_hostile_words_as_words() -> None:
    assert_words_only(render("fault", words=EVIL))
