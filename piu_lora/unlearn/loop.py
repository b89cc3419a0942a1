"""The training loop: it minimises an objective and knows no method, no file, no hub and no screen."""

import copy
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from piu_lora.config import TrainConfig
from piu_lora.errors import BadInput, TrainingFailed
from piu_lora.unlearn.micro_batch import MicroBatch
from piu_lora.unlearn.registry import Objective, TracksProgress
from piu_lora.unlearn.stopping import PROGRESS, cooling, first_look, is_due, last_step, moves
from piu_lora.unlearn.workers import SingleProcess, Workers

__all__ = ["TrainHooks", "TrainState", "learning_rate", "train"]

_log = logging.getLogger("piu_lora")


@dataclass
class TrainState:
    """Everything that a resumed run needs to go on bit-identically; plain values and tensors only."""

    step: int = 0
    parameters: list[torch.Tensor] = field(default_factory=list)
    optimizer: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    scaler: dict[str, Any] = field(default_factory=dict)  # of fp16's loss, and how many steps it left out


@dataclass(frozen=True)
class TrainHooks:
    """What the caller of the loop does between steps.

    Attributes:
        on_step: told the step and the terms of its loss.
        on_checkpoint: given the state every ``checkpoint_every`` steps, and when the run is interrupted.
        should_stop: asked after every step; true stops the run between two steps, where its state is whole.
    """

    on_step: Callable[[int, dict[str, float]], None] = lambda step, terms: None
    on_checkpoint: Callable[[TrainState], None] = lambda state: None
    should_stop: Callable[[], bool] = lambda: False


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up over ``warmup`` steps (a quarter of a run too short for it), then constant, or half a
    cosine to zero.
    """
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
    workers: Workers = SingleProcess(),  # noqa: B008
    hooks: TrainHooks = TrainHooks(),
) -> list[dict[str, float]]:
    """Minimise ``objective`` over ``parameters`` with AdamW.

    Each step draws its ``batch x accumulation`` samples from a generator seeded by (seed, step) alone, so
    neither the micro-batch nor the number of processes changes what a step sees, and a resumed run goes on as
    if it had never stopped. With ``config.stop_at`` an objective that is ``TracksProgress`` is asked every
    few steps how far it has come; the answers stand in the history (``progress``), which is all that stopping
    needs to know. Early on it is asked once in any case, and a run that hardly moves is warned of.

    Args:
        state: where an interrupted run stopped.
        workers: the processes that share each step's samples; their gradients and losses are added up.
        hooks: what the caller does between steps.

    Returns:
        The terms of every step.

    Raises:
        BadInput: there are more processes than samples in a step, or nothing to stop early by.
        TrainingFailed: the loss is no longer finite, fp16 overflows whatever its scale, or not even one
            sample fits into memory.
        KeyboardInterrupt: ``should_stop`` said so; the state went to ``on_checkpoint``.
    """
    _check_shares(config, workers)
    if config.stop_at and not isinstance(objective, TracksProgress):
        raise BadInput(f"train.stop_at = {config.stop_at}: this method has no figure to stop at; set it to 0")
    optimizer = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)
    scaler = torch.amp.GradScaler(parameters[0].device.type, enabled=config.precision == "fp16")
    run = _Run(
        objective,
        parameters,
        config,
        workers,
        optimizer,
        scaler,
        MicroBatch(config.micro_batch, config.batch),
    )
    state = state or TrainState()
    if state.step:
        run.restore(state)
    history = list(state.history)
    while len(history) < last_step(history, config):
        step = len(history)
        terms = run.step(_generator(seed, step), step, cooling(history, config))
        history.append(terms)
        if is_due(step + 1, history, config):
            terms[PROGRESS] = run.progress(_generator(seed, -1))
        if step + 1 == first_look(config) and isinstance(objective, TracksProgress):
            figure = terms.get(PROGRESS)
            said = moves(run.progress(_generator(seed, -1)) if figure is None else figure, config)
            if said and workers.rank == 0:
                _log.warning("%s", said)
        hooks.on_step(step, terms)
        stop = workers.any(hooks.should_stop())
        if stop or (step + 1) % config.checkpoint_every == 0:
            hooks.on_checkpoint(run.snapshot(step + 1, history))
        if stop:
            raise KeyboardInterrupt
    if run.skipped:
        _log.warning(
            "fp16: the gradients of %d of %d steps overflowed, and those steps were left out",
            run.skipped,
            len(history),
        )
    return history


def _check_shares(config: TrainConfig, workers: Workers) -> None:
    total = config.batch * config.accumulation
    if total < workers.count:
        raise BadInput(
            f"train.batch = {config.batch} x train.accumulation = {config.accumulation} gives {total} "
            "samples a step for "
            f"{workers.count} processes; raise train.batch or start fewer processes"
        )


@dataclass
class _Run:
    """What stays the same from step to step."""

    objective: Objective[Any]
    parameters: Sequence[torch.nn.Parameter]
    config: TrainConfig
    workers: Workers
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    micro_batch: MicroBatch
    skipped: int = 0  # steps left out because fp16 overflowed

    def step(self, generator: torch.Generator, step: int, scale: float = 1.0) -> dict[str, float]:
        """One step of the optimiser over all samples of the step; returns the mean terms of the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, self.config) * scale
        total = self.config.batch * self.config.accumulation
        draw = self.objective.draw(total, generator)
        share = self._share(total)
        count = share.stop - share.start
        terms = self.micro_batch.fit(lambda size: self._gradients(draw[share], count, total, size))
        terms = self._together(terms)
        if not all(math.isfinite(value) for value in terms.values()):
            raise TrainingFailed(
                f"the loss is {terms} at step {step + 1}; nothing was written. Pass a lower train.lr=... "
                f"(it is {self.config.lr}), or train.clip=1"
            )
        self.scaler.unscale_(self.optimizer)
        if self.config.clip > 0:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip)
        self._update(step)
        return terms

    def progress(self, generator: torch.Generator) -> float:
        """How far the forgotten people have come, over all samples of the check; the same answer in every
        process.
        """
        objective: Any = self.objective
        draw, share = (
            objective.check_draw(self.config.check_samples, generator),
            self._share(self.config.check_samples),
        )

        def sums(size: int) -> torch.Tensor:
            total = torch.zeros(2, dtype=torch.float64)
            for start in range(share.start, share.stop, size):
                total += torch.tensor(
                    objective.progress_terms(draw[start : min(start + size, share.stop)]), dtype=torch.float64
                )
            return total

        total = self.micro_batch.fit(sums)
        self.workers.sum([total])
        covered, way = total.tolist()
        return covered / way if way else 0.0

    def _share(self, total: int) -> slice:
        """This process's samples of ``total``."""
        return slice(
            *(total * rank // self.workers.count for rank in (self.workers.rank, self.workers.rank + 1))
        )

    def _update(self, step: int) -> None:
        """Move the parameters; in fp16, leave out a step whose gradients overflow, and scale the loss less
        from then on.
        """
        before = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        # A lower scale is the only sign that GradScaler gives of a step left out.
        if self.scaler.get_scale() < before:
            self.skipped += 1
            if before <= 1:
                raise TrainingFailed(
                    f"fp16 overflows at step {step + 1} with no scaling left; nothing was written. Pass "
                    "train.precision=bf16 or fp32"
                )

    def _gradients(self, draw: Any, count: int, total: int, size: int) -> dict[str, float]:
        """Add up the gradients of ``count`` samples, ``size`` at a time, each weighted by 1 / ``total``."""
        self.optimizer.zero_grad(set_to_none=True)
        totals: dict[str, float] = {}
        for start in range(0, count, size):
            share = min(size, count - start) / total
            loss, terms = self.objective.loss(draw[start : min(start + size, count)])
            self.scaler.scale(loss * share).backward()
            for name, value in terms.items():
                totals[name] = totals.get(name, 0.0) + value * share
        return totals

    def _together(self, terms: dict[str, float]) -> dict[str, float]:
        if self.workers.count == 1:
            return terms
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        names = sorted(terms)
        values = torch.tensor([terms[name] for name in names], dtype=torch.float64)
        self.workers.sum([parameter.grad for parameter in self.parameters if parameter.grad is not None])
        self.workers.sum([values])
        return dict(zip(names, values.tolist(), strict=True))

    def snapshot(self, step: int, history: list[dict[str, float]]) -> TrainState:
        """The state after ``step`` steps, on the CPU."""
        weights = [parameter.detach().cpu().clone() for parameter in self.parameters]
        return TrainState(
            step, weights, copy.deepcopy(self.optimizer.state_dict()), list(history), self._scaler_state()
        )

    def _scaler_state(self) -> dict[str, Any]:
        return {**self.scaler.state_dict(), "skipped": self.skipped} if self.scaler.is_enabled() else {}

    def restore(self, state: TrainState) -> None:
        """Go back to a snapshot."""
        with torch.no_grad():
            for parameter, saved in zip(self.parameters, state.parameters, strict=True):
                parameter.copy_(saved)
        self.optimizer.load_state_dict(state.optimizer)
        if state.scaler:
            self.scaler.load_state_dict(state.scaler)
            self.skipped = state.scaler["skipped"]


def _generator(seed: int, step: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 1_000_003 + step)
