"""UCE: unified concept editing, in closed form (arXiv 2308.14761).

The paper edits the projections of a text condition, at the last token of the concept's words. On Arc2Face
every token from the identity on carries the person. The official PIU comparison takes the mean over all
tokens; the authors' last token is here the prompt's last word, "person".
"""

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from pydantic import Field

from piu_lora.settings import Amount, Positive, Settings
from piu_lora.unlearn.baselines.parts import TokenChoice, encoder_of, token_rows
from piu_lora.unlearn.baselines.registry import BaselineProblem, Form, baseline
from piu_lora.unlearn.dial import Dial, Range

__all__ = ["UceSettings", "edit_uce", "edited_weight", "uce_layers"]


class UceSettings(Settings, section="uce"):
    """The weights of the three terms, who is kept, and which token stands for a condition."""

    erase: Amount = Field(20.0, description="weight of the person's conditions")
    preserve: Amount = Field(1.0, description="weight of the conditions of the people kept")
    ridge: Positive = Field(0.7, description="weight of the distance from the weights as they were")
    retained: int = Field(20, ge=0, description="centroids of retained people that are kept; 0: all")
    anchor_kept: bool = Field(False, description="whether the anchor is one of those kept")
    token: TokenChoice = Field(
        "mean", description="mean over all tokens, the last word's token, or all that carry the identity"
    )


_FORMS = (
    Form("official", "The official PIU comparison: the anchor is one of the 20 kept.", {"anchor_kept": True}),
    Form(
        "all",
        "The official code with everybody kept, the anchor among them, and a lower erase weight.",
        {"anchor_kept": True, "retained": 0, "erase": 5.0},
    ),
    Form(
        "authors",
        "As UCE's authors edit: the last token, equal weights, ridge 0.5 (not checked against their code); "
        "everybody is kept.",
        {"anchor_kept": True, "retained": 0, "erase": 1.0, "ridge": 0.5, "token": "last"},
    ),
)


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
        anchor: (hidden,) g, whose output c_f shall have, or (n, hidden), one for each.
        retain: (m, hidden) conditions c_r.
        erase, preserve, ridge: e, p and l.

    Returns:
        (out, hidden) W', float64.
    """
    w, f, g, r = (value.double() for value in (weight, forget, anchor, retain))
    preserved = ridge * torch.eye(w.shape[1], dtype=torch.float64, device=w.device) + preserve * r.T @ r
    towards = torch.outer(g, f.sum(dim=0)) if g.ndim == 1 else g.T @ f
    target = w @ (preserved + erase * towards)
    edited: torch.Tensor = torch.linalg.solve(preserved + erase * f.T @ f, target, left=False)
    return edited


@baseline(
    "uce",
    "UCE",
    "arXiv 2308.14761",
    UceSettings,
    about="As this arena ran it first: token means, 20 people kept, and not the anchor.",
    forms=_FORMS,
    dial=Dial("erase", (0.01, 0.03, 0.1, 0.3, 1, 5, 25), relative=True),
    search=[Range("erase", 0.01, 100), Range("preserve", 0.1, 10), Range("ridge", 0.1, 10)],
)
@torch.no_grad()
def edit_uce(
    pipe: StableDiffusionPipeline, problem: BaselineProblem, settings: UceSettings, seed: int
) -> None:
    """The conditions of the training embeddings to the anchor's; seeded retained centroids are kept."""
    encode = encoder_of(pipe)

    def rows(embeddings: torch.Tensor) -> torch.Tensor:
        return token_rows(pipe, encode(embeddings), settings.token)

    forget, retain = rows(problem.forget), rows(_people_kept(problem, settings, seed))
    anchor = rows(problem.anchor[None])
    anchor = anchor[0] if len(anchor) == 1 else anchor.repeat(len(problem.forget), 1)
    strengths = {"erase": settings.erase, "preserve": settings.preserve, "ridge": settings.ridge}
    for layer in uce_layers(pipe.unet):
        layer.weight.copy_(edited_weight(layer.weight, forget, anchor, retain, **strengths))


def _people_kept(problem: BaselineProblem, settings: UceSettings, seed: int) -> torch.Tensor:
    """(m, d): seeded centroids, as many as are asked for; the anchor takes the place of the last."""
    order = torch.randperm(len(problem.centroids), generator=torch.Generator().manual_seed(seed))
    count = settings.retained or len(order) + settings.anchor_kept
    chosen = problem.centroids[order[: count - settings.anchor_kept]]
    return torch.cat([chosen, problem.anchor[None]]) if settings.anchor_kept else chosen
