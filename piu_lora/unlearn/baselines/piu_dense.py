"""The official PIU recipe (arXiv 2605.22311), written straight from the paper: dense weights, a copied
teacher, five passes a step.

It is the yardstick for piu_lora's own: the same mathematics and none of its economies. It shares only the
encoding of embeddings and the Dirichlet mixtures with it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.optimization import get_scheduler
from pydantic import Field
from torch.nn.functional import mse_loss

from piu_lora.identity import dirichlet_mixtures
from piu_lora.settings import Amount, Count, Positive, Settings
from piu_lora.unlearn.baselines.parts import (
    encoder_of,
    frozen_copy,
    noise_schedule,
    open_parameters,
    pure_noise,
)
from piu_lora.unlearn.baselines.registry import BaselineProblem, baseline
from piu_lora.unlearn.dial import STEPS, Dial, Range

__all__ = [
    "BLOCKS",
    "Batch",
    "PiuDenseSettings",
    "dense_loss",
    "dense_step",
    "draw_batch",
    "edit_piu_dense",
    "frozen_copy",
    "open_attention",
    "teacher_targets",
    "train_dense",
]

BLOCKS = ("down_blocks.2", "mid_block", "up_blocks.1", "up_blocks.2")


class PiuDenseSettings(Settings, section="piu-dense"):
    """The optimisation and the weights of the terms."""

    steps: Count = 400
    batch: Count = 16
    accumulation: Count = 2
    lr: Positive = 1e-4
    weight_decay: Amount = 0.01
    eta: Amount = 1.0
    retain_weight: Amount = 10.0
    scope: Literal["surgical", "cross-attention", "full"] = Field(
        "surgical", description="what is trained: the paper's nine modules, all cross-attention, or the UNet"
    )
    sampling: Literal["dirichlet", "individual", "centroid"] = Field(
        "dirichlet", description="the person's conditions: mixtures, single embeddings, or their centroid"
    )


@dataclass(frozen=True)
class Batch:
    """Noisy latents (n, 4, h, w), timesteps (n,) and conditions (n, length, hidden) of n forget and n retain
    samples.
    """

    forget_latents: torch.Tensor
    forget_times: torch.Tensor
    forget_conditions: torch.Tensor
    retain_latents: torch.Tensor
    retain_times: torch.Tensor
    retain_conditions: torch.Tensor


def open_attention(unet: UNet2DConditionModel, scope: str = "surgical") -> list[torch.nn.Parameter]:
    """Freeze all but the cross-attention of ``BLOCKS``, or of a wider scope; returns what stays trainable."""
    blocks = tuple(f"{block}." for block in BLOCKS) if scope == "surgical" else ("",)
    attention = "" if scope == "full" else ".attn2."
    return open_parameters(unet, lambda name: name.startswith(blocks) and attention in name)


def _known(forget: torch.Tensor, sampling: str) -> torch.Tensor:
    """The embeddings whose mixtures are drawn: of one row alone a mixture is the row itself."""
    return (
        torch.nn.functional.normalize(forget.mean(dim=0), dim=0)[None] if sampling == "centroid" else forget
    )


@torch.no_grad()
def draw_batch(
    unet: UNet2DConditionModel,
    encode: Callable[[torch.Tensor], torch.Tensor],
    schedule: DDPMScheduler,
    forget: torch.Tensor,
    retain: torch.Tensor,
    count: int,
    generator: torch.Generator,
    *,
    mixed: bool = True,
) -> Batch:
    """Dirichlet mixtures of the (n, d) forget embeddings and real ones of the (m, d) retain embeddings, on
    pure noise.

    Args:
        encode: (k, d) embeddings -> (k, length, hidden) conditions.
        count: forget samples, and as many retain samples.
        generator: CPU generator that draws everything.
        mixed: whether the forget embeddings are mixed, or drawn one by one.
    """
    device = next(unet.parameters()).device
    mixtures = (
        dirichlet_mixtures(forget, count, generator)
        if mixed
        else forget[torch.randint(len(forget), (count,), generator=generator)]
    )
    others = retain[torch.randint(len(retain), (count,), generator=generator)]
    forget_latents, forget_times = pure_noise(unet, schedule, count, generator)
    retain_latents, retain_times = pure_noise(unet, schedule, count, generator)
    return Batch(
        forget_latents.to(device),
        forget_times.to(device),
        encode(mixtures.to(device)),
        retain_latents.to(device),
        retain_times.to(device),
        encode(others.to(device)),
    )


@torch.no_grad()
def teacher_targets(
    teacher: UNet2DConditionModel, batch: Batch, anchor: torch.Tensor, eta: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """``eps*(c_a) - eta (eps*(c_f) - eps*(c_a))`` and ``eps*(c_r)``, in three passes.

    Args:
        anchor: (1, length, hidden) condition of the anchor.
        eta: negative guidance.
    """
    at_anchor = teacher(
        batch.forget_latents, batch.forget_times, anchor.expand_as(batch.forget_conditions)
    ).sample
    at_forget = teacher(batch.forget_latents, batch.forget_times, batch.forget_conditions).sample
    at_retain = teacher(batch.retain_latents, batch.retain_times, batch.retain_conditions).sample
    return at_anchor - eta * (at_forget - at_anchor), at_retain


def dense_loss(
    model: UNet2DConditionModel,
    teacher: UNet2DConditionModel,
    batch: Batch,
    anchor: torch.Tensor,
    eta: float,
    retain_weight: float,
) -> torch.Tensor:
    """``|eps(c_f) - target|^2 + lambda |eps(c_r) - eps*(c_r)|^2``, means over elements, two passes
    (arXiv 2605.22311); the target as of ``teacher_targets``.

    Args:
        teacher: the model as it was, ``eps*``.
        anchor: condition c_a of the anchor, (1, tokens, hidden).
        eta: negative guidance.
        retain_weight: lambda.
    """
    forget_target, retain_target = teacher_targets(teacher, batch, anchor, eta)
    forget = model(batch.forget_latents, batch.forget_times, batch.forget_conditions).sample
    retain = model(batch.retain_latents, batch.retain_times, batch.retain_conditions).sample
    return mse_loss(forget, forget_target) + retain_weight * mse_loss(retain, retain_target)


def dense_step(
    model: UNet2DConditionModel,
    teacher: UNet2DConditionModel,
    optimizer: torch.optim.Optimizer,
    draw: Callable[[], Batch],
    anchor: torch.Tensor,
    *,
    accumulation: int,
    eta: float,
    retain_weight: float,
) -> float:
    """One optimiser step over ``accumulation`` micro-batches of ``draw``; returns their mean loss."""
    optimizer.zero_grad(set_to_none=True)
    total = 0.0
    for _ in range(accumulation):
        loss = dense_loss(model, teacher, draw(), anchor, eta, retain_weight) / accumulation
        loss.backward()
        total += float(loss.detach())
    optimizer.step()
    return total


def train_dense(
    pipe: StableDiffusionPipeline,
    forget: torch.Tensor,
    anchor: torch.Tensor,
    retain: torch.Tensor,
    settings: PiuDenseSettings,
    *,
    seed: int,
    lr_schedule: str = "constant",
    progress: Callable[[int, float], None] | None = None,
) -> StableDiffusionPipeline:
    """Forget an identity by training ``pipe.unet`` in place.

    Args:
        pipe: a base in float32 without adapters.
        forget: (n, d) unit embeddings of the forgotten identity.
        anchor: (d,) unit embedding of the anchor.
        retain: (m, d) unit embeddings of the retained identities.
        settings: ``batch`` counts forget samples, and as many retain samples, in a micro-batch.
        lr_schedule: a schedule of ``diffusers.optimization``, without warm-up.
        progress: told the step and its loss.

    Returns:
        ``pipe``.
    """
    model, generator = pipe.unet, torch.Generator().manual_seed(seed)
    teacher, parameters = frozen_copy(model), open_attention(model, settings.scope)
    optimizer = torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay)
    rates = get_scheduler(lr_schedule, optimizer, num_warmup_steps=0, num_training_steps=settings.steps)
    schedule, encode = noise_schedule(pipe), encoder_of(pipe)

    rows = _known(forget, settings.sampling)
    mixed = settings.sampling != "individual"

    def draw() -> Batch:
        return draw_batch(model, encode, schedule, rows, retain, settings.batch, generator, mixed=mixed)

    condition = encode(anchor[None].to(model.device))
    for step in range(settings.steps):
        loss = dense_step(
            model,
            teacher,
            optimizer,
            draw,
            condition,
            accumulation=settings.accumulation,
            eta=settings.eta,
            retain_weight=settings.retain_weight,
        )
        rates.step()
        if progress:
            progress(step, loss)
    model.requires_grad_(False)
    return pipe


@baseline(
    "piu-dense",
    "PIU (dense)",
    "arXiv 2605.22311",
    PiuDenseSettings,
    about="The paper's own method, on dense weights.",
    dial=Dial(STEPS, (0.125, 0.25, 0.5, 0.75, 1), relative=True),
    search=[
        Range("lr", 0.1, 10),
        Range("eta", 0.0, 2.0, relative=False, log=False),
        Range("retain_weight", 0.25, 4),
    ],
)
def edit_piu_dense(
    pipe: StableDiffusionPipeline, problem: BaselineProblem, settings: PiuDenseSettings, seed: int
) -> None:
    """The official PIU recipe."""
    train_dense(
        pipe,
        problem.forget,
        problem.anchor,
        problem.retain,
        settings,
        seed=seed,
        progress=lambda step, _: problem.after(step + 1),
    )
