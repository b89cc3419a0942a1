"""ESD-x: erased stable diffusion on the cross-attention (arXiv 2303.07345), as the official PIU comparison
runs it.
"""

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
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

__all__ = ["EsdSettings", "edit_esd", "esd_loss", "esd_target"]


class EsdSettings(Settings, section="esd"):
    """The optimisation; nothing is preserved."""

    steps: Count = 1000
    lr: Positive = 1e-5
    batch: Count = 1
    eta: Amount = 1.0


def esd_target(neutral: torch.Tensor, forget: torch.Tensor, eta: float) -> torch.Tensor:
    """``eps*(c_0) - eta (eps*(c_f) - eps*(c_0))`` (ESD, equation 5).

    Args:
        neutral, forget: the teacher's noise predictions on the same noisy latents, (n, c, h, w).
    """
    return neutral - eta * (forget - neutral)


def esd_loss(
    model: UNet2DConditionModel,
    teacher: UNet2DConditionModel,
    latents: torch.Tensor,
    times: torch.Tensor,
    forget: torch.Tensor,
    neutral: torch.Tensor,
    eta: float,
) -> torch.Tensor:
    """``|eps(z_t, t, c_f) - target|^2``, mean over elements.

    Args:
        latents: (n, c, h, w) z_t.
        times: (n,).
        forget: (n, length, hidden) c_f.
        neutral: (1, length, hidden) c_0.
    """
    with torch.no_grad():
        at_neutral = teacher(latents, times, neutral.expand_as(forget)).sample
        at_forget = teacher(latents, times, forget).sample
    return mse_loss(model(latents, times, forget).sample, esd_target(at_neutral, at_forget, eta))


@baseline(
    "esd",
    "ESD-x",
    "arXiv 2303.07345",
    EsdSettings,
    about="An older part: the official comparison ran it once and does no more.",
    dial=Dial(STEPS, (0.125, 0.25, 0.5, 0.75, 1), relative=True),
    search=[Range("lr", 0.1, 10), Range("eta", 0.0, 3.0, relative=False, log=False)],
)
def edit_esd(
    pipe: StableDiffusionPipeline, problem: BaselineProblem, settings: EsdSettings, seed: int
) -> None:
    """ESD on all cross-attention, away from Dirichlet mixtures of the person, towards the zero embedding.

    ESD denoises partially to get z_t. Here z_t is add_noise(randn, randn, t), as the official comparison
    draws it for PIU.
    """
    generator, unet = torch.Generator().manual_seed(seed), pipe.unet
    teacher, parameters = frozen_copy(unet), open_parameters(unet, lambda name: ".attn2." in name)
    optimizer = torch.optim.Adam(parameters, lr=settings.lr)
    schedule, encode = noise_schedule(pipe), encoder_of(pipe)
    neutral = encode(torch.zeros_like(problem.anchor)[None])
    for step in range(settings.steps):
        forget = encode(dirichlet_mixtures(problem.forget, settings.batch, generator))
        latents, times = (
            value.to(unet.device) for value in pure_noise(unet, schedule, settings.batch, generator)
        )
        optimizer.zero_grad(set_to_none=True)
        esd_loss(unet, teacher, latents, times, forget, neutral, settings.eta).backward()
        optimizer.step()
        problem.after(step + 1)
