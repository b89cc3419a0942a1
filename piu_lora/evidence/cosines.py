"""The picture of how well a recognizer tells people apart."""

import io
from collections.abc import Mapping
from typing import Any

import torch

from piu_lora.identity.geometry import Geometry

__all__ = ["cosine_histograms"]


def cosine_histograms(
    same: torch.Tensor,
    different: torch.Tensor,
    marks: Mapping[str, float],
    title: str,
    geometry: Geometry | None = None,
) -> bytes:
    """Densities of the cosines within and between people, as a PNG.

    Args:
        same: (k,) cosines of pairs of one person.
        different: (m,) cosines of pairs of two people.
        marks: vertical lines, by label.
        geometry: drawn beside them: how far a person's photographs reach, and how near other people come.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7 if geometry is None else 11, 3.6), layout="constrained")
    panels = figure.subplots(1, 1 if geometry is None else 2, squeeze=False)[0]
    axes = panels[0]
    for values, label, colour in ((different, "two people", "#6b7280"), (same, "one person", "#0f766e")):
        if len(values):
            axes.hist(
                values.numpy(),
                bins=120,
                range=(-0.5, 1.0),
                density=True,
                alpha=0.6,
                label=f"{label} ({len(values):,} pairs)",
                color=colour,
            )
    for (label, value), style in zip(marks.items(), ("-", "--", ":"), strict=False):
        axes.axvline(value, color="#b91c1c", linestyle=style, linewidth=1.3, label=f"{label} {value:.3f}")
    axes.set(xlabel="cosine", ylabel="density", title=title, xlim=(-0.5, 1.0))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8)
    if geometry is not None:
        _draw_reach(panels[1], geometry)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120, metadata={"Software": None})
    return buffer.getvalue()


def _draw_reach(axes: Any, geometry: Geometry) -> None:
    """The cosines of a photograph with the centroid of k others, and the thresholds of false-accept rates."""
    spreads = list(geometry.cosines.values())
    places = range(len(spreads))
    for low, high, shade in ((0.02, 0.98, 0.25), (0.25, 0.75, 0.5)):
        ends = [(spread.quantile(low), spread.quantile(high)) for spread in spreads]
        axes.fill_between(
            places,
            [below for below, _ in ends],
            [above for _, above in ends],
            color="#0f766e",
            alpha=shade,
            linewidth=0,
            label=f"{low:.0%} to {high:.0%} of photographs",
        )
    axes.plot(places, [spread.quantile(0.5) for spread in spreads], color="#134e4a", label="median")
    for (far, cosine), style in zip(geometry.far.items(), ("-", "--", "-.", ":"), strict=False):
        label = f"FAR {far:g}: {cosine:.3f}"
        axes.axhline(cosine, color="#b91c1c", linestyle=style, linewidth=1.1, label=label)
    axes.set_xticks(places, [str(k) for k in geometry.cosines])
    axes.set(xlabel="photographs known", ylabel="cosine with their centroid", ylim=(0, 1))
    axes.set_title(f"geometry: {geometry.name}")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
