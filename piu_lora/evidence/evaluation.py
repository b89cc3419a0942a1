"""Scoring an adapter: the same conditions and seeds, before and after."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from piu_lora.config import EvaluationConfig
from piu_lora.evidence.metrics import Array, accuracy, cosine_to, interval, ratio_interval, srk

__all__ = ["GROUPS", "Evaluation", "Gallery", "Plan", "Shot", "evaluate_images", "plan_evaluation"]

GROUPS = ("forget", "random", "nearest", "anchor")
Generate = Callable[[torch.Tensor, Sequence[int]], torch.Tensor]


@dataclass(frozen=True)
class Gallery:
    """One recognizer's view: how it embeds pictures, and the centroid of every identity, (m, d).

    Row k means the same identity in every gallery of an evaluation.
    """

    name: str
    embed: Callable[[torch.Tensor], torch.Tensor]
    centroids: torch.Tensor


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
    forget: torch.Tensor, forget_row: int, held_out: Sequence[int], anchor_row: int, centroids: torch.Tensor,
    embeddings_of: Callable[[int], torch.Tensor], config: EvaluationConfig, seed: int,
) -> Plan:  # fmt: skip
    """Choose conditions and seeds.

    Args:
        forget: (k, d) held-out embeddings of the forgotten person.
        forget_row: their row among ``centroids``.
        held_out: rows of retained people who were not trained on.
        anchor_row: the anchor's row.
        centroids: (m, d) of the conditioning recognizer.
        embeddings_of: all embeddings of a row.
    """
    generator = torch.Generator().manual_seed(seed)
    cosines = centroids @ centroids[forget_row]
    order = [row for row in cosines.argsort(descending=True).tolist() if row not in (forget_row, anchor_row)]
    shuffled = [held_out[i] for i in torch.randperm(len(held_out), generator=generator).tolist()]
    wanted: list[tuple[str, int, torch.Tensor]] = []
    wanted += [("forget", forget_row, forget[i % len(forget)]) for i in range(config.forget_images)]
    for i in range(config.retain_images):
        row = shuffled[i % len(shuffled)]
        wanted.append(("random", row, _pick(embeddings_of(row), i // len(shuffled))))
    wanted += [("nearest", row, _pick(embeddings_of(row), i)) for row in order[: config.nearest] for i in range(2)]
    wanted += [("anchor", anchor_row, _pick(embeddings_of(anchor_row), i)) for i in range(config.anchor_images)]
    return Plan(tuple(Shot(group, row, embedding, seed * 100_003 + place) for place, (group, row, embedding) in enumerate(wanted)))


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
