"""What can go wrong, by what the caller can do about it. Every message quotes the bad value and names the
next step.
"""

__all__ = ["BadInput", "Busy", "EnvironmentProblem", "Incompatible", "PiuLoraError", "TrainingFailed"]


class PiuLoraError(Exception):
    """Base of every error that piu_lora raises on purpose; ``exit_code`` is what the command line returns."""

    exit_code = 2


class BadInput(PiuLoraError, ValueError):
    """An argument, a file or a setting is wrong."""


class Incompatible(BadInput):
    """Two things do not belong together: an adapter and a base, a bank and a recognizer."""


class TrainingFailed(PiuLoraError, RuntimeError):
    """The optimisation diverged; nothing was written."""

    exit_code = 1


class EnvironmentProblem(PiuLoraError, OSError):
    """The machine lacks something: a model, room on the disk, the network."""

    exit_code = 3


class Busy(EnvironmentProblem):
    """Another run holds the output folder."""
