"""Choosing the anchor: the identity that the forgotten one is redirected to.

Rule ``proximity`` is the paper's (PIU, arXiv 2605.22311, equation 3). Its tau = 0.2 may lie above the
threshold of a verifier, so that even a perfect redirect passes as the forgotten person, and the anchor's own
face suffers (arXiv 2608.30087): ``far-safe`` picks a real person below the threshold, ``synthetic`` makes one
who is nobody in the bank.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch.nn.functional import normalize

from piu_lora.config import AnchorConfig
from piu_lora.errors import BadInput
from piu_lora.identity.bank import IdentityBank
from piu_lora.identity.constants import value_of
from piu_lora.identity.profiles import bank_geometry
from piu_lora.identity.verification import centroid_blocks, far_threshold

__all__ = ["RULES", "Anchor", "choose_anchor"]

_TRIES = 8  # synthetic people tried at once: more cost more and are no sooner free
_ROUNDS = 40  # at most so many readings of the bank
_STRIDE = 1.5  # times the push; any factor below 2 converges, and a longer stride takes fewer rounds
_SLACK = 0.005  # pushed this much below the ceiling: a push that ends exactly there would need endless rounds
_FITTED = 16_384  # candidates whose mean and covariance are taken


@dataclass(frozen=True)
class Anchor:
    """The chosen identity.

    Attributes:
        row: its row in the bank; None for a synthetic one, who is not in it.
        embedding: (d,) unit centroid.
        cosine: of its embedding with the forgotten centroid.
        threshold: the calibrated cosine of verification; None for a rule that asks for none.
    """

    row: int | None
    embedding: torch.Tensor
    cosine: float
    threshold: float | None = None


@dataclass(frozen=True)
class _Choice:
    """What a rule chooses from."""

    bank: IdentityBank
    forgotten: torch.Tensor
    rows: torch.Tensor
    config: AnchorConfig
    generator: torch.Generator
    everybody: torch.Tensor | None = None

    @cached_property
    def cosines(self) -> torch.Tensor:
        """Of every candidate with the forgotten centroid."""
        everybody = self.bank.cosines(self.forgotten) if self.everybody is None else self.everybody
        return everybody[self.rows]

    @property
    def margin(self) -> float:
        """Of safety below the threshold."""
        return value_of("anchor.margin", self.config.margin, lambda: bank_geometry(self.bank))

    @property
    def band(self) -> float:
        """Below that, where an anchor is preferred."""
        return value_of("anchor.band", self.config.band, lambda: bank_geometry(self.bank))

    def take(self, position: int, threshold: float | None = None) -> Anchor:
        row = int(self.rows[position])
        return Anchor(row, self.bank.centroid(row), float(self.cosines[position]), threshold)


Rule = Callable[[_Choice], Anchor]
Pick = Callable[[torch.Tensor, AnchorConfig, torch.Generator], int]
RULES: dict[str, Rule] = {}


def _rule(name: str) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        RULES[name] = function
        return function

    return register


def _pick(name: str) -> Callable[[Pick], Pick]:
    """A rule that needs the candidates' cosines only, and gives a place among them."""

    def register(function: Pick) -> Pick:
        RULES[name] = lambda choice: choice.take(function(choice.cosines, choice.config, choice.generator))
        return function

    return register


def choose_anchor(
    bank: IdentityBank,
    forgotten: torch.Tensor,
    candidates: Sequence[int] | torch.Tensor,
    config: AnchorConfig,
    generator: torch.Generator,
    cosines: torch.Tensor | None = None,
) -> Anchor:
    """Pick the anchor among ``candidates`` by the configured rule; reads the bank once, rule ``synthetic``
    several times.

    Args:
        bank: everybody.
        forgotten: (d,) unit centroid of the forgotten identity.
        candidates: bank rows that may be chosen: retained identities on the training side.
        cosines: of everybody in the bank with ``forgotten``, where they are known already.

    Raises:
        BadInput: unknown rule, nobody fits it, or a bank too small to calibrate verification at
            ``config.far``.
    """
    if config.rule not in RULES:
        raise BadInput(f"unknown anchor.rule {config.rule!r}; known: {', '.join(sorted(RULES))}")
    rows = torch.as_tensor(candidates)
    return RULES[config.rule](_Choice(bank, forgotten, rows, config, generator, cosines))


@_rule("fixed")
def fixed(choice: _Choice) -> Anchor:
    """The person named by ``anchor.identity``."""
    identity, bank = choice.config.identity, choice.bank
    indices = (choice.rows == (bank.index(identity) if identity in bank else -1)).nonzero()
    if not len(indices):
        raise BadInput(
            f"anchor.identity = {identity!r} is not a retained identity on the training side; "
            "pass another id or another seed"
        )
    return choice.take(int(indices[0]))


@_pick("proximity")
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
        f"no identity lies within {config.tolerance} of anchor.tau = {config.tau}; {wide} lie within 0.05, "
        "the closest at cosine "
        f"{float(cosines[distance.argmin()]):.3f}. Pass anchor.on_empty=widen (up to anchor.max_tolerance "
        f"= {config.max_tolerance}) "
        "or anchor.tolerance=..."
    )


@_pick("nearest")
def nearest(cosines: torch.Tensor, config: AnchorConfig, generator: torch.Generator) -> int:
    """The most similar identity."""
    return int(cosines.argmax())


@_pick("farthest")
def farthest(cosines: torch.Tensor, config: AnchorConfig, generator: torch.Generator) -> int:
    """The least similar identity."""
    return int(cosines.argmin())


@_pick("random")
def random(cosines: torch.Tensor, config: AnchorConfig, generator: torch.Generator) -> int:
    """Anybody, seeded."""
    return int(torch.randint(len(cosines), (), generator=generator))


