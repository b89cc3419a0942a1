"""Attacks on an adapter: can the forgotten person be brought back? Importing the room fills the registry."""

from piu_lora.attacks import bypass as _bypass
from piu_lora.attacks import cone as _cone
from piu_lora.attacks import inversion as _inversion
from piu_lora.attacks import reidentify as _reidentify
from piu_lora.attacks import relearn as _relearn
from piu_lora.attacks.config import AuditConfig
from piu_lora.attacks.context import AttackContext, Others, ProbedIdentity
from piu_lora.attacks.control import choose_control, made_up_identity, random_change
from piu_lora.attacks.registry import ATTACKS, Attack, Outcome, attack, find_attacks, run_attacks

__all__ = [
    "ATTACKS",
    "Attack",
    "AttackContext",
    "AuditConfig",
    "Others",
    "Outcome",
    "ProbedIdentity",
    "attack",
    "choose_control",
    "find_attacks",
    "made_up_identity",
    "random_change",
    "run_attacks",
]
