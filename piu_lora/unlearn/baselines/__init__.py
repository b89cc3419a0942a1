"""Baselines: other methods of forgetting, as dense edits of the UNet, for comparisons. Importing the room
fills the registry.
"""

from piu_lora.plugins import import_entry_points, import_folder
from piu_lora.unlearn.baselines.esd import EsdSettings
from piu_lora.unlearn.baselines.inserts import insert_stored
from piu_lora.unlearn.baselines.pictures import Rendering
from piu_lora.unlearn.baselines.piu_dense import PiuDenseSettings
from piu_lora.unlearn.baselines.registry import (
    BASELINES,
    Baseline,
    BaselineProblem,
    Form,
    Snapshots,
    baseline,
    find_baseline,
)
from piu_lora.unlearn.baselines.siss import SissSettings
from piu_lora.unlearn.baselines.uce import UceSettings
from piu_lora.unlearn.baselines.wid import WidSettings

__all__ = [
    "BASELINES",
    "Baseline",
    "BaselineProblem",
    "EsdSettings",
    "Form",
    "PiuDenseSettings",
    "Rendering",
    "SissSettings",
    "Snapshots",
    "UceSettings",
    "WidSettings",
    "baseline",
    "find_baseline",
    "insert_stored",
]

import_folder(__name__, __path__)
import_entry_points("piu_lora.baselines")
