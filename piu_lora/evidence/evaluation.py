"""Scoring an adapter: the same conditions and seeds, before and after."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from piu_lora.config import EvaluationConfig
from piu_lora.evidence.gallery import Gallery
from piu_lora.evidence.metrics import Array, accuracy, cosine_to, interval, ratio_interval, srk

__all__ = ["GROUPS", "Evaluation", "Plan", "Shot", "evaluate_images", "plan_evaluation"]

GROUPS = ("forget", "random", "nearest", "anchor")
Generate = Callable[[torch.Tensor, Sequence[int]], torch.Tensor]


@dataclass(frozen=True)
class Shot:
    """One picture to generate: whose group, which gallery row, from which embedding (d,), with which seed."""

    group: str
    row: int
    embedding: torch.Tensor
    seed: int


@dataclass(frozen=True)
class Plan:
    """Every picture of an evaluation."""

    shots: tuple[Shot, ...]

    @property
    def embeddings(self) -> torch.Tensor:
        """Conditions in order, (n, d)."""
        return torch.stack([shot.embedding for shot in self.shots])

    @property
    def seeds(self) -> list[int]:
        """Seeds in order."""
        return [shot.seed for shot in self.shots]

    def rows_of(self, group: str) -> list[int]:
        """Places of a group's shots."""
        return [place for place, shot in enumerate(self.shots) if shot.group == group]


def plan_evaluation(
    forget: Sequence[tuple[int, torch.Tensor]], held_out: Sequence[int], anchor_rows: Sequence[int], centroids: torch.Tensor,
    embeddings_of: Callable[[int], torch.Tensor], config: EvaluationConfig, seed: int,
) -> Plan:  # fmt: skip
    """Choose conditions and seeds. Everybody forgotten, and every anchor, gets one image at least.

    Args:
        forget: row among ``centroids``, and (k, d) held-out embeddings, of each forgotten person.
        held_out: rows of retained people who were not trained on.
        anchor_rows: of the anchors.
        centroids: (m, d) of the conditioning recognizer.
        embeddings_of: all embeddings of a row.
    """
    generator = torch.Generator().manual_seed(seed)
    near = _nearest([row for row, _ in forget], anchor_rows, centroids, config.nearest)
    shuffled = [held_out[i] for i in torch.randperm(len(held_out), generator=generator).tolist()]
    wanted: list[tuple[str, int, torch.Tensor]] = []
    for i in range(max(config.forget_images, len(forget))):
        row, own = forget[i % len(forget)]
        wanted.append(("forget", row, _pick(own, i // len(forget))))
    for i in range(config.retain_images):
        row = shuffled[i % len(shuffled)]
        wanted.append(("random", row, _pick(embeddings_of(row), i // len(shuffled))))
    wanted += [("nearest", row, _pick(embeddings_of(row), i)) for row in near for i in range(2)]
    anchors = list(dict.fromkeys(anchor_rows))
    for i in range(max(config.anchor_images, len(anchors))):
        row = anchors[i % len(anchors)]
        wanted.append(("anchor", row, _pick(embeddings_of(row), i // len(anchors))))
    return Plan(tuple(Shot(group, row, embedding, seed * 100_003 + place) for place, (group, row, embedding) in enumerate(wanted)))


def _nearest(forgotten: Sequence[int], anchors: Sequence[int], centroids: torch.Tensor, count: int) -> list[int]:
    """Rows of ``count`` people, or as many as are forgotten: the nearest of each forgotten person in turn, then the second nearest ..."""
    cosines = centroids[list(forgotten)] @ centroids.T
    cosines[:, [*forgotten, *anchors]] = -2
    free = int((cosines[0] > -2).sum())
    order = cosines.argsort(dim=1, descending=True)[:, :free]
    return list(dict.fromkeys(order.T.flatten().tolist()))[: max(count, len(forgotten))]


def _pick(embeddings: torch.Tensor, index: int) -> torch.Tensor:
    return embeddings[index % len(embeddings)]


@dataclass
class Evaluation:
    """Figures by recognizer, and the pictures they were taken from (never stored with an adapter unless asked)."""

    plan: Plan
    before: torch.Tensor  # (n, 3, h, w) in [0, 1]
    after: torch.Tensor
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def headline(self) -> dict[str, Any]:
        """The figures of the first recognizer, which conditions the base."""
        first: dict[str, Any] = next(iter(self.figures.values()))
        return first


def evaluate_images(plan: Plan, before: torch.Tensor, after: torch.Tensor, galleries: Sequence[Gallery]) -> Evaluation:
    """Embed both sets with every recognizer and compute ISM, AccU, AccR and SRK.

    Args:
        before, after: (n, 3, h, w) RGB in [0, 1], in the order of the plan.
        galleries: the first is the conditioning recognizer's.
    """
    result = Evaluation(plan, before, after)
    for gallery in galleries:
        result.figures[gallery.name] = _score(plan, gallery, gallery.embed(before), gallery.embed(after))
    return result


def _score(plan: Plan, gallery: Gallery, before: torch.Tensor, after: torch.Tensor) -> dict[str, Any]:
    own = np.array([shot.row for shot in plan.shots])
    centroids = gallery.centroids.numpy()
    cosine = {when: cosine_to(embedded, centroids[own]) for when, embedded in (("before", before), ("after", after))}
    hit = {when: accuracy(embedded, centroids, own) for when, embedded in (("before", before), ("after", after))}
    faceless = {when: np.logical_not(np.asarray(embedded).any(axis=1)) for when, embedded in (("before", before), ("after", after))}
    figures: dict[str, Any] = {"ism": {}, "recognised": {}, "no_face": {}}
    for group in GROUPS:
        places = plan.rows_of(group)
        figures["no_face"][group] = {when: int(faceless[when][places].sum()) for when in faceless}
        figures["ism"][group] = _paired(cosine["before"][places], cosine["after"][places])
        figures["recognised"][group] = {when: _mean(hit[when][places]) for when in hit}
    for when in hit:
        unlearned, retained = (float(hit[when][plan.rows_of(group)].mean()) for group in ("forget", "random"))
        figures[when] = {"acc_u": unlearned, "acc_r": retained, "srk": srk(retained, unlearned)}
    return figures


def _mean(values: Array) -> dict[str, Any]:
    return {"mean": float(values.mean()), "interval": interval(values), "n": len(values)}


def _paired(before: Array, after: Array) -> dict[str, Any]:
    # Without a face before, there is nothing to compare with.
    known = before.mean() != 0
    return {
        "before": float(before.mean()), "before_interval": interval(before),
        "after": float(after.mean()), "after_interval": interval(after),
        "ratio": float(after.mean() / before.mean()) if known else None,
        "ratio_interval": ratio_interval(after, before) if known else None, "n": len(before),
    }  # fmt: skip
