"""Names on charts that do not lie on each other or on lines."""

import itertools
from collections.abc import Sequence

import numpy as np

from piu_lora.evidence.report.svg import WIDTH, Chart, paint

__all__ = ["LINE", "end_labels", "flags", "rule", "settings_axis", "spread", "text_width", "wrapped"]

LINE = 13.0  # height of a line of text
_LETTER = 5.9  # mean width of a letter at the charts' size of text; browsers differ by a few per cent


def text_width(text: str) -> float:
    """About how wide a label is."""
    return _LETTER * len(text)


def wrapped(text: str, letters: int) -> list[str]:
    """A label in lines of at most so many letters, broken at spaces."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if len(joined) <= letters or not lines[-1]:
            lines[-1] = joined
        else:
            lines.append(word)
    return lines


def spread(middles: Sequence[float], heights: Sequence[float], low: float, high: float) -> list[float]:
    """Middles of labels moved apart so that none overlaps: in order, from low to high where there is room,
    near where they were.

    Args:
        middles, heights: of the labels, in units of the drawing.
        low, high: the edges between which they go.
    """
    order = sorted(range(len(middles)), key=lambda index: middles[index])
    moved = [0.0] * len(middles)
    edge = low
    for index in order:
        moved[index] = max(middles[index], edge + heights[index] / 2)
        edge = moved[index] + heights[index] / 2
    edge = high
    for index in reversed(order):
        moved[index] = min(moved[index], edge - heights[index] / 2)
        edge = moved[index] - heights[index] / 2
    return moved


def end_labels(chart: Chart, entries: Sequence[tuple[float, str, str]], letters: int = 15) -> None:
    """Names at the right end of lines: (value, words, colour), moved apart where they would overlap."""
    chart.settle()
    lines = [wrapped(words, letters) for _, words, _ in entries]
    heights = [len(parts) * LINE for parts in lines]
    ends = [chart.at(0, value)[1] for value, _, _ in entries]
    low, high = chart.margins.top - LINE, chart.height - chart.margins.bottom + LINE
    edge = chart.right_edge
    middles = spread(ends, heights, low, high)
    for y, end, parts, (_, _, colour) in zip(middles, ends, lines, entries, strict=True):
        _stroke(chart, ((edge + 2, end), (edge + 8, y)), "muted", "lead")
        for row, part in enumerate(parts):
            middle = y + 4 + LINE * (row - (len(parts) - 1) / 2)
            chart.text(edge + 11, middle, part, colour=colour, look="strong halo")


def rule(chart: Chart, value: float, words: str) -> None:
    """A horizontal line across the frame, named where the fewest lines run; call it after they are drawn."""
    chart.settle()
    left, edge, width = chart.margins.left, chart.right_edge, text_width(words)
    spots = _along_lines(chart)
    y = chart.at(0, value)[1]
    _stroke(chart, ((left, y), (edge, y)), "ink", "rule")
    corners = [
        (x, y + step)
        for step in (-4, LINE - 1)
        for x in (left + 4, edge - width - 4, (left + edge - width) / 2)
    ]

    def crossings(corner: tuple[float, float]) -> int:
        x, base = corner
        return sum(x <= a <= x + width and base - 11 <= b <= base + 3 for a, b in spots)

    chart.text(*min(corners, key=crossings), words, colour="ink", look="halo")


def flags(chart: Chart, values: Sequence[tuple[float, str]]) -> None:
    """Vertical lines, their names stacked above the frame, all on the same side, so that no line crosses a
    name.
    """
    chart.settle()
    order = sorted(values, reverse=True)
    leftward = any(chart.at(value, 0)[0] + 6 + text_width(words) > WIDTH for value, words in order)
    for row, (value, words) in enumerate(order[::-1] if leftward else order):
        x, y = chart.at(value, 0)[0], chart.margins.top - 8 - LINE * row
        _stroke(chart, ((x, y - 3), (x, chart.height - chart.margins.bottom)), "ink", "rule")
        chart.text(
            x - 5 if leftward else x + 5,
            y,
            words,
            anchor="end" if leftward else "start",
            colour="ink",
            look="halo",
        )


def _along_lines(chart: Chart) -> list[tuple[float, float]]:
    """Where lines run, in eighths of their pieces."""
    spots = []
    for line in chart.axes.lines:
        corners = [chart.at(float(x), float(y)) for x, y in np.asarray(line.get_xydata())]
        for (a, b), (c, d) in itertools.pairwise(corners):
            spots += [(a + step / 8 * (c - a), b + step / 8 * (d - b)) for step in range(9)]
    return spots


def _stroke(
    chart: Chart, ends: tuple[tuple[float, float], tuple[float, float]], colour: str, look: str
) -> None:
    """A straight line between two places of the drawing."""
    from matplotlib.lines import Line2D

    (a, b), (c, d) = ends
    chart.figure.add_artist(
        Line2D(
            [a / WIDTH, c / WIDTH],
            [1 - b / chart.height, 1 - d / chart.height],
            linewidth=1,
            color=paint(colour),
            gid=f"class:{look}",
        )
    )


def settings_axis(chart: Chart, values: Sequence[float | str]) -> list[float]:
    """An axis of numbers from the first to the last, or of names in their order: where each value stands."""
    axes, edge = chart.axes, chart.right_edge
    numbers = [value for value in values if not isinstance(value, str)]
    if len(numbers) == len(values):
        low, high = min(numbers, default=0.0), max(numbers, default=1.0)
        axes.set_xlim((low, high) if low < high else (low - 0.5, high + 0.5))
        return numbers
    names = list(dict.fromkeys(map(str, values)))
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_xticks(range(len(names)), [""] * len(names))
    letters = max(int((edge - chart.margins.left) / len(names) / _LETTER), 6)
    for index, name in enumerate(names):
        x = chart.at(index, 0)[0]
        for row, part in enumerate(wrapped(name, letters)):
            y = chart.height - chart.margins.bottom + 15 + LINE * row
            chart.text(x, y, part, anchor="middle")
    return [float(names.index(str(value))) for value in values]
