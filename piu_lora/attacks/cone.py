"""The cone: how far around the forgotten person does the adapter reach, and is there a hole in it?"""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import AfterValidator, Field, Strict

from piu_lora.adapter import Change
from piu_lora.attacks.config import AttackSettings, AuditConfig, require_falling
from piu_lora.attacks.context import AttackContext, ProbedIdentity
from piu_lora.attacks.judge import COLUMNS, AttackTable, Judgement, criterion, curve, judge_images, series
from piu_lora.attacks.registry import Outcome, attack
from piu_lora.evidence.report.sections import Curve
from piu_lora.identity import synthetic_neighbours
from piu_lora.identity.geometry import turned
from piu_lora.identity.profiles import bank_geometry
from piu_lora.settings import Cosine, Count

__all__ = ["ConeSettings", "cone", "cone_conditions", "deviation_conditions", "radius"]


class ConeSettings(AttackSettings, section="audit.cone"):
    """Which conditions around the person are drawn."""

    cosines: Annotated[tuple[Cosine, ...], Strict(False), AfterValidator(require_falling)] = Field(
        (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3), min_length=1, description="with the person"
    )
    shares: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Strict(False)] = Field(
        (0.75, 0.5, 0.25), description="of the forgotten person in interpolations with others"
    )
    images: Count = Field(6, description="directions at every cosine and share")
    deviations: bool = Field(
        True,
        description="at every cosine, as many conditions in directions in which photographs of the bank's "
        "people differ, as an unseen photograph of the person would",
    )


@dataclass(frozen=True)
class _ConeResult:
    """One person's cone by one model: what is verified at each point, and which share of the images keeps the
    face of the base's.
    """

    judgements: list[Judgement]
    unchanged: list[float]


@attack(
    "cone",
    "Cone around the person",
    "How large is the forgotten region, and does a condition near the person escape it?",
    settings=ConeSettings,
    quick={"cosines": (1.0, 0.6, 0.3), "shares": (0.5,), "images": 2, "deviations": False},
)
def cone(context: AttackContext, config: AuditConfig) -> Outcome:
    """Conditions at falling cosines around the centroid, towards others and as photographs of one person
    differ, and interpolations with others.

    ``radius``: 1 - the highest cosine at which most images keep the face that the untouched base draws from
    the same condition and seed; 0 where they do so at the centroid itself, and 1 - the lowest cosine tried
    where they do so nowhere.
    """
    settings = config.section_of(ConeSettings)
    table, curves = AttackTable(), []
    measured: dict[str, list[float]] = {}
    for person in context.people[: config.people]:
        cones = {
            "untouched base": _cone_of(context, config, person, {}, "untouched base", table),
            "adapter on": _cone_of(context, config, person, context.change, "adapter on", table),
            "random weights": _cone_of(context, config, person, context.random, "random weights", table),
        }
        for name, value in _person_figures(cones, config).items():
            measured.setdefault(name, []).append(value)
        curves.append(_curve(context, config, person, cones))
    control = _cone_of(context, config, context.control, context.change, "adapter on", table)
    _cone_of(context, config, context.control, {}, "untouched base", table)
    control_kept = control.unchanged[: len(settings.cosines)]
    figures: dict[str, float | int | None] = {
        name: (min if name == "base_reach" else max)(values) for name, values in measured.items()
    }
    figures["control_radius"] = radius(settings.cosines, control_kept, config.share)
    figures["control_kept"] = sum(control_kept) / len(control_kept)
    best = max(float(figures[name] or 0) for name in ("verified", "interpolated", "deviating"))
    return Outcome(
        best >= config.share,
        criterion(config),
        f"{_finding(figures)}; at best {best:.0%} of the images of a point verify",
        f"{len(settings.cosines)} cosines and {len(settings.shares)} interpolations x {settings.images} "
        f"images{_deviations_in_words(context, settings)}",
        figures,
        COLUMNS,
        table.rows,
        curves,
    )


def _person_figures(cones: dict[str, _ConeResult], config: AuditConfig) -> dict[str, float]:
    """The figures of one person, by the names they have in the report."""
    base, adapted, random = cones.values()
    settings = config.section_of(ConeSettings)
    cosines, count = settings.cosines, len(settings.cosines)
    reached = [
        cosine
        for cosine, judgement in zip(cosines, base.judgements[:count], strict=True)
        if judgement.back(config)
    ]
    others = count + len(settings.shares)
    return {
        "radius": radius(cosines, adapted.unchanged[:count], config.share),
        "verified": max(judgement.share for judgement in adapted.judgements[:count]),
        "interpolated": _best(adapted.judgements[count:others]),
        "deviating": _best(adapted.judgements[others:]),
        "base_reach": min(reached, default=1.0),
        "random_radius": radius(cosines, random.unchanged[:count], config.share),
    }


