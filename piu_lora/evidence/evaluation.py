"""Scoring an adapter: the same conditions and seeds, before and after."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from piu_lora.evidence.figures import far_name, figures_of
from piu_lora.evidence.gallery import FARS, Gallery
from piu_lora.evidence.measure import Measured, measure
from piu_lora.evidence.metrics import Array
from piu_lora.evidence.plan import Plan
from piu_lora.evidence.quality import kid_change, mean_kernel
from piu_lora.evidence.statistics import paired
from piu_lora.groups import FORGET, MORE, RETAINED

if TYPE_CHECKING:
    from piu_lora.evidence.report.sections import Expected

__all__ = ["KID_LEAST", "Evaluation", "agreement", "evaluate_images", "evaluate_measured", "quality_figures"]

KID_LEAST = 3  # pictures on either side: the jackknife leaves one out, and a distance needs two


@dataclass
class Evaluation:
    """Figures by recognizer, and the pictures they were taken from (never stored with an adapter unless
    asked).

    Attributes:
        before, after: (3, h, w) in [0, 1] by place in the plan; at least those that ``before_after`` shows.
        figures: by recognizer.
        expected: what the geometry predicts for unseen photographs, where few were known.
    """

    plan: Plan
    before: torch.Tensor | Mapping[int, torch.Tensor]
    after: torch.Tensor | Mapping[int, torch.Tensor]
    figures: dict[str, Any] = field(default_factory=dict)
    expected: "Expected | None" = None

    @property
    def headline(self) -> dict[str, Any]:
        """The figures of the first recognizer, which conditions the base."""
        first: dict[str, Any] = next(iter(self.figures.values()))
        return first


def evaluate_images(
    plan: Plan, before: torch.Tensor, after: torch.Tensor, galleries: Sequence[Gallery]
) -> Evaluation:
    """Embed both sets with every recognizer and compute its figures.

    Args:
        before, after: (n, 3, h, w) RGB in [0, 1], in the order of the plan.
        galleries: the first is the conditioning recognizer's.
    """
    figures = evaluate_measured(plan, measure(before, galleries), measure(after, galleries), galleries)
    return Evaluation(plan, before, after, figures)


def evaluate_measured(
    plan: Plan, before: Measured, after: Measured, galleries: Sequence[Gallery]
) -> dict[str, Any]:
    """The figures of every recognizer, by its name; see ``figures_of``.

    Args:
        before, after: the plan's images without and with the adapter, embedded by every gallery.
        galleries: a recognizer each, with the people it compares with.
    """
    return {
        gallery.name: figures_of(plan, gallery, before.embedded[gallery.name], after.embedded[gallery.name])
        for gallery in galleries
    }


def agreement(plan: Plan, after: Measured, galleries: Sequence[Gallery]) -> dict[str, Any] | None:
    """How two recognizers judge the same images of the forgotten people: counts by false-accept rate. Never
    averaged away.

    Returns:
        None where there is one recognizer only, or one of them cannot verify the forgotten people.
    """
    if len(galleries) != 2 or any(gallery.refused for gallery in galleries):
        return None
    places = plan.rows_of(FORGET, MORE)
    counts: dict[str, Any] = {}
    for far in FARS:
        if any(isinstance(gallery.thresholds.get(far, ""), str) for gallery in galleries):
            counts[far_name(far)] = None
            continue
        votes = [_votes(plan, places, after, gallery, far) for gallery in galleries]
        faces = np.all(
            [after.embedded[gallery.name][places].any(dim=1).numpy() for gallery in galleries], axis=0
        )
        first, second = (vote & faces for vote in votes)
        names = [gallery.name for gallery in galleries]
        counts[far_name(far)] = {
            "both": int((first & second).sum()),
            "neither": int((~first & ~second & faces).sum()),
            "no_face": int((~faces).sum()),
            "only": {names[0]: int((first & ~second).sum()), names[1]: int((second & ~first).sum())},
        }
    return counts


def _votes(plan: Plan, places: Sequence[int], after: Measured, gallery: Gallery, far: float) -> Any:
    rows = [
        gallery.verifies(after.embedded[gallery.name][index][None], plan.shots[index].row, far)
        for index in places
    ]
    return torch.cat(rows).numpy()


def quality_figures(
    plan: Plan, before: Measured, after: Measured, judge: Gallery, quality_model: str = ""
) -> dict[str, Any]:
    """KID, sharpness and face quality of the forgotten people's images and of everybody else's.

    Args:
        judge: the recognizer whose embeddings serve as features of KID: no Inception network is at hand.
        quality_model: what measured ``face_quality``.
    """
    sides = {"forget": plan.rows_of(FORGET, MORE), "retain": plan.rows_of(*RETAINED)}
    people = np.array(plan.rows)
    figures: dict[str, Any] = {"kid": None, "face_quality": None}
    photographs = judge.photographs
    if photographs is not None and min(map(len, sides.values())) >= KID_LEAST:
        # Unit rows are scaled so that the kernel sees the cosine: (cos + 1)^3.
        scale = float(photographs.shape[1]) ** 0.5
        features = [scale * measured.embedded[judge.name] for measured in (before, after)]
        reference = (scale * photographs).numpy()
        within = mean_kernel(reference)
        figures["kid"] = {"features": f"embeddings of the {judge.name} recognizer", "times": 1000} | {
            side: _thousandfold(
                kid_change(*(rows[places].numpy() for rows in features), reference=reference, within=within)
            )
            for side, places in sides.items()
        }
    figures["sharpness"] = {
        side: _ratio(before.sharpness, after.sharpness, places, people) for side, places in sides.items()
    }
    if before.face_quality is not None and after.face_quality is not None:
        figures["face_quality"] = {"model": quality_model} | {
            side: _ratio(before.face_quality, after.face_quality, places, people)
            for side, places in sides.items()
        }
    return figures


def _thousandfold(change: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {"mean": 1000 * estimate["mean"], "interval": [1000 * end for end in estimate["interval"]]}
        for name, estimate in change.items()
    }


def _ratio(before: Array, after: Array, places: Sequence[int], people: Any) -> dict[str, Any]:
    figures = paired(before[list(places)], after[list(places)], people[list(places)])
    return {name: figures[name] for name in ("before", "after", "ratio", "ratio_interval")}