@_rule("far-safe")
def far_safe(choice: _Choice) -> Anchor:
    """A seeded pick with ``t - margin - band <= cos <= t - margin``, where t is the threshold at
    ``anchor.far``; with the geometry of real faces 4 % of a bank.

    Below the ceiling t - margin the anchor does not verify as the forgotten person; near it, the edit stays
    as small as PIU wants it. Where the band is empty, the nearest person below it: safe comes before near.
    """
    threshold, ceiling = _ceiling(choice)
    band = ((choice.cosines <= ceiling) & (choice.cosines >= ceiling - choice.band)).nonzero()[:, 0]
    if len(band) > 0:
        return choice.take(int(band[torch.randint(len(band), (), generator=choice.generator)]), threshold)
    below = choice.cosines.masked_fill(choice.cosines > ceiling, -2)
    if len(below) > 0 and float(below.max()) >= -1:
        return choice.take(int(below.argmax()), threshold)
    raise BadInput(
        f"nobody of {len(choice.rows)} candidates is safe: {_ceiling_text(choice, threshold)}, "
        "and the least similar one lies at "
        f"{float(choice.cosines.min()):.3f}. Pass anchor.rule=synthetic, "
        "or a smaller anchor.margin or anchor.far"
    )


@_rule("synthetic")
def synthetic(choice: _Choice) -> Anchor:
    """A person who is no one: a random one with the candidates' geometry, whom nobody in the bank verifies
    as.

    Drawn from the normal distribution of the candidates' centroids and normalised; kept if the cosine with
    the forgotten centroid and with everybody's, held-out people included, is at most ``threshold - margin``.
    In a bank of 10^5 people every draw resembles somebody, so those that fail are pushed away from whom they
    resemble, as little as will do, and tried again.
    """
    threshold, ceiling = _ceiling(choice)
    tries = _people_like(choice)
    for _ in range(_ROUNDS):
        worst, push = _crowding(choice, tries, ceiling)
        free = (worst <= ceiling).nonzero()[:, 0]
        if len(free) > 0:
            embedding = tries[free[0]]
            return Anchor(None, embedding, float(embedding @ choice.forgotten), threshold)
        tries = normalize(tries - _STRIDE * push, dim=1)
    raise BadInput(
        f"no synthetic anchor found in {_ROUNDS} rounds of {_TRIES} tries: "
        f"{_ceiling_text(choice, threshold)}, and the freest try "
        f"still meets somebody at {float(worst.min()):.3f}. Pass a smaller anchor.far=... "
        "or anchor.margin=..., or another seed"
    )


def _ceiling(choice: _Choice) -> tuple[float, float]:
    """The threshold, and the largest cosine that is safe."""
    threshold = far_threshold(choice.bank, choice.config.far).value
    return threshold, threshold - choice.margin


def _ceiling_text(choice: _Choice, threshold: float) -> str:
    config = choice.config
    return (
        f"the threshold is {threshold:.3f} at anchor.far = {config.far:g}, "
        f"so the cosine may be {threshold - choice.margin:.3f} at most "
        f"(anchor.margin = {choice.margin:g})"
    )


def _people_like(choice: _Choice) -> torch.Tensor:
    """Draws from N(m, S) with the mean and the shrunk covariance of the candidates' centroids, normalised:
    (t, d).

    With white noise g over n centred rows x, ``sum_i g_i x_i / sqrt(n)`` has their covariance exactly: no
    matrix of it is made. ``S = (1 - a) cov + a tr(cov)/d I``, where a = d / (n + d): few people say little of
    their covariance (Ledoit and Wolf, 2004, shrink to the same target).
    """
    chosen = choice.rows[torch.randperm(len(choice.rows), generator=choice.generator)[:_FITTED]]
    count, width = len(chosen), choice.bank.width
    noise = torch.randn(_TRIES, count, generator=choice.generator)
    isotropic = torch.randn(_TRIES, width, generator=choice.generator)
    total, mixed, squares, start = torch.zeros(width), torch.zeros(_TRIES, width), 0.0, 0
    for _, rows in centroid_blocks(choice.bank, chosen):
        total += rows.sum(dim=0)
        mixed += noise[:, start : start + len(rows)] @ rows
        squares, start = squares + float(rows.square().sum()), start + len(rows)
    mean = total / count
    spread = (mixed - noise.sum(dim=1, keepdim=True) * mean) / count**0.5
    variance = max(squares / count - float(mean.square().sum()), 0.0) / width
    share = width / (count + width)
    return normalize(mean + (1 - share) ** 0.5 * spread + (share * variance) ** 0.5 * isotropic, dim=1)


def _crowding(choice: _Choice, tries: torch.Tensor, ceiling: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest cosine of each try with anybody, (t,), and the push (t, d) that takes it away from those
    above the ceiling.

    With the excesses ``e_i = max(cos_i - ceiling + slack, 0)`` the push is ``(sum e_i^2 / |sum e_i c_i|^2)
    sum e_i c_i``: the extrapolated mean of the projections onto the half-spaces ``c_i v <= ceiling - slack``
    (Pierra, 1984), one exact projection where one is broken.
    """
    worst, away, squares = torch.full((len(tries),), -1.0), torch.zeros_like(tries), torch.zeros(len(tries))
    everybody = (rows for _, rows in centroid_blocks(choice.bank, torch.arange(len(choice.bank))))
    for rows in itertools.chain([choice.forgotten[None]], everybody):
        cosines = tries @ rows.T
        worst = torch.maximum(worst, cosines.amax(dim=1))
        excess = (cosines - (ceiling - _SLACK)).clamp_min(0)
        away += excess @ rows
        squares += excess.square().sum(dim=1)
    return worst, away * (squares / away.square().sum(dim=1).clamp_min(1e-12))[:, None]
