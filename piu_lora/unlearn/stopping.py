"""When training may end early: by a figure measured every few steps, and with a cool-down of the learning
rate.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from piu_lora.config import TrainConfig

__all__ = [
    "PROGRESS",
    "cooling",
    "first_look",
    "is_due",
    "last_step",
    "moves",
    "progress_terms",
    "said_stop",
    "training_facts",
]

PROGRESS = "progress"  # the figure's name among the terms of the step after which it was measured
# Of a run too short to be watched, the latest first look, and the share of the way that must be behind it: on
# the embedded base piu has gone 0.21 then, and 0.006 at 0.03 of its rate.
_SHORT, _LATEST, _LEAST = 50, 40, 0.03
History = Sequence[Mapping[str, float]]


def progress_terms(now: torch.Tensor, before: torch.Tensor, target: torch.Tensor) -> tuple[float, float]:
    """``<now - before, target - before>`` and ``|target - before|^2``; their ratio is 0 where nothing moved,
    and 1 at the target.

    Args:
        now, before, target: what the student and the teacher make of the forgotten condition, and what is
            wanted; of one shape.
    """
    way = (target - before).cpu().double()
    return float(((now - before).cpu().double() * way).sum()), float(way.square().sum())


def said_stop(history: History, config: TrainConfig) -> int | None:
    """After how many steps the figure reached ``stop_at``, or had not risen for ``patience`` checks; None
    where it did not yet.
    """
    best, waited = float("-inf"), 0
    for step, terms in enumerate(history, 1):
        if PROGRESS not in terms:
            continue
        figure = terms[PROGRESS]
        best, waited = (figure, 0) if figure > best else (best, waited + 1)
        if figure >= config.stop_at or waited >= config.patience:
            return step
    return None


def last_step(history: History, config: TrainConfig) -> int:
    """After how many steps training ends, as far as can be told by now."""
    if config.stop_at == 0:
        return config.steps
    stopped = said_stop(history, config)
    return config.steps if stopped is None else min(stopped + config.cooldown, config.steps)


def is_due(done: int, history: History, config: TrainConfig) -> bool:
    """Whether the figure is measured after ``done`` steps, whose terms are ``history``: every few until it
    says stop, and the last.
    """
    if config.stop_at == 0:
        return False
    return done == last_step(history, config) or (
        said_stop(history, config) is None and done % config.check_every == 0
    )


def cooling(history: History, config: TrainConfig) -> float:
    """What the next step's learning rate is multiplied by: 1, or a line from 1 to 0 over the steps that are
    left after the stop.

    A rate that is still high leaves weights that scatter about their optimum; the schedule's own decay comes
    too late then.
    """
    stopped = said_stop(history, config) if config.stop_at else None
    if stopped is None:
        return 1.0
    return 1 - (len(history) - stopped + 1) / (config.cooldown + 1)


def training_facts(history: History, config: TrainConfig) -> dict[str, Any]:
    """For the receipt: after how many steps training ended, when the figure said so, and how high it came;
    nothing without ``stop_at``.
    """
    if config.stop_at == 0:
        return {}
    return {
        "steps": len(history),
        "stopped": said_stop(history, config),
        "progress": round(history[-1][PROGRESS], 4),
    }


def first_look(config: TrainConfig) -> int:
    """After how many steps a run is looked at for whether it moves at all; 0: never, it is too short.

    After a tenth of its steps, the warm-up behind it, but within the first minute on a GPU.
    """
    if config.steps < _SHORT:
        return 0
    return min(max(config.steps // 10, config.warmup + 5), _LATEST)


def moves(figure: float, config: TrainConfig) -> str:
    """What to say of a run whose prediction has gone ``figure`` of the way at the first look; empty where it
    moves.
    """
    if figure >= _LEAST:
        return ""
    return (
        f"after {first_look(config)} of {config.steps} steps the forgotten person's prediction has gone "
        f"{max(figure, 0):.2%} of the way to its target: this run hardly moves. Raise train.lr (it is "
        f"{config.lr:g}; a LoRA wants about ten times the rate of dense weights); `piu-lora tune` finds one"
    )
