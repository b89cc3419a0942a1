"""How to forget: objectives, and the loop that minimises them. Importing the room fills the registry."""

from piu_lora.unlearn import distil as _distil  # noqa: F401  (likewise)
from piu_lora.unlearn import piu as _piu  # noqa: F401  (registers itself)
from piu_lora.unlearn.closed import methods as _closed  # noqa: F401  (likewise)
from piu_lora.unlearn.closed.methods import statistics_modules
from piu_lora.unlearn.loop import TrainState, train
from piu_lora.unlearn.registry import METHODS, Ground, Method, Objective, Problem, Solution, Student, Target, find_method
from piu_lora.unlearn.stopping import training_facts
from piu_lora.unlearn.workers import Alone, Workers

__all__ = [
    "METHODS",
    "Alone",
    "Ground",
    "Method",
    "Objective",
    "Problem",
    "Solution",
    "Student",
    "Target",
    "TrainState",
    "Workers",
    "find_method",
    "statistics_modules",
    "train",
    "training_facts",
]
