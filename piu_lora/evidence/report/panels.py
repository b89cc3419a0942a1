"""The charts of an evaluation. One colour means one group of people, everywhere; hollow or dashed is before,
full is after.
"""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from piu_lora.evidence.report.labels import LINE, end_labels, flags, rule, settings_axis
from piu_lora.evidence.report.measures import BeforeAfter, Ism
from piu_lora.evidence.report.sections import Recognizer, Sweep
from piu_lora.evidence.report.svg import SHAPES, Chart, Margins, paint
from piu_lora.evidence.report.wording import far_text
from piu_lora.groups import FORGET, GROUP_WORDS

__all__ = ["change_chart", "leak_chart", "plane", "score_chart", "shapes", "sweep_chart"]


def shapes(count: int) -> list[str]:
    """The marks of so many recognizers."""
    names = list(SHAPES)
    return [names[index % len(names)] for index in range(count)]


def plane(recognizers: Mapping[str, Recognizer]) -> Markup | None:
    """The forget-retain plane: across, how much of the forgotten is left; up, how much of everybody else; top
    left is the goal.
    """
    pairs = [
        (shape, str(group), forget, ism)
        for shape, recognizer in zip(shapes(len(recognizers)), recognizers.values(), strict=True)
        if (forget := recognizer.ism.get(FORGET)) is not None and forget.ratio is not None
        for group, ism in recognizer.ism.items()
        if group != FORGET and ism is not None and ism.ratio is not None
    ]
    if not pairs:
        return None
    chart = Chart(
        "Forget-retain plane", "forgotten: ISM after / before", "others: ISM after / before", height=270
    )
    axes = chart.axes
    axes.update_datalim([(0, 0.85), (1, 1.05)])
    axes.update_datalim(
        [(x, y) for *_, forget, ism in pairs for x, y in zip(_ends(forget), _ends(ism), strict=True)]
    )
    chart.settle()
    axes.set_autoscale_on(False)
    axes.axhline(1, color=paint("ink"), linewidth=1, gid="class:rule")
    axes.axvline(1, color=paint("ink"), linewidth=1, gid="class:rule")
    low, high = (chart.at(1, end) for end in axes.get_ylim())
    chart.text(high[0] - 6, high[1] + 14, "↖ better", anchor="end", look="halo")
    chart.text(low[0] - 6, low[1] - 6, "forgets nothing", anchor="end", look="halo")
    order = list(dict.fromkeys(group for _, group, *_ in pairs))
    for shape, group, forget, ism in pairs:
        # A recognizer's groups share their x, and would hide each other.
        _cross(chart, (forget, ism), group, shape, aside=5 * (order.index(group) - (len(order) - 1) / 2))
    return chart.svg()


def _cross(chart: Chart, pair: tuple[Ism, Ism], group: str, shape: str, aside: float) -> None:
    """A mark with both intervals, so many units of the drawing aside."""
    from matplotlib.transforms import ScaledTranslation

    forget, ism = pair
    axes, moved = chart.axes, ScaledTranslation(aside / 72, 0, chart.figure.dpi_scale_trans)
    x, y = forget.ratio or 0.0, ism.ratio or 0.0
    chart.bar(_ends(forget), (y, y), group)
    chart.bar((x, x), _ends(ism), group, transform=axes.transData + moved)
    chart.points((x,), (y,), group, shape=shape, size=9, transform=axes.transData + moved)


def _ends(ism: Ism) -> tuple[float, float]:
    ratio = ism.ratio or 0.0
    return ism.ratio_interval or (ratio, ratio)


def change_chart(name: str, recognizer: Recognizer, far: str | None) -> Markup | None:
    """ISM before and after by group, with intervals and the verification threshold."""
    rows = [(str(group), ism) for group, ism in recognizer.ism.items() if ism and ism.after is not None]
    if not rows:
        return None
    chart = Chart(
        f"ISM before and after, {name}",
        "ISM, mean cosine with the reference",
        height=74 + 34 * len(rows),
        margins=Margins(left=14, top=26),
    )
    axes = chart.axes
    axes.set(ylim=(0, len(rows)), yticks=[])
    axes.update_datalim([(0, 0)], updatey=False)
    for index, (group, ism) in enumerate(rows):
        y = len(rows) - index - 0.68
        for interval, step in ((ism.before_interval, 0.08), (ism.after_interval, -0.08)):
            if interval:
                chart.bar(interval, (y + step, y + step), group)
        if ism.before is not None:
            axes.plot(
                (ism.before, ism.after or 0),
                (y + 0.08, y - 0.08),
                color=paint(group),
                linewidth=1.4,
                alpha=0.45,
                gid="class:link",
            )
            chart.points((ism.before,), (y + 0.08,), group, hollow=True)
        chart.points((ism.after or 0,), (y - 0.08,), group)
        words = GROUP_WORDS[group].label
        chart.text(chart.margins.left, chart.at(0, y)[1] - 11, words, colour=group, look="strong halo")
    level = recognizer.thresholds[far].cosine if far in recognizer.thresholds else None
    if level is not None and far is not None:
        axes.update_datalim([(level, 0)], updatey=False)
        flags(chart, [(level, f"verifies at FAR {far_text(far)}")])
    return chart.svg()


