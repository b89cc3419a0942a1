"""One round of the arena: one person, one seed, any method, scored alike."""

import copy
import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from piu_lora.adapter import OutputFolder, mounted
from piu_lora.config import METHOD_PRESETS, ForgetConfig
from piu_lora.errors import BadInput
from piu_lora.evidence import Cell, Gallery, Plan, evaluate_images
from piu_lora.evidence.plan import GROUPS
from piu_lora.jobs.case import Case
from piu_lora.jobs.measured import measured
from piu_lora.jobs.scoring import anchor_portraits, galleries_for, plan_for
from piu_lora.jobs.solution import make_change
from piu_lora.model import describe, generate
from piu_lora.progress import silent
from piu_lora.unlearn import METHODS, Alone, find_method
from piu_lora.unlearn.rivals import MINI, RIVALS, RivalProblem, find_rival

__all__ = ["SHARED", "UNTOUCHED", "Contender", "Round", "known_methods"]

UNTOUCHED = "untouched"
SHARED = ("seed", "faces", "split", "anchor", "evaluation")  # settings that are the arena's; all others are a method's own
FAR = 1e-3  # at which images of the forgotten person are verified


def known_methods() -> list[str]:
    """Everything that can enter the arena."""
    return [UNTOUCHED, *METHODS, *RIVALS]


@dataclass(frozen=True)
class Contender:
    """A method with the settings that are varied; ``name`` is what tables call it."""

    method: str
    pairs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The method, and ``key=value`` of what is varied."""
        return " ".join([self.method, *self.pairs])

    def config(self, shared: ForgetConfig, family: str) -> ForgetConfig:
        """The method's own defaults; split, anchors, evaluation and seed are the arena's."""
        own = ForgetConfig.preset(family, self.method if self.method in METHOD_PRESETS else "piu")
        same = {name: getattr(shared, name) for name in SHARED}
        return dataclasses.replace(own, method=self.method, **same).updated_from_pairs(self.pairs)


class Round:
    """What all methods share for one person and one seed: the request, the pictures before, the galleries."""

    def __init__(self, pipe: StableDiffusionPipeline, case: Case) -> None:
        self.pipe, self.case, self.family = pipe, case, describe(pipe).family
        self.galleries: list[Gallery] = galleries_for(self.family, case, anchor_portraits(pipe, case))
        if not self.galleries:
            raise BadInput("no face pack is at hand, so nothing can be scored; pass --pack DIR (`piu-lora bank models` makes one)")
        self.thresholds = {gallery.name: gallery.threshold(FAR) for gallery in self.galleries}
        self.plan: Plan = plan_for(case, self.galleries[0].centroids)
        self.before = self._pictures(pipe)

    def _pictures(self, pipe: StableDiffusionPipeline) -> torch.Tensor:
        sampling = self.case.config.evaluation
        return generate(pipe, self.plan.embeddings, self.plan.seeds, steps=sampling.steps, guidance=sampling.guidance, batch=sampling.batch)

    def play(self, contender: Contender, person: int) -> Cell:
        """Run a method and score it.

        Args:
            person: the place that stands for the person in the cell.

        Raises:
            BadInput: an unknown method, or settings that it does not know.
        """
        if contender.method == UNTOUCHED:
            after, made = self.before, _Made(0.0, None, 0, {})
        elif contender.method in RIVALS:
            after, made = self._rival(contender)
        else:
            after, made = self._own(contender)
        return Cell(
            contender.name, person, self.case.config.seed, round(made.seconds, 3), made.peak, made.stored, self._figures(after), made.facts
        )

    def _own(self, contender: Contender) -> tuple[torch.Tensor, "_Made"]:
        method, config = find_method(contender.method), contender.config(self.case.config, self.family)
        case = dataclasses.replace(self.case, config=config)
        with tempfile.TemporaryDirectory() as folder, measured() as cost:
            solution, _ = make_change(self.pipe, method, case, OutputFolder(Path(folder) / "out"), None, Alone(), silent)
        stored = {module: factors.to(torch.float16).to(torch.float32) for module, factors in solution.change.items()}
        with mounted(self.pipe, stored):
            after = self._pictures(self.pipe)
        size = 2 * sum(factors.down.numel() + factors.up.numel() for factors in stored.values())
        return after, _Made(cost.seconds, cost.peak_bytes, size, solution.facts)

    def _rival(self, contender: Contender) -> tuple[torch.Tensor, "_Made"]:
        rival, pipe = find_rival(contender.method), copy.copy(self.pipe)
        pipe.unet = copy.deepcopy(self.pipe.unet)
        settings = MINI[rival.name] if self.family == "mini" else rival.settings()
        settings = _varied(settings, contender.pairs)
        with measured() as cost:
            rival.run(pipe, self._rival_problem(), settings, self.case.config.seed)
        after = self._pictures(pipe)
        changed = [
            own.numel() for own, base in zip(pipe.unet.parameters(), self.pipe.unet.parameters(), strict=True) if not torch.equal(own, base)
        ]
        return after, _Made(cost.seconds, cost.peak_bytes, 4 * sum(changed), {"settings": dataclasses.asdict(settings)})

    def _rival_problem(self) -> RivalProblem:
        problem, bank = self.case.problem, self.case.bank
        if len(problem.targets) != 1:
            raise BadInput("the rivals forget one person at a time")
        recognise = None
        if self.family == "mini":
            from piu_lora.model.mini.differentiable import differentiable_recognizer

            recognise = differentiable_recognizer(self.pipe.device)
        target = problem.targets[0]
        everybody = problem.retain[torch.arange(len(problem.retain))]
        return RivalProblem(target.forget, target.anchor, everybody, bank.centroids[list(self.case.retained.train)], recognise)

    def _figures(self, after: torch.Tensor) -> dict[str, dict[str, float | None]]:
        figures = evaluate_images(self.plan, self.before, after, self.galleries).figures
        places = self.plan.rows_of("forget")
        rows = [self.plan.shots[place].row for place in places]
        judged: dict[str, dict[str, float | None]] = {}
        for gallery in self.galleries:
            scores = figures[gallery.name]
            cosines = (gallery.embed(after[places]) * gallery.centroids[rows]).sum(dim=1)
            judged[gallery.name] = {
                **{group: scores["ism"][group]["ratio"] for group in GROUPS},
                "recognised": scores["recognised"]["forget"]["after"]["mean"],
                "verified": float((cosines >= self.thresholds[gallery.name]).float().mean()),
                "no_face": scores["no_face"]["forget"]["after"] / len(places),
            }
        return judged


def _varied(settings: Any, pairs: Sequence[str]) -> Any:
    """A rival's settings with ``key=value`` pairs laid over them."""
    for pair in pairs:
        key, _, text = pair.partition("=")
        known = {field.name: field for field in dataclasses.fields(settings)}
        if key not in known or not isinstance(getattr(settings, key), int | float):
            raise BadInput(f"{pair!r} varies no setting of this rival; known: {', '.join(known)}")
        try:
            settings = dataclasses.replace(settings, **{key: type(getattr(settings, key))(text)})
        except ValueError as error:
            raise BadInput(f"{pair!r} is no number: {error}") from error
    return settings


@dataclass
class _Made:
    seconds: float
    peak: int | None
    stored: int
    facts: dict[str, Any]
