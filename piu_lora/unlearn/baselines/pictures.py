"""Images for the baselines that train on images.

The official comparison has photographs on disk. Those of the forgotten person are used where the request
brings them. A bank holds embeddings only, so the untouched base renders all other images: of the forgotten
person from Dirichlet mixtures of their embeddings, of the others from their own.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import StableDiffusionPipeline
from pydantic import Field

from piu_lora.identity import dirichlet_mixtures
from piu_lora.model import generate
from piu_lora.settings import Count, Settings
from piu_lora.unlearn.baselines.registry import BaselineProblem

__all__ = ["Pictures", "Rendering", "latents_of", "recognised", "render_forget", "render_retain"]


class Rendering(Settings, section="rendering"):
    """How many images are rendered, and how."""

    forget: Count = 24
    retain: Count = 200
    steps: Count = 25
    guidance: float = Field(3.0, ge=1)
    batch: Count = 16


@dataclass(frozen=True)
class Pictures:
    """Scaled latents (n, c, h, w) of images and the embeddings (n, d) they were rendered from, on the CPU."""

    latents: torch.Tensor
    embeddings: torch.Tensor

    def choose(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """(count,) places, with replacement."""
        return torch.randint(len(self.latents), (count,), generator=generator)

    def draw(self, count: int, generator: torch.Generator) -> "Pictures":
        """``count`` of them, with replacement."""
        chosen = self.choose(count, generator)
        return Pictures(self.latents[chosen], self.embeddings[chosen])


def render_forget(
    pipe: StableDiffusionPipeline, problem: BaselineProblem, rendering: Rendering, generator: torch.Generator
) -> Pictures:
    """Photographs of the forgotten person where the problem has any, else images by the untouched base."""
    if problem.photographs is not None:
        latents = latents_of(pipe, problem.photographs, rendering.batch)
        return Pictures(latents, problem.forget[: len(latents)])
    return _render(
        pipe, dirichlet_mixtures(problem.forget, rendering.forget, generator), rendering, generator
    )


def render_retain(
    pipe: StableDiffusionPipeline, problem: BaselineProblem, rendering: Rendering, generator: torch.Generator
) -> Pictures:
    """Images of the others by the untouched base."""
    chosen = torch.randint(len(problem.retain), (rendering.retain,), generator=generator)
    return _render(pipe, problem.retain[chosen], rendering, generator)


@torch.no_grad()
def latents_of(pipe: StableDiffusionPipeline, images: torch.Tensor, batch: int = 16) -> torch.Tensor:
    """``z_0``: the mode of the VAE's posterior times the scaling factor, on the CPU.

    Args:
        images: (n, 3, h, w) RGB in [0, 1].
    """
    vae = pipe.vae
    modes = [
        vae.encode((part * 2 - 1).to(vae.device, vae.dtype)).latent_dist.mode()
        for part in images.split(batch)
    ]
    return torch.cat(modes).float().cpu() * float(vae.config.scaling_factor)


@torch.no_grad()
def recognised(
    pipe: StableDiffusionPipeline,
    recognise: Callable[[torch.Tensor], torch.Tensor],
    pictures: Pictures,
    batch: int,
) -> torch.Tensor:
    """(n, d) what a recognizer sees in the pictures, decoded from their latents; on the CPU."""
    vae, scale = pipe.vae, float(pipe.vae.config.scaling_factor)
    rows = []
    for part in pictures.latents.split(batch):
        images = vae.decode((part / scale).to(vae.device, vae.dtype)).sample.float()
        rows.append(recognise((images / 2 + 0.5).clamp(0, 1)).cpu())
    return torch.cat(rows)


def _render(
    pipe: StableDiffusionPipeline, embeddings: torch.Tensor, rendering: Rendering, generator: torch.Generator
) -> Pictures:
    seeds: list[int] = torch.randint(2**31 - 1, (len(embeddings),), generator=generator).tolist()
    images = generate(
        pipe, embeddings, seeds, steps=rendering.steps, guidance=rendering.guidance, batch=rendering.batch
    )
    return Pictures(latents_of(pipe, images, rendering.batch), embeddings)
