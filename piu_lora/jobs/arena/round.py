"""One round of the arena: one person, one seed, any method, scored alike."""

import copy
import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput
from piu_lora.evidence import Cell, Gallery, Plan, evaluate_images
from piu_lora.groups import FORGET, GROUPS
from piu_lora.identity import Threshold
from piu_lora.jobs.evaluation.images import Sampling, generate_images
from piu_lora.jobs.evaluation.scoring import galleries_for, plan_for
from piu_lora.jobs.request.request import ErasureRequest
from piu_lora.jobs.request.session import Session
from piu_lora.jobs.training.cost import measure_cost
from piu_lora.jobs.training.trial import tried
from piu_lora.model import BaseFamily
from piu_lora.settings import Settings
from piu_lora.unlearn import METHODS
from piu_lora.unlearn.baselines import BASELINES, BaselineProblem, find_baseline

Recognise = Callable[[torch.Tensor], torch.Tensor]
__all__ = [
    "SHARED",
    "UNTOUCHED",
    "VARIED",
    "Contender",
    "Round",
    "known_methods",
    "run_baseline",
    "verified_share",
]

UNTOUCHED = "untouched"
# Settings that are the arena's; all others are a method's own.
SHARED = ("seed", "faces", "split", "anchor", "evaluation")
# Of these, what a contender may vary all the same: its request is then its own.
VARIED = ("split", "anchor")
FAR = 1e-3  # at which images of the forgotten person are verified


def known_methods(family: BaseFamily | None = None) -> list[str]:
    """Everything that can enter the arena: on a family of bases, or on any."""
    return [
        UNTOUCHED,
        *METHODS,
        *(
            name
            for name, baseline in BASELINES.items()
            if family is None or not baseline.needs_recognizer or _differentiable(family) is not None
        ),
    ]


def _differentiable(family: BaseFamily) -> Callable[[torch.device], Recognise] | None:
    """The recognizer with gradients that comes with a family of bases; None where none does."""
    return family.companions.differentiable if family.companions else None


@dataclass(frozen=True)
class Contender:
    """A method with the settings that are varied; ``name`` is what tables call it."""

    method: str
    pairs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The method, and ``key=value`` of what is varied."""
        return " ".join([self.method, *self.pairs])

    def config(self, shared: ForgetConfig, family: BaseFamily) -> ForgetConfig:
        """The method's own defaults, and what is varied; split, anchors, evaluation and seed are the arena's.

        Raises:
            BadInput: settings that do not exist, or that all contenders share.
        """
        preset = ForgetConfig.preset(family, self.method if self.method in METHODS else "piu")
        common = {name: getattr(shared, name) for name in SHARED}
        config = preset.updated({"method": self.method, **common}).updated_from_pairs(self.pairs)
        if config.decoys != preset.decoys:
            raise BadInput(f"{self.name!r} varies decoys, which no contender has")
        for name in SHARED:
            if name not in VARIED and getattr(config, name) != getattr(shared, name):
                raise BadInput(
                    f"{self.name!r} varies {name}, which all contenders share; "
                    "pass it among the `settings`, and another `out`"
                )
        return config

    def request_settings(self, shared: ForgetConfig, family: BaseFamily) -> ForgetConfig:
        """By which the request is made ready: the arena's, unless the contender varies them."""
        if self.method not in METHODS:
            return shared
        config = self.config(shared, family)
        return shared.updated({name: getattr(config, name) for name in VARIED})

    def settings(self, shared: ForgetConfig, family: BaseFamily) -> dict[str, Any]:
        """The method's own settings, ready for JSON.

        Raises:
            BadInput: settings that do not exist; a method that cannot run on such a base.
        """
        if self.method == UNTOUCHED:
            if self.pairs:
                raise BadInput(f"{self.name!r}: the untouched base has no settings")
            return {}
        if self.method in METHODS:
            config = self.config(shared, family).to_dict()
            values = {
                name: value for name, value in config.items() if name not in (*SHARED, "method", "decoys")
            }
        else:
            if self.method not in known_methods(family):
                raise BadInput(
                    f"{self.method} needs a differentiable recognizer, which only the embedded base has; "
                    "leave it out of `methods`"
                )
            values = self.rival_settings(family).to_dict()
        plain: dict[str, Any] = json.loads(json.dumps(values))
        return plain

    def rival_settings(self, family: BaseFamily) -> Settings:
        """Of a baseline: those of the family, or the official comparison's, and what is varied."""
        return find_baseline(self.method).settings_for(family).updated_from_pairs(self.pairs)