_DENSITIES = (
    ("impostor", "impostor", True, False),
    ("retained_after", "random", False, False),
    ("forget_before", "forget", False, True),
    ("forget_after", "forget", True, False),
)  # of the scores, its colour, filled, dashed


def score_chart(name: str, recognizer: Recognizer) -> Markup | None:
    """Densities of the cosine with the reference, each calibrated threshold drawn and named."""
    scores = recognizer.scores
    if scores is None:
        return None
    densities = [
        (density, *look) for part, *look in _DENSITIES if (density := getattr(scores, part)) is not None
    ]
    marks = [
        (threshold.cosine, f"FAR {far_text(far)}: {threshold.cosine:.3f}")
        for far, threshold in recognizer.thresholds.items()
        if threshold.cosine is not None
    ]
    top = 24 + LINE * len(marks)
    chart = Chart(
        f"Score distributions, {name}",
        "cosine with the reference",
        "density",
        height=top + 190,
        margins=Margins(left=34, top=top),
    )
    first, last = _used(scores.bins, [density for density, *_ in densities])
    edges = scores.bins[first : last + 1]
    for density, colour, filled, dashed in densities:
        heights = density[first:last]
        if filled:
            chart.axes.stairs(heights, edges, fill=True, color=paint(colour), alpha=0.28, linewidth=0)
        chart.axes.stairs(
            heights,
            edges,
            gid="class:line",
            color=paint(colour),
            linewidth=1.5,
            linestyle=(0, (3.3, 2.7)) if dashed else "-",
        )
    levels = [level for level, _ in marks]
    chart.axes.set_xlim(min(edges[0], *levels, 0), max(edges[-1], *levels, 0))
    flags(chart, marks)
    return chart.svg()


def _used(bins: Sequence[float], densities: Sequence[Sequence[float]]) -> tuple[int, int]:
    """The first and the last edge of the bins in which anything can be seen."""
    faint = 0.004 * max((max(density) for density in densities), default=0)
    used = [
        index for index in range(len(bins) - 1) if any(density[index] > faint for density in densities)
    ] or [0, len(bins) - 2]
    return used[0], used[-1] + 1


def leak_chart(name: str, far: str, leak: Mapping[str, BeforeAfter | None] | None) -> Markup | None:
    """Leak@k over k."""
    shares = {
        int(k): share for k, share in (leak or {}).items() if share is not None and share.after is not None
    }
    if not shares:
        return None
    tries = sorted(shares)
    chart = Chart(
        f"Leak@k at FAR {far_text(far)}, {name}",
        "k, images tried",
        "share of tries",
        height=190,
        margins=Margins(right=62),
    )
    chart.axes.set(xscale="log", ylim=(0, 1), xlim=(tries[0], max(tries[-1], 2 * tries[0])))
    chart.axes.set_xticks(tries, [f"{k:g}" for k in tries])
    chart.axes.minorticks_off()
    chart.axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    ends = []
    for key, dashed in (("before", True), ("after", False)):
        values = [getattr(shares[k], key) for k in tries]
        chart.line(tries, values, FORGET, dashed=dashed)
        chart.points(tries, values, FORGET, hollow=dashed)
        if values[-1] is not None:
            ends.append((values[-1], key, FORGET))
    end_labels(chart, ends)
    return chart.svg()


def sweep_chart(sweep: Sweep, recognizer: str, threshold: float | None, far: str | None) -> Markup | None:
    """One sweep as one recognizer sees it: ISM of each group over the setting; None where it saw nobody.

    Args:
        threshold: the cosine from which a person verifies, at the false-accept rate ``far``.
    """
    points = [
        {str(name): part for name, part in (point.recognizers.get(recognizer) or {}).items()}
        for point in sweep.points
    ]
    groups = [group for group in GROUP_WORDS if any(point.get(group) for point in points)]
    if not groups:
        return None
    named = any(isinstance(point.value, str) for point in sweep.points)
    chart = Chart(
        f"{sweep.label}, {recognizer}",
        f"{sweep.label}, {sweep.unit}" if sweep.unit else sweep.label,
        "ISM",
        height=216 + (LINE if named else 0),
        margins=Margins(right=76, bottom=36 + (LINE if named else 0)),
    )
    xs = settings_axis(chart, [point.value for point in sweep.points])
    chart.axes.update_datalim([(0, 0)], updatex=False)
    ends = []
    for group in groups:
        for key in ("before", "after") if group == FORGET else ("after",):
            ys = [getattr(point.get(group), key, None) for point in points]
            chart.line(xs, ys, group, dashed=key == "before")
            chart.points(xs, ys, group, hollow=key == "before", size=6)
            known = [(x, y) for x, y in zip(xs, ys, strict=True) if y is not None]
            if known:
                words = GROUP_WORDS[group].short + (f", {key}" if group == FORGET else "")
                ends.append((max(known)[1], words, group))
    chart.settle()
    if threshold is not None and 0 < threshold < chart.axes.get_ylim()[1]:
        rule(chart, threshold, f"verifies at FAR {far_text(far or '')}")
    end_labels(chart, ends, 11)
    return chart.svg()
