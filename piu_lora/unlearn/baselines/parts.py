"""What several baselines need: the frozen teacher, the encoder, noise."""

import copy
from collections.abc import Callable
from typing import Literal

import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel

from piu_lora.model import encode_embeddings, identity_position, prompt_of

__all__ = [
    "TokenChoice",
    "add_noise",
    "encoder_of",
    "frozen_copy",
    "noise_schedule",
    "open_parameters",
    "pure_noise",
    "random_times",
    "token_rows",
]

TokenChoice = Literal["mean", "last", "identity"]


def frozen_copy(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """The teacher: a deep copy in float32 that never learns."""
    teacher: UNet2DConditionModel = copy.deepcopy(unet).float().requires_grad_(False)
    return teacher


def open_parameters(
    unet: UNet2DConditionModel, chosen: Callable[[str], bool] = lambda name: True
) -> list[torch.nn.Parameter]:
    """Freeze all but the parameters whose name is ``chosen``; returns what stays trainable."""
    for name, parameter in unet.named_parameters():
        parameter.requires_grad_(chosen(name))
    return [parameter for parameter in unet.parameters() if parameter.requires_grad]


def encoder_of(pipe: StableDiffusionPipeline) -> Callable[[torch.Tensor], torch.Tensor]:
    """(n, d) embeddings on any device -> (n, length, hidden) conditions on the pipeline's; no gradients."""

    @torch.no_grad()
    def encode(embeddings: torch.Tensor) -> torch.Tensor:
        return encode_embeddings(pipe.text_encoder, pipe.tokenizer, embeddings.to(pipe.device))

    return encode


def token_rows(pipe: StableDiffusionPipeline, conditions: torch.Tensor, choice: TokenChoice) -> torch.Tensor:
    """What stands for a condition in a closed form.

    Args:
        conditions: (n, length, hidden), under the family's own prompt.
        choice: the mean over all tokens, the token of the prompt's last word, or all that carry the identity.

    Returns:
        (n, hidden), or (n * tokens, hidden) for all that carry the identity.
    """
    if choice == "mean":
        return conditions.mean(dim=1)
    prompt = prompt_of(pipe.text_encoder)
    if choice == "last":
        return conditions[:, len(pipe.tokenizer.encode(prompt.text)) - 2]
    return conditions[:, identity_position(pipe.tokenizer, prompt) :].flatten(0, 1)


def noise_schedule(pipe: StableDiffusionPipeline) -> DDPMScheduler:
    """The noise schedule the base was trained with."""
    return DDPMScheduler.from_config(pipe.scheduler.config)


def random_times(schedule: DDPMScheduler, count: int, generator: torch.Generator) -> torch.Tensor:
    """(count,) timesteps, uniform over the training timesteps."""
    return torch.randint(schedule.config.num_train_timesteps, (count,), generator=generator)


def pure_noise(
    unet: UNet2DConditionModel, schedule: DDPMScheduler, count: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """``add_noise(randn, randn, t)`` and t, for methods that need no image; on the CPU."""
    shape = (count, unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
    start, noise = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    times = random_times(schedule, count, generator)
    return schedule.add_noise(start, noise, times), times


def add_noise(
    schedule: DDPMScheduler, latents: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noise latents (n, c, h, w) of images by the schedule: the noisy latents, their timesteps and the noise,
    on the CPU.
    """
    times, noise = (
        random_times(schedule, len(latents), generator),
        torch.randn(latents.shape, generator=generator),
    )
    return schedule.add_noise(latents, noise, times), times, noise
