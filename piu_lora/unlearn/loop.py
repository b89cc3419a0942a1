"""The training loop: it minimises an objective and knows no method, no file, no hub and no screen."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from piu_lora.config import TrainConfig
from piu_lora.errors import TrainingFailed
from piu_lora.unlearn.registry import Objective

__all__ = ["TrainState", "learning_rate", "train"]


@dataclass
class TrainState:
    """Everything that a resumed run needs to go on bit-identically; plain values and tensors only."""

    step: int = 0
    parameters: list[torch.Tensor] = field(default_factory=list)
    optimizer: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up over ``warmup`` steps (a quarter of a run too short for it), then constant, or half a cosine to zero."""
    warmup = min(config.warmup, config.steps // 4)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    if config.schedule == "constant":
        return config.lr
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (config.steps - warmup)))


def train(
    objective: Objective[Any],
    parameters: Sequence[torch.nn.Parameter],
    config: TrainConfig,
    seed: int,
    *,
    state: TrainState | None = None,
    on_step: Callable[[int, dict[str, float]], None] = lambda step, terms: None,
    on_checkpoint: Callable[[TrainState], None] = lambda state: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[dict[str, float]]:
    """Minimise ``objective`` over ``parameters`` with AdamW.

    Each step draws its ``batch x accumulation`` samples from a generator seeded by (seed, step) alone, so one micro-batch
    of 8 sees what 8 of 1 see, and a resumed run goes on as if it had never stopped.

    Args:
        state: where an interrupted run stopped.
        on_step: told the step and the terms of its loss.
        on_checkpoint: given the state every ``checkpoint_every`` steps, and when the run is interrupted.
        should_stop: asked after every step; true stops the run between two steps, where its state is whole.

    Returns:
        The terms of every step.

    Raises:
        TrainingFailed: the loss is no longer finite.
        KeyboardInterrupt: ``should_stop`` said so; the state went to ``on_checkpoint``.
    """
    optimizer = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)
    state = state or TrainState()
    if state.step:
        _restore(state, parameters, optimizer)
    history = list(state.history)
    for step in range(state.step, config.steps):
        terms = _step(objective, parameters, optimizer, config, _generator(seed, step), step)
        history.append(terms)
        on_step(step, terms)
        stop = should_stop()
        if stop or (step + 1) % config.checkpoint_every == 0:
            on_checkpoint(_snapshot(step + 1, parameters, optimizer, history))
        if stop:
            raise KeyboardInterrupt
    return history


def _step(
    objective: Objective[Any], parameters: Sequence[torch.nn.Parameter], optimizer: torch.optim.Optimizer, config: TrainConfig,
    generator: torch.Generator, step: int,
) -> dict[str, float]:  # fmt: skip
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, config)
    optimizer.zero_grad(set_to_none=True)
    draw = objective.draw(config.batch * config.accumulation, generator)
    totals: dict[str, float] = {}
    for start in range(0, config.batch * config.accumulation, config.batch):
        loss, terms = objective.loss(draw[start : start + config.batch])
        (loss / config.accumulation).backward()
        for name, value in terms.items():
            totals[name] = totals.get(name, 0.0) + value / config.accumulation
    if not all(math.isfinite(value) for value in totals.values()):
        raise TrainingFailed(
            f"the loss is {totals} at step {step + 1}; nothing was written. Lower --set train.lr={config.lr} or set train.clip=1"
        )
    if config.clip > 0:
        torch.nn.utils.clip_grad_norm_(parameters, config.clip)
    optimizer.step()
    return totals


def _generator(seed: int, step: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def _snapshot(
    step: int, parameters: Sequence[torch.nn.Parameter], optimizer: torch.optim.Optimizer, history: list[dict[str, float]]
) -> TrainState:
    return TrainState(step, [p.detach().cpu().clone() for p in parameters], copy.deepcopy(optimizer.state_dict()), list(history))


def _restore(state: TrainState, parameters: Sequence[torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    with torch.no_grad():
        for parameter, saved in zip(parameters, state.parameters, strict=True):
            parameter.copy_(saved)
    optimizer.load_state_dict(state.optimizer)
