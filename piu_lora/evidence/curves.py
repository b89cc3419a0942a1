"""The picture of methods at every strength: curves of what is forgotten against what others keep."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from piu_lora.evidence.colors import color
from piu_lora.evidence.comparison import Cell, evaluating_first
from piu_lora.groups import FORGET, GROUP_WORDS, NEAREST, RANDOM

__all__ = ["curves_picture"]


def curves_picture(cells: Sequence[Cell], methods: Mapping[str, str]) -> bytes:
    """A PNG: by each recognizer, a curve for every method from the untouched base to its deepest setting; a
    point is the median of a setting over people and seeds.

    Args:
        methods: of a cell's variant, the method on whose curve it lies.
    """
    from matplotlib.figure import Figure

    recognizers = evaluating_first(cells[0].figures)
    figure = Figure(figsize=(12.5, 4.6 * len(recognizers)), layout="constrained")
    panels = figure.subplots(len(recognizers), 2, sharex=True, squeeze=False)
    names = list(dict.fromkeys(methods[cell.variant] for cell in cells if cell.variant in methods))
    for row, recognizer in zip(panels, recognizers, strict=True):
        for axes, group in zip(row, (RANDOM, NEAREST), strict=True):
            for index, name in enumerate(names):
                variants = [variant for variant, method in methods.items() if method == name]
                points = _points(cells, variants, recognizer, group)
                axes.plot(*zip(*points, strict=True), "os^Dv<>pP*Xh"[index % 12] + "-", color=color(index),
                          label=name, markersize=4, linewidth=1)  # fmt: skip
            axes.set_title(f"{GROUP_WORDS[group].short} keep, {recognizer}", fontsize=10, loc="left")
            axes.set_xlim(1.05, min(axes.get_xlim()[0], -0.05))
            axes.axhline(1, color="grey", linewidth=0.5)
            axes.axvline(0, color="grey", linewidth=0.5)
            axes.grid(alpha=0.25)
        row[0].set_ylabel("ISM after / before (1: untouched)")
    for axes in panels[-1]:
        axes.set_xlabel("forgotten person: ISM after / before (deeper to the right)")
    figure.legend(
        *panels[0, 0].get_legend_handles_labels(), fontsize=8, loc="outside right center", frameon=False
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120, metadata={"Software": None})
    return buffer.getvalue()


def _points(
    cells: Sequence[Cell], variants: Sequence[str], recognizer: str, group: str
) -> list[tuple[float, float]]:
    points = [(1.0, 1.0)]
    for variant in variants:
        pairs: list[Any] = [
            (cell.figures[recognizer][FORGET], cell.figures[recognizer][group])
            for cell in cells
            if cell.variant == variant
        ]
        known = [pair for pair in pairs if None not in pair]
        if known:
            forgotten, retained = np.median(np.array(known), axis=0)
            points.append((float(forgotten), float(retained)))
    return sorted(points, reverse=True)
