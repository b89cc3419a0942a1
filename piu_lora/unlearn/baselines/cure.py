"""CURE: a spectral eraser of the keys and values, in closed form (arXiv 2505.12677, NeurIPS 2025).

The conditions to forget, and those to retain, span a space each. With right singular vectors V and energies
``r_i = s_i^2 / sum s^2``, the projector on a space is softened by the expansion ``f(r) = a r / ((a - 1) r +
1)``: ``P = V diag(f(r)) V^T``; a = 1 leaves the energies, a high one comes near to the hard projector. What
is the forgotten person's alone is ``P_f - P_f P_r``, and the weights lose it: ``W' = W (I - (P_f - P_f
P_r))``.

Adapted: the tokens that carry the identity, of the training embeddings and of retained centroids. There is no
anchor: the person becomes what is left. Neither the paper's full text nor its code was at hand: the formulas
rest on its abstract and on descriptions by others, and were not checked against either.
"""

import torch
from diffusers import StableDiffusionPipeline
from pydantic import Field

from piu_lora.settings import Count, Settings
from piu_lora.unlearn.baselines.parts import TokenChoice, encoder_of, token_rows
from piu_lora.unlearn.baselines.registry import BaselineProblem, baseline
from piu_lora.unlearn.baselines.uce import uce_layers
from piu_lora.unlearn.dial import Dial, Range

__all__ = ["CureSettings", "edit_cure", "expanded", "soft_projector"]


class CureSettings(Settings, section="cure"):
    """How strongly the spaces are expanded, and who spans the retained one."""

    alpha: float = Field(2.0, ge=1, description="expansion of the forgotten person's space: the strength")
    retain_alpha: float = Field(2.0, ge=1, description="expansion of the retained space")
    retained: Count = Field(100, description="centroids that span the retained space; the nearest come first")
    token: TokenChoice = Field("identity", description="which tokens of a condition span the spaces")


def expanded(energies: torch.Tensor, alpha: float) -> torch.Tensor:
    """``a r / ((a - 1) r + 1)`` of shares r (n,) of the energy."""
    return alpha * energies / ((alpha - 1) * energies + 1)


def soft_projector(rows: torch.Tensor, alpha: float) -> torch.Tensor:
    """(hidden, hidden) ``V diag(f(r)) V^T`` of rows (n, hidden)."""
    squares, vectors = torch.linalg.eigh(rows.T @ rows)
    energies = squares.clamp_min(0) / squares.clamp_min(0).sum()
    projector: torch.Tensor = (vectors * expanded(energies, alpha)) @ vectors.T
    return projector


@baseline(
    "cure",
    "CURE",
    "arXiv 2505.12677",
    CureSettings,
    about="From its paper; not among the official comparison's baselines.",
    dial=Dial("alpha", (0.1, 0.3, 1, 3, 10, 30), relative=True),
    search=[Range("alpha", 0.02, 50), Range("retain_alpha", 0.5, 50)],
)
@torch.no_grad()
def edit_cure(
    pipe: StableDiffusionPipeline, problem: BaselineProblem, settings: CureSettings, seed: int
) -> None:
    """What spans the person's conditions and not the retained ones is taken from keys and values."""
    encode = encoder_of(pipe)
    nearest = (problem.centroids @ problem.forget.mean(dim=0)).topk(
        min(settings.retained, len(problem.centroids))
    )
    forget, retain = (
        token_rows(pipe, encode(rows), settings.token).double()
        for rows in (problem.forget, problem.centroids[nearest.indices])
    )
    person, others = (
        soft_projector(rows, alpha)
        for rows, alpha in ((forget, settings.alpha), (retain, settings.retain_alpha))
    )
    identity = torch.eye(len(person), dtype=person.dtype, device=person.device)
    eraser = identity - (person - person @ others)
    for layer in uce_layers(pipe.unet):
        layer.weight.copy_(layer.weight.double() @ eraser)
