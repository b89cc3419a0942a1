"""How to forget: objectives, and the loop that minimises them. Importing the room fills the registry."""

from piu_lora.unlearn import piu as _piu  # noqa: F401  (registers itself)
from piu_lora.unlearn.loop import TrainState, train
from piu_lora.unlearn.registry import METHODS, Objective, Problem, Student, find_method
from piu_lora.unlearn.workers import Alone, Workers

__all__ = ["METHODS", "Alone", "Objective", "Problem", "Student", "TrainState", "Workers", "find_method", "train"]
