"""What the hosts of the embedded base are trained on: rendered photographs with what is known of each."""

from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import track

import piu_lora.model.mini as mini
from piu_lora.model.base import load_base
from piu_lora.model.mini.dataset import TRAIN_SEED, people
from piu_lora.model.mini.render import NUISANCE, render, sample_nuisance, surface

__all__ = ["EXPRESSIONS", "Photographs", "average_surface", "expression_of", "photographs"]

EXPRESSIONS = ("smile", "mouth_open", "eye_open", "gaze_x", "gaze_y", "brow_raise")
_PEOPLE, _SHOTS, _SEED = 1500, 6, 7


@dataclass(frozen=True)
class Photographs:
    """Of training people, never of the bank's; each tensor begins (people, shots).

    Attributes:
        latents: fp16, of unit variance.
        embeddings: fp16, by the recognizer that conditions the base.
        expressions: (..., len(EXPRESSIONS)) in [-1, 1].
        surfaces: (..., 3, h, w) uint8, the turned surface of each head.
    """

    latents: torch.Tensor
    embeddings: torch.Tensor
    expressions: torch.Tensor
    surfaces: torch.Tensor

    def pairs(
        self, count: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """People (count,), a photograph of each that is drawn, and another one that tells who it is."""
        who = torch.randint(len(self.latents), (count,), generator=generator)
        shots = torch.randint(self.latents.shape[1], (2, count), generator=generator)
        return who, shots[0], shots[1]


def expression_of(nuisance: torch.Tensor) -> torch.Tensor:
    """(n, len(EXPRESSIONS)) in [-1, 1] from the circumstances (n, p) of photographs."""
    names = [parameter.name for parameter in NUISANCE]
    return nuisance[:, [names.index(name) for name in EXPRESSIONS]] * 2 - 1


def average_surface(count: int, generator: torch.Generator) -> torch.Tensor:
    """(count, 3, h, w) in [0, 1]: the average head in poses at random, which tells nobody."""
    nuisance = sample_nuisance(count, generator)
    return surface(torch.full_like(people(1, TRAIN_SEED), 0.5).expand(count, -1), nuisance)


@torch.no_grad()
def photographs(folder: Path) -> Photographs:
    """Render and encode them, or read ``folder/photographs.pt``."""
    path = folder / "photographs.pt"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        torch.save(_made(), temporary)
        temporary.replace(path)
    return Photographs(**torch.load(path, weights_only=True, mmap=True))


def _made() -> dict[str, torch.Tensor]:
    vae, recognizer = load_base(mini.folder(), device="cpu").vae, mini.conditioning_recognizer()
    rows: dict[str, list[torch.Tensor]] = {}
    for index, person in enumerate(track(people(_PEOPLE, TRAIN_SEED), "photographs")):
        generator = torch.Generator().manual_seed(_SEED * 10_000_019 + index)
        identity, nuisance = person.expand(_SHOTS, -1), sample_nuisance(_SHOTS, generator)
        faces = render(identity, nuisance, generator).float()
        latents = vae.encode(faces / 127.5 - 1).latent_dist.mean * vae.config.scaling_factor
        parts = {
            "latents": latents.half(),
            "embeddings": recognizer.embed(faces / 255).half(),
            "expressions": expression_of(nuisance),
            "surfaces": (surface(identity, nuisance) * 255).round().to(torch.uint8),
        }
        for name, values in parts.items():
            rows.setdefault(name, []).append(values)
    return {name: torch.stack(values) for name, values in rows.items()}
