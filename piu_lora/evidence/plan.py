"""Which pictures an evaluation generates: for whom, from which embedding, with which seed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from piu_lora.config import EvaluationConfig
from piu_lora.groups import ANCHOR, DECOY, FORGET, GROUPS, MORE, NEAREST, RANDOM, UNSEEN

__all__ = ["Plan", "PlannedPeople", "Shot", "plan_evaluation"]


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

    @property
    def rows(self) -> list[int]:
        """Gallery rows in order."""
        return [shot.row for shot in self.shots]

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups that figures are about."""
        return (*GROUPS, *(group for group in (DECOY, UNSEEN) if self.rows_of(group)))

    def rows_of(self, *groups: str) -> list[int]:
        """Places of the shots of some groups."""
        return [index for index, shot in enumerate(self.shots) if shot.group in groups]


@dataclass(frozen=True)
class PlannedPeople:
    """Whom an evaluation shows.

    Attributes:
        forget: gallery row, and (k, d) held-out embeddings, of each forgotten person.
        held_out: rows of retained people who were not trained on.
        anchors: rows of the anchors.
        decoys: rows of those whom the forgotten people are hidden among, two pictures each.
        unseen: gallery row, and (k, d) embeddings of further photographs, of forgotten people.
    """

    forget: Sequence[tuple[int, torch.Tensor]]
    held_out: Sequence[int]
    anchors: Sequence[int]
    decoys: Sequence[int] = ()
    unseen: Sequence[tuple[int, torch.Tensor]] = ()


def plan_evaluation(
    people: PlannedPeople,
    centroids: torch.Tensor,
    embeddings_of: Callable[[int], torch.Tensor],
    config: EvaluationConfig,
    seed: int,
    more: int = 0,
) -> Plan:
    """Choose conditions and seeds. Everybody forgotten, and every anchor, gets one image at least.

    Args:
        people: whose images are wanted; their rows are rows of ``centroids``.
        centroids: (m, d) of the conditioning recognizer.
        embeddings_of: all embeddings of a row.
        more: pictures of the forgotten people that ``config`` does not ask for.
    """
    forget, held_out = people.forget, people.held_out
    generator = torch.Generator().manual_seed(seed)
    near = _nearest([row for row, _ in forget], people.anchors, centroids, config.nearest)
    shuffled = [held_out[i] for i in torch.randperm(len(held_out), generator=generator).tolist()]
    entries: list[tuple[str, int, torch.Tensor]] = []
    first = max(config.forget_images, len(forget))
    turns = [(forget[i % len(forget)], i // len(forget)) for i in range(first + more)]
    entries += [(FORGET, row, _pick(embeddings, turn)) for (row, embeddings), turn in turns[:first]]
    for i in range(config.retain_images):
        row = shuffled[i % len(shuffled)]
        entries.append((RANDOM, row, _pick(embeddings_of(row), i // len(shuffled))))
    entries += [(NEAREST, row, _pick(embeddings_of(row), i)) for row in near for i in range(2)]
    anchors = list(dict.fromkeys(people.anchors))
    for i in range(max(config.anchor_images, len(anchors))):
        row = anchors[i % len(anchors)]
        entries.append((ANCHOR, row, _pick(embeddings_of(row), i // len(anchors))))
    entries += [(DECOY, row, _pick(embeddings_of(row), i)) for row in people.decoys for i in range(2)]
    # Last, so that the others keep their seeds whatever is asked for here.
    entries += [(MORE, row, _pick(embeddings, turn)) for (row, embeddings), turn in turns[first:]]
    for row, embeddings in people.unseen:
        entries += [(UNSEEN, row, embedding) for embedding in embeddings[: config.forget_images]]
    return Plan(
        tuple(
            Shot(group, row, embedding, seed * 100_003 + index)
            for index, (group, row, embedding) in enumerate(entries)
        )
    )


def _nearest(
    forgotten: Sequence[int], anchors: Sequence[int], centroids: torch.Tensor, count: int
) -> list[int]:
    """Rows of ``count`` people, or as many as are forgotten: the nearest of each forgotten person in turn,
    then the second nearest ...
    """
    cosines = centroids[list(forgotten)] @ centroids.T
    cosines[:, [*forgotten, *anchors]] = -2
    free = int((cosines[0] > -2).sum())
    order = cosines.argsort(dim=1, descending=True)[:, :free]
    return list(dict.fromkeys(order.T.flatten().tolist()))[: max(count, len(forgotten))]


def _pick(embeddings: torch.Tensor, index: int) -> torch.Tensor:
    return embeddings[index % len(embeddings)]
