"""A seeded measurement of what an adapter does to the predicted noise; anybody with the base can repeat it,
without bank or person.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from piu_lora.evidence.metrics import Array, interval
from piu_lora.model import describe, encode_embeddings

__all__ = ["SAMPLES", "compare_probe", "measure_probe", "probe_facts"]

SAMPLES = 8
# Half-precision arithmetic moves the mean by up to about one per cent.
_TOLERANCE = 0.02


@torch.no_grad()
def measure_probe(
    pipe: StableDiffusionPipeline, bare: Callable[[], AbstractContextManager[None]], seed: int = 0
) -> Array:
    """``|eps - eps*| / |eps*|`` for random identities on pure noise, (8,): eps with the adapters as they are,
    eps* inside ``bare()``.
    """
    generator, config = torch.Generator().manual_seed(seed), pipe.unet.config
    embeddings = torch.nn.functional.normalize(
        torch.randn(SAMPLES, describe(pipe).embedding_width, generator=generator), dim=1
    )
    size = (
        (config.sample_size, config.sample_size)
        if isinstance(config.sample_size, int)
        else tuple(config.sample_size)
    )
    latents = torch.randn(SAMPLES, config.in_channels, *size, generator=generator)
    device = pipe.device  # asked once: diffusers walks through all modules to know it
    times = torch.linspace(0, pipe.scheduler.config.num_train_timesteps - 1, SAMPLES).long()

    def predicted() -> torch.Tensor:
        rows = []
        # One at a time: on the real shape a batch may not fit.
        for embedding, latent, time in zip(embeddings, latents, times, strict=True):
            condition = encode_embeddings(pipe.text_encoder, pipe.tokenizer, embedding[None].to(device))
            rows.append(
                pipe.unet(latent[None].to(condition), time.to(condition.device), condition)
                .sample.double()
                .cpu()
            )
        return torch.cat(rows).flatten(1)

    changed = predicted()
    with bare():
        plain = predicted()
    result: Array = ((changed - plain).norm(dim=1) / plain.norm(dim=1)).numpy()
    return result


def probe_facts(values: Array, seed: int = 0) -> dict[str, Any]:
    """For the receipt."""
    rounded = [float(f"{value:.6g}") for value in values]
    return {"seed": seed, "values": rounded, "mean": float(values.mean()), "interval": list(interval(values))}


def compare_probe(stated: dict[str, Any], changes: Array) -> str:
    """What differs between a stated probe and a measured one; empty when nothing does.

    The mean must lie in the stated interval and within two per cent of the stated mean, the room that half
    precision needs.
    """
    mean, (low, high) = float(stated["mean"]), stated["interval"]
    measured = float(changes.mean())
    inside = float(low) * (1 - _TOLERANCE) <= measured <= float(high) * (1 + _TOLERANCE)
    if not inside or not np.isclose(measured, mean, rtol=_TOLERANCE, atol=1e-6):
        expected = f"{mean:.4f} [{float(low):.4f}, {float(high):.4f}]"
        return f"the change of the predicted noise is {measured:.4f}, the receipt states {expected}"
    return ""
