"""The curves of an attack: whatever series it measured, in the colours that the rest of the report gives to
the same people.
"""

from typing import Any

from markupsafe import Markup

from piu_lora.evidence.report.charts import LINE, SHAPES, Plot, wrapped
from piu_lora.evidence.report.scales import Scale, between, categories, linear
from piu_lora.evidence.report.wording import number

__all__ = ["Style", "curve_chart", "styles"]

Style = tuple[str, bool, str]  # colour, dashed, shape of the marks

_PEOPLE = (("forgotten", "forget"), ("nearest", "nearest"), ("anchor", "anchor"), ("decoy", "decoy"), ("impostor", "impostor"),
           ("retained", "random"), ("random", "random"), ("control", "random"))  # fmt: skip
_BEFORE = ("before", "adapter off", "without the adapter", "base alone", "untouched base")
_NOBODY = (
    "ink",
    "decoy",
    "impostor",
)  # of series that name no people, so that no group's colour means something else


def styles(names: list[str]) -> list[Style]:
    """How to draw each series: the colour of the people it names, dashed about the base alone, a shape of its
    own among equals.
    """
    found: list[Style] = []
    for name in names:
        words = name.lower()
        colour = next(
            (colour for word, colour in _PEOPLE if word in words.replace("random weights", "")), None
        ) or _unused([seen for seen, *_ in found])
        dashed = any(word in words for word in _BEFORE)
        equals = sum(seen[:2] == (colour, dashed) for seen in found)
        found.append((colour, dashed, SHAPES[equals % len(SHAPES)]))
    return found


def _unused(taken: list[str]) -> str:
    return next((colour for colour in _NOBODY if colour not in taken), _NOBODY[0])


def curve_chart(curve: dict[str, Any]) -> tuple[Markup, list[tuple[str, Style]]]:
    """The chart, and the key that goes below it where the names do not fit beside the lines."""
    series = curve["series"]
    looks = styles([line["name"] for line in series])
    xs = [value for line in series for value in line["x"]]
    plain = any(isinstance(value, str) for value in xs)
    across = (
        categories([str(value) for value in xs]) if plain else between(min(xs, default=0), max(xs, default=1))
    )
    direct = _fits([line["name"] for line in series]) and (
        plain or all(_reaches(line, across) for line in series)
    )
    values = [value for line in series for key in ("y", "low", "high") for value in line.get(key) or ()]
    level = curve.get("threshold")
    up = linear(values, (0,) if level is None else (0, level))
    plot = Plot(
        curve["title"],
        across,
        up,
        curve["x"],
        curve["y"],
        right=92 if direct else 14,
        height=216 + (LINE if plain else 0),
    )
    plot.bottom += LINE if plain else 0
    ends = []
    for line, (colour, dashed, shape) in zip(series, looks, strict=True):
        places = [str(value) for value in line["x"]] if plain else line["x"]
        if line.get("low") and line.get("high"):
            plot.band(places, line["low"], line["high"], colour)
        plot.line(places, line["y"], colour, dashed)
        known = [(x, y) for x, y in zip(places, line["y"], strict=True) if y is not None]
        for x, y in known:
            plot.point(x, y, colour, shape, hollow=dashed, size=3)
        if direct and known:
            ends.append((max((plot.at_x(x), y) for x, y in known)[1], line["name"], colour))
    if level is not None:
        plot.rule(level, f"threshold {number(level)}")
    plot.labels(ends, 13)
    return plot.svg(), [] if direct else [
        (line["name"], look) for line, look in zip(series, looks, strict=True)
    ]


def _reaches(line: dict[str, Any], across: Scale) -> bool:
    """Whether a line ends near the right edge, where its name would stand."""
    return (
        max((across.place(x) for x, y in zip(line["x"], line["y"], strict=True) if y is not None), default=0)
        > 0.8
    )


def _fits(names: list[str]) -> bool:
    """Whether the names fit to the right of the frame, each in at most two lines."""
    lines = [wrapped(name, 13) for name in names]
    tall = max((len(parts) for parts in lines), default=0)
    return (
        tall <= 2
        and tall * LINE * len(names) <= 150
        and all(len(part) <= 15 for parts in lines for part in parts)
    )
