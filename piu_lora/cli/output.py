"""What people read: results on stdout, progress and remarks on stderr. Every table and bar comes from here.

On a terminal a result is drawn by rich, which heeds NO_COLOR and the width of the window. Piped, it is plain
text that stays the same on every machine and is never wrapped; with --json it is JSON.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from piu_lora import interrupts
from piu_lora.cli.messages import translated

if TYPE_CHECKING:
    from rich.table import Table as RichTable

__all__ = ["Document", "Facts", "Part", "Table", "as_text", "bars", "print_result", "remark"]

# Words of a cell that a terminal shows in colour.
_STYLES = {"DIFFERS": "bold red", "over the limit": "bold red"}
_SILENCE = 30.0  # seconds after which a log hears how far the job is, although little has been done


@dataclass(frozen=True)
class Table:
    """A table with a head; every row has a cell for each column."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Facts:
    """Labels and values, a pair a line; ``width`` is that of the labels in plain text."""

    pairs: Sequence[tuple[str, str]]
    width: int = 10


@dataclass(frozen=True)
class Document:
    """Markdown text."""

    text: str


Part = str | Table | Facts | Document


def print_result(facts: dict[str, Any], parts: Part | Iterable[Part], as_json: bool) -> None:
    """Print a result on stdout.

    Args:
        facts: the whole result, for JSON.
        parts: the result for people, from top to bottom; ``""`` is an empty line.
        as_json: print ``facts``, and nothing else.
    """
    if as_json:
        typer.echo(json.dumps(facts, indent=2, sort_keys=True))
        return
    listed = [parts] if isinstance(parts, Part) else list(parts)
    if sys.stdout.isatty():
        _draw(listed)
    else:
        typer.echo(as_text(listed))


def remark(message: str) -> None:
    """Say something on stderr that is no part of the result."""
    typer.echo(translated(message), err=True)


def as_text(parts: Iterable[Part]) -> str:
    """The parts as plain text, one below the other."""
    return "\n".join(line for part in parts for line in _lines_of(part))


def _lines_of(part: Part) -> list[str]:
    if isinstance(part, str):
        return [part]
    if isinstance(part, Document):
        return [part.text]
    if isinstance(part, Facts):
        return [f"{label:{part.width}} {value}" for label, value in part.pairs]
    rows = [part.head, *part.rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(part.head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return [lines[0], "  ".join("-" * width for width in widths).rstrip(), *lines[1:]]


def _draw(parts: Iterable[Part]) -> None:
    """On the terminal. Text is printed as it is, so that paths and commands can be copied."""
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console(file=sys.stdout, highlight=False)
    for part in parts:
        if isinstance(part, str):
            console.print(part, markup=False, soft_wrap=True)
        else:
            console.print(Markdown(part.text) if isinstance(part, Document) else _rich_table(part))


def _rich_table(part: Table | Facts) -> "RichTable":
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    if isinstance(part, Facts):
        grid = RichTable.grid(padding=(0, 2))
        for label, value in part.pairs:
            grid.add_row(Text(label, style="dim"), Text(value))
        return grid
    table = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in part.head:
        table.add_column(Text(name), overflow="fold")
    for row in part.rows:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    return table


@contextmanager
def bars(label: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
    """Show on stderr how far a job is: a bar on a terminal, a line for every tenth in a log.

    Fits the library's ``progress`` argument.
    """
    with (_bar if sys.stderr.isatty() else _lines)(label, total, done) as advance:

        def advance_unless_interrupted(count: int = 1, **terms: float) -> None:
            interrupts.check()
            advance(count, **terms)

        yield advance_unless_interrupted


@contextmanager
def _bar(label: str, total: int, done: int) -> Iterator[Callable[..., None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[terms]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=total, completed=done, terms="")

        def advance(count: int = 1, **terms: float) -> None:
            progress.update(task, advance=count)
            if terms:
                progress.update(task, terms=_worded(terms))

        yield advance


@contextmanager
def _lines(label: str, total: int, done: int) -> Iterator[Callable[..., None]]:
    heard, tenth = time.monotonic(), 10 * done // max(total, 1)

    def advance(count: int = 1, **terms: float) -> None:
        nonlocal done, heard, tenth
        done += count
        reached, now = 10 * done // max(total, 1), time.monotonic()
        if reached > tenth or now - heard > _SILENCE:
            heard, tenth = now, reached
            typer.echo(f"{label} {done}/{total} {_worded(terms)}".rstrip(), err=True)

    yield advance


def _worded(terms: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in terms.items())
