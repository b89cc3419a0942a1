"""Attacks on an adapter: can the forgotten person be brought back? Importing the room fills the registry."""

from piu_lora.attacks.config import AttackSettings, AuditConfig
from piu_lora.attacks.context import AttackContext, Others, ProbedIdentity
from piu_lora.attacks.control import choose_control, made_up_identity, random_change
from piu_lora.attacks.registry import (
    ATTACKS,
    Attack,
    Outcome,
    attack,
    audit_section,
    find_attacks,
    run_attack,
    run_attacks,
)
from piu_lora.plugins import import_entry_points, import_folder

__all__ = [
    "ATTACKS",
    "Attack",
    "AttackContext",
    "AttackSettings",
    "AuditConfig",
    "Others",
    "Outcome",
    "ProbedIdentity",
    "attack",
    "audit_section",
    "choose_control",
    "find_attacks",
    "made_up_identity",
    "random_change",
    "run_attack",
    "run_attacks",
]

import_folder(__name__, __path__)
import_entry_points("piu_lora.attacks")
