"""Comparing methods: what was measured in every cell, put into one table and one picture."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from piu_lora.evidence.colors import color
from piu_lora.groups import ANCHOR, FORGET, GROUP_WORDS, GROUPS, NEAREST, RANDOM
from piu_lora.markdown import as_code, as_name

__all__ = [
    "FIGURES",
    "Cell",
    "Difference",
    "Row",
    "comparison_csv",
    "comparison_picture",
    "comparison_table",
    "difference_table",
    "differences_from",
    "evaluating_first",
    "middle_of",
    "rows_of",
]

SHARES = ("recognised", "verified", "no_face")
FIGURES = (*GROUPS, *SHARES)
_HEADS: dict[str, str] = {
    **{str(group): GROUP_WORDS[group].short for group in GROUPS},
    str(FORGET): "forget ISM after/before",
    "recognised": "recognised",
    "verified": "verified",
    "no_face": "no face",
}
_SHOWN = (FORGET, "recognised", "verified", RANDOM, NEAREST, ANCHOR)


@dataclass(frozen=True)
class Cell:
    """One method on one person with one seed.

    Attributes:
        variant: the method, and what was varied.
        person: a place in the arena's list; it names nobody.
        seconds: of making the change; evaluation is not in it.
        peak_bytes: memory that making it took on top of the loaded base; None where the system does not say.
        stored_bytes: of the weights that must be kept.
        facts: of the systems that were solved.
        figures: by recognizer, each of ``FIGURES``: ISM after / before by group, shares of the forgotten
            person's images.
        settings: the method's own, all of them; a cell of others is not the same cell.
        images: by recognizer, what ``figures_of_images`` takes, with cosines to four digits; empty in cells
            of earlier versions.
    """

    variant: str
    person: int
    seed: int
    seconds: float
    peak_bytes: int | None
    stored_bytes: int
    figures: dict[str, dict[str, float | None]]
    facts: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    images: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One variant by one recognizer: the middle and the 95 % interval of each figure; None where nothing was
    measured.
    """

    variant: str
    recognizer: str
    people: int
    cells: int
    figures: dict[str, tuple[float, float, float] | None]
    seconds: float
    peak_bytes: float | None
    stored_bytes: float


@dataclass(frozen=True)
class Difference:
    """What one variant has more than another in the cells that both have: the middle and the 95 % interval of
    each figure.
    """

    variant: str
    against: str
    recognizer: str
    people: int
    cells: int
    figures: dict[str, tuple[float, float, float] | None]


def rows_of(cells: Sequence[Cell]) -> list[Row]:
    """A row for every variant and recognizer, in the order of the cells: medians over cells (shares: means).

    Intervals are percentile bootstraps over people, who keep their seeds together: seeds of one person are no
    independent draws.
    """
    rows = []
    for variant in dict.fromkeys(cell.variant for cell in cells):
        matching = [cell for cell in cells if cell.variant == variant]
        peaks = [cell.peak_bytes for cell in matching if cell.peak_bytes is not None]
        for recognizer in matching[0].figures:
            rows.append(
                Row(
                    variant,
                    recognizer,
                    len({cell.person for cell in matching}),
                    len(matching),
                    {figure: _middle(_by_person(matching, recognizer, figure), figure) for figure in FIGURES},
                    float(np.median([cell.seconds for cell in matching])),
                    float(np.median(peaks)) if peaks else None,
                    float(np.median([cell.stored_bytes for cell in matching])),
                )
            )
    return rows


def differences_from(cells: Sequence[Cell], against: str) -> list[Difference]:
    """Every other variant less ``against``, person by person and seed by seed: medians of the differences
    (shares: means).

    Cells that only one of the two has do not count, so variants that met fewer people are compared on those.
    Intervals as in ``rows_of``.
    """
    reference = {(cell.person, cell.seed): cell for cell in cells if cell.variant == against}
    differences = []
    for variant in dict.fromkeys(cell.variant for cell in cells if cell.variant != against):
        matching = [
            cell for cell in cells if cell.variant == variant and (cell.person, cell.seed) in reference
        ]
        for recognizer in matching[0].figures if matching else ():
            figures = {
                figure: _middle(_less(matching, reference, recognizer, figure), figure) for figure in FIGURES
            }
            differences.append(
                Difference(
                    variant,
                    against,
                    recognizer,
                    len({cell.person for cell in matching}),
                    len(matching),
                    figures,
                )
            )
    return differences


_People = dict[int, list[float]]


def _by_person(cells: Sequence[Cell], recognizer: str, figure: str) -> _People:
    people: _People = {}
    for cell in cells:
        value = cell.figures[recognizer][figure]
        if value is not None:
            people.setdefault(cell.person, []).append(value)
    return people


def _less(
    cells: Sequence[Cell], reference: Mapping[tuple[int, int], Cell], recognizer: str, figure: str
) -> _People:
    people: _People = {}
    for cell in cells:
        value, other = (
            side.figures[recognizer][figure] for side in (cell, reference[cell.person, cell.seed])
        )
        if value is not None and other is not None:
            people.setdefault(cell.person, []).append(value - other)
    return people


def _middle(people: _People, figure: str) -> tuple[float, float, float] | None:
    return middle_of(people, np.mean if figure in SHARES else np.median)


