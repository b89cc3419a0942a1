"""Charts as inline SVG: text stays text, and every colour is a CSS variable of the page, so light and dark
need one picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from markupsafe import Markup

from piu_lora.evidence.report.scales import Scale, spread

__all__ = ["LINE", "SHAPES", "Plot", "text_width", "wrapped"]

SHAPES = ("circle", "square", "triangle", "diamond")
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


def _along(start: tuple[float, float], end: tuple[float, float], share: float) -> tuple[float, float]:
    return start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])


@dataclass
class Plot:
    """A frame with two axes that marks are added to, then ``svg()``.

    Args:
        title: what it shows, read out by screen readers.
        right: room for direct labels, in units of the drawing, which is ``width`` wide and scaled to its
            column.
    """

    title: str
    x: Scale
    y: Scale
    x_label: str
    y_label: str
    width: float = 340
    height: float = 220
    left: float = 40
    right: float = 14
    top: float = 22
    bottom: float = 36
    marks: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    spots: list[tuple[float, float]] = field(
        default_factory=list
    )  # where lines run, so that names can keep clear of them

    def at_x(self, value: float | str) -> float:
        return self.left + self.x.place(value) * (self.width - self.left - self.right)

    def at_y(self, value: float) -> float:
        return self.height - self.bottom - self.y.place(value) * (self.height - self.top - self.bottom)

    def line(
        self, xs: Sequence[float | str], ys: Sequence[float | None], colour: str, dashed: bool = False
    ) -> None:
        """A polyline, broken where a value is missing."""
        path, last = [], None
        for x, y in zip(xs, ys, strict=True):
            if y is None:
                last = None
                continue
            here = (self.at_x(x), self.at_y(y))
            path.append(f"{'M' if last is None else 'L'}{here[0]:.1f} {here[1]:.1f}")
            self.spots += [_along(last or here, here, step / 8) for step in range(1, 9)]
            last = here
        dash = " dash" if dashed else ""
        self.marks.append(f'<path class="line{dash}" style="stroke:var(--{colour})" d="{"".join(path)}"/>')

    def band(
        self,
        xs: Sequence[float | str],
        low: Sequence[float | None],
        high: Sequence[float | None],
        colour: str,
    ) -> None:
        """The area between two lines, over the places where both are known."""
        known = [
            (self.at_x(x), self.at_y(b), self.at_y(t))
            for x, b, t in zip(xs, low, high, strict=True)
            if b is not None and t is not None
        ]
        corners = [f"{x:.1f},{top:.1f}" for x, _, top in known] + [
            f"{x:.1f},{base:.1f}" for x, base, _ in reversed(known)
        ]
        self.marks.append(
            f'<polygon class="band" style="fill:var(--{colour})" points="{" ".join(corners)}"/>'
        )

    def steps(
        self,
        edges: Sequence[float],
        heights: Sequence[float],
        colour: str,
        filled: bool,
        dashed: bool = False,
    ) -> None:
        """A histogram's outline, filled or not."""
        base = self.at_y(0)
        path = f"M{self.at_x(edges[0]):.1f} {base:.1f}"
        for left, right, height in zip(edges, edges[1:], heights, strict=False):
            path += (
                f"V{self.at_y(height):.1f}"
                if left == edges[0]
                else f"L{self.at_x(left):.1f} {self.at_y(height):.1f}"
            )
            path += f"H{self.at_x(right):.1f}"
        path += f"V{base:.1f}"
        if filled:
            self.marks.append(f'<path class="area" style="fill:var(--{colour})" d="{path}Z"/>')
        self.marks.append(
            f'<path class="line thin{" dash" if dashed else ""}" style="stroke:var(--{colour})" d="{path}"/>'
        )

    def point(
        self,
        x: float | str,
        y: float,
        colour: str,
        shape: str = "circle",
        hollow: bool = False,
        size: float = 4,
        aside: float = 0,
    ) -> None:
        """A mark; hollow for before, full for after."""
        paint = f'class="point" style="stroke:var(--{colour});fill:var(--{"card" if hollow else colour})"'
        a, b = self.at_x(x) + aside, self.at_y(y)
        corners = {
            "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
            "triangle": ((0, -1.2), (1.1, 0.9), (-1.1, 0.9)),
            "diamond": ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
        }.get(shape)
        if corners is None:
            self.marks.append(f'<circle {paint} cx="{a:.1f}" cy="{b:.1f}" r="{size:g}"/>')
        else:
            points = " ".join(f"{a + size * dx:.1f},{b + size * dy:.1f}" for dx, dy in corners)
            self.marks.append(f'<polygon {paint} points="{points}"/>')

    def segment(
        self,
        start: tuple[float | str, float],
        end: tuple[float | str, float],
        colour: str,
        kind: str = "bar",
        aside: float = 0,
    ) -> None:
        """A straight line between two places, e.g. an interval, so many units of the drawing aside."""
        (a, b), (c, d) = ((self.at_x(x) + aside, self.at_y(y)) for x, y in (start, end))
        self.marks.append(
            f'<line class="{kind}" style="stroke:var(--{colour})" x1="{a:.1f}" y1="{b:.1f}" x2="{c:.1f}" y2="{d:.1f}"/>'
        )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        anchor: str = "start",
        colour: str = "muted",
        strong: bool = False,
    ) -> None:
        """Words at a place of the drawing, above all marks."""
        look = f'class="halo{" strong" if strong else ""}" style="fill:var(--{colour})"'
        self.words.append(
            f'<text {look} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
        )

    def rule(self, value: float, text: str) -> None:
        """A horizontal line across the frame, named where the fewest lines run; call it after they are drawn."""
        y, edge, width = self.at_y(value), self.width - self.right, text_width(text)
        self.marks.append(
            f'<line class="rule" x1="{self.left:.1f}" y1="{y:.1f}" x2="{edge:.1f}" y2="{y:.1f}"/>'
        )
        places = [
            (x, y + step)
            for step in (-4, LINE - 1)
            for x in (self.left + 4, edge - width - 4, (self.left + edge - width) / 2)
        ]
        x, base = min(
            places,
            key=lambda place: sum(
                place[0] <= a <= place[0] + width and place[1] - 11 <= b <= place[1] + 3
                for a, b in self.spots
            ),
        )
        self.text(x, base, text, colour="ink")

    def flags(self, values: Sequence[tuple[float, str]]) -> None:
        """Vertical lines, their names stacked above the frame, all on the same side, so that no line crosses
        a name.
        """
        order = sorted(values, reverse=True)
        leftward = any(self.at_x(value) + 6 + text_width(text) > self.width for value, text in order)
        for row, (value, text) in enumerate(order[::-1] if leftward else order):
            x, y = self.at_x(value), self.top - 8 - LINE * row
            self.marks.append(
                f'<line class="rule" x1="{x:.1f}" y1="{y - 3:.1f}" x2="{x:.1f}" y2="{self.height - self.bottom:.1f}"/>'
            )
            self.text(x - 5 if leftward else x + 5, y, text, "end" if leftward else "start", colour="ink")

    def labels(self, entries: Sequence[tuple[float, str, str]], letters: int = 15) -> None:
        """Names at the right end of lines: (value, words, colour), moved apart where they would overlap."""
        lines = [wrapped(words, letters) for _, words, _ in entries]
        heights = [len(parts) * LINE for parts in lines]
        wanted = [self.at_y(value) for value, _, _ in entries]
        edge = self.width - self.right
        for y, own, parts, (_, _, colour) in zip(
            spread(wanted, heights, self.top - LINE, self.height - self.bottom + LINE),
            wanted,
            lines,
            entries,
            strict=True,
        ):
            self.marks.append(f'<path class="lead" d="M{edge + 2:.1f} {own:.1f}L{edge + 8:.1f} {y:.1f}"/>')
            for place, part in enumerate(parts):
                self.text(
                    edge + 11, y + 4 + LINE * (place - (len(parts) - 1) / 2), part, colour=colour, strong=True
                )

    def svg(self) -> Markup:
        """The chart: grid and axes below, marks above."""
        grid = []
        base, edge = self.height - self.bottom, self.width - self.right
        for value, label in self.y.ticks:
            y = self.at_y(value)
            grid.append(f'<line class="grid" x1="{self.left}" y1="{y:.1f}" x2="{edge}" y2="{y:.1f}"/>')
            grid.append(f'<text x="{self.left - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(label)}</text>')
        for value, label in self.x.ticks:
            grid.append(
                self._x_tick(self.at_x(self.x.names[int(value)] if self.x.names else value), label, base)
            )
        grid.append(f'<line class="axis" x1="{self.left}" y1="{base}" x2="{edge}" y2="{base}"/>')
        middle = (self.left + edge) / 2
        grid.append(
            f'<text x="{middle:.1f}" y="{self.height - 4}" text-anchor="middle">{escape(self.x_label)}</text>'
        )
        grid.append(f'<text class="strong" x="0" y="10">{escape(self.y_label)}</text>')
        size = f'viewBox="0 0 {self.width:g} {self.height:g}"'
        name = escape(self.title)
        drawn = "".join((*grid, *self.marks, *self.words))
        return Markup(f'<svg {size} role="img" aria-label="{name}"><title>{name}</title>{drawn}</svg>')

    def _x_tick(self, x: float, label: str, base: float) -> str:
        room = (self.width - self.left - self.right) / max(len(self.x.ticks), 1) if self.x.names else 60
        parts = wrapped(label, max(int(room / _LETTER), 6)) if self.x.names else [label]
        words = "".join(
            f'<text x="{x:.1f}" y="{base + 15 + LINE * row:.1f}" text-anchor="middle">{escape(part)}</text>'
            for row, part in enumerate(parts)
        )
        return f'<line class="axis" x1="{x:.1f}" y1="{base}" x2="{x:.1f}" y2="{base + 3}"/>{words}'