class Round:
    """What all methods share for one person and one seed: the request, the pictures before, the galleries."""

    def __init__(self, session: Session, request: ErasureRequest) -> None:
        self.session, self.request, self.family = session, request, session.family
        self.galleries: list[Gallery] = galleries_for(session, request)
        if not self.galleries:
            raise BadInput(
                "no face pack is at hand, so nothing can be scored; "
                "pass pack=DIR (`piu-lora bank models` makes one)"
            )
        self.plan: Plan = plan_for(request, self.galleries[0].centroids)
        self.before = self._pictures(session.pipe)

    def _pictures(self, pipe: StableDiffusionPipeline) -> torch.Tensor:
        sampling = Sampling.of(self.request.config.evaluation)
        return generate_images(pipe, self.plan.embeddings, self.plan.seeds, sampling)

    def play(self, contender: Contender, person: int) -> Cell:
        """Run a method and score it.

        Args:
            person: the place that stands for the person in the cell.

        Raises:
            BadInput: an unknown method, or settings that it does not know.
        """
        if contender.method == UNTOUCHED:
            after, product = self.before, _Product(0.0, None, 0, {})
        elif contender.method in BASELINES:
            after, product = self._baseline(contender)
        else:
            after, product = self._own(contender)
        return Cell(
            contender.name,
            person,
            self.request.config.seed,
            round(product.seconds, 3),
            product.peak,
            product.stored,
            self._figures(after),
            product.facts,
            contender.settings(self.request.config, self.family),
        )

    def _own(self, contender: Contender) -> tuple[torch.Tensor, "_Product"]:
        request = dataclasses.replace(self.request, config=contender.config(self.request.config, self.family))
        with tried(self.session, request) as trial:
            after = self._pictures(self.session.pipe)
        return after, _Product(trial.cost.seconds, trial.cost.peak_bytes, trial.stored_bytes, trial.facts)

    def _baseline(self, contender: Contender) -> tuple[torch.Tensor, "_Product"]:
        with measure_cost(self.session.pipe.device) as cost:
            pipe = run_baseline(self.session, self.request, contender)
        after = self._pictures(pipe)
        changed = [
            parameter.numel()
            for parameter, original in zip(
                pipe.unet.parameters(), self.session.pipe.unet.parameters(), strict=True
            )
            if not torch.equal(parameter, original)
        ]
        return after, _Product(cost.seconds, cost.peak_bytes, 4 * sum(changed), {})

    def _figures(self, after: torch.Tensor) -> dict[str, dict[str, float | None]]:
        figures = evaluate_images(self.plan, self.before, after, self.galleries).figures
        indices = self.plan.rows_of(FORGET)
        rows = [self.plan.shots[index].row for index in indices]
        judged: dict[str, dict[str, float | None]] = {}
        for gallery in self.galleries:
            scores = figures[gallery.name]
            judged[gallery.name] = {
                **{group: scores["ism"][group]["ratio"] for group in GROUPS},
                "recognised": scores["recognised"][FORGET]["after"]["mean"],
                "verified": verified_share(gallery, after[indices], rows),
                "no_face": scores["no_face"][FORGET]["after"] / len(indices),
            }
        return judged


def run_baseline(session: Session, request: ErasureRequest, contender: Contender) -> StableDiffusionPipeline:
    """A copy of the pipeline whose UNet a baseline has changed; the session's own stays as it is.

    Raises:
        BadInput: several people are to be forgotten.
    """
    baseline, pipe = find_baseline(contender.method), copy.copy(session.pipe)
    pipe.unet = copy.deepcopy(session.pipe.unet)
    settings = contender.rival_settings(session.family)
    baseline.run(pipe, _baseline_problem(session, request), settings, request.config.seed)
    return pipe


def _baseline_problem(session: Session, request: ErasureRequest) -> BaselineProblem:
    problem, bank = request.problem, request.bank
    if len(problem.targets) != 1:
        raise BadInput("the baselines forget one person at a time")
    differentiable = _differentiable(session.family)
    recognise = differentiable(session.pipe.device) if differentiable else None
    target = problem.targets[0]
    everybody = problem.retain[torch.arange(len(problem.retain))]
    return BaselineProblem(
        target.forget, target.anchor, everybody, bank.centroids[list(request.retained.train)], recognise
    )


def verified_share(gallery: Gallery, images: torch.Tensor, rows: Sequence[int]) -> float | None:
    """Of images (n, 3, h, w) that pass as the people of ``rows`` (n), by their centroids; None where the bank
    cannot calibrate it.
    """
    threshold = gallery.thresholds.get(FAR)
    if not isinstance(threshold, Threshold):
        return None
    cosines = (gallery.embed(images) * gallery.centroids[rows]).sum(dim=1)
    return float((cosines >= threshold.value).float().mean())


@dataclass
class _Product:
    seconds: float
    peak: int | None
    stored: int
    facts: dict[str, Any]
