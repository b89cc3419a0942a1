"""Methods at equal forgetting: what each leaves of other people once it has forgotten so far, read off the
curve that its dial of strength draws.

The curve of a person begins with the untouched base, goes through the settings tried, from the weakest
forgetting to the deepest, and is straight between them.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from piu_lora.evidence.comparison import Cell, evaluating_first, middle_of
from piu_lora.groups import ANCHOR, FORGET, NEAREST, RANDOM
from piu_lora.markdown import as_code, as_name

__all__ = ["DEPTHS", "Depth", "Equal", "equal_rows", "equal_table", "read_at"]

KEPT = (NEAREST, RANDOM, ANCHOR)
Point = Mapping[str, float]  # the figures of a cell
Interval = tuple[float, float, float]  # middle, low, high


@dataclass(frozen=True)
class Depth:
    """How far is forgotten: a figure of the forgotten person, and the value that it comes down to."""

    figure: str
    value: float
    words: str


DEPTHS = (
    Depth(FORGET, 0.2, "forget ISM 0.2"),
    Depth(FORGET, 0.1, "forget ISM 0.1"),
    Depth(FORGET, 0.0, "forget ISM 0.0"),
    Depth("verified", 0.05, "verified 5 %"),
)


@dataclass(frozen=True)
class Equal:
    """A method at a depth, by a recognizer.

    Attributes:
        reached: people with whom it gets so deep, of ``people``; only of these are the figures.
        points: settings on its curve, besides the untouched base.
        kept: ISM after / before of each of ``KEPT``; None where nobody was forgotten so far.
        less: of the nearest people's, what it keeps less than another method on the same people.
    """

    method: str
    recognizer: str
    depth: str
    people: int
    reached: int
    points: int
    kept: dict[str, Interval | None]
    less: Interval | None = None


def read_at(points: Sequence[Point], depth: Depth) -> dict[str, float] | None:
    """What is kept where a person's curve first comes down to a depth; None where it never does.

    Args:
        points: the figures of a person's cells, in any order; the untouched base is added.
    """
    start: Point = dict.fromkeys([str(FORGET), "verified", *map(str, KEPT)], 1.0)
    path = [start, *sorted(points, key=lambda point: -point[FORGET])]
    for above, below in itertools.pairwise(path):
        high, low = above[depth.figure], below[depth.figure]
        if low <= depth.value:
            share = 0.0 if high <= depth.value else (high - depth.value) / (high - low)
            return {str(group): above[group] + share * (below[group] - above[group]) for group in KEPT}
    return None


def equal_rows(cells: Sequence[Cell], methods: Mapping[str, str], against: str | None = None) -> list[Equal]:
    """Every method at every depth, by every recognizer, for methods with two settings at least.

    Args:
        methods: of a cell's variant, the method on whose curve it lies; other cells do not count.
        against: the method that the others are compared with.
    """
    curves: dict[str, dict[str, dict[tuple[int, int], list[Point]]]] = {}
    for cell in cells:
        for recognizer, figures in cell.figures.items():
            known = {name: value for name, value in figures.items() if value is not None}
            if cell.variant in methods and {FORGET, "verified", *KEPT} <= known.keys():
                people = curves.setdefault(recognizer, {}).setdefault(methods[cell.variant], {})
                people.setdefault((cell.person, cell.seed), []).append(known)
    return [
        row
        for recognizer in evaluating_first(curves)
        for depth in DEPTHS
        for row in _rows(curves[recognizer], recognizer, depth, against)
    ]


def _rows(
    curves: Mapping[str, Mapping[tuple[int, int], Sequence[Point]]],
    recognizer: str,
    depth: Depth,
    against: str | None,
) -> list[Equal]:
    swept = {name: people for name, people in curves.items() if max(map(len, people.values())) > 1}
    read = {
        name: {key: kept for key, points in people.items() if (kept := read_at(points, depth))}
        for name, people in swept.items()
    }
    reference = read.get(against or "", {})
    rows = []
    for name, people in swept.items():
        deep = read[name]
        both = [key for key in deep if key in reference] if name != against else []
        figures = {str(group): _middle({key: deep[key][group] for key in deep}) for group in KEPT}
        less = _middle({key: reference[key][NEAREST] - deep[key][NEAREST] for key in both})
        count = len({person for person, _ in people})
        points = max(map(len, people.values()))
        reached = len({person for person, _ in deep})
        rows.append(Equal(name, recognizer, depth.words, count, reached, points, figures, less))
    return rows


def _middle(values: Mapping[tuple[int, int], float]) -> Interval | None:
    """The median over people and seeds, and its interval over people."""
    people: dict[int, list[float]] = {}
    for (person, _), value in values.items():
        people.setdefault(person, []).append(value)
    return middle_of(people, np.median)


def equal_table(rows: Sequence[Equal], against: str | None = None) -> str:
    """Markdown: a table for each recognizer and depth."""
    parts = []
    for recognizer, depth in dict.fromkeys((row.recognizer, row.depth) for row in rows):
        group_rows = [row for row in rows if (row.recognizer, row.depth) == (recognizer, depth)]
        heads = ["method", "settings tried", "reached by", *(f"{group} keep" for group in KEPT)]
        compared = any(row.less is not None for row in group_rows)
        if compared and against:
            heads.append(f"nearest keep less than by {as_code(against)}")
        lines = [f"| {' | '.join(_cells(row, compared=compared))} |" for row in group_rows]
        title = f"At {depth}{' x before' if 'ISM' in depth else ''}, by the {as_name(recognizer)} recognizer:"
        rule = "|---" + "|--:" * (len(heads) - 1) + "|"
        parts.append("\n".join([title, "", f"| {' | '.join(heads)} |", rule, *lines]))
    return "\n\n".join(parts)


def _cells(row: Equal, *, compared: bool) -> list[str]:
    cells = [as_name(row.method), str(row.points), f"{row.reached} of {row.people}"]
    if not row.reached:
        cells += ["never so deep"] + ["-"] * (len(KEPT) - 1)
    else:
        cells += [_written(row.kept[str(group)], "{:.3f} [{:.3f}, {:.3f}]") for group in KEPT]
    if compared:
        cells.append(_written(row.less, "{:+.3f} [{:+.3f}, {:+.3f}]"))
    return cells


def _written(value: Interval | None, form: str) -> str:
    return "-" if value is None else form.format(*value)