def middle_of(
    people: Mapping[int, Sequence[float]], middle: Callable[..., Any], draws: int = 2000
) -> tuple[float, float, float] | None:
    """The middle of all values and its 95 % interval, by a percentile bootstrap over people, who keep their
    values together; None where there are none.
    """
    if not people:
        return None
    values = list(people.values())
    chosen = np.random.default_rng(0).integers(len(values), size=(draws, len(values)))
    resampled: Any
    if len({len(figures) for figures in values}) == 1:
        resampled = middle(np.asarray(values)[chosen].reshape(draws, -1), axis=1)
    else:
        resampled = [middle(np.concatenate([values[i] for i in draw])) for draw in chosen]
    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(middle(np.concatenate(values))), float(low), float(high)


def comparison_table(rows: Sequence[Row]) -> str:
    """Markdown: a table for each recognizer, the evaluating one first."""
    heads = [
        "method",
        "people",
        "cells",
        *(_HEADS[figure] for figure in _SHOWN),
        "seconds",
        "peak MB",
        "stored MB",
    ]
    return _tables("By the {} recognizer:", heads, [(row.recognizer, _cells(row)) for row in rows])


def evaluating_first(recognizers: Iterable[str]) -> list[str]:
    """Names of recognizers, the one that conditions the base behind those that only evaluate."""
    return sorted(recognizers, key=lambda name: name == "conditioning")


def difference_table(differences: Sequence[Difference]) -> str:
    """Markdown: a table for each recognizer, the evaluating one first."""
    heads = ["method", "people", "cells", *(_HEADS[figure] for figure in _SHOWN)]
    lines = [
        (
            difference.recognizer,
            [
                as_name(difference.variant),
                str(difference.people),
                str(difference.cells),
                *(_signed(difference.figures[figure]) for figure in _SHOWN),
            ],
        )
        for difference in differences
    ]
    against = differences[0].against
    return _tables(
        f"Less `{as_code(against)}`, on the same people and seeds, by the {{}} recognizer:", heads, lines
    )


def _tables(title: str, heads: Sequence[str], lines: Sequence[tuple[str, list[str]]]) -> str:
    parts = []
    for recognizer in evaluating_first({name for name, _ in lines}):
        head = [
            title.format(as_name(recognizer)),
            "",
            f"| {' | '.join(heads)} |",
            "|---" + "|--:" * (len(heads) - 1) + "|",
        ]
        parts.append(
            "\n".join([*head, *(f"| {' | '.join(cells)} |" for name, cells in lines if name == recognizer)])
        )
    return "\n\n".join(parts)


def _cells(row: Row) -> list[str]:
    figures = [_with_interval(row.figures[figure]) for figure in _SHOWN]
    peak = "-" if row.peak_bytes is None else f"{row.peak_bytes / 1e6:.0f}"
    return [
        as_name(row.variant),
        str(row.people),
        str(row.cells),
        *figures,
        f"{row.seconds:.1f}",
        peak,
        f"{row.stored_bytes / 1e6:.2f}",
    ]


def _with_interval(value: tuple[float, float, float] | None) -> str:
    return "-" if value is None else "{:.3f} [{:.3f}, {:.3f}]".format(*value)


def _signed(value: tuple[float, float, float] | None) -> str:
    return "-" if value is None else "{:+.3f} [{:+.3f}, {:+.3f}]".format(*value)


def comparison_csv(rows: Sequence[Row]) -> str:
    """One line for each row, with the ends of every interval."""
    buffer = io.StringIO()
    ends = [f"{figure}{end}" for figure in FIGURES for end in ("", "_low", "_high")]
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        ["variant", "recognizer", "people", "cells", *ends, "seconds", "peak_bytes", "stored_bytes"]
    )
    for row in rows:
        values = [value for figure in FIGURES for value in (row.figures[figure] or ("", "", ""))]
        peak = "" if row.peak_bytes is None else row.peak_bytes
        writer.writerow(
            [row.variant, row.recognizer, row.people, row.cells, *values, row.seconds, peak, row.stored_bytes]
        )
    return buffer.getvalue()


def comparison_picture(rows: Sequence[Row]) -> bytes:
    """A PNG: forgetting against what random and nearest people keep, a point for each variant with its
    intervals.
    """
    from matplotlib.figure import Figure

    recognizer = evaluating_first(row.recognizer for row in rows)[0]
    matching = [row for row in rows if row.recognizer == recognizer]
    people = max(row.people for row in matching)
    figure = Figure(figsize=(12.5, 5), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True)
    for axes, group, title in zip(
        panels, (RANDOM, NEAREST), ("random people", "nearest people"), strict=True
    ):
        for index, row in enumerate(matching):
            forget, retained = row.figures[FORGET], row.figures[group]
            if forget is None or retained is None:
                continue
            bars = [[[value - low], [high - value]] for value, low, high in (forget, retained)]
            marker = "os^Dv<>pP*Xh"[index % 12]
            fewer = f" ({row.people} {'person' if row.people == 1 else 'people'})"
            label = row.variant if row.people == people else row.variant + fewer
            axes.errorbar(
                forget[0],
                retained[0],
                xerr=bars[0],
                yerr=bars[1],
                fmt=marker,
                color=color(index),
                label=label,
                capsize=2,
                markersize=7,
                elinewidth=0.8,
            )
        axes.set_title(f"{title} keep", fontsize=10, loc="left")
        axes.set_xlabel("forgotten person: ISM after / before (less is better)")
        axes.axhline(1, color="grey", linewidth=0.5)
        axes.grid(alpha=0.25)
    panels[0].set_ylabel("ISM after / before (1: untouched)")
    figure.legend(
        *panels[0].get_legend_handles_labels(), fontsize=8, loc="outside right center", frameon=False
    )
    note = f"{people} people, {recognizer} recognizer; medians, 95 % intervals over people"
    figure.suptitle(note, fontsize=10, x=0.01, ha="left")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120, metadata={"Software": None})
    return buffer.getvalue()
