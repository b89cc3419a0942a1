"""A table of numbers as a picture."""

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["heat_map"]


def heat_map(
    values: npt.NDArray[np.float64],
    rows: Sequence[str],
    groups: Sequence[tuple[str, Sequence[str]]],
    title: str,
    unit: str,
) -> bytes:
    """Draw a table as a PNG, a panel for each group of columns, all on one colour scale from 0.

    Args:
        values: (rows, columns), 0 or more; NaN stays white.
        groups: heading and column labels of each panel; empty labels are left out.
        unit: what the colours mean.
    """
    from matplotlib.figure import Figure

    groups = [(heading, labels) for heading, labels in groups if labels]
    widths = [max(len(labels), 8) for _, labels in groups]
    figure = Figure(
        figsize=(3.2 + 0.16 * sum(widths) + 0.4 * len(groups), 1.9 + 0.24 * len(rows)), layout="constrained"
    )
    panels = figure.subplots(1, len(groups), width_ratios=widths, squeeze=False)[0]
    start, top = 0, float(np.nanmax(values))
    for index, (axes, (heading, labels)) in enumerate(zip(panels, groups, strict=True)):
        part = values[:, start : start + len(labels)]
        image = axes.imshow(part, vmin=0, vmax=top, cmap="magma_r", aspect="auto", interpolation="nearest")
        axes.set_title(heading, fontsize=9, loc="left")
        axes.set_yticks(range(len(rows)), rows if index == 0 else [""] * len(rows), fontsize=8)
        axes.set_xticks(
            [i for i, label in enumerate(labels) if label],
            [label for label in labels if label],
            fontsize=7,
            rotation=90,
        )
        axes.tick_params(length=0)
        start += len(labels)
    figure.colorbar(image, ax=list(panels), label=unit, shrink=0.9)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120, metadata={"Software": None})
    return buffer.getvalue()
