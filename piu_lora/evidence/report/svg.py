"""Charts by matplotlib as inline SVG: text stays text, and every colour is a CSS variable of the page, so
light and dark need one picture.
"""

import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["SHAPES", "TEXT_SIZE", "WIDTH", "Chart", "Margins", "paint"]

WIDTH = 340.0  # of a drawing; its column scales it
TEXT_SIZE = 11.5
SHAPES = {"circle": "o", "square": "s", "triangle": "^", "diamond": "D"}
_COLOURS = (
    "card",
    "ink",
    "muted",
    "grid",
    "faint",
    "forget",
    "random",
    "nearest",
    "anchor",
    "decoy",
    "impostor",
    "heat",
    "heat-ink",
    "unseen",
)
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": TEXT_SIZE,
    "axes.autolimit_mode": "round_numbers",
    "axes.xmargin": 0,
    "axes.ymargin": 0,
    "axes.formatter.useoffset": False,
    "lines.solid_capstyle": "butt",
}
_LINK = "{http://www.w3.org/1999/xlink}href"


def paint(name: str) -> str:
    """The stand-in for a CSS variable of the page, by which the drawing's colours are found again."""
    return f"#00f0{_COLOURS.index(name):02x}"


_PAINTS = {paint(name): f"var(--{name})" for name in _COLOURS}


class Margins(NamedTuple):
    """Room around the frame, in units of the drawing."""

    left: float = 40
    right: float = 14
    top: float = 22
    bottom: float = 36


_USUAL = Margins()


