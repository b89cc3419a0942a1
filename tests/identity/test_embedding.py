import contextlib
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from piu_lora.errors import BadInput
from piu_lora.identity import centroid, dirichlet_mixtures, normalize, synthetic_neighbours

SEEDS = st.integers(0, 2**31 - 1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def person(count: int, width: int, seed: int = 0) -> torch.Tensor:
    """Embeddings of one identity: unit rows around a common direction."""
    generator = seeded(seed)
    return normalize(
        torch.randn(width, generator=generator) + 0.3 * torch.randn(count, width, generator=generator)
    )


@settings(deadline=None)
@given(SEEDS, st.integers(1, 9), st.integers(1, 33))
def test_normalize_and_centroid_follow_numpy(seed: int, count: int, width: int) -> None:
    rows = (5 * torch.randn(count, width, generator=seeded(seed)) + 1).to(torch.float16)
    reference = rows.double().numpy()
    if (np.linalg.norm(reference, axis=1) < 1e-3).any():
        return
    reference = reference / np.linalg.norm(reference, axis=1, keepdims=True)
    assert normalize(rows).dtype == torch.float32
    np.testing.assert_allclose(normalize(rows), reference, atol=1e-6)
    mean = reference.mean(axis=0)
    if np.linalg.norm(mean) > 1e-2:
        np.testing.assert_allclose(centroid(rows), mean / np.linalg.norm(mean), atol=1e-4)


def test_every_row_weighs_the_same_in_a_centroid() -> None:
    rows = torch.tensor([[1000.0, 0.0], [0.0, 0.001]])
    assert torch.allclose(centroid(rows), torch.full((2,), 0.5**0.5))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_row_that_is_not_finite_is_named(value: float) -> None:
    rows = torch.ones(4, 3)
    rows[2, 1] = value
    with pytest.raises(BadInput, match="embedding 2 holds NaN or infinity"):
        normalize(rows)


def test_a_zero_row_is_named() -> None:
    rows = torch.ones(4, 3)
    rows[3] = 0
    with pytest.raises(BadInput, match="embedding 3 is a zero vector"):
        normalize(rows)


def test_a_huge_row_keeps_its_direction_or_is_refused() -> None:
    with contextlib.suppress(BadInput):
        assert normalize(torch.full((1, 4), 1e30)).norm() == pytest.approx(1)


@settings(deadline=None)
@given(SEEDS, st.integers(1, 8), st.integers(1, 6))
def test_mixtures_are_unit_and_lie_in_the_cone_of_three_members(seed: int, members: int, parts: int) -> None:
    rows = person(members, 12, seed)
    mixtures = dirichlet_mixtures(rows, 4, seeded(seed), parts)
    torch.testing.assert_close(mixtures.norm(dim=1), torch.ones(4))
    for mixture in mixtures.double().numpy():
        weights, residual = optimize.nnls(rows.double().numpy().T, mixture)
        assert residual < 1e-5  # a combination with weights of 0 or more
        assert 1 <= (weights > 1e-4).sum() <= parts


def weights_of(mixtures: torch.Tensor) -> np.ndarray:
    """Over the standard basis, a mixture is its own weights up to scale."""
    return (mixtures / mixtures.sum(dim=1, keepdim=True)).double().numpy()


def test_weights_are_dirichlet() -> None:
    drawn = weights_of(dirichlet_mixtures(torch.eye(3), 20_000, seeded()))
    reference = stats.dirichlet([1, 1, 1])
    np.testing.assert_allclose(drawn.mean(axis=0), reference.mean(), atol=0.006)
    np.testing.assert_allclose(np.cov(drawn.T), reference.cov(), atol=0.002)
    for column in drawn.T:
        assert stats.kstest(column, stats.beta(1, 2).cdf).pvalue > 1e-3


def test_every_trio_of_members_is_as_likely() -> None:
    drawn = weights_of(dirichlet_mixtures(torch.eye(5), 10_000, seeded())) > 0
    trios = list(itertools.combinations(range(5), 3))
    counts = [int(drawn[:, trio].all(axis=1).sum()) for trio in trios]
    assert sum(counts) == 10_000
    assert stats.chisquare(counts).pvalue > 1e-3


def test_mixtures_depend_on_their_generator_alone() -> None:
    rows = person(6, 8)
    first, again, other = (dirichlet_mixtures(rows, 5, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_only_embedding_is_its_own_mixture() -> None:
    rows = person(1, 8)
    torch.testing.assert_close(dirichlet_mixtures(rows, 3, seeded()), rows.expand(3, -1))


@settings(deadline=None)
@given(SEEDS, st.floats(-1, 0.98), st.floats(0.001, 0.5))
def test_neighbours_have_the_asked_cosine(seed: int, low: float, span: float) -> None:
    high = min(low + span, 0.99)
    generator = seeded(seed)
    centre, others = (
        normalize(torch.randn(1, 16, generator=generator))[0],
        normalize(torch.randn(9, 16, generator=generator)),
    )
    cosines = low + (high - low) * torch.rand(len(others), 1, generator=seeded(seed + 1))[:, 0]
    neighbours = synthetic_neighbours(centre, others, low, high, seeded(seed + 1))
    torch.testing.assert_close(neighbours.norm(dim=1), torch.ones(9))
    torch.testing.assert_close(neighbours @ centre, cosines, atol=1e-5, rtol=0)


def test_neighbours_keep_the_direction_they_came_from() -> None:
    """The part across ``centre`` points where the other person's does: the turn is in their common plane."""
    centre, others = person(1, 16, 1)[0], person(20, 16, 2)
    neighbours = synthetic_neighbours(centre, others, 0.3, 0.7, seeded())
    projector = np.eye(16) - np.outer(centre, centre)
    for mine, theirs in zip(neighbours.numpy() @ projector, others.numpy() @ projector, strict=True):
        assert mine @ theirs / np.linalg.norm(mine) / np.linalg.norm(theirs) == pytest.approx(1, abs=1e-5)


def test_neighbours_cosines_are_uniform() -> None:
    centre, others = person(1, 16, 1)[0], normalize(torch.randn(4000, 16, generator=seeded(3)))
    cosines = (synthetic_neighbours(centre, others, 0.3, 0.7, seeded()) @ centre).double().numpy()
    assert stats.kstest(cosines, stats.uniform(0.3, 0.4).cdf).pvalue > 1e-3
