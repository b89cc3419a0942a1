"""The charts of an evaluation. One colour means one group of people, everywhere; hollow or dashed is before,
full is after.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from piu_lora.evidence.report.charts import LINE, SHAPES, Plot
from piu_lora.evidence.report.scales import Scale, between, categories, linear, logarithmic
from piu_lora.evidence.report.wording import GROUP_WORDS, far_text, number

__all__ = [
    "agreement_bar",
    "agreement_parts",
    "change_chart",
    "leak_chart",
    "neighbour_map",
    "plane",
    "score_chart",
    "shapes",
    "sweep_chart",
]

Seen = dict[str, Any]


def plane(recognizers: Mapping[str, Seen]) -> Markup | None:
    """The forget-retain plane: across, how much of the forgotten is left; up, how much of everybody else; top
    left is the goal.
    """
    spots = [
        (shape, group, seen["ism"]["forget"], ism)
        for shape, seen in zip(shapes(len(recognizers)), recognizers.values(), strict=True)
        for group, ism in seen["ism"].items()
        if group != "forget"
        and ism
        and seen["ism"].get("forget")
        and ism["ratio"] is not None
        and seen["ism"]["forget"]["ratio"] is not None
    ]
    if not spots:
        return None
    across = linear([end for *_, forget, _ in spots for end in _ends(forget)], (0, 1))
    up = linear([end for *_, other in spots for end in _ends(other)], (0.85, 1.05))
    plot = Plot(
        "Forget-retain plane",
        across,
        up,
        "forgotten: ISM after / before",
        "others: ISM after / before",
        height=270,
    )
    plot.segment((across.low, 1), (across.high, 1), "muted", "rule")
    plot.segment((1, up.low), (1, up.high), "muted", "rule")
    plot.text(plot.at_x(1) - 6, plot.at_y(up.high) + 14, "↖ better", "end")
    plot.text(plot.at_x(1) - 6, plot.at_y(up.low) - 6, "forgets nothing", "end")
    order = list(dict.fromkeys(group for _, group, *_ in spots))
    for shape, group, forget, other in spots:
        x, y = forget["ratio"], other["ratio"]
        (left, right), (low, high) = _ends(forget), _ends(other)
        aside = 5 * (
            order.index(group) - (len(order) - 1) / 2
        )  # a recognizer's groups share their x, and would hide each other
        plot.segment((left, y), (right, y), group)
        plot.segment((x, low), (x, high), group, aside=aside)
        plot.point(x, y, group, shape, size=4.5, aside=aside)
    return plot.svg()


def shapes(count: int) -> list[str]:
    """The marks of so many recognizers."""
    return [SHAPES[place % len(SHAPES)] for place in range(count)]


def _ends(ism: Seen) -> tuple[float, float]:
    low, high = ism["ratio_interval"] or (ism["ratio"], ism["ratio"])
    return low, high


def change_chart(name: str, seen: Seen, far: str | None) -> Markup | None:
    """ISM before and after by group, with intervals and the verification threshold."""
    rows = [(group, ism) for group, ism in seen["ism"].items() if ism and ism["after"] is not None]
    if not rows:
        return None
    ends = [
        value
        for _, ism in rows
        for key in ("before", "after")
        for value in (ism[key], *(ism[f"{key}_interval"] or ()))
    ]
    across = linear(ends, (0,))
    height = 52 + 34 * len(rows) + 22
    plot = Plot(
        f"ISM before and after, {name}",
        across,
        Scale(0, len(rows), ()),
        "ISM, mean cosine with the reference",
        "",
        height=height,
    )
    plot.left, plot.top = 14, 26
    threshold = seen["thresholds"].get(far, {}).get("cosine") if far else None
    if threshold is not None:
        plot.flags([(threshold, f"verifies at FAR {far_text(far or '')}")])
    for place, (group, ism) in enumerate(rows):
        y = len(rows) - place - 0.68
        plot.text(plot.left, plot.at_y(y) - 11, GROUP_WORDS[group], colour=group, strong=True)
        for key, step in (("before", 0.08), ("after", -0.08)):
            if ism[f"{key}_interval"]:
                low, high = ism[f"{key}_interval"]
                plot.segment((low, y + step), (high, y + step), group)
        if ism["before"] is not None:
            plot.segment((ism["before"], y + 0.08), (ism["after"], y - 0.08), group, "link")
            plot.point(ism["before"], y + 0.08, group, hollow=True)
        plot.point(ism["after"], y - 0.08, group)
    return plot.svg()


def score_chart(name: str, seen: Seen) -> Markup | None:
    """Densities of the cosine with the reference, each calibrated threshold drawn and named."""
    scores = seen.get("scores")
    if not scores:
        return None
    looks = (("impostor", "impostor", True, False), ("retained_after", "random", False, False), ("forget_before", "forget", False, True),
             ("forget_after", "forget", True, False))  # fmt: skip
    drawn = [(scores[key], *look) for key, *look in looks if scores[key] is not None]
    marks = [
        (found["cosine"], f"FAR {far_text(far)}: {found['cosine']:.3f}")
        for far, found in seen["thresholds"].items()
        if found["cosine"] is not None
    ]
    edges = scores["bins"]
    faint = 0.004 * max((height for heights, *_ in drawn for height in heights), default=0)
    used = [
        place for place in range(len(edges) - 1) if any(heights[place] > faint for heights, *_ in drawn)
    ] or [0, len(edges) - 2]
    levels = [value for value, _ in marks]
    across = between(min(edges[used[0]], *levels, 0), max(edges[used[-1] + 1], *levels, 0), 6)
    up = linear([height for heights, *_ in drawn for height in heights], (0,), 4)
    top = 24 + LINE * len(marks)
    plot = Plot(
        f"Score distributions, {name}",
        across,
        up,
        "cosine with the reference",
        "density",
        top=top,
        height=top + 190,
        left=34,
    )
    for heights, colour, filled, dashed in drawn:
        plot.steps(edges, heights, colour, filled, dashed)
    plot.flags(marks)
    return plot.svg()


def leak_chart(name: str, far: str, leak: Seen | None) -> Markup | None:
    """Leak@k over k."""
    known = {
        int(k): value for k, value in (leak or {}).items() if value is not None and value["after"] is not None
    }
    if not known:
        return None
    tries = sorted(known)
    plot = Plot(
        f"Leak@k at FAR {far_text(far)}, {name}",
        logarithmic(tries),
        Scale(0, 1, _QUARTERS),
        "k, images tried",
        "share of tries",
        right=62,
        height=190,
    )
    ends = []
    for key, dashed in (("before", True), ("after", False)):
        values = [known[k][key] for k in tries]
        plot.line(tries, values, "forget", dashed)
        for k, value in zip(tries, values, strict=True):
            if value is not None:
                plot.point(k, value, "forget", hollow=dashed)
        if values[-1] is not None:
            ends.append((values[-1], key, "forget"))
    plot.labels(ends)
    return plot.svg()


_SHORT = {
    "forget": "forgotten",
    "random": "random",
    "nearest": "nearest",
    "anchor": "anchor",
    "decoy": "decoy",
}
_QUARTERS = tuple((quarter / 4, f"{quarter / 4:g}") for quarter in range(5))


def sweep_chart(sweep: Seen, recognizer: str, threshold: float | None, far: str | None) -> Markup | None:
    """One sweep as one recognizer sees it: ISM of each group over the setting."""
    points = [(point["value"], point["recognizers"].get(recognizer) or {}) for point in sweep["points"]]
    groups = [group for group in GROUP_WORDS if any(found.get(group) for _, found in points)]
    if not groups:
        return None
    values = [value for value, _ in points]
    lines = [
        (group, key, [(found.get(group) or {}).get(key) for _, found in points])
        for group in groups for key in (("before", "after") if group == "forget" else ("after",))
    ]  # fmt: skip
    plain = any(isinstance(value, str) for value in values)
    across = categories([str(value) for value in values]) if plain else between(min(values), max(values))
    up = linear([value for *_, ys in lines for value in ys], (0,))
    unit = f", {sweep['unit']}" if sweep["unit"] else ""
    plot = Plot(
        f"{sweep['label']}, {recognizer}",
        across,
        up,
        f"{sweep['label']}{unit}",
        "ISM",
        right=76,
        height=216 + (LINE if plain else 0),
    )
    plot.bottom += LINE if plain else 0
    ends = []
    for group, key, ys in lines:
        dashed = key == "before"
        xs = [str(value) for value in values] if plain else values
        plot.line(xs, ys, group, dashed)
        for x, y in zip(xs, ys, strict=True):
            if y is not None:
                plot.point(x, y, group, hollow=dashed, size=3)
        found = [(plot.at_x(x), y) for x, y in zip(xs, ys, strict=True) if y is not None]
        if found:
            ends.append((max(found)[1], _SHORT[group] + (f", {key}" if group == "forget" else ""), group))
    if threshold is not None and up.low < threshold < up.high:
        plot.rule(threshold, f"verifies at FAR {far_text(far or '')}")
    plot.labels(ends, 11)
    return plot.svg()


def agreement_bar(far: str, found: Seen) -> Markup:
    """One bar: how many images both, one or no recognizer verifies."""
    parts = agreement_parts(found)
    total = sum(count for _, count, _ in parts) or 1
    bars, x = [], 0.0
    for words, count, colour in parts:
        width = 340 * count / total
        title = f"{words}: {count} of {total}"
        place = f'x="{x:.1f}" y="0" width="{width:.1f}" height="22"'
        bars.append(
            f'<rect class="part" style="fill:var(--{colour})" {place}><title>{escape(title)}</title></rect>'
        )
        x += width
    label = escape(
        f"Agreement of the recognizers at FAR {far_text(far)}: "
        + ", ".join(f"{words} {count}" for words, count, _ in parts)
    )
    return Markup(
        f'<svg viewBox="0 0 340 22" role="img" aria-label="{label}"><title>{label}</title>{"".join(bars)}</svg>'
    )


def agreement_parts(found: Seen) -> list[tuple[str, int, str]]:
    """What a bar is made of: words, count and colour."""
    ones = [
        (f"only {name}", count, ("decoy", "anchor", "nearest")[place % 3])
        for place, (name, count) in enumerate(found["only"].items())
    ]
    return [
        ("both", found["both"], "forget"),
        *ones,
        ("neither", found["neither"], "impostor"),
        ("no face", found["no_face"], "faint"),
    ]


def neighbour_map(name: str, labels: Sequence[str], values: Sequence[Sequence[float | None]]) -> Markup:
    """Mean cosines as a map, 0 to 1 from pale to full; the same scale in every map."""
    left, top = 12 + 6.2 * max(len(label) for label in labels), 10 + 4.6 * max(len(label) for label in labels)
    size = (318 - left) / len(labels)
    cells = []
    for row, line in enumerate(values):
        y = top + row * size
        cells.append(
            f'<text x="{left - 6:.1f}" y="{y + size / 2 + 4:.1f}" text-anchor="end">{escape(labels[row])}</text>'
        )
        x = left + (row + 0.5) * size
        cells.append(
            f'<text x="{x:.1f}" y="{top - 6:.1f}" transform="rotate(-45 {x:.1f} {top - 6:.1f})">{escape(labels[row])}</text>'
        )
        cells += [
            _cell(left + column * size, y, size, value, f"{labels[row]} / {labels[column]}")
            for column, value in enumerate(line)
        ]
    title = escape(f"Mean cosines, {name}")
    view = f'viewBox="0 0 340 {top + size * len(labels) + 4:.0f}"'
    return Markup(f'<svg {view} role="img" aria-label="{title}"><title>{title}</title>{"".join(cells)}</svg>')


def _cell(x: float, y: float, size: float, value: float | None, words: str) -> str:
    share = min(max(value or 0.0, 0.0), 1.0)
    tip = f"<title>{escape(words)}: {number(value)}</title>"
    place = f'x="{x + 0.75:.1f}" y="{y + 0.75:.1f}" width="{size - 1.5:.1f}" height="{size - 1.5:.1f}" rx="2"'
    box = f'<rect class="cell" {place}>{tip}</rect><rect style="fill:var(--heat);fill-opacity:{share:.3f}" {place}>{tip}</rect>'
    if size < 27:
        return box
    ink = "heat-ink" if share > 0.55 else "ink"
    words = "?" if value is None else f"{value:.2f}".replace("0.", ".", 1)
    middle = f'x="{x + size / 2:.1f}" y="{y + size / 2 + 4:.1f}" text-anchor="middle"'
    return f'{box}<text style="fill:var(--{ink})" {middle}>{words}</text>'
