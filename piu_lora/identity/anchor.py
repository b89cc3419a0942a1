"""Choosing the anchor: the identity that the forgotten one is redirected to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from piu_lora.config import AnchorConfig
from piu_lora.errors import BadInput
from piu_lora.identity.bank import IdentityBank

__all__ = ["RULES", "Anchor", "choose_anchor"]


@dataclass(frozen=True)
class Anchor:
    """The chosen identity: its row in the bank, its (d,) centroid, and its cosine with the forgotten one."""

    row: int
    embedding: torch.Tensor
    cosine: float


Rule = Callable[[torch.Tensor, AnchorConfig, torch.Generator], int]
RULES: dict[str, Rule] = {}


def _rule(name: str) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        RULES[name] = function
        return function

    return register


def choose_anchor(
    bank: IdentityBank, forgotten: torch.Tensor, candidates: Sequence[int], config: AnchorConfig, generator: torch.Generator
) -> Anchor:
    """Pick the anchor among ``candidates`` by the configured rule; reads the bank once.

    Args:
        bank: everybody.
        forgotten: (d,) unit centroid of the forgotten identity.
        candidates: bank rows that may be chosen: retained identities on the training side.

    Raises:
        BadInput: unknown rule, or nobody fits it.
    """
    if config.rule not in RULES and config.rule != "fixed":
        raise BadInput(f"unknown anchor.rule {config.rule!r}; known: {', '.join(sorted([*RULES, 'fixed']))}")
    rows = torch.as_tensor(candidates)
    cosines = bank.cosines(forgotten)[rows]
    place = _fixed(config.identity, rows, bank) if config.rule == "fixed" else RULES[config.rule](cosines, config, generator)
    return Anchor(int(rows[place]), bank.centroid(int(rows[place])), float(cosines[place]))


def _fixed(identity: str, rows: torch.Tensor, bank: IdentityBank) -> int:
    found = (rows == (bank.index(identity) if identity in bank else -1)).nonzero()
    if not len(found):
        raise BadInput(f"anchor.identity = {identity!r} is not a retained identity on the training side; pass another id or another --seed")
    return int(found[0])


@_rule("proximity")
def proximity(cosines: torch.Tensor, config: AnchorConfig, generator: torch.Generator) -> int:
    """A seeded pick with ``|cos - tau| < tolerance`` (PIU, equation 3)."""
    distance = (cosines - config.tau).abs()
    band = (distance < config.tolerance).nonzero()[:, 0]
    if len(band) > 0:
        return int(band[torch.randint(len(band), (), generator=generator)])
    if config.on_empty == "widen" and float(distance.min()) < config.max_tolerance:
        return int(distance.argmin())
    wide = int((distance < 0.05).sum())
    raise BadInput(
        f"no identity lies within {config.tolerance} of anchor.tau = {config.tau}; {wide} lie within 0.05, the closest at cosine "
        f"{float(cosines[distance.argmin()]):.3f}. Pass --set anchor.on_empty=widen (up to anchor.max_tolerance = {config.max_tolerance}) "
        "or --set anchor.tolerance=..."
    )


@_rule("nearest")
def nearest(cosines: torch.Tensor, config: AnchorConfig, generator: torch.Generator) -> int:
    """The most similar identity."""
    return int(cosines.argmax())


@_rule("farthest")
def farthest(cosines: torch.Tensor, config: AnchorConfig, generator: torch.Generator) -> int:
    """The least similar identity."""
    return int(cosines.argmin())


@_rule("random")
def random(cosines: torch.Tensor, config: AnchorConfig, generator: torch.Generator) -> int:
    """Anybody, seeded."""
    return int(torch.randint(len(cosines), (), generator=generator))
