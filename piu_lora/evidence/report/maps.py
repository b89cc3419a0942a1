"""Pictures of counts and of a table: how recognizers agree, and who resembles whom."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from piu_lora.evidence.report.measures import Agreement
from piu_lora.evidence.report.svg import TEXT_SIZE, WIDTH, Chart, Margins, paint
from piu_lora.evidence.report.wording import far_text, number

if TYPE_CHECKING:
    from matplotlib.patches import Rectangle

__all__ = ["agreement_bar", "agreement_parts", "neighbour_map"]


def agreement_bar(far: str, agreement: Agreement) -> Markup:
    """One bar: how many images both, one or no recognizer verifies."""
    from matplotlib.patches import Rectangle

    parts = agreement_parts(agreement)
    total = sum(count for _, count, _ in parts) or 1
    counts = ", ".join(f"{words} {count}" for words, count, _ in parts)
    chart = Chart(
        f"Agreement of the recognizers at FAR {far_text(far)}: {counts}",
        height=22,
        margins=Margins(0, 0, 0, 0),
    )
    chart.axes.set(xlim=(0, total), ylim=(0, 1))
    chart.axes.set_axis_off()
    start = 0
    for words, count, colour in parts:
        chart.axes.add_patch(
            Rectangle(
                (start, 0),
                count,
                1,
                facecolor=paint(colour),
                edgecolor=paint("card"),
                linewidth=1.5,
                clip_on=False,
                gid=f"class:part|{words}: {count} of {total}",
            )
        )
        start += count
    return chart.svg()


def agreement_parts(agreement: Agreement) -> list[tuple[str, int, str]]:
    """What a bar is made of: words, count and colour."""
    ones = [
        (f"only {name}", count, ("decoy", "anchor", "nearest")[index % 3])
        for index, (name, count) in enumerate(agreement.only.items())
    ]
    return [
        ("both", agreement.both, "forget"),
        *ones,
        ("neither", agreement.neither, "impostor"),
        ("no face", agreement.no_face, "faint"),
    ]


def neighbour_map(name: str, labels: Sequence[str], values: Sequence[Sequence[float | None]]) -> Markup:
    """Mean cosines as a map, 0 to 1 from pale to full; the same scale in every map."""
    longest = min(max(len(label) for label in labels), 24)  # longer ones run out of the frame
    left, top = 12 + 6.2 * longest, 10 + 4.6 * longest
    size = (WIDTH - 22 - left) / len(labels)
    chart = Chart(
        f"Mean cosines, {name}", height=top + size * len(labels) + 4, margins=Margins(left, 22, top, 4)
    )
    axes = chart.axes
    axes.set(xlim=(0, len(labels)), ylim=(len(labels), 0))
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(length=0, bottom=False, top=True, labelbottom=False, labeltop=True)
    middles, look = [index + 0.5 for index in range(len(labels))], {"parse_math": False}
    axes.set_yticks(middles, labels, **look)
    axes.set_xticks(middles, labels, rotation=45, ha="left", rotation_mode="anchor", **look)
    axes.add_artist(_ground(len(labels)))
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            _cell(chart, (column, row), value, f"{labels[row]} / {labels[column]}", written=size >= 27)
    return chart.svg()


def _ground(size: int) -> "Rectangle":
    """What shows through pale cells."""
    from matplotlib.patches import Rectangle

    return Rectangle((0, 0), size, size, facecolor=paint("grid"), linewidth=0)


def _cell(chart: Chart, corner: tuple[int, int], value: float | None, words: str, *, written: bool) -> None:
    from matplotlib.patches import Rectangle

    share = min(max(value or 0.0, 0.0), 1.0)
    x, y = corner
    chart.axes.add_artist(
        Rectangle(
            corner,
            1,
            1,
            facecolor=(paint("heat"), share),
            edgecolor=paint("card"),
            linewidth=1.5,
            clip_on=False,
            gid=f"class:cell|{words}: {number(value)}",
        )
    )
    if written:
        text = "?" if value is None else f"{value:.2f}".replace("0.", ".", 1)
        ink = "heat-ink" if share > 0.55 else "ink"
        chart.axes.text(
            x + 0.5, y + 0.5, text, color=paint(ink), size=TEXT_SIZE, ha="center", va="center_baseline"
        )
