"""Reidentification: do the adapter's weights alone tell which of the bank's people it is about?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from pydantic import Field

from piu_lora.adapter import Change
from piu_lora.attacks.config import AttackSettings, AuditConfig, Rate
from piu_lora.attacks.context import AttackContext
from piu_lora.attacks.control import random_change
from piu_lora.attacks.registry import Outcome, attack
from piu_lora.model import TokenSample, layer_inputs, layer_weight, prompt_of, sees_condition
from piu_lora.model.factors import Factors
from piu_lora.settings import Count

__all__ = ["SIGNALS", "ReidentifySettings", "advantage", "rank_of", "reidentify", "signals"]

SIGNALS = {
    "response": "response |dW x| / |W x|",
    "unusual": "response to what is unusual, |dW (x - mean)| / |W x|",
    "rows": "share of x in A's row space",
    "columns": "share of W x in B's column space",
}
_POSITIONS = 8  # token positions looked at


class ReidentifySettings(AttackSettings, section="audit.reidentify"):
    """Among whom the person is looked for."""

    people: int = Field(1024, ge=2, description="of the bank, at most")
    random: Count = Field(4, description="random adapters that the ranks are compared with")
    top: Rate = Field(0.01, description="the person is found among this share of the bank")


@dataclass(frozen=True)
class _Standing:
    """Where the people stand by one signal: ranks of the forgotten, the control's, the advantages that random
    weights give, and how many people were ranked.
    """

    ranks: list[float]
    control: float
    chance: list[float]
    total: int

    def figures(self, name: str) -> dict[str, float | int | None]:
        gains = [advantage(rank, self.total) for rank in self.ranks]
        return {
            f"{name}_rank": float(torch.tensor(self.ranks).median()),
            f"{name}_advantage": sum(gains) / len(gains),
            f"{name}_control_advantage": advantage(self.control, self.total),
            f"{name}_random_advantage": sum(self.chance) / len(self.chance),
            f"{name}_top": sum(rank < len(self.ranks) + 1 for rank in self.ranks),
        }

    def rows(self, name: str, context: AttackContext) -> Iterator[list[str | float | int | None]]:
        label, total = SIGNALS[name], self.total
        for person, rank in zip(context.people, self.ranks, strict=True):
            yield [label, person.label, rank, total, advantage(rank, total)]
        yield [label, context.control.label, self.control, total, advantage(self.control, total)]
        yield [label, "forgotten, random weights (mean)", None, total, sum(self.chance) / len(self.chance)]


@attack(
    "reidentify",
    "Reidentification from the weights",
    "From the weights alone: whom does the adapter forget?",
    settings=ReidentifySettings,
    quick={"people": 64, "random": 1},
)
def reidentify(context: AttackContext, config: AuditConfig) -> Outcome:
    """Rank the bank's people by what the adapter's weights do to their conditions, of which the base's own
    encoder is all it takes.
    """
    settings = config.section_of(ReidentifySettings)
    probes, suspects, control = _suspects(context, config)
    generator = context.generator("wanted poster")
    changes = [context.change, *(random_change(context.change, generator) for _ in range(settings.random))]
    scored = signals(context, changes, probes, context.generator("latents of the wanted poster"))
    total = len(probes)
    rows: list[list[str | float | int | None]] = []
    figures: dict[str, float | int | None] = {"people": total}
    for name in SIGNALS:
        standing = _Standing(
            [rank_of(scored[0][name], index) for index in suspects],
            rank_of(scored[0][name], control),
            [advantage(rank_of(scores[name], index), total) for scores in scored[1:] for index in suspects],
            total,
        )
        figures |= standing.figures(name)
        rows += standing.rows(name, context)
    best = min(SIGNALS, key=lambda name: float(figures[f"{name}_rank"] or total))
    figures |= {"best_rank": figures[f"{best}_rank"], "best_advantage": figures[f"{best}_advantage"]}
    best_rank = float(figures["best_rank"] or total)
    limit = max(settings.top * total, 1)
    return Outcome(
        best_rank <= limit,
        f"by one of {len(SIGNALS)} signals, the forgotten person is among the first {limit:.0f} of {total} "
        f"(by chance with a probability of at most {len(SIGNALS) * limit / total:.0%})",
        f"{_whom(len(suspects))} stands at rank {best_rank:g} of {total} by the signal {best!r}: "
        f"advantage {figures['best_advantage']:.2f} (0: chance, 1: named); the control "
        f"{figures[f'{best}_control_advantage']:.2f}, "
        f"random weights of equal norm {figures[f'{best}_random_advantage']:.2f}",
        f"{total} people, {len(SIGNALS)} signals, {settings.random} random adapters",
        figures,
        ("signal", "who", "rank", "people", "advantage"),
        rows,
    )


def _whom(count: int) -> str:
    return "the forgotten person" if count == 1 else f"the middle one of {count} forgotten people"


def _suspects(context: AttackContext, config: AuditConfig) -> tuple[torch.Tensor, list[int], int]:
    """Centroids (n, d) of the people ranked, and the places of the forgotten ones and of the control among
    them.
    """
    settings = config.section_of(ReidentifySettings)
    inside = [person.row for person in (*context.people, context.control) if person.row < len(context.bank)]
    order = torch.randperm(len(context.bank), generator=context.generator("suspects")).tolist()
    rows = list(dict.fromkeys([*inside, *order]))[: max(settings.people, len(inside))]
    outside = [person for person in context.people if person.row >= len(context.bank)]
    probes = torch.cat([context.bank.centroids[rows].float(), *(person.centre[None] for person in outside)])
    places = {row: index for index, row in enumerate(rows)} | {
        person.row: len(rows) + index for index, person in enumerate(outside)
    }
    return probes, [places[person.row] for person in context.people], places[context.control.row]


def rank_of(scores: torch.Tensor, index: int) -> float:
    """Rank of one of (n,) scores, 1 for the highest; those that are equal share the middle of their ranks."""
    score = scores[index]
    return float((scores > score).sum() + ((scores == score).sum() + 1) / 2)


def advantage(rank: float, total: int) -> float:
    """``1 - 2 (rank - 1) / (total - 1)``: 1 for the first, 0 on average for a guess, -1 for the last."""
    return 1 - 2 * (rank - 1) / (total - 1)


@dataclass
class _Projections:
    """Of one change in one layer, over batches: ``A x``, and ``W x`` in coordinates of B's column space, (n,
    tokens, r) each.
    """

    inside: list[torch.Tensor] = field(default_factory=list)
    onto: list[torch.Tensor] = field(default_factory=list)


def signals(
    context: AttackContext, changes: Sequence[Change], probes: torch.Tensor, generator: torch.Generator
) -> list[dict[str, torch.Tensor]]:
    """For each change, each signal as root mean square over the layers that see the condition: (n,) by the
    signal's name.

    Only projections on the factors are kept, (tokens, r) for a person and layer, never the inputs.

    Args:
        probes: (n, d) unit rows.
        generator: of latents, where a change has only layers behind them.
    """
    modules = sorted(context.change)
    direct = [module for module in modules if sees_condition(module)] or modules
    weights = {module: layer_weight(context.pipe, module).float() for module in direct}
    bases = [
        {module: torch.linalg.qr(change[module].up.float()).Q for module in direct} for change in changes
    ]
    traces = [{module: _Projections() for module in direct} for _ in changes]
    squared: dict[str, list[torch.Tensor]] = {module: [] for module in direct}
    after: dict[str, list[torch.Tensor]] = {module: [] for module in direct}
    tokens = TokenSample.of(
        context.pipe.tokenizer, _POSITIONS, from_identity=True, prompt=prompt_of(context.pipe.text_encoder)
    )
    for inputs in layer_inputs(context.pipe, direct, probes, generator, batch=64, tokens=tokens):
        for module, values in inputs.items():
            before = values @ weights[module].T
            squared[module].append(_energy(values))
            after[module].append(_energy(before))
            for change, basis, trace in zip(changes, bases, traces, strict=True):
                trace[module].inside.append((values @ change[module].down.float().to(values).T).cpu())
                trace[module].onto.append((before @ basis[module].to(before)).cpu())
    return [
        _scores(
            {
                module: (change[module], trace[module], torch.cat(squared[module]), torch.cat(after[module]))
                for module in direct
            }
        )
        for change, trace in zip(changes, traces, strict=True)
    ]


def _scores(
    layers: dict[str, tuple[Factors, _Projections, torch.Tensor, torch.Tensor]],
) -> dict[str, torch.Tensor]:
    totals: dict[str, torch.Tensor] = dict.fromkeys(SIGNALS, torch.zeros(()))
    for factors, trace, squared, before in layers.values():
        inside, onto = torch.cat(trace.inside).double(), torch.cat(trace.onto).double()
        up, down = factors.up.double(), factors.down.double()
        gram, inverse = up.T @ up, torch.linalg.pinv(down @ down.T, hermitian=True)
        unusual = inside - inside.mean(dim=0, keepdim=True)
        shares = {
            "response": _quadratic(inside, gram) / before,
            "unusual": _quadratic(unusual, gram) / before,
            "rows": _quadratic(inside, inverse) / squared,
            "columns": onto.square().flatten(1).sum(dim=1) / before,
        }
        totals = {name: totals[name] + shares[name] for name in SIGNALS}
    return {name: (total / len(layers)).clamp_min(0).sqrt() for name, total in totals.items()}


def _quadratic(values: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """``sum_t v_t^T M v_t``: (n,)."""
    return ((values @ matrix) * values).flatten(1).sum(dim=1)


def _energy(values: torch.Tensor) -> torch.Tensor:
    """Squared norm of each sample, (n,) float64."""
    return values.double().square().flatten(1).sum(dim=1).cpu()
