"""SPEED: an edit inside the null space of a filtered retain set, in closed form (arXiv 2503.07392).

With W a value projection, C1 the conditions to erase, C* what they shall become, R the conditions to keep and
C2 invariants that every image shares:

1. influence (section 4.1): ``D = W (C* - C1) C1^T (I + C1 C1^T)^-1`` is the edit without any retention; a
   condition r of R stays in it where ``|D r|`` is above the mean;
2. augmentation (section 4.2): ``r + e P_min``, e standard normal, P_min the projector on W's weakest right
   singular vector, filtered the same way;
3. null space (equation 4): P projects on the eigenvectors of ``mean r r^T`` whose eigenvalue is below a
   threshold;
4. solution with invariants (section 4.3): ``D = W (C* - C1) C1^T P Q M``, with ``M = (C1 C1^T P + l I)^-1``
   and ``Q = I - M C2 (C2^T P M C2)^-1 C2^T P``.

Adapted: C1 are the conditions of the training embeddings, C* the anchor's, R those of retained centroids; C2
are the first token and the centres of the empty prompt's other tokens, as in the paper. SPEED edits at a
concept's last token; on Arc2Face all tokens from the identity on carry the person, so that
``token=identity`` takes them all.
"""

from typing import Literal

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from pydantic import Field

from piu_lora.model import encode_empty
from piu_lora.settings import Count, Positive, Settings
from piu_lora.unlearn.baselines.parts import TokenChoice, encoder_of, token_rows
from piu_lora.unlearn.baselines.registry import BaselineProblem, baseline
from piu_lora.unlearn.dial import Dial, Range

__all__ = ["SpeedSettings", "augmented", "edit_speed", "influential", "null_space", "speed_change"]

_CENTRES = 3  # of the empty prompt's tokens, by k-means


class SpeedSettings(Settings, section="speed"):
    """What is edited and kept; the defaults are those of the authors' script."""

    projections: Literal["v", "k", "kv"] = Field("v", description="keys, values, or both")
    token: TokenChoice = Field("last", description="which tokens of a condition are erased and kept")
    retained: int = Field(1000, ge=0, description="centroids of retained people in the retain set; 0: all")
    filtered: bool = Field(True, description="whether only those that the edit would change stay in it")
    augmentations: int = Field(10, ge=0, description="perturbed copies of each of them")
    threshold: Positive = Field(
        0.1, description="eigenvalue of the retain set's second moment below which a direction is free"
    )
    ridge: Positive = Field(1.0, description="l: the higher, the weaker the edit")
    batch: Count = Field(256, description="retained people encoded at once")


def influential(rows: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """The rows (n, hidden) that a change (out, hidden) moves more than it does on average."""
    moved = (rows @ change.T).norm(dim=1)
    return rows[moved > moved.mean()]


def augmented(
    rows: torch.Tensor, weight: torch.Tensor, change: torch.Tensor, copies: int, generator: torch.Generator
) -> torch.Tensor:
    """Copies of rows (n, hidden) perturbed along what a weight (out, hidden) answers least to, filtered by
    influence.
    """
    weakest = torch.linalg.svd(weight)[2][-1:]
    noise = torch.randn(copies * len(rows), rows.shape[1], generator=generator).to(rows)
    return influential(rows.repeat(copies, 1) + noise @ weakest.T @ weakest, change)


def null_space(rows: torch.Tensor, threshold: float) -> torch.Tensor:
    """(hidden, hidden) projector on the directions in which rows (n, hidden) have less energy than that."""
    values, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
    free = vectors[:, values < threshold]
    projector: torch.Tensor = free @ free.T
    return projector


def speed_change(
    weight: torch.Tensor,
    cross: torch.Tensor,
    own: torch.Tensor,
    projector: torch.Tensor,
    invariants: torch.Tensor,
    ridge: float,
) -> torch.Tensor:
    """``W (C* - C1) C1^T P Q M``.

    Args:
        weight: (out, hidden) W.
        cross: (hidden, hidden) C* C1^T.
        own: (hidden, hidden) C1 C1^T.
        projector: (hidden, hidden) P.
        invariants: (hidden, k) C2.
        ridge: l.
    """
    identity = torch.eye(len(own), dtype=own.dtype, device=own.device)
    inverse = torch.linalg.inv(own @ projector + ridge * identity)
    inner = invariants.T @ projector @ inverse @ invariants
    held = inverse @ invariants @ torch.linalg.pinv(inner) @ invariants.T @ projector
    change: torch.Tensor = weight @ (cross - own) @ projector @ (identity - held) @ inverse
    return change


@baseline(
    "speed",
    "SPEED",
    "arXiv 2503.07392",
    SpeedSettings,
    about="From its paper; not among the official comparison's baselines.",
    dial=Dial("ridge", (30, 10, 3, 1, 0.3, 0.1, 0.03), relative=True),
    search=[Range("ridge", 0.01, 10), Range("threshold", 0.1, 30)],
)
@torch.no_grad()
def edit_speed(
    pipe: StableDiffusionPipeline, problem: BaselineProblem, settings: SpeedSettings, seed: int
) -> None:
    """The values (or keys) answer the person's conditions with the anchor's, inside the null space."""
    generator, encode = torch.Generator().manual_seed(seed), encoder_of(pipe)

    def rows(embeddings: torch.Tensor) -> torch.Tensor:
        parts = [token_rows(pipe, encode(part), settings.token) for part in embeddings.split(settings.batch)]
        return torch.cat(parts).double()

    order = torch.randperm(len(problem.centroids), generator=generator)[: settings.retained or None]
    forget, retain = rows(problem.forget), rows(problem.centroids[order])
    anchor = rows(problem.anchor[None]).repeat(len(problem.forget), 1)
    own, cross = (side.T @ forget / len(problem.forget) for side in (forget, anchor))
    invariants, identity = _invariants(pipe), torch.eye(len(own), dtype=own.dtype, device=own.device)
    endings = tuple(f"attn2.to_{letter}" for letter in settings.projections)
    for name, layer in pipe.unet.named_modules():
        if not name.endswith(endings):
            continue
        weight = layer.weight.double()
        bare = weight @ (cross - own) @ torch.linalg.inv(identity + own)
        chosen = influential(retain, bare) if settings.filtered else retain
        if settings.augmentations:
            copies = augmented(chosen, weight, bare, settings.augmentations, generator)
            chosen = torch.cat([chosen, copies])
        projector = null_space(chosen, settings.threshold)
        layer.weight += speed_change(weight, cross, own, projector, invariants, settings.ridge)


def _invariants(pipe: StableDiffusionPipeline) -> torch.Tensor:
    """(hidden, 1 + centres): the first token, which is everybody's, and centres of the empty prompt's other
    tokens.
    """
    from sklearn.cluster import KMeans

    empty = encode_empty(pipe.text_encoder, pipe.tokenizer)[0].double()
    others = empty[1:].cpu().numpy()
    distinct = len(np.unique(others.round(6), axis=0))
    centres = KMeans(min(_CENTRES, distinct), n_init=4, random_state=0).fit(others).cluster_centers_
    return torch.cat([empty[:1], torch.from_numpy(centres).to(empty)]).T
