"""UCE: unified concept editing, in closed form (arXiv 2308.14761), as the official PIU comparison runs it."""

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel

from piu_lora.settings import Amount, Count, Positive, Settings
from piu_lora.unlearn.baselines.parts import encoder_of
from piu_lora.unlearn.baselines.registry import BaselineProblem, baseline

__all__ = ["UceSettings", "edit_uce", "edited_weight", "uce_layers"]


class UceSettings(Settings, section="uce"):
    """The weights of erasing, keeping and ridge, and how many retained centroids are kept."""

    erase: Amount = 20.0
    preserve: Amount = 1.0
    ridge: Positive = 0.7
    retained: Count = 20


def uce_layers(unet: UNet2DConditionModel) -> list[torch.nn.Linear]:
    """Every ``attn2.to_k`` and ``attn2.to_v``: the linear layers that read the condition."""
    return [module for name, module in unet.named_modules() if name.endswith(("attn2.to_k", "attn2.to_v"))]


def edited_weight(
    weight: torch.Tensor,
    forget: torch.Tensor,
    anchor: torch.Tensor,
    retain: torch.Tensor,
    *,
    erase: float,
    preserve: float,
    ridge: float,
) -> torch.Tensor:
    """``[l W + e (W g)(sum c_f)^T + p W sum c_r c_r^T] [l I + e sum c_f c_f^T + p sum c_r c_r^T]^-1`` (UCE,
    equation 7), in float64.

    It minimises ``e sum |W' c_f - W g|^2 + p sum |W' c_r - W c_r|^2 + l |W' - W|^2``.

    Args:
        weight: (out, hidden) W.
        forget: (n, hidden) conditions c_f.
        anchor: (hidden,) g, whose output c_f shall have.
        retain: (m, hidden) conditions c_r.
        erase, preserve, ridge: e, p and l.

    Returns:
        (out, hidden) W', float64.
    """
    w, f, g, r = (value.double() for value in (weight, forget, anchor, retain))
    preserved = ridge * torch.eye(w.shape[1], dtype=torch.float64, device=w.device) + preserve * r.T @ r
    target = w @ (preserved + erase * torch.outer(g, f.sum(dim=0)))
    edited: torch.Tensor = torch.linalg.solve(preserved + erase * f.T @ f, target, left=False)
    return edited


@baseline("uce", "UCE", "arXiv 2308.14761", UceSettings)
@torch.no_grad()
def edit_uce(
    pipe: StableDiffusionPipeline, problem: BaselineProblem, settings: UceSettings, seed: int
) -> None:
    """UCE on token means: the conditions of the training embeddings to the anchor's, seeded retained
    centroids kept.
    """
    encode = encoder_of(pipe)
    chosen = torch.randperm(len(problem.centroids), generator=torch.Generator().manual_seed(seed))[
        : settings.retained
    ]
    forget, anchor, retain = (
        encode(rows).mean(dim=1) for rows in (problem.forget, problem.anchor[None], problem.centroids[chosen])
    )
    strengths = {"erase": settings.erase, "preserve": settings.preserve, "ridge": settings.ridge}
    for layer in uce_layers(pipe.unet):
        layer.weight.copy_(edited_weight(layer.weight, forget, anchor[0], retain, **strengths))
