"""Token positions that one pair of neurons serves: those whose streams must move in the same direction."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

__all__ = ["Cell", "Site", "grouped"]


@dataclass(frozen=True)
class Site:
    """A token position of a template, by its number among the templates."""

    template: int
    position: int


@dataclass(frozen=True)
class Cell:
    """Positions whose wanted changes are multiples of one.

    Attributes:
        sites: the positions.
        amounts: (n,) which multiple of ``change`` each wants.
        change: (hidden,) what is added to the stream.
    """

    sites: tuple[Site, ...]
    amounts: torch.Tensor
    change: torch.Tensor


def grouped(changes: Sequence[tuple[Site, torch.Tensor]], pairs: int, alike: float = 0.97) -> list[Cell]:
    """Sort positions into at most ``pairs`` cells, those of the first template first: theirs are met best.

    A position joins the cell whose change points in its direction (cosine of ``alike`` or more), or founds
    one while there are pairs left, or joins the nearest. Each wants ``a = <d, D> / <D, D>`` of the cell's
    change D, the mean over its members of the first template, or its founder's.

    Args:
        changes: the wanted change (hidden,) of every position.
    """
    members: list[list[tuple[Site, torch.Tensor]]] = []
    leaders: list[torch.Tensor] = []
    for site, change in sorted(changes, key=lambda item: (item[0].template, -float(item[1].norm()))):
        cosines = [float(torch.cosine_similarity(change, leader, dim=0)) for leader in leaders]
        best = max(range(len(leaders)), key=cosines.__getitem__) if leaders else -1
        if best < 0 or (cosines[best] < alike and len(leaders) < pairs):
            members.append([(site, change)])
            leaders.append(change)
        else:
            members[best].append((site, change))
            official = [wanted for member, wanted in members[best] if member.template == 0]
            leaders[best] = torch.stack(official).mean(dim=0) if official else leaders[best]
    return [_cell(group, leader) for group, leader in zip(members, leaders, strict=True)]


def _cell(members: list[tuple[Site, torch.Tensor]], change: torch.Tensor) -> Cell:
    amounts = torch.stack([wanted @ change / (change @ change) for _, wanted in members])
    return Cell(tuple(site for site, _ in members), amounts, change)
