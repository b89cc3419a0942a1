"""PIU: proximity-guided identity unlearning by noise-prediction replacement (arXiv 2605.22311)."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from pydantic import Field

from piu_lora.config import ForgetConfig
from piu_lora.identity import synthetic_neighbours
from piu_lora.identity.constants import Counts, value_of
from piu_lora.model.split_unet import SplitUNet
from piu_lora.settings import Amount, Settings
from piu_lora.unlearn.dial import LEARNING_RATE, Range
from piu_lora.unlearn.nearest_people import NearestPeople
from piu_lora.unlearn.registry import Problem, TrainedModel, register, shares
from piu_lora.unlearn.stopping import progress_terms

__all__ = ["ObjectiveConfig", "PiuInputs", "PiuObjective", "replacement_target"]


def replacement_target(anchor: torch.Tensor, forget: torch.Tensor, eta: float) -> torch.Tensor:
    """``eps*(c_a) - eta (eps*(c_f) - eps*(c_a))``: the anchor's prediction, pushed away from the forgotten
    one.

    Args:
        anchor, forget: the teacher's noise predictions on the same noisy latents, (n, 4, h, w).
        eta: negative guidance; 0 is plain replacement (PIU, equation 4).
    """
    return anchor - eta * (forget - anchor)


class ObjectiveConfig(Settings, section="objective"):
    """The terms of the replacement objective."""

    eta: Amount = Field(1.0, description="how far beyond the anchor, away from the forgotten person")
    retain_weight: Amount = Field(10.0, description="lambda, the weight of the preservation term")


@dataclass(frozen=True)
class PiuInputs:
    """Noisy latents, timesteps and embeddings (n, d) of n forget and n retain samples, on the CPU."""

    forget_latents: torch.Tensor
    forget_times: torch.Tensor
    forget: torch.Tensor
    whose: torch.Tensor  # (n,) targets
    retain_latents: torch.Tensor
    retain_times: torch.Tensor
    retain: torch.Tensor

    def __getitem__(self, rows: slice) -> Self:
        return type(self)(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


class PiuObjective:
    """``|eps(z,t,c_f) - target|^2 + lambda |eps(z',t',c_r) - eps*(z',t',c_r)|^2`` (PIU, equation 5), means
    over elements.

    One pass of the frozen head over all three conditions, one batched teacher pass (the same UNet, adapters
    off), one batched student pass. Latents are noise: no image is needed. Everything that takes memory
    happens a micro-batch at a time.
    """

    def __init__(self, problem: Problem, model: TrainedModel, config: ForgetConfig) -> None:
        self.problem, self.model, self.retain = problem, model, config.retain
        counts = Counts(problem.fewest_photographs)
        self.low, self.high = (
            value_of(f"retain.{name}", getattr(config.retain, name), counts=counts)
            for name in ("neighbour_low", "neighbour_high")
        )
        settings = config.section_of(ObjectiveConfig)
        self.eta, self.retain_weight = settings.eta, settings.retain_weight
        self.nearby = NearestPeople(problem, config.retain.near, config.retain.near_pool)
        self.split = SplitUNet.before(model.unet, config.lora.blocks)
        self.device = next(model.unet.parameters()).device
        half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(config.train.precision)
        self.autocast = torch.autocast(self.device.type, half, enabled=half is not None)
        with torch.no_grad():
            self.anchors = model.encode(problem.anchors.to(self.device))

    @torch.no_grad()
    def draw(self, count: int, generator: torch.Generator) -> PiuInputs:
        """Mixtures of the forgotten embeddings, real and synthetic retained ones, noise and timesteps; on the
        CPU generator.
        """
        forget, whose = self.problem.mixtures(count, generator)
        chosen = torch.randint(len(self.problem.retain), (count,), generator=generator)
        retain = self.problem.retain[chosen]
        near = round(self.retain.neighbours * count)
        # Spread over the batch, so that every micro-batch holds its share.
        places = (torch.arange(near) * count) // max(near, 1)
        retain = retain.index_copy(0, places, self._neighbours(retain[places], generator))
        others = torch.ones(count, dtype=torch.bool).index_fill_(0, places, False).nonzero()[:, 0]
        real = min(self.nearby.count(count), len(others))
        retain[others[(torch.arange(real) * len(others)) // max(real, 1)]] = self.nearby.draw(real, generator)
        latents, times = self._noise(2 * count, generator)
        return PiuInputs(
            latents[:count], times[:count], forget, whose, latents[count:], times[count:], retain
        )

    def loss(self, draw: PiuInputs) -> tuple[torch.Tensor, dict[str, float]]:
        """Mean loss over a draw and its two terms."""
        count = len(draw.forget_latents)
        forget, retain, anchor = slice(0, count), slice(count, 2 * count), slice(2 * count, 3 * count)
        with torch.no_grad():
            conditions = self.model.encode(torch.cat([draw.forget, draw.retain]).to(self.device))
        with self.autocast:
            with torch.no_grad():
                midway = self.split.head(
                    torch.cat([draw.forget_latents, draw.retain_latents, draw.forget_latents]).to(
                        self.device
                    ),
                    torch.cat([draw.forget_times, draw.retain_times, draw.forget_times]).to(self.device),
                    torch.cat([conditions, self.anchors[draw.whose.to(self.device)]]),
                )
                with self.model.adapters_disabled():
                    teacher = self.split.tail(midway).float()
            predicted = self.split.tail(midway[: 2 * count]).float()
        target = replacement_target(teacher[anchor], teacher[forget], self.eta)
        forget_term = torch.nn.functional.mse_loss(predicted[forget], target)
        retain_term = torch.nn.functional.mse_loss(predicted[retain], teacher[retain])
        total = forget_term + self.retain_weight * retain_term
        return total, {
            "loss": float(total.detach()),
            "forget": float(forget_term.detach()),
            "retain": float(retain_term.detach()),
        }

    @torch.no_grad()
    def check_draw(self, count: int, generator: torch.Generator) -> PiuInputs:
        """Noise and timesteps as a step draws them, with embeddings of the people that were set apart."""
        forget, whose = self.problem.validation(count, generator)
        return replace(self.draw(count, generator), forget=forget, whose=whose)

    @torch.no_grad()
    def progress_terms(self, draw: PiuInputs) -> tuple[float, float]:
        """How far the prediction for the forgotten condition has gone from the teacher's own to the target,
        and how far it is.
        """
        count = len(draw.forget_latents)
        condition = self.model.encode(draw.forget.to(self.device))
        with self.autocast:
            midway = self.split.head(
                torch.cat([draw.forget_latents] * 2).to(self.device),
                torch.cat([draw.forget_times] * 2).to(self.device),
                torch.cat([condition, self.anchors[draw.whose.to(self.device)]]),
            )
            with self.model.adapters_disabled():
                before, anchor = self.split.tail(midway).float().chunk(2)
            now = self.split.tail(midway[:count]).float()
        return progress_terms(now, before, replacement_target(anchor, before, self.eta))

    def _neighbours(self, others: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        centres = self.problem.centres[shares(len(self.problem.targets), len(others), generator)]
        return synthetic_neighbours(centres, others, self.low, self.high, generator)

    def _noise(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """``z_t = add_noise(randn, randn, t)`` with t uniform over the training timesteps."""
        config = self.model.unet.config
        shape = (count, config.in_channels, config.sample_size, config.sample_size)
        start, noise = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
        times = torch.randint(self.model.timesteps, (count,), generator=generator)
        return self.model.add_noise(start, noise, times), times


_SEARCH = (
    LEARNING_RATE,
    Range("objective.eta", 0.0, 2.0, relative=False, log=False),
    Range("objective.retain_weight", 0.25, 4),
)


@register("piu", "PIU (LoRA)", "arXiv 2605.22311", settings=ObjectiveConfig, search=_SEARCH)
def build(problem: Problem, model: TrainedModel, config: ForgetConfig) -> PiuObjective:
    """PIU on a LoRA in the identity-sensitive cross-attention."""
    return PiuObjective(problem, model, config)


@register(
    "piu-warm",
    "PIU (LoRA) from a closed form",
    "arXiv 2605.22311, after UCE, arXiv 2308.14761",
    settings=ObjectiveConfig,
    defaults={"train": {"start": "closed-kv", "steps": 100}},
    search=_SEARCH,
)
def build_warm(problem: Problem, model: TrainedModel, config: ForgetConfig) -> PiuObjective:
    """PIU that starts from the closed form on keys and values (``train.start``) and needs a quarter of the
    steps.
    """
    return PiuObjective(problem, model, config)
