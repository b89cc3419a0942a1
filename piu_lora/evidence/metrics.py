"""The figures of merit, on plain arrays."""

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "accuracy", "cosine_to", "interval", "ratio_interval", "srk"]

Array = npt.NDArray[np.float64]


def cosine_to(embeddings: npt.ArrayLike, centroids: npt.ArrayLike) -> Array:
    """Cosine of each embedding to its own centroid, both (n, d) unit rows: (n,). Its mean is ISM."""
    result: Array = np.einsum("nd,nd->n", np.asarray(embeddings, float), np.asarray(centroids, float))
    return result


def accuracy(embeddings: npt.ArrayLike, gallery: npt.ArrayLike, own: npt.ArrayLike) -> Array:
    """1 where the nearest centroid of ``gallery`` (m, d) is the embedding's ``own`` row, else 0: (n,). Means are AccU, AccR.

    A zero row stands for a picture without a face, and is nobody.
    """
    rows = np.asarray(embeddings, float)
    nearest = (rows @ np.asarray(gallery, float).T).argmax(axis=1)
    result: Array = ((nearest == np.asarray(own)) & rows.any(axis=1)).astype(float)
    return result


def srk(retained: float, forgotten: float) -> float:
    """``AccR / (AccU + 0.01)`` (PIU, section 4.2); it saturates near 100."""
    return retained / (forgotten + 0.01)


def interval(values: Array, seed: int = 0, draws: int = 2000) -> tuple[float, float]:
    """Percentile bootstrap 95 % interval of the mean."""
    means = values[_resample(len(values), seed, draws)].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def ratio_interval(after: Array, before: Array, seed: int = 0, draws: int = 2000) -> tuple[float, float]:
    """Percentile bootstrap 95 % interval of ``mean(after) / mean(before)``; pairs (same condition, same seed) stay together."""
    rows = _resample(len(after), seed, draws)
    above, below = after[rows].mean(axis=1), before[rows].mean(axis=1)
    low, high = np.percentile(above[below != 0] / below[below != 0], [2.5, 97.5])
    return float(low), float(high)


def _resample(count: int, seed: int, draws: int) -> npt.NDArray[np.int64]:
    rows: npt.NDArray[np.int64] = np.random.default_rng(seed).integers(count, size=(draws, count))
    return rows
