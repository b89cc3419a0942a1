"""Image quality: distance between distributions of features (KID), and sharpness."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from piu_lora.evidence.metrics import Array

__all__ = ["kid", "kid_change", "mean_kernel", "sharpness"]

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601


def sharpness(pictures: torch.Tensor) -> Array:
    """Variance of the Laplacian of the grey picture (Pech-Pacheco et al., 2000): (n,); low where a picture is
    blurred.

    Args:
        pictures: (n, 3, h, w) RGB in [0, 1].
    """
    grey = (pictures.float() * torch.tensor(_GREY).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    kernel = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]).view(1, 1, 3, 3)
    edges = torch.nn.functional.conv2d(grey, kernel).flatten(1)
    result: Array = edges.double().var(dim=1, unbiased=False).numpy()
    return result


def kid(features: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Kernel inception distance: the unbiased squared MMD with the kernel ``(x y / d + 1)^3`` (arXiv
    1801.01401, section 4).

    Args:
        features: (n, d) of the generated pictures, n >= 2.
        reference: (m, d) of real ones, m >= 2.
    """
    known = np.asarray(reference, float)
    return _Mmd(np.asarray(features, float), known, mean_kernel(known)).value


def kid_change(
    before: npt.ArrayLike, after: npt.ArrayLike, *, reference: npt.ArrayLike, within: float | None = None
) -> dict[str, Any]:
    """KID before and after, and their difference, each with a 95 % interval of the jackknife over pictures;
    pairs stay together.

    A bootstrap would draw pictures twice and so bias an estimator whose sums leave out a picture's match with
    itself.

    Args:
        before, after: (n, d), pair by pair the same condition and seed.
        reference: (m, d) of real pictures.
        within: the ``mean_kernel`` of ``reference``, where it is known already.
    """
    known = np.asarray(reference, float)
    within = mean_kernel(known) if within is None else within
    sides = [_Mmd(np.asarray(features, float), known, within) for features in (before, after)]
    left_out = [side.left_out() for side in sides]
    return {
        "before": _with_interval(sides[0].value, left_out[0]),
        "after": _with_interval(sides[1].value, left_out[1]),
        "delta": _with_interval(sides[1].value - sides[0].value, left_out[1] - left_out[0]),
    }


def _with_interval(value: float, left_out: Array) -> dict[str, Any]:
    count = len(left_out)
    error = 1.96 * float(np.sqrt((count - 1) / count * ((left_out - left_out.mean()) ** 2).sum()))
    return {"mean": value, "interval": [value - error, value + error]}


class _Mmd:
    """The sums of kernels that the estimate, and every estimate without one picture, are made of."""

    def __init__(self, features: Array, reference: Array, within: float) -> None:
        kernel = _kernel(features, features)
        np.fill_diagonal(kernel, 0)
        self.own, self.cross, self.count = (
            kernel.sum(axis=1),
            _kernel(features, reference).mean(axis=1),
            len(features),
        )
        self.known = within

    @property
    def value(self) -> float:
        within = self.own.sum() / (self.count * (self.count - 1))
        return float(within + self.known - 2 * self.cross.mean())

    def left_out(self) -> Array:
        """The estimate without each picture, (n,)."""
        rest = self.count - 1
        within = (self.own.sum() - 2 * self.own) / (rest * max(rest - 1, 1))
        result: Array = within + self.known - 2 * (self.cross.sum() - self.cross) / rest
        return result


def mean_kernel(reference: npt.ArrayLike) -> float:
    """The mean kernel of a set's pictures, (m, d), with each other, of none with itself."""
    known = np.asarray(reference, float)
    kernel, size = _kernel(known, known), len(known)
    return float((kernel.sum() - np.trace(kernel)) / (size * (size - 1)))


def _kernel(first: Array, second: Array) -> Array:
    result: Array = (first @ second.T / first.shape[1] + 1) ** 3
    return result
