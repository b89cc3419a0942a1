"""What the training of every host shares: noisy latents of photographs, and conditions of who is on them."""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor

import piu_lora.model.mini as mini
from piu_lora.model.base import load_base
from piu_lora.model.condition import encode_embeddings, encode_empty
from piu_lora.model.mini.hosts.photographs import Photographs, photographs
from piu_lora.model.mini.untrained import SCHEDULER

__all__ = ["FrozenBase", "NoisyPhotographs"]

_WITHOUT = 0.1  # share of conditions that are the empty prompt's, for classifier-free guidance


@dataclass(frozen=True)
class NoisyPhotographs:
    """A batch: people and shots (n,), latents with noise on them, timesteps, the noise, conditions."""

    who: torch.Tensor
    shot: torch.Tensor
    noisy: torch.Tensor
    times: torch.Tensor
    noise: torch.Tensor
    conditions: torch.Tensor


class FrozenBase:
    """The embedded base, frozen, and the photographs that a host learns from."""

    def __init__(self, folder: Path) -> None:
        self.pipe: StableDiffusionPipeline = load_base(mini.folder(), device="cpu")
        for part in (self.pipe.unet, self.pipe.text_encoder):
            part.requires_grad_(False)
        self.photographs: Photographs = photographs(folder)
        self.schedule = DDPMScheduler(**SCHEDULER)
        self.empty = encode_empty(self.pipe.text_encoder, self.pipe.tokenizer).detach()

    def plain_attention(self) -> None:
        """On a CPU, at this size, plain attention trains faster than the fused kind."""
        self.pipe.unet.set_attn_processor(AttnProcessor())

    @torch.no_grad()
    def draw(
        self, count: int, generator: torch.Generator, times: torch.Tensor | None = None
    ) -> NoisyPhotographs:
        """``count`` photographs with noise, each with the condition of another one of the same person.

        Args:
            times: (count,) of the noise; stratified over all by default.
        """
        who, shot, other = self.photographs.pairs(count, generator)
        latents = self.photographs.latents[who, shot].float()
        embeddings = self.photographs.embeddings[who, other].float()
        conditions = encode_embeddings(self.pipe.text_encoder, self.pipe.tokenizer, embeddings)
        without = torch.rand(count, generator=generator) < _WITHOUT
        conditions = torch.where(without[:, None, None], self.empty, conditions)
        if times is None:
            quantiles = (torch.arange(count) + torch.rand(count, generator=generator)) / count
            times = (quantiles * 1000).long().clamp_max(999)
        noise = torch.randn(latents.shape, generator=generator)
        return NoisyPhotographs(
            who, shot, self.schedule.add_noise(latents, noise, times), times, noise, conditions
        )
