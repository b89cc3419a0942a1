"""The denoising loss on somebody's images: what an attacker with photographs minimises."""

from dataclasses import dataclass

import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline

from piu_lora.unlearn.baselines.parts import add_noise, noise_schedule

__all__ = ["Noisy", "denoising_loss", "draw_noisy"]


@dataclass(frozen=True)
class Noisy:
    """A batch of noised latents (n, c, h, w), timesteps (n,), the noise, and which images they were."""

    latents: torch.Tensor
    times: torch.Tensor
    noise: torch.Tensor
    chosen: torch.Tensor
    schedule: DDPMScheduler


def draw_noisy(
    pipe: StableDiffusionPipeline, latents: torch.Tensor, count: int, generator: torch.Generator
) -> Noisy:
    """``count`` of the scaled latents (m, c, h, w), with replacement, noised at uniform timesteps; on the
    pipeline's device.
    """
    schedule = noise_schedule(pipe)
    chosen = torch.randint(len(latents), (count,), generator=generator)
    noisy, times, noise = add_noise(schedule, latents[chosen], generator)
    device = pipe.unet.device
    return Noisy(noisy.to(device, pipe.unet.dtype), times.to(device), noise.to(device), chosen, schedule)


def denoising_loss(
    pipe: StableDiffusionPipeline, batch: Noisy, conditions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """``|eps(z_t, t, c) - eps|^2`` (DDPM, arXiv 2006.11239), the mean over elements, and the predicted noise.

    Args:
        conditions: (n, length, hidden), one for each of the batch.
    """
    predicted = pipe.unet(batch.latents, batch.times, conditions).sample.float()
    return torch.nn.functional.mse_loss(predicted, batch.noise), predicted