class Chart:
    """A frame with two axes, drawn by matplotlib; one unit is one pixel of a drawing ``WIDTH`` wide.

    Args:
        title: what it shows, read out by screen readers.

    Attributes:
        axes: matplotlib's, to be drawn on in the colours of ``paint``.
    """

    def __init__(
        self,
        title: str,
        x_label: str = "",
        y_label: str = "",
        *,
        height: float = 220,
        margins: Margins = _USUAL,
    ) -> None:
        from matplotlib import rc_context
        from matplotlib.figure import Figure

        self.title, self.height, self.margins = title, height, margins
        left, right, top, bottom = margins
        self.right_edge = WIDTH - right
        with rc_context(_STYLE):
            self.figure = Figure(figsize=(WIDTH / 72, height / 72))
            self.figure.patch.set_visible(False)
            self.axes: Axes = self.figure.add_axes(
                (left / WIDTH, bottom / height, (self.right_edge - left) / WIDTH, 1 - (top + bottom) / height)
            )
        self._plain_axes()
        self.text((left + self.right_edge) / 2, height - 4, x_label, anchor="middle")
        self.text(0, 10, y_label, look="strong")

    def _plain_axes(self) -> None:
        self.axes.patch.set_visible(False)
        self.axes.set_axisbelow(True)
        self.axes.locator_params(nbins=6, steps=[1, 2, 2.5, 5, 10])
        self.axes.grid(axis="y", color=paint("grid"), linewidth=1)
        self.axes.tick_params(
            axis="x", length=3, color=paint("muted"), labelcolor=paint("muted"), labelsize=TEXT_SIZE
        )
        self.axes.tick_params(axis="y", length=0, pad=6, labelcolor=paint("muted"), labelsize=TEXT_SIZE)
        for side in ("left", "right", "top"):
            self.axes.spines[side].set_visible(False)
        self.axes.spines["bottom"].set(color=paint("muted"), linewidth=0.6)

    def settle(self) -> None:
        """Set the limits by what is drawn so far, their ends on round numbers."""
        from matplotlib import rc_context

        with rc_context(_STYLE):
            self.axes.autoscale_view()

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a value stands, from the top left corner of the drawing; limits are those last settled."""
        across, up = self.axes.transData.transform((x, y)) * 72 / self.figure.dpi
        return float(across), self.height - float(up)

    def text(
        self, x: float, y: float, words: str, *, anchor: str = "start", colour: str = "muted", look: str = ""
    ) -> None:
        """Words at a place of the drawing, above all marks.

        Args:
            look: CSS classes: ``strong``, ``halo`` (a seam that keeps lines off the letters).
        """
        self.figure.text(
            x / WIDTH,
            1 - y / self.height,
            words,
            color=paint(colour),
            size=TEXT_SIZE,
            gid=f"class:{look}",
            horizontalalignment={"start": "left", "middle": "center", "end": "right"}[anchor],
            verticalalignment="baseline",
            parse_math=False,
        )

    def line(
        self, xs: Sequence[float], ys: Sequence[float | None], colour: str, *, dashed: bool = False
    ) -> None:
        """A line, broken where a value is missing."""
        values = [float("nan") if y is None else y for y in ys]
        self.axes.plot(
            xs,
            values,
            color=paint(colour),
            linewidth=2,
            linestyle=(0, (2.5, 2)) if dashed else "-",
            solid_capstyle="round",
            gid="class:line",
            clip_on=False,
        )

    def bar(
        self, xs: tuple[float, float], ys: tuple[float, float], colour: str, transform: Any = None
    ) -> None:
        """The bar of an interval."""
        self.axes.plot(
            xs,
            ys,
            color=paint(colour),
            linewidth=1.6,
            alpha=0.75,
            gid="class:bar",
            clip_on=False,
            transform=transform or self.axes.transData,
        )

    def points(
        self,
        xs: Sequence[float],
        ys: Sequence[float | None],
        colour: str,
        *,
        shape: str = "circle",
        hollow: bool = False,
        size: float = 8,
        transform: Any = None,
    ) -> None:
        """Marks; hollow for before, full for after."""
        values = [float("nan") if y is None else y for y in ys]
        self.axes.plot(
            xs,
            values,
            SHAPES[shape],
            color=paint(colour),
            markersize=size * (0.85 if shape == "diamond" else 1),
            markerfacecolor=paint("card" if hollow else colour),
            markeredgewidth=1.6,
            gid="class:point",
            clip_on=False,
            transform=transform or self.axes.transData,
            zorder=3,
        )

    def svg(self) -> Markup:
        """The drawing as an element of the page."""
        from matplotlib import rc_context

        buffer = io.BytesIO()
        with rc_context(_STYLE), warnings.catch_warnings():
            # A script that the measuring font lacks is the browser's to draw.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            self.figure.savefig(buffer, format="svg")
        drawn = ET.fromstring(buffer.getvalue())
        root = ET.Element(
            "svg", {"viewBox": f"0 0 {WIDTH:g} {self.height:g}", "role": "img", "aria-label": self.title}
        )
        ET.SubElement(root, "title").text = self.title
        symbols = {element.get("id"): element for element in drawn.iter() if element.get("id")}
        for child in drawn:
            root.extend(_inlined(child, symbols))
        return Markup(ET.tostring(root, encoding="unicode"))


def _inlined(element: ET.Element, symbols: dict[str | None, ET.Element]) -> Iterator[ET.Element]:
    """An element of matplotlib's, without ids and references: those of several drawings would meet."""
    tag = element.tag.rpartition("}")[2]
    if tag in ("defs", "metadata", "style"):
        return
    if tag == "use":
        symbol = symbols[element.get(_LINK, "#").removeprefix("#")]
        at = f"translate({element.get('x', '0')} {element.get('y', '0')})"
        yield ET.Element("path", {"d": symbol.get("d", ""), "transform": at, **_look(element)})
        return
    kind, _, look = element.get("id", "").partition(":")
    children = [part for child in element for part in _inlined(child, symbols)]
    if tag == "g" and kind != "class":
        yield from children
        return
    plain = {name: value for name, value in element.attrib.items() if name in ("d", "x", "y", "transform")}
    if plain.get("transform", "").startswith("rotate(-0"):
        del plain["transform"]
    copied = ET.Element(tag, {**plain, **_look(element)})
    copied.text, words = element.text, look.partition("|")
    if kind == "class" and words[0]:
        copied.set("class", words[0])
    if words[2]:
        ET.SubElement(copied, "title").text = words[2]
    copied.extend(children)
    yield copied


def _look(element: ET.Element) -> dict[str, str]:
    style = re.sub(r"\bfont[^;]*;?\s*", "", element.get("style", ""))
    for stand_in, variable in _PAINTS.items():
        style = style.replace(stand_in, variable)
    return {"style": style} if style else {}
