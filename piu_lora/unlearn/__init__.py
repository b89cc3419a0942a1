"""How to forget: objectives, and the loop that minimises them. Importing the room fills the registry."""

from piu_lora.plugins import import_entry_points, import_folder
from piu_lora.unlearn.closed.methods import statistics_modules
from piu_lora.unlearn.closed.settings import ClosedConfig
from piu_lora.unlearn.distil import DistilConfig
from piu_lora.unlearn.gate.settings import GateConfig
from piu_lora.unlearn.loop import TrainHooks, TrainState, train
from piu_lora.unlearn.piu import ObjectiveConfig
from piu_lora.unlearn.registry import (
    METHODS,
    Measurement,
    Method,
    Objective,
    Problem,
    Solution,
    SolveContext,
    TargetIdentity,
    TrainedModel,
    find_method,
    unread_settings,
)
from piu_lora.unlearn.stopping import training_facts
from piu_lora.unlearn.workers import SingleProcess, Workers

__all__ = [
    "METHODS",
    "ClosedConfig",
    "DistilConfig",
    "GateConfig",
    "Measurement",
    "Method",
    "Objective",
    "ObjectiveConfig",
    "Problem",
    "SingleProcess",
    "Solution",
    "SolveContext",
    "TargetIdentity",
    "TrainHooks",
    "TrainState",
    "TrainedModel",
    "Workers",
    "find_method",
    "statistics_modules",
    "train",
    "training_facts",
    "unread_settings",
]

import_folder(__name__, __path__, skip=("baselines",))
import_entry_points("piu_lora.methods")
