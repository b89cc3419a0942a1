"""Rival methods of forgetting, as dense edits of the UNet, for comparisons. Importing the room fills the registry."""

from piu_lora.unlearn.rivals.esd import EsdSettings
from piu_lora.unlearn.rivals.pictures import Rendering
from piu_lora.unlearn.rivals.piu_dense import PiuDenseSettings
from piu_lora.unlearn.rivals.registry import MINI, RIVALS, Rival, RivalProblem, find_rival, rival
from piu_lora.unlearn.rivals.siss import SissSettings
from piu_lora.unlearn.rivals.uce import UceSettings
from piu_lora.unlearn.rivals.wid import WidSettings

__all__ = [
    "MINI",
    "RIVALS",
    "EsdSettings",
    "PiuDenseSettings",
    "Rendering",
    "Rival",
    "RivalProblem",
    "SissSettings",
    "UceSettings",
    "WidSettings",
    "find_rival",
    "rival",
]
