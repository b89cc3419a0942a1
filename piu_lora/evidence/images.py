"""From the cosines of single images to the figures of a cell: no model is needed."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from piu_lora.groups import FORGET, GROUPS

__all__ = ["figures_of_images"]


def figures_of_images(cosines: Mapping[str, Any]) -> dict[str, float | None]:
    """ISM after / before of every group, and the share of the forgotten person's images that verify.

    Args:
        cosines: ``threshold`` of verification, or None; by group, two lists: each image's cosine to the
            centroid of the person it was made for, before and after.
    """
    figures: dict[str, float | None] = {}
    for group in GROUPS:
        before, after = (np.asarray(side, dtype=float) for side in cosines[str(group)])
        mean = before.mean() if len(before) else 0.0
        figures[str(group)] = float(after.mean() / mean) if mean else None
    threshold, images = cosines["threshold"], np.asarray(cosines[str(FORGET)][1], dtype=float)
    figures["verified"] = None if threshold is None else float((images >= threshold).mean())
    return figures
