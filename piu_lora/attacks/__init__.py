"""Attacks on an adapter: can the forgotten person be brought back? Importing the room fills the registry."""

from piu_lora.attacks import bypass as _bypass  # noqa: F401  (registers itself, as the others do)
from piu_lora.attacks import cone as _cone  # noqa: F401
from piu_lora.attacks import inversion as _inversion  # noqa: F401
from piu_lora.attacks import poster as _poster  # noqa: F401
from piu_lora.attacks import relearn as _relearn  # noqa: F401
from piu_lora.attacks.config import AuditConfig
from piu_lora.attacks.control import choose_control, made_up_identity, random_change
from piu_lora.attacks.registry import ATTACKS, Attack, Outcome, attack, find_attacks, run_attacks
from piu_lora.attacks.scene import Others, Scene, Someone

__all__ = [
    "ATTACKS",
    "Attack",
    "AuditConfig",
    "Others",
    "Outcome",
    "Scene",
    "Someone",
    "attack",
    "choose_control",
    "find_attacks",
    "made_up_identity",
    "random_change",
    "run_attacks",
]
