"""The curves of an attack: whatever series it measured, in the colours that the rest of the report gives to
the same people.
"""

from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from piu_lora.evidence.report.labels import LINE, end_labels, rule, settings_axis, wrapped
from piu_lora.evidence.report.sections import Curve, Series
from piu_lora.evidence.report.svg import SHAPES, Chart, Margins, paint
from piu_lora.evidence.report.wording import number

__all__ = ["Style", "curve_chart", "styles"]


class Style(NamedTuple):
    """How a series is drawn."""

    colour: str
    dashed: bool
    shape: str


_PEOPLE = {
    "forgotten": "forget",
    "unseen": "forget",
    "nearest": "nearest",
    "anchor": "anchor",
    "decoy": "decoy",
    "impostor": "impostor",
    "retained": "random",
    "random": "random",
    "control": "random",
}
_BEFORE = ("before", "adapter off", "without the adapter", "base alone", "untouched base")
# Of series that name no people, so that no group's colour means something else.
_NOBODY = ("ink", "decoy", "impostor")


def styles(names: list[str]) -> list[Style]:
    """How to draw each series: the colour of the people it names, dashed about the base alone, a shape of its
    own among equals.
    """
    chosen: list[Style] = []
    for name in names:
        words = name.lower()
        colour = _colour(words.replace("random weights", "")) or _unused([style.colour for style in chosen])
        dashed = any(word in words for word in _BEFORE)
        equals = sum(style[:2] == (colour, dashed) for style in chosen)
        chosen.append(Style(colour, dashed, list(SHAPES)[equals % len(SHAPES)]))
    return chosen


def _colour(words: str) -> str | None:
    return next((colour for people, colour in _PEOPLE.items() if people in words), None)


def _unused(colours: list[str]) -> str:
    return next((colour for colour in _NOBODY if colour not in colours), _NOBODY[0])


def curve_chart(curve: Curve) -> tuple[Markup, list[tuple[str, Style]]]:
    """The chart, and the key that goes below it where the names do not fit beside the lines."""
    values = [x for line in curve.series for x in line.x]
    named = any(isinstance(x, str) for x in values)
    direct = _fits([line.name for line in curve.series]) and (
        named or all(_reaches(line, values) for line in curve.series)
    )
    chart = Chart(
        curve.title,
        curve.x,
        curve.y,
        height=216 + (LINE if named else 0),
        margins=Margins(right=92 if direct else 14, bottom=36 + (LINE if named else 0)),
    )
    places = iter(settings_axis(chart, values))
    levels = [0.0] if curve.threshold is None else [0.0, curve.threshold]
    chart.axes.update_datalim([(0, level) for level in levels], updatex=False)
    ends, looks = [], styles([line.name for line in curve.series])
    for line, style in zip(curve.series, looks, strict=True):
        xs = [next(places) for _ in line.x]
        _series(chart, line, xs, style)
        known = [(x, y) for x, y in zip(xs, line.y, strict=True) if y is not None]
        if direct and known:
            ends.append((max(known)[1], line.name, style.colour))
    if curve.threshold is not None:
        rule(chart, curve.threshold, f"threshold {number(curve.threshold)}")
    end_labels(chart, ends, 13)
    names = [line.name for line in curve.series]
    return chart.svg(), [] if direct else list(zip(names, looks, strict=True))


def _series(chart: Chart, line: Series, xs: list[float], style: Style) -> None:
    if line.low and line.high:
        low, high = (np.array(values, float) for values in (line.low, line.high))
        chart.axes.fill_between(xs, low, high, color=paint(style.colour), alpha=0.15, linewidth=0)
    chart.line(xs, line.y, style.colour, dashed=style.dashed)
    chart.points(xs, line.y, style.colour, shape=style.shape, hollow=style.dashed, size=6)


def _reaches(line: Series, values: list[float | str]) -> bool:
    """Whether a line ends near the right edge, where its name would stand."""
    numbers = [x for x in values if not isinstance(x, str)]
    low, high = min(numbers), max(numbers)
    known = [x for x, y in zip(line.x, line.y, strict=True) if y is not None and not isinstance(x, str)]
    return bool(known) and (low == high or (max(known) - low) / (high - low) > 0.8)


def _fits(names: list[str]) -> bool:
    """Whether the names fit to the right of the frame, each in at most two lines."""
    lines = [wrapped(name, 13) for name in names]
    tall = max((len(parts) for parts in lines), default=0)
    return (
        tall <= 2
        and tall * LINE * len(names) <= 150
        and all(len(part) <= 15 for parts in lines for part in parts)
    )
