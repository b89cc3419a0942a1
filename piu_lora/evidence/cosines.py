"""The picture of how well a recognizer tells people apart."""

import io
from collections.abc import Mapping

import torch

__all__ = ["cosine_histograms"]


def cosine_histograms(
    same: torch.Tensor, different: torch.Tensor, marks: Mapping[str, float], title: str
) -> bytes:
    """Densities of the cosines within and between people, as a PNG.

    Args:
        same: (k,) cosines of pairs of one person.
        different: (m,) cosines of pairs of two people.
        marks: vertical lines, by label.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
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
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120, metadata={"Software": None})
    return buffer.getvalue()
