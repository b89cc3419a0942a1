"""Whatever somebody writes into a receipt or a setting, it stays a word in Markdown."""

import pytest
from markdown_it import MarkdownIt

from piu_lora.markdown import as_code, as_words

HOSTILE = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "a | b", "`</code><script>`", "a\n\n# head",
    "[x](javascript:alert(1))", "*bold* _it_", "\\<script>", "a\r\n<b>",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_no_markup_comes_of_words(text: str) -> None:
    rows = f"| head |\n| --- |\n| {as_words(text)} |\n\nBy {as_words(text)} and `{as_code(text)}`.\n"
    page = MarkdownIt("commonmark", {"html": True}).enable("table").render(rows)
    for mark in ("<script", "<img", "<a ", "<em", "<strong", "<b>", "<h1", "</code><"):
        assert mark not in page
    assert page.count("<tr") == 2
    assert page.count("<td") == 1
