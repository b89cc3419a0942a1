"""SISS: subtracted importance-sampled scores (arXiv 2410.22366), as the official PIU comparison adapts it:
two denoising gradients, one less a share of the other.

The official code draws one noise and one set of timesteps for both branches, weighs the branches in groups of
16 images, and keeps an average of the weights whose decay is ``(1 + s) / (10 + s)`` after s updates. The
authors' own configuration keeps no average.
"""

from typing import Literal

import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from diffusers.training_utils import EMAModel
from pydantic import Field
from torch.nn.functional import mse_loss

from piu_lora.settings import Amount, Count, Positive, Settings
from piu_lora.unlearn.baselines.parts import add_noise, encoder_of, noise_schedule, open_parameters
from piu_lora.unlearn.baselines.pictures import Pictures, Rendering, render_forget, render_retain
from piu_lora.unlearn.baselines.registry import BaselineProblem, Form, baseline
from piu_lora.unlearn.dial import STEPS, Dial, Range

__all__ = ["SissSettings", "averaging", "denoising_gradient", "edit_siss", "subtracted"]

Noisy = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class SissSettings(Settings, section="siss"):
    """The optimisation and the images."""

    steps: Count = 60
    lr: Positive = 5e-6
    batch: Count = Field(64, description="retain samples of an update, and as many forget samples")
    micro_batch: Count = Field(16, description="samples passed at once")
    beta: Amount = Field(0.1, description="share of the forget gradient that is subtracted")
    clip: Positive = 1.0
    ema_decay: float = Field(0.9999, ge=0, lt=1, description="highest decay of the weights' average")
    ema: Literal["warmup", "official", "none"] = Field(
        "warmup",
        description="how the decay rises: 1 - (1 + s)^-0.75 as in the recipes of diffusers, "
        "(1 + s) / (10 + s), or no average",
    )
    noise: Literal["separate", "shared"] = Field(
        "separate", description="whether both branches see the same noise and timesteps"
    )
    group: int = Field(0, ge=0, description="images over which the branches are weighed; 0: the whole batch")
    rendering: Rendering = Rendering()


_FORMS = (
    Form(
        "official",
        "The official PIU comparison: its average of the weights, shared noise, groups of 16.",
        {"ema": "official", "noise": "shared", "group": 16},
    ),
    Form(
        "authors",
        "As SISS's authors configure it: no average of the weights; shared noise.",
        {"ema": "none", "noise": "shared"},
    ),
)


def subtracted(retain: list[torch.Tensor], forget: list[torch.Tensor], beta: float) -> list[torch.Tensor]:
    """``g = g_r - beta |g_r| / |g_f| g_f``, the norms over all parameters together (SISS, section 4.2).

    Args:
        retain, forget: gradients of the denoising loss on retain and on forget images, one tensor a
            parameter.
    """
    retain_norm, forget_norm = (
        torch.stack([part.norm() for part in parts]).norm() for parts in (retain, forget)
    )
    scale = beta * retain_norm / forget_norm.clamp_min(1e-12)
    return [r - scale * f for r, f in zip(retain, forget, strict=True)]


def denoising_gradient(
    pipe: StableDiffusionPipeline,
    parameters: list[torch.nn.Parameter],
    noisy: Noisy,
    embeddings: torch.Tensor,
    micro_batch: int,
) -> list[torch.Tensor]:
    """Gradient of ``mean |eps(z_t, t, c) - noise|^2``, ``micro_batch`` samples at a time.

    Args:
        noisy: z_t (n, c, h, w), t (n,) and the noise, on the pipeline's device.
        embeddings: (n, d), of which c is made.
    """
    latents, times, noise = noisy
    conditions = encoder_of(pipe)(embeddings)
    total = [torch.zeros_like(parameter) for parameter in parameters]
    for start in range(0, len(latents), micro_batch):
        rows = slice(start, start + micro_batch)
        loss = mse_loss(pipe.unet(latents[rows], times[rows], conditions[rows]).sample, noise[rows]) * (
            len(latents[rows]) / len(latents)
        )
        torch._foreach_add_(total, torch.autograd.grad(loss, parameters))
    return total


