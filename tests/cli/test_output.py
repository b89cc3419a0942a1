"""One door for what people read: rich on a terminal, plain text when piped, JSON on request."""

import contextlib
import io
import json
import re

import pytest

from piu_lora.cli.output import Document, Facts, Part, Table, as_text, bars, print_result

TABLE = Table(
    ("check", "result", ""), [("files", "as stated", ""), ("weights", "DIFFERS", "a [bold]b[/bold]")]
)
ANSI = re.compile(r"\x1b\[[0-9;]*m")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(stream: io.StringIO, parts: Part | list[Part], *, as_json: bool = False) -> str:
    with contextlib.redirect_stdout(stream):
        print_result({"b": 1, "a": 2}, parts, as_json)
    return stream.getvalue()


def test_piped_tables_are_aligned_and_never_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("FORCE_COLOR", "1")
    wide = Table(("x",), [("w" * 300,)])
    text = shown(io.StringIO(), [TABLE, "", wide, Facts([("a", "1")], 5)])
    assert text.splitlines() == [
        "check    result",
        "-------  ---------  ----------------",
        "files    as stated",
        "weights  DIFFERS    a [bold]b[/bold]",
        "",
        "x",
        "-" * 300,
        "w" * 300,
        "a     1",
    ]


def test_json_is_all_of_stdout_even_on_a_terminal() -> None:
    text = shown(Terminal(), [TABLE, Document("# t")], as_json=True)
    assert json.loads(text) == {"a": 2, "b": 1}
    assert text.index('"a"') < text.index('"b"')


def test_a_terminal_gets_a_table_of_its_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    wide = Table(("adapter", "what"), [("aaaa", "word " * 60), ("bbbb", "x" * 200)])
    text = shown(Terminal(), [wide, TABLE])
    assert ANSI.search(text)
    assert max(len(line) for line in ANSI.sub("", text).splitlines()) <= 80
    assert ANSI.sub("", text).count("x") == 200  # folded, nothing is lost
    assert "a [bold]b[/bold]" in ANSI.sub("", text)  # values are no markup


def test_no_color_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    codes = {
        code
        for found in re.findall(r"\x1b\[([0-9;]*)m", shown(Terminal(), TABLE))
        for code in found.split(";")
    }
    assert not [code for code in codes if code.isdigit() and 30 <= int(code) <= 48]


def test_text_on_a_terminal_can_be_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    command = "hf download somebody/something " + " ".join(f"file-{number}.json" for number in range(20))
    assert command in shown(Terminal(), command)


def test_a_log_hears_every_tenth_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with bars("photos", 40, 8) as advance:
        for _ in range(32):
            advance(1, loss=0.125)
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines[0] == "photos 12/40 loss 0.125"
    assert lines[-1] == "photos 40/40 loss 0.125"
    assert len(lines) == 8


def test_a_terminal_has_a_bar_even_inside_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()
    with contextlib.redirect_stderr(stream), bars("outer", 2) as outer, bars("inner", 3) as inner:
        inner(3)
        outer(1, loss=0.5)
    text = ANSI.sub("", stream.getvalue())
    assert "inner" in text
    assert "3/3" in text
    assert "loss 0.5" in text


def test_a_document_is_piped_as_markdown() -> None:
    assert as_text([Document("# a\n\n| b |"), ""]) == "# a\n\n| b |\n"
