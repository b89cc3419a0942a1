"""UME26: a low-rank adapter on the identity embedding itself, towards the least similar identity ("The
Nearest Target Is the Wrong One", arXiv 2608.30087, ECCV 2026 workshop).

The embedding becomes ``e + B A e``, of rank 8, before the text encoder reads it; the paper's finding is that
the target has to be far from the forgotten person, since near ones still verify as them. Solved here as a
ridge regression, ``argmin E_f |D e + e - t|^2 + p E_r |D e|^2 + l |D|^2``, cut to the rank; it takes
milliseconds, as theirs.

Adapted: only a summary of the paper was at hand (rank, place, target, time), not its equations; the
regression is ours. No weight of the base changes, so whoever feeds an unadapted encoder bypasses it.
"""

from typing import Literal

import torch
from diffusers import StableDiffusionPipeline
from pydantic import Field

from piu_lora.model import prompt_of
from piu_lora.settings import Count, Positive, Settings
from piu_lora.unlearn.baselines.inserts import insert
from piu_lora.unlearn.baselines.registry import BaselineProblem, Form, baseline
from piu_lora.unlearn.closed.solve import SecondMoments, solve_edit
from piu_lora.unlearn.dial import ADAPTER_WEIGHT, Range

__all__ = ["UmeSettings", "edit_ume", "least_similar"]


class UmeSettings(Settings, section="ume"):
    """The adapter's rank, its target, and the weights of the terms."""

    rank: Count = 8
    target: Literal["least-similar", "anchor"] = Field(
        "least-similar",
        description="who replaces the person: the retained one least like them, or the anchor",
    )
    preserve: Positive = Field(10.0, description="p: weight of everybody else's embeddings")
    ridge: Positive = Field(1e-4, description="l, as a share of the mean diagonal")


def least_similar(forget: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """(d,) the centroid (k, d) with the lowest cosine to the mean of the embeddings (n, d)."""
    return centroids[int((centroids @ forget.mean(dim=0)).argmin())]


@baseline(
    "ume",
    "UME26 (embedding adapter)",
    "arXiv 2608.30087",
    UmeSettings,
    component="text_encoder",
    about="From a summary of its paper; not among the official comparison's baselines.",
    dial=ADAPTER_WEIGHT,
    search=[Range("preserve", 0.01, 100), Range("ridge", 0.01, 100)],
    forms=[Form("anchor", "With this arena's anchor, not the least similar person.", {"target": "anchor"})],
)
@torch.no_grad()
def edit_ume(
    pipe: StableDiffusionPipeline, problem: BaselineProblem, settings: UmeSettings, seed: int
) -> None:
    """A linear map of rank 8 on the embedding at the identity token."""
    target = (
        problem.anchor if settings.target == "anchor" else least_similar(problem.forget, problem.centroids)
    )
    width = problem.forget.shape[1]
    moments = SecondMoments.empty(width, width)
    moments.add(problem.forget, target - problem.forget)
    retain = problem.retain.double()
    edit = solve_edit(
        moments,
        retain.T @ retain / len(retain),
        retain_weight=settings.preserve,
        ridge=settings.ridge,
        tolerance=0.0,
        rank=settings.rank,
    )
    token = pipe.tokenizer.encode(prompt_of(pipe.text_encoder).token, add_special_tokens=False)[:1]
    parts = {"down": edit.factors.down, "up": edit.factors.up, "token": torch.tensor(token)}
    insert(pipe.text_encoder, "embedding_adapter", parts)
