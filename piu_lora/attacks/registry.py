"""The attacks, found by name, and what each of them answers."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from piu_lora.attacks.config import AttackSettings, AuditConfig
from piu_lora.attacks.context import AttackContext
from piu_lora.errors import BadInput
from piu_lora.evidence.report.sections import Curve
from piu_lora.progress import Progress, silent

__all__ = [
    "ATTACKS",
    "Attack",
    "Outcome",
    "attack",
    "audit_section",
    "find_attacks",
    "run_attack",
    "run_attacks",
]


@dataclass(frozen=True)
class Outcome:
    """What an attack found, ready for the report; it names nobody.

    Attributes:
        succeeded: whether the person came back by ``criterion``; None where the attack could not be tried.
        finding: one sentence with the figures and the control's, or why it could not be tried.
        budget: what was spent.
        figures: numbers by flat name; None where one could not be measured.
        columns, rows: a table; the controls are rows too.
        curves: see ``judge.curve``.
    """

    succeeded: bool | None
    criterion: str
    finding: str
    budget: str
    figures: dict[str, float | int | None] = field(default_factory=dict)
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str | float | int | None]] = ()
    curves: Sequence[Curve] = ()


Run = Callable[[AttackContext, AuditConfig], Outcome]


@dataclass(frozen=True)
class Attack:
    """A registered attack.

    Attributes:
        long: whether it takes a large share of an audit; side by side, such attacks are begun first.
    """

    name: str
    label: str
    question: str
    run: Run
    long: bool = False


ATTACKS: dict[str, Attack] = {}


def attack(
    name: str,
    label: str,
    question: str,
    *,
    settings: type[AttackSettings] | None = None,
    quick: Mapping[str, Any] | None = None,
    long: bool = False,
) -> Callable[[Run], Run]:
    """Add an attack to the registry.

    Args:
        name: what ``--attacks`` and reports call it; without an underscore.
        label: what tables call it.
        question: what it asks.
        settings: its section of ``AuditConfig``.
        quick: its settings with the budget ``quick``.
        long: see ``Attack``.
    """

    def decorate(run: Run) -> Run:
        if settings is not None:
            AuditConfig.register_attack(settings, quick or {})
        ATTACKS[name] = Attack(name, label, question, run, long)
        return run

    return decorate


def find_attacks(names: Sequence[str] | None = None) -> list[Attack]:
    """The attacks of these names, all by default, in the order of the registry.

    Raises:
        BadInput: an unknown name.
    """
    for name in names or ():
        if name not in ATTACKS:
            raise BadInput(f"unknown attack {name!r}; known: {', '.join(ATTACKS)}")
    return [entry for entry in ATTACKS.values() if not names or entry.name in names]


def run_attack(context: AttackContext, config: AuditConfig, entry: Attack) -> dict[str, Any]:
    """Run one attack: its entry in the report."""
    begun = time.monotonic()
    outcome = entry.run(context, config)
    head = {"name": entry.name, "label": entry.label, "question": entry.question, "seed": context.seed}
    curves = [curve.to_dict() for curve in outcome.curves]
    return {**head, "seconds": time.monotonic() - begun, **vars(outcome), "curves": curves}


def run_attacks(
    context: AttackContext, config: AuditConfig, attacks: Sequence[Attack], progress: Progress = silent
) -> dict[str, Any]:
    """Run attacks one after the other.

    Args:
        context: the base, the adapter and the people; left as it was found.
        config: the budget and the settings of each attack.
        attacks: see ``find_attacks``.
        progress: told how many attacks are done.

    Returns:
        The report's section "audit" (docs/reference/report.md), as plain values.
    """
    entries, start = [], time.monotonic()
    with progress("audit", len(attacks)) as advance:
        for entry in attacks:
            entries.append(run_attack(context, config, entry))
            advance(1)
    return audit_section(entries, time.monotonic() - start, config)


def audit_section(entries: list[dict[str, Any]], seconds: float, config: AuditConfig) -> dict[str, Any]:
    """The report's section "audit"."""
    return {"seconds": seconds, "budget": config.budget, "far": config.far, "attacks": entries}