def averaging(parameters: list[torch.nn.Parameter], settings: SissSettings) -> EMAModel | None:
    """The average of the weights that is kept; None where none is."""
    if settings.ema == "none":
        return None
    # Without the warm-up of the recipes, diffusers' decay is the official one.
    return EMAModel(
        parameters,
        decay=settings.ema_decay,
        use_ema_warmup=settings.ema == "warmup",
        inv_gamma=1.0,
        power=0.75,
    )


@baseline(
    "siss",
    "SISS",
    "arXiv 2410.22366",
    SissSettings,
    about="As this arena ran it first: an average that follows fast, noise of its own for each branch.",
    forms=_FORMS,
    dial=Dial(STEPS, (0.125, 0.25, 0.5, 0.75, 1), relative=True),
    search=[Range("lr", 0.1, 10), Range("beta", 0.2, 5)],
)
def edit_siss(
    pipe: StableDiffusionPipeline, problem: BaselineProblem, settings: SissSettings, seed: int
) -> None:
    """SISS on the whole UNet, with rendered images where no photographs are at hand."""
    generator, unet = torch.Generator().manual_seed(seed), pipe.unet
    forget = render_forget(pipe, problem, settings.rendering, generator)
    retain = render_retain(pipe, problem, settings.rendering, generator)
    parameters, schedule = open_parameters(unet), noise_schedule(pipe)
    optimizer = torch.optim.Adam(parameters, lr=settings.lr)
    average = averaging(parameters, settings)
    for step in range(settings.steps):
        gradients = _update(pipe, parameters, schedule, (retain, forget), settings, generator)
        for parameter, combined in zip(parameters, gradients, strict=True):
            parameter.grad = combined
        torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
        optimizer.step()
        if average is not None:
            average.step(parameters)
        if problem.is_watched(step + 1):
            _shown(problem, step + 1, parameters, average)
    optimizer.zero_grad(set_to_none=True)
    if average is not None:
        average.copy_to(parameters)


def _shown(
    problem: BaselineProblem, done: int, parameters: list[torch.nn.Parameter], average: EMAModel | None
) -> None:
    """Let the watcher see what a run would end with now: the averaged weights."""
    if average is None:
        problem.after(done)
        return
    average.store(parameters)
    average.copy_to(parameters)
    problem.after(done)
    average.restore(parameters)


def _update(
    pipe: StableDiffusionPipeline,
    parameters: list[torch.nn.Parameter],
    schedule: DDPMScheduler,
    branches: tuple[Pictures, Pictures],
    settings: SissSettings,
    generator: torch.Generator,
) -> list[torch.Tensor]:
    """The combined gradient of one update, summed over the groups of its batch, as a mean.

    Args:
        branches: images to retain, and to forget.
    """
    total = [torch.zeros_like(parameter) for parameter in parameters]
    group, device = settings.group or settings.batch, pipe.unet.device
    for start in range(0, settings.batch, group):
        count, shared = min(group, settings.batch - start), None
        gradients: list[list[torch.Tensor]] = []
        for pictures in branches:
            drawn = pictures.draw(count, generator)
            noisy = _noisy(schedule, drawn.latents, generator, shared)
            shared = noisy if settings.noise == "shared" else None
            latents, times, noise = (value.to(device) for value in noisy)
            passed = (latents, times, noise)
            gradients.append(
                denoising_gradient(pipe, parameters, passed, drawn.embeddings, settings.micro_batch)
            )
        combined = subtracted(gradients[0], gradients[1], settings.beta)
        torch._foreach_add_(total, combined, alpha=count / settings.batch)
    return total


def _noisy(
    schedule: DDPMScheduler, latents: torch.Tensor, generator: torch.Generator, shared: Noisy | None
) -> Noisy:
    """Latents with fresh noise, or with the noise and the timesteps of another branch."""
    if shared is None:
        return add_noise(schedule, latents, generator)
    _, times, noise = shared
    return schedule.add_noise(latents, noise, times), times, noise
