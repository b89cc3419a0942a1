"""The algebra of identity embeddings: unit vectors, their centroids, cosines and mixtures."""

import torch

from piu_lora.errors import BadInput

__all__ = ["centroid", "dirichlet_mixtures", "normalize", "synthetic_neighbours"]


def normalize(vectors: torch.Tensor) -> torch.Tensor:
    """Scale each row of (n, d), or one (d,), to unit length in float32.

    Raises:
        BadInput: a row is not finite, or has no direction.
    """
    vectors = vectors.float()
    if not torch.isfinite(vectors).all():
        row = int((~torch.isfinite(vectors)).reshape(len(vectors), -1).any(dim=1).nonzero()[0])
        raise BadInput(f"embedding {row} holds NaN or infinity; make it again from its photograph")
    norms = vectors.double().norm(dim=-1, keepdim=True)
    if (norms < 1e-6).any():
        row = int((norms.reshape(-1) < 1e-6).nonzero()[0])
        raise BadInput(f"embedding {row} is a zero vector; make it again from its photograph")
    return torch.div(vectors, norms).float()


def centroid(embeddings: torch.Tensor) -> torch.Tensor:
    """``mu = mean(e) / |mean(e)|`` over (n, d) unit embeddings: (d,)."""
    return normalize(normalize(embeddings).mean(dim=0, keepdim=True))[0]


def dirichlet_mixtures(
    embeddings: torch.Tensor, count: int, generator: torch.Generator, parts: int = 3
) -> torch.Tensor:
    """Unit-norm Dirichlet(1, ..., 1) mixtures of up to ``parts`` embeddings of one identity (PIU, section
    3.3).

    Args:
        embeddings: (n, d) unit embeddings of one identity.
        count: number of mixtures.
        generator: CPU generator that draws the members and their weights.

    Returns:
        (count, d) unit vectors.
    """
    parts = min(parts, len(embeddings))
    members = torch.rand(count, len(embeddings), generator=generator).argsort(dim=1)[:, :parts]
    # Exponential draws, normalised, are Dirichlet(1, ..., 1).
    weights = -torch.log(torch.rand(count, parts, generator=generator).clamp_min(1e-12))
    weights = weights / weights.sum(dim=1, keepdim=True)
    mixed = (embeddings[members] * weights[..., None].to(embeddings)).sum(dim=1)
    return torch.nn.functional.normalize(mixed, dim=1)


def synthetic_neighbours(
    centre: torch.Tensor, others: torch.Tensor, low: float, high: float, generator: torch.Generator
) -> torch.Tensor:
    """Turn each of ``others`` towards ``centre`` until their cosine is uniform in [low, high].

    Nobody in particular, yet as close to the forgotten person as a relative: kept as they are, they protect
    real neighbours, whom an easy retain set leaves exposed.

    Args:
        centre: (d,) unit centroid of the forgotten person, or (n, d), one for each of the others.
        others: (n, d) unit embeddings of retained people.

    Returns:
        (n, d) unit vectors.
    """
    cosine = low + (high - low) * torch.rand(len(others), 1, generator=generator)
    across = others - (others * centre).sum(dim=1, keepdim=True) * centre
    across = torch.nn.functional.normalize(across, dim=1)
    return torch.nn.functional.normalize(cosine * centre + (1 - cosine**2).sqrt() * across, dim=1)
