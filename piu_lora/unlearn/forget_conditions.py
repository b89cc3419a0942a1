"""How the embeddings of a forgotten person are drawn whose conditions a method sees."""

from collections.abc import Callable

import torch

from piu_lora.errors import BadInput
from piu_lora.identity import centroid, dirichlet_mixtures
from piu_lora.identity.geometry import Geometry, variation

__all__ = ["FORGET_CONDITIONS", "Draw", "find_draw", "forget_conditions"]

Draw = Callable[[torch.Tensor, Callable[[], Geometry], int, torch.Generator], torch.Tensor]
FORGET_CONDITIONS: dict[str, Draw] = {}


def forget_conditions(name: str) -> Callable[[Draw], Draw]:
    """Add a way to draw: known embeddings (k, d), the bank's geometry where it is asked for, how many, and a
    generator give (count, d) unit rows.
    """

    def decorate(draw: Draw) -> Draw:
        FORGET_CONDITIONS[name] = draw
        return draw

    return decorate


def find_draw(name: str) -> Draw:
    """The way to draw of that name.

    Raises:
        BadInput: unknown; the message lists the known ones.
    """
    if name not in FORGET_CONDITIONS:
        raise BadInput(f"unknown forget conditions {name!r}; known: {', '.join(sorted(FORGET_CONDITIONS))}")
    return FORGET_CONDITIONS[name]


@forget_conditions("mixtures")
def _mixtures(
    known: torch.Tensor, _geometry: Callable[[], Geometry], count: int, generator: torch.Generator
) -> torch.Tensor:
    """Dirichlet mixtures of the known photographs, as PIU has it (arXiv 2605.22311)."""
    return dirichlet_mixtures(known, count, generator)


@forget_conditions("individual")
def _individual(
    known: torch.Tensor, _geometry: Callable[[], Geometry], count: int, generator: torch.Generator
) -> torch.Tensor:
    """The known photographs themselves, each as often as the others but for one."""
    order = torch.randperm(len(known), generator=generator)
    return known[order.repeat(-(-count // len(known)))[:count]]


@forget_conditions("centroid")
def _centroid(
    known: torch.Tensor, _geometry: Callable[[], Geometry], count: int, _generator: torch.Generator
) -> torch.Tensor:
    """Their centroid alone."""
    return centroid(known).expand(count, -1)


@forget_conditions("variation")
def _variation(
    known: torch.Tensor, geometry: Callable[[], Geometry], count: int, generator: torch.Generator
) -> torch.Tensor:
    """Photographs that the person might have, as other people's vary; the known ones come first."""
    imagined = variation(known, geometry(), max(count - len(known), 0), generator)
    return torch.cat([known[:count], imagined])
