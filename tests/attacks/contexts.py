"""A small scene: the tiny pipeline, a bank of random people, and a recognizer that takes only near-equal
images for one person.
"""

import torch
from diffusers import StableDiffusionPipeline

from piu_lora.adapter import Change
from piu_lora.attacks import AttackContext, AuditConfig, Others, ProbedIdentity
from piu_lora.evidence import Gallery
from piu_lora.identity import IdentityBank, Threshold, centroid
from piu_lora.model import generate
from tests.tiny import WIDTH

QUICK = AuditConfig.preset("quick")


_FEATURES = 64


def _pixels(images: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.adaptive_avg_pool2d(images, 8).flatten(1)


def embed(images: torch.Tensor) -> torch.Tensor:
    """(n, 3, h, w) to (n, 64) unit rows: random Fourier features (Rahimi and Recht, 2007), so that only
    near-equal images are alike.

    The cosine is about ``exp(-(20 |x - y|)^2 / 2)`` of the pixels averaged over 8 x 8 cells.
    """
    pixels, generator = _pixels(images), torch.Generator().manual_seed(9)
    directions = 20 * torch.randn(pixels.shape[1], _FEATURES, generator=generator)
    phases = 2 * torch.pi * torch.rand(_FEATURES, generator=generator)
    return torch.nn.functional.normalize(torch.cos(pixels @ directions + phases), dim=1)


def recognise(images: torch.Tensor) -> torch.Tensor:
    """(n, 3, h, w) to (n, WIDTH) unit rows, with gradients that lead somewhere."""
    pixels = _pixels(images)
    projection = torch.randn(pixels.shape[1], WIDTH, generator=torch.Generator().manual_seed(9))
    return torch.nn.functional.normalize((pixels - pixels.mean(dim=1, keepdim=True)) @ projection, dim=1)


def context_of(
    pipe: StableDiffusionPipeline, bank: IdentityBank, change: Change, *, seed: int = 0, people: int = 1
) -> AttackContext:
    """The forgotten people are the bank's first ones; they are verified against what the untouched base draws
    of the first one.
    """
    config = QUICK
    photos = torch.rand(2 * (people + 2), 3, 64, 64, generator=torch.Generator().manual_seed(seed)).split(2)
    everybody = [
        ProbedIdentity(
            "control" if row == people else "forgotten",
            row,
            bank.of(bank.ids[row])[:3],
            photos[row],
            "noise",
            None if row == people else bank.centroids[people + 5],
        )
        for row in range(people + 1)
    ]
    seeds = [seed * 100_003 + 70_000 + place for place in range(config.images)]
    drawn = generate(
        pipe, everybody[0].conditions(config.images), seeds, steps=config.steps, guidance=config.guidance
    )
    reference = centroid(embed(drawn))
    references = dict.fromkeys(range(people), reference)
    centroids = torch.nn.functional.normalize(
        torch.randn(len(bank), _FEATURES, generator=torch.Generator().manual_seed(1)), dim=1
    )
    cosine = float((embed(drawn) @ reference).min()) - 0.05
    galleries = tuple(
        Gallery(name, embed, centroids, references, {1e-3: Threshold(cosine, 1e-3, 10_000)})
        for name in ("conditioning", "evaluating")
    )
    others = Others(bank.centroids[people + 2 : people + 4], photos[-1])
    return AttackContext(
        pipe, change, tuple(everybody[:people]), everybody[people], others, bank, galleries, recognise, seed
    )
