"""A gated low-rank replacement after GLoCE (arXiv 2503.12356, CVPR 2025), on the condition.

GLoCE puts a module behind every cross-attention. It reads image tokens x: a gate, ``s = sigmoid(k (|V_g^T (x
- m_g)|^2 / |x - m_g|^2 - c))``, opens where they look like the target, and there they become ``m_s + V_s
V_s^T (I - V_t V_t^T) (x - m_t)`` (section 3; the formulas as their released code has them). V_t are the
target's leading directions, V_s the surrogate's, V_g the leading direction of the target as seen from other
concepts, whose mean is m_g; the threshold c stands some standard deviations above what those others read.

Adapted: a person is the whole image, and what tells them is the condition. So one module stands before the
UNet and reads the condition's tokens, and the generation steps that GLoCE takes its statistics from are not
needed. The surrogate is the anchor; the other concepts are retained people, the nearest first.
"""

import math

import torch
from diffusers import StableDiffusionPipeline
from pydantic import Field

from piu_lora.identity import dirichlet_mixtures
from piu_lora.settings import Amount, Count, Positive, Settings
from piu_lora.unlearn.baselines.inserts import insert
from piu_lora.unlearn.baselines.parts import encoder_of, token_rows
from piu_lora.unlearn.baselines.registry import BaselineProblem, baseline
from piu_lora.unlearn.dial import Dial, Range

__all__ = ["GloceSettings", "edit_gloce", "gate_parts", "leading"]

_OPEN = math.log(0.99 / 0.01)  # the gate is 0.99 open this far above its threshold, in units of the slope


class GloceSettings(Settings, section="gloce"):
    """Ranks, threshold and strength; ranks and threshold are those of the authors' script for celebrities."""

    gate_rank: Count = Field(1, description="directions that the gate reads")
    update_rank: Count = Field(16, description="directions of the person that are taken away")
    degen_rank: Count = Field(2, description="directions of the anchor's tokens that are kept")
    threshold: float = Field(
        2.5, description="standard deviations above what other people read, from which the gate opens"
    )
    eta: Amount = Field(1.0, description="strength of the replacement")
    width: Positive = Field(0.001, description="distance over which the gate opens, in thresholds")
    others: Count = Field(64, description="retained people that the gate is set by, the nearest first")
    mixtures: Count = Field(32, description="conditions of the person")


def leading(rows: torch.Tensor, count: int, centred: bool = True) -> torch.Tensor:
    """(count, hidden) orthonormal directions of most variance of rows (n, hidden), or of most energy."""
    values = rows - rows.mean(dim=0) if centred else rows
    directions: torch.Tensor = torch.linalg.eigh(values.T @ values)[1].flip(1).T[:count]
    return directions


def gate_parts(
    person: torch.Tensor, anchor: torch.Tensor, others: torch.Tensor, settings: GloceSettings
) -> dict[str, torch.Tensor]:
    """The parts of a ``ConditionGate`` from tokens (n, hidden) of the person, the anchor and other people."""
    origin, centre, bias = others.mean(dim=0), person.mean(dim=0), anchor.mean(dim=0)
    gate = leading(person - origin, settings.gate_rank, centred=False)
    offsets = others - origin
    read = (offsets @ gate.T).square().sum(dim=1) / offsets.square().sum(dim=1).clamp_min(1e-12)
    lost, kept = leading(person, settings.update_rank), leading(anchor, settings.degen_rank)
    parts = {
        "gate": gate,
        "origin": origin,
        "centre": centre,
        "bias": settings.eta * bias,
        "update": kept - kept @ lost.T @ lost,
        "degen": settings.eta * kept.T,
        "threshold": (read.mean() + settings.threshold * read.std())[None],
        "slope": torch.tensor([_OPEN / (settings.width * max(abs(settings.threshold), 1e-3))]),
    }
    return {name: part.float().contiguous() for name, part in parts.items()}


@baseline(
    "gloce",
    "GLoCE (on the condition)",
    "arXiv 2503.12356",
    GloceSettings,
    about="A gated form from its paper, moved to the condition.",
    dial=Dial("threshold", (-1, 0, 1, 2.5, 4, 6)),
    search=[Range("threshold", -2.0, 8.0, relative=False, log=False), Range("eta", 0.5, 2)],
)
@torch.no_grad()
def edit_gloce(
    pipe: StableDiffusionPipeline, problem: BaselineProblem, settings: GloceSettings, seed: int
) -> None:
    """A gate on the condition, which replaces the person's tokens by the anchor's."""
    generator, encode = torch.Generator().manual_seed(seed), encoder_of(pipe)
    closest = (problem.centroids @ problem.forget.mean(dim=0)).topk(
        min(settings.others, len(problem.centroids))
    )
    mixtures = dirichlet_mixtures(problem.forget, settings.mixtures, generator)
    person, anchor, others = (
        token_rows(pipe, encode(rows), "identity").double()
        for rows in (mixtures, problem.anchor[None], problem.centroids[closest.indices])
    )
    insert(pipe.unet, "condition_gate", gate_parts(person, anchor, others, settings))
