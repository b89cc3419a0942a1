"""How to forget: objectives, and the loop that minimises them. Importing the room fills the registry."""

from piu_lora.unlearn import distil as _distil
from piu_lora.unlearn import piu as _piu
from piu_lora.unlearn.closed import methods as _closed
from piu_lora.unlearn.closed.methods import statistics_modules
from piu_lora.unlearn.loop import TrainHooks, TrainState, train
from piu_lora.unlearn.registry import (
    METHODS,
    Method,
    Objective,
    Problem,
    Solution,
    SolveContext,
    TargetIdentity,
    TrainedModel,
    find_method,
)
from piu_lora.unlearn.stopping import training_facts
from piu_lora.unlearn.workers import SingleProcess, Workers

__all__ = [
    "METHODS",
    "Method",
    "Objective",
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
]
