"""SISS: subtracted importance-sampled scores (arXiv 2410.22366), as the official PIU comparison runs it."""

import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from diffusers.training_utils import EMAModel
from pydantic import Field
from torch.nn.functional import mse_loss

from piu_lora.settings import Amount, Count, Positive, Settings
from piu_lora.unlearn.baselines.parts import add_noise, encoder_of, noise_schedule, open_parameters
from piu_lora.unlearn.baselines.pictures import Pictures, Rendering, render_forget, render_retain
from piu_lora.unlearn.baselines.registry import BaselineProblem, baseline

__all__ = ["SissSettings", "denoising_gradient", "edit_siss", "subtracted"]


class SissSettings(Settings, section="siss"):
    """The optimisation and the images."""

    steps: Count = 60
    lr: Positive = 5e-6
    batch: Count = 64  # retain samples of an update, and as many forget samples
    micro_batch: Count = 16  # passed at once
    beta: Amount = 0.1
    clip: Positive = 1.0
    ema_decay: float = Field(
        0.9999, ge=0, lt=1
    )  # reached by 1 - (1 + n)^-0.75, the warm-up of the diffusers recipes
    rendering: Rendering = Rendering()


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
    schedule: DDPMScheduler,
    pictures: Pictures,
    micro_batch: int,
    generator: torch.Generator,
) -> list[torch.Tensor]:
    """Gradient of ``mean |eps(z_t, t, c) - noise|^2`` over all of ``pictures``, ``micro_batch`` at a time."""
    noisy, times, noise = (
        value.to(pipe.unet.device) for value in add_noise(schedule, pictures.latents, generator)
    )
    conditions = encoder_of(pipe)(pictures.embeddings)
    total = [torch.zeros_like(parameter) for parameter in parameters]
    for start in range(0, len(noisy), micro_batch):
        rows = slice(start, start + micro_batch)
        loss = mse_loss(pipe.unet(noisy[rows], times[rows], conditions[rows]).sample, noise[rows]) * (
            len(noisy[rows]) / len(noisy)
        )
        torch._foreach_add_(total, torch.autograd.grad(loss, parameters))
    return total


@baseline("siss", "SISS", "arXiv 2410.22366", SissSettings)
def edit_siss(
    pipe: StableDiffusionPipeline, problem: BaselineProblem, settings: SissSettings, seed: int
) -> None:
    """SISS on the whole UNet, with rendered images where the official comparison has photographs; ends with
    the averaged weights.
    """
    generator, unet = torch.Generator().manual_seed(seed), pipe.unet
    forget = render_forget(pipe, problem, settings.rendering, generator)
    retain = render_retain(pipe, problem, settings.rendering, generator)
    parameters, schedule = open_parameters(unet), noise_schedule(pipe)
    optimizer = torch.optim.Adam(parameters, lr=settings.lr)
    average = EMAModel(parameters, decay=settings.ema_decay, use_ema_warmup=True, inv_gamma=1.0, power=0.75)

    def gradient(pictures: Pictures) -> list[torch.Tensor]:
        drawn = pictures.draw(settings.batch, generator)
        return denoising_gradient(pipe, parameters, schedule, drawn, settings.micro_batch, generator)

    for _ in range(settings.steps):
        for parameter, combined in zip(
            parameters, subtracted(gradient(retain), gradient(forget), settings.beta), strict=True
        ):
            parameter.grad = combined
        torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
        optimizer.step()
        average.step(parameters)
    optimizer.zero_grad(set_to_none=True)
    average.copy_to(parameters)