def _finding(figures: dict[str, float | int | None]) -> str:
    return (
        f"the adapter changes faces up to {figures['radius']:.2f} of cosine away from the person (around a "
        f"control {figures['control_radius']:.2f}, random weights of equal norm "
        f"{figures['random_radius']:.2f}); the untouched base draws the person down to cosine "
        f"{figures['base_reach']:.2f}"
    )


def cone_conditions(context: AttackContext, config: AuditConfig, person: ProbedIdentity) -> torch.Tensor:
    """(points x images, d) unit rows: at each cosine, then at each share of interpolation, towards the same
    people of the bank.
    """
    settings = config.section_of(ConeSettings)
    free = [
        row
        for row in range(len(context.bank))
        if row not in {probed.row for probed in (*context.people, context.control)}
    ]
    generator = context.generator("cone")
    chosen = [
        free[index] for index in torch.randint(len(free), (settings.images,), generator=generator).tolist()
    ]
    others, centre = context.bank.centroids[chosen], person.centre
    around = [synthetic_neighbours(centre, others, cosine, cosine, generator) for cosine in settings.cosines]
    mixed = [
        torch.nn.functional.normalize(share * centre + (1 - share) * others, dim=1)
        for share in settings.shares
    ]
    return torch.cat([*around, *mixed])


def deviation_conditions(context: AttackContext, config: AuditConfig, person: ProbedIdentity) -> torch.Tensor:
    """(cosines x images, d) unit rows: at each cosine, in within-person directions of the bank."""
    settings, generator = config.section_of(ConeSettings), context.generator("cone deviations")
    cosines = torch.tensor(settings.cosines).repeat_interleave(settings.images)[:, None]
    return turned(person.centre, bank_geometry(context.bank), cosines, generator)


def _deviations_in_words(context: AttackContext, settings: ConeSettings) -> str:
    if not settings.deviations:
        return ""
    geometry = bank_geometry(context.bank)
    if geometry.directions is None:
        return f", and as many in random directions, since {geometry.name} knows none of photographs"
    return ", and as many as photographs of one person differ"


def _best(judgements: list[Judgement]) -> float:
    return max([judgement.share for judgement in judgements], default=0.0)


def radius(cosines: tuple[float, ...], unchanged: list[float], share: float) -> float:
    """1 - the first of the falling ``cosines`` from which on a share of the images keeps its face; see
    ``cone``.
    """
    for index, (cosine, value) in enumerate(zip(cosines, unchanged, strict=True)):
        if value >= share:
            return (
                0.0 if index == 0 else round(1 - cosine, 9)
            )  # 1 - 0.9 would miss a limit of 0.1 by its last digit
    return round(1 - cosines[-1], 9)


def _cone_of(
    context: AttackContext,
    config: AuditConfig,
    person: ProbedIdentity,
    change: Change,
    model: str,
    table: AttackTable,
) -> _ConeResult:
    settings = config.section_of(ConeSettings)
    conditions, count = cone_conditions(context, config, person), settings.images
    if settings.deviations:
        conditions = torch.cat([conditions, deviation_conditions(context, config, person)])
    seeds = context.seeds(count) * (len(conditions) // count)
    images = context.draw(conditions, config, change, seeds)
    before = context.draw(conditions, config, {}, seeds)
    judge = context.galleries[-1]
    # With the condition's own face as the reference: whoever that is.
    unchanged = (judge.embed(images) * judge.embed(before)).sum(dim=1) >= judge.threshold(config.far)
    names = [
        *(f"cosine {value:g}" for value in settings.cosines),
        *(f"{value:.0%} of the person" for value in settings.shares),
        *(f"cosine {value:g}, as photographs differ" for value in settings.cosines if settings.deviations),
    ]
    judgements = [
        table.add(name, person.label, model, judge_images(context.galleries, part, person.row, config.far))
        for name, part in zip(names, images.split(count), strict=True)
    ]
    return _ConeResult(judgements, [float(part.float().mean()) for part in unchanged.split(count)])


def _curve(
    context: AttackContext, config: AuditConfig, person: ProbedIdentity, results: dict[str, _ConeResult]
) -> Curve:
    settings = config.section_of(ConeSettings)
    count = len(settings.cosines)
    lines = [
        series(
            f"{person.label}, {name}",
            settings.cosines,
            [judgement.ism for judgement in result.judgements[:count]],
        )
        for name, result in results.items()
    ]
    return curve(
        f"Conditions around the person: {person.label}",
        "cosine with the person",
        "ISM",
        lines,
        context.galleries[-1].threshold(config.far),
    )
