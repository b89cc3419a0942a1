"""The figures of merit, on plain arrays."""

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "accuracy", "clustered", "cosine_to", "interval", "ratio_interval", "srk"]

Array = npt.NDArray[np.float64]


def cosine_to(embeddings: npt.ArrayLike, centroids: npt.ArrayLike) -> Array:
    """Cosine of each embedding to its own centroid, both (n, d) unit rows: (n,). Its mean is ISM."""
    result: Array = np.einsum("nd,nd->n", np.asarray(embeddings, float), np.asarray(centroids, float))
    return result


def accuracy(embeddings: npt.ArrayLike, gallery: npt.ArrayLike, expected: npt.ArrayLike) -> Array:
    """1 where the nearest centroid of ``gallery`` (m, d) is the embedding's ``expected`` row, else 0: (n,).
    Means are AccU, AccR.

    A zero row stands for a picture without a face, and is nobody.
    """
    rows = np.asarray(embeddings, float)
    nearest = (rows @ np.asarray(gallery, float).T).argmax(axis=1)
    result: Array = ((nearest == np.asarray(expected)) & rows.any(axis=1)).astype(float)
    return result


def srk(retained: float, forgotten: float) -> float:
    """``AccR / (AccU + 0.01)`` (PIU, section 4.2); it saturates near 100."""
    return retained / (forgotten + 0.01)


def interval(
    values: Array, seed: int = 0, draws: int = 2000, *, people: npt.ArrayLike | None = None
) -> tuple[float, float]:
    """Percentile bootstrap 95 % interval of the mean.

    Args:
        people: (n,) whose each value is; then people are resampled, since images of one person are no
            independent draws. Of a single person the images are: the interval speaks of that person alone.
    """
    sums, sizes = _drawn([values, np.ones(len(values))], people, seed, draws)
    low, high = np.percentile(sums / sizes, [2.5, 97.5])
    return float(low), float(high)


def ratio_interval(
    after: Array, before: Array, seed: int = 0, draws: int = 2000, *, people: npt.ArrayLike | None = None
) -> tuple[float, float]:
    """Percentile bootstrap 95 % interval (Efron, 1979) of ``mean(after) / mean(before)``; pairs
    (same condition, same seed) stay together.
    """
    above, below = _drawn([after, before], people, seed, draws)
    low, high = np.percentile(above[below != 0] / below[below != 0], [2.5, 97.5])
    return float(low), float(high)


def clustered(values: Array, people: npt.ArrayLike | None) -> Array:
    """The sum of each person's values, (k,); the values themselves where there is one person, or nobody is
    told apart.
    """
    if people is None:
        return values
    names, whose = np.unique(np.asarray(people), return_inverse=True)
    if len(names) == 1:
        return values
    sums: Array = np.bincount(whose, weights=values).astype(float)
    return sums


def _drawn(columns: list[Array], people: npt.ArrayLike | None, seed: int, draws: int) -> list[Array]:
    """Resampled sums of each column, (draws,)."""
    sums = [clustered(np.asarray(column, float), people) for column in columns]
    rows = np.random.default_rng(seed).integers(len(sums[0]), size=(draws, len(sums[0])))
    return [column[rows].sum(axis=1) for column in sums]
