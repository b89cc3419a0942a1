"""KID and sharpness against scikit-learn, scipy and plain recomputation."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.metrics.pairwise import polynomial_kernel

from piu_lora.evidence.quality import kid, kid_change, sharpness


def reference_kid(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased estimator, straight from its definition (arXiv 1801.01401)."""
    xx, yy, xy = (
        polynomial_kernel(a, b, degree=3, gamma=1 / x.shape[1], coef0=1) for a, b in ((x, x), (y, y), (x, y))
    )
    n, m = len(x), len(y)
    return (
        (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1)) - 2 * xy.mean()
    )


def drawn(count: int, shift: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, size=(count, 12))


@pytest.mark.parametrize(("n", "m", "shift"), [(5, 9, 0.0), (40, 60, 0.3), (2, 2, 1.0)])
def test_kid_is_the_unbiased_estimator(n: int, m: int, shift: float) -> None:
    x, y = drawn(n, shift, 1), drawn(m, 0, 2)
    assert kid(x, y) == pytest.approx(reference_kid(x, y), rel=1e-10)


def test_kid_is_about_nothing_for_one_distribution_and_grows_with_the_distance() -> None:
    near = [kid(drawn(80, 0, seed), drawn(200, 0, 100 + seed)) for seed in range(30)]
    assert abs(np.mean(near)) < 2 * np.std(near) / 30**0.5
    far = [kid(drawn(80, shift, 3), drawn(200, 0, 4)) for shift in (0.2, 0.5, 1.0)]
    assert far == sorted(far)
    assert far[0] > np.mean(near)


def test_the_change_has_a_jackknife_interval() -> None:
    before, after, known = drawn(20, 0.1, 1), drawn(20, 0.4, 2), drawn(50, 0, 3)
    found = kid_change(before, after, reference=known)
    left = np.array(
        [
            reference_kid(np.delete(after, i, 0), known) - reference_kid(np.delete(before, i, 0), known)
            for i in range(20)
        ]
    )
    error = 1.96 * np.sqrt(19 / 20 * ((left - left.mean()) ** 2).sum())
    middle = reference_kid(after, known) - reference_kid(before, known)
    assert found["delta"]["mean"] == pytest.approx(middle, rel=1e-9)
    assert found["delta"]["interval"] == pytest.approx([middle - error, middle + error], rel=1e-9)
    assert found["before"]["mean"] == pytest.approx(reference_kid(before, known), rel=1e-9)


def test_nothing_changed_is_a_delta_of_nothing() -> None:
    same = drawn(10, 0, 1)
    assert kid_change(same, same, reference=drawn(30, 0, 2))["delta"] == {"mean": 0.0, "interval": [0.0, 0.0]}


def test_sharpness_is_the_variance_of_scipys_laplacian() -> None:
    pictures = torch.rand(3, 3, 20, 24, generator=torch.Generator().manual_seed(0))
    grey = np.einsum("nchw,c->nhw", pictures.numpy(), [0.299, 0.587, 0.114])
    reference = [ndimage.laplace(each)[1:-1, 1:-1].var() for each in grey]
    np.testing.assert_allclose(sharpness(pictures), reference, rtol=1e-4)


def test_blur_lowers_sharpness() -> None:
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    blurred = torch.nn.functional.avg_pool2d(picture, 3, stride=1, padding=1)
    assert sharpness(blurred)[0] < 0.1 * sharpness(picture)[0]
    assert sharpness(torch.full((1, 3, 8, 8), 0.3))[0] == pytest.approx(0, abs=1e-12)
