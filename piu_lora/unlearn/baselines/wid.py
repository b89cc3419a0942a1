"""WID: the whole UNet taught to draw the anchor, with an identity loss on the image, as the official PIU
comparison adapts it.

The identity loss draws the one-step reconstruction towards an embedding: of each forget image itself in
today's official code, of the anchor in an older version. Any recognizer with gradients serves; the official
one is an IR-SE50.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from pydantic import Field
from torch.nn.functional import mse_loss

from piu_lora.errors import BadInput
from piu_lora.settings import Amount, Count, Positive, Settings
from piu_lora.unlearn.baselines.parts import (
    add_noise,
    encoder_of,
    frozen_copy,
    noise_schedule,
    open_parameters,
)
from piu_lora.unlearn.baselines.pictures import Rendering, recognised, render_forget
from piu_lora.unlearn.baselines.registry import BaselineProblem, Form, baseline
from piu_lora.unlearn.dial import STEPS, Dial, Range

__all__ = ["WidSettings", "decode", "edit_wid", "one_step", "wid_loss"]


class WidSettings(Settings, section="wid"):
    """The optimisation and the images; nothing is preserved."""

    steps: Count = 100
    lr: Positive = 5e-6
    batch: Count = 4
    accumulation: Count = 16
    identity_weight: Amount = Field(0.1, description="of the identity loss")
    target: Literal["anchor", "own"] = Field(
        "anchor", description="whose embedding the identity loss asks for: the anchor's, or each image's own"
    )
    clip: Amount = Field(0.0, description="largest norm of the gradient; 0: not clipped")
    rendering: Rendering = Rendering()


_FORMS = (
    Form(
        "official",
        "The official PIU comparison: each image's own embedding as target, gradients clipped at 1.",
        {"target": "own", "clip": 1.0},
    ),
    Form("anchor", "An older version of it: the anchor as target, gradients clipped at 1.", {"clip": 1.0}),
)


def one_step(
    schedule: DDPMScheduler, latents: torch.Tensor, times: torch.Tensor, noise: torch.Tensor
) -> torch.Tensor:
    """``x_0 = (z_t - sqrt(1 - a_t) eps) / sqrt(a_t)``: what the noise prediction says about the clean
    latents, (n, c, h, w).
    """
    signal = schedule.alphas_cumprod.to(latents.device)[times].view(-1, 1, 1, 1)
    clean: torch.Tensor = (latents - (1 - signal).sqrt() * noise) / signal.sqrt()
    return clean


def decode(pipe: StableDiffusionPipeline, latents: torch.Tensor) -> torch.Tensor:
    """Scaled latents (n, c, h, w) to (n, 3, h, w) RGB in [0, 1]; gradients reach the latents."""
    images: torch.Tensor = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    return (images / 2 + 0.5).clamp(0, 1)


class NoisyImages(NamedTuple):
    """Latents (n, c, h, w) with noise, timesteps (n,), conditions (n, length, hidden), and the embeddings (n,
    d) that the identity loss asks for.
    """

    latents: torch.Tensor
    times: torch.Tensor
    conditions: torch.Tensor
    targets: torch.Tensor


def wid_loss(
    pipe: StableDiffusionPipeline,
    teacher: UNet2DConditionModel,
    recognise: Callable[[torch.Tensor], torch.Tensor],
    schedule: DDPMScheduler,
    noisy: NoisyImages,
    anchor: torch.Tensor,
    identity_weight: float,
) -> torch.Tensor:
    """``|eps(z_t, t, c_f) - eps*(z_t, t, c_a)|^2 + w |R(D(x_0)) - e|^2``, means over elements.

    Args:
        recognise: R, (n, 3, h, w) RGB in [0, 1] -> (n, d).
        noisy: z_t, t, c_f and e of forget images.
        anchor: (1, length, hidden) c_a.
        identity_weight: w.
    """
    with torch.no_grad():
        target = teacher(noisy.latents, noisy.times, anchor.expand_as(noisy.conditions)).sample
    predicted = pipe.unet(noisy.latents, noisy.times, noisy.conditions).sample
    drawn = recognise(decode(pipe, one_step(schedule, noisy.latents, noisy.times, predicted)))
    return mse_loss(predicted, target) + identity_weight * mse_loss(drawn, noisy.targets)


@baseline(
    "wid",
    "WID",
    "arXiv 2605.22311 (as its comparison runs it)",
    WidSettings,
    needs_recognizer=True,
    about="As this arena ran it first: the anchor as target, gradients as they are.",
    forms=_FORMS,
    dial=Dial(STEPS, (0.125, 0.25, 0.5, 0.75, 1), relative=True),
    search=[Range("lr", 0.1, 10), Range("identity_weight", 0.1, 10)],
)
def edit_wid(
    pipe: StableDiffusionPipeline, problem: BaselineProblem, settings: WidSettings, seed: int
) -> None:
    """WID on the whole UNet, with rendered images where no photographs are at hand."""
    if problem.recognise is None:
        raise BadInput("wid needs a differentiable recognizer: set RivalProblem.recognise")
    generator, unet = torch.Generator().manual_seed(seed), pipe.unet
    pictures = render_forget(pipe, problem, settings.rendering, generator)
    wanted = problem.anchor.expand(len(pictures.latents), -1)
    if settings.target == "own":
        wanted = recognised(pipe, problem.recognise, pictures, settings.rendering.batch)
    teacher, parameters = frozen_copy(unet), open_parameters(unet)
    optimizer = torch.optim.Adam(parameters, lr=settings.lr)
    schedule, encode = noise_schedule(pipe), encoder_of(pipe)
    anchor = encode(problem.anchor[None])

    def draw() -> NoisyImages:
        chosen = pictures.choose(settings.batch, generator)
        noised = add_noise(schedule, pictures.latents[chosen], generator)
        latents, times, targets = (value.to(unet.device) for value in (*noised[:2], wanted[chosen]))
        return NoisyImages(latents, times, encode(pictures.embeddings[chosen]), targets)

    for step in range(settings.steps):
        optimizer.zero_grad(set_to_none=True)
        for _ in range(settings.accumulation):
            loss = wid_loss(
                pipe, teacher, problem.recognise, schedule, draw(), anchor, settings.identity_weight
            )
            # Only the UNet's parameters: the decoder's and the recognizer's would gather gradients nobody
            # wants.
            (loss / settings.accumulation).backward(inputs=parameters)
        if settings.clip:
            torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
        optimizer.step()
        problem.after(step + 1)
