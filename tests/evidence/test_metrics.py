import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import cdist

from piu_lora.evidence.metrics import Array, accuracy, cosine_to, interval, ratio_interval, srk


def unit(rows: int, width: int = 8, seed: int = 0) -> Array:
    drawn = np.random.default_rng(seed).normal(size=(rows, width))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(1, 20))
def test_cosine_to_the_own_centroid(seed: int, count: int) -> None:
    mine, centres = unit(count, seed=seed), unit(count, seed=seed + 1)
    reference = 1 - np.diag(cdist(mine, centres, "cosine"))
    np.testing.assert_allclose(cosine_to(mine.astype(np.float32), centres), reference, atol=1e-6)


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(1, 20), st.integers(1, 12))
def test_accuracy_is_the_nearest_centroid_by_cosine_distance(seed: int, count: int, people: int) -> None:
    mine, gallery = unit(count, seed=seed), unit(people, seed=seed + 1)
    own = np.random.default_rng(seed).integers(people, size=count)
    reference = cdist(mine, gallery, "cosine").argmin(axis=1) == own
    assert accuracy(mine, gallery, own).tolist() == reference.astype(float).tolist()


def test_accuracy_is_one_on_the_centroids_and_none_with_rows_exchanged() -> None:
    gallery = unit(6)
    assert accuracy(gallery, gallery, range(6)).tolist() == [1.0] * 6
    assert accuracy(gallery, gallery, [1, 2, 3, 4, 5, 0]).tolist() == [0.0] * 6


@pytest.mark.parametrize(
    ("retained", "forgotten", "wanted"),
    [(1.0, 0.0, 100.0), (0.9, 0.04, 18.0), (0.0, 0.5, 0.0), (1.0, 1.0, 1 / 1.01)],
)
def test_srk(retained: float, forgotten: float, wanted: float) -> None:
    assert srk(retained, forgotten) == pytest.approx(wanted)


@pytest.mark.parametrize("seed", range(3))
def test_interval_is_scipys_percentile_bootstrap(seed: int) -> None:
    values = np.random.default_rng(seed).beta(2, 5, size=30)
    reference = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", random_state=np.random.default_rng(99)
    ).confidence_interval
    tolerance = 0.1 * (reference.high - reference.low)
    assert interval(values, seed) == pytest.approx((reference.low, reference.high), abs=tolerance)


def test_interval_covers_the_mean_of_most_samples() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        low, high = interval(generator.normal(3, 1, size=40), draws=300)
        covered += low < 3 < high
    assert 176 <= covered <= 198  # 95 % of 200, less the bootstrap's known bias at 40


def test_interval_is_seeded() -> None:
    values = np.random.default_rng(0).normal(size=20)
    assert interval(values, 1) == interval(values, 1)
    assert interval(values, 1) != interval(values, 2)


@pytest.mark.parametrize("value", [0.0, 1.0, -2.5])
def test_interval_of_equal_values_is_a_point(value: float) -> None:
    assert interval(np.full(9, value)) == (value, value)


def test_ratio_interval_is_scipys_paired_bootstrap() -> None:
    generator = np.random.default_rng(3)
    before = generator.uniform(0.4, 0.8, size=40)
    after = 0.3 * before + generator.normal(0, 0.05, size=40)
    reference = stats.bootstrap(
        (after, before),
        lambda a, b, axis: a.mean(axis=axis) / b.mean(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=20_000,
        method="percentile",
        random_state=np.random.default_rng(99),
    ).confidence_interval
    tolerance = 0.1 * (reference.high - reference.low)
    assert ratio_interval(after, before) == pytest.approx((reference.low, reference.high), abs=tolerance)


def test_ratio_interval_keeps_pairs_together() -> None:
    """When every pair has the same ratio, resampling pairs cannot change it; resampling the sides apart
    would.
    """
    before = np.random.default_rng(0).uniform(0.1, 0.9, size=25)
    assert ratio_interval(0.25 * before, before) == pytest.approx((0.25, 0.25), abs=1e-12)
