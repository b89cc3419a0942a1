"""What contenders make of the base: run once for those that differ in strength only."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from piu_lora.adapter import Change, mounted
from piu_lora.errors import BadInput
from piu_lora.jobs.arena.contender import UNTOUCHED, Contender, differentiable_of
from piu_lora.jobs.arena.difference import changed_tensors, copied, with_difference
from piu_lora.jobs.request.request import ErasureRequest
from piu_lora.jobs.request.session import Session
from piu_lora.jobs.training.cost import measure_cost
from piu_lora.jobs.training.trial import made_trial
from piu_lora.unlearn import METHODS
from piu_lora.unlearn.baselines import BaselineProblem, Snapshots, find_baseline
from piu_lora.unlearn.dial import STEPS

__all__ = ["Made", "Maker"]


@dataclass(frozen=True)
class Made:
    """A finished change of the base, at a weight of 1.

    Attributes:
        seconds, peak_bytes: of making it.
        stored_bytes: of the weights that must be kept.
        facts: what the method says of it.
        change: an adapter's; None for a baseline.
        component: of the pipeline, which a baseline changed.
        difference: of that component's tensors; what the base does not have, whole.
    """

    seconds: float = 0.0
    peak_bytes: int | None = None
    stored_bytes: int = 0
    facts: Mapping[str, Any] | None = None
    change: Change | None = None
    component: str = ""
    difference: Mapping[str, torch.Tensor] | None = None


class Maker:
    """Runs contenders on one request.

    Args:
        sweep: whether the dials are swept: a training whose dial is its length is then run once, and the
            shorter ones are its snapshots.
    """

    def __init__(self, session: Session, request: ErasureRequest, *, sweep: bool = False) -> None:
        self._session, self._request, self._sweep = session, request, sweep
        self._key, self._made = "", dict[int, Made]()  # of the contender that ran last, by steps

    def make(self, contender: Contender) -> Made:
        """Run it, unless what it makes is at hand.

        Raises:
            BadInput: several people are to be forgotten by a baseline.
        """
        if contender.method == UNTOUCHED:
            return Made()
        if contender.method in METHODS:
            return self._kept(repr(contender.plain), {0: lambda: self._own(contender)})[0]
        return self._baseline(contender)

    @contextmanager
    def carried(self, contender: Contender) -> Iterator[StableDiffusionPipeline]:
        """A pipeline that carries what a contender makes; the session's own is bare afterwards."""
        made, pipe = self.make(contender), self._session.pipe
        if made.change is not None:
            with mounted(pipe, _weighed(made.change, contender.weight)):
                yield pipe
        elif made.difference is not None:
            yield with_difference(pipe, made.component, made.difference, contender.weight)
        else:
            yield pipe

    def _kept(self, key: str, run: Mapping[int, Callable[[], Made]]) -> dict[int, Made]:
        if key != self._key:
            self._key, self._made = "", {}  # frees the last one first
            self._made = {steps: make() for steps, make in run.items()}
            self._key = key
        return self._made

    def _own(self, contender: Contender) -> Made:
        config = contender.config(self._request.config, self._session.family)
        trial = made_trial(self._session, replace(self._request, config=config))
        return Made(trial.cost.seconds, trial.cost.peak_bytes, trial.stored_bytes, trial.facts, trial.change)

    def _baseline(self, contender: Contender) -> Made:
        family = self._session.family
        settings = contender.baseline_settings(family)
        usual = find_baseline(contender.method).settings_for(family).to_dict()
        values, dial = settings.to_dict(), contender.dial
        steps = values.get(STEPS, 0)
        snapshots: set[int] = set()
        if self._sweep and dial is not None and dial.setting == STEPS and steps <= usual[STEPS]:
            longest = settings.updated({STEPS: usual[STEPS]})
            snapshots = {int(pair.partition("=")[2]) for pair in dial.pairs(longest)}
            if steps in snapshots | {usual[STEPS]}:
                settings, values = longest, longest.to_dict()
        key = json.dumps([contender.method, values], default=str)
        if key != self._key or steps not in self._made:
            self._key, self._made = "", {}
            self._made = self._run(contender, settings, snapshots)
            self._key = key
        return self._made[steps]

    def _run(self, contender: Contender, settings: Any, snapshots: set[int]) -> dict[int, Made]:
        baseline, bare = find_baseline(contender.method), self._session.pipe
        pipe, made, begun = copied(bare, baseline.component), dict[int, Made](), time.perf_counter()
        before = getattr(bare, baseline.component).state_dict()

        def finished(seconds: float, peak: int | None = None) -> Made:
            difference = changed_tensors(before, getattr(pipe, baseline.component).state_dict())
            stored = 4 * sum(tensor.numel() for tensor in difference.values())
            return Made(seconds, peak, stored, {}, component=baseline.component, difference=difference)

        def take(done: int) -> None:
            made[done] = finished(time.perf_counter() - begun)

        problem = self._problem(Snapshots(frozenset(snapshots), take) if snapshots else None)
        with measure_cost(bare.device) as cost:
            baseline.run(pipe, problem, settings, self._request.config.seed)
        made[settings.to_dict().get(STEPS, 0)] = finished(cost.seconds, cost.peak_bytes)
        return made

    def _problem(self, snapshots: Snapshots | None) -> BaselineProblem:
        problem, bank = self._request.problem, self._request.bank
        if len(problem.targets) != 1:
            raise BadInput("the baselines forget one person at a time")
        differentiable = differentiable_of(self._session.family)
        recognise = differentiable(self._session.pipe.device) if differentiable else None
        target = problem.targets[0]
        return BaselineProblem(
            target.forget,
            target.anchor,
            problem.retain[torch.arange(len(problem.retain))],
            bank.centroids[list(self._request.retained.train)],
            recognise,
            snapshots=snapshots,
        )


def _weighed(change: Change, weight: float) -> Change:
    if weight == 1:
        return change
    return {module: replace(factors, up=factors.up * weight) for module, factors in change.items()}
