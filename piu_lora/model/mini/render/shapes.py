"""Anti-aliased shapes as coverage masks: plain tensor arithmetic, batched over pictures."""

import torch

__all__ = ["coverage", "gaussian", "hsv_to_rgb", "paint", "ramp", "superellipse"]


def coverage(distance: torch.Tensor, pixel: float, softness: float = 1.0) -> torch.Tensor:
    """Share of a pixel inside a shape, from a signed distance (negative inside), both in face units."""
    return (0.5 - distance / (pixel * softness)).clamp_(0.0, 1.0)


def superellipse(x: torch.Tensor, y: torch.Tensor, exponent: torch.Tensor | float) -> torch.Tensor:
    """Radius of ``|x|^n + |y|^n = r^n``: 1 on the outline, below 1 inside. ``x, y`` are already scaled."""
    return (x.abs().clamp_min(1e-4).pow(exponent) + y.abs().clamp_min(1e-4).pow(exponent)).pow(1.0 / exponent)


def gaussian(x: torch.Tensor, width: torch.Tensor | float) -> torch.Tensor:
    """A soft bump: ``exp(-(x / width)^2)``."""
    return torch.exp(-((x / width) ** 2))


def paint(canvas: torch.Tensor, colour: torch.Tensor, alpha: torch.Tensor) -> None:
    """Lay ``colour`` (n, 3, h|1, w|1) over ``canvas`` (n, 3, h, w), in place, by ``alpha`` (n, h, w) in [0,
    1].
    """
    canvas.lerp_(colour.expand_as(canvas), alpha[:, None])


def ramp(stops: tuple[tuple[float, float, float], ...], position: torch.Tensor) -> torch.Tensor:
    """Colour at ``position`` (n, 1, 1) in [0, 1] along evenly spaced RGB ``stops``: (n, 3, 1, 1)."""
    table = torch.tensor(stops)
    level = position.reshape(-1).clamp(0, 1) * (len(stops) - 1)
    low = level.floor().long().clamp_max(len(stops) - 2)
    return torch.lerp(table[low], table[low + 1], (level - low)[:, None])[:, :, None, None]


def hsv_to_rgb(hue: torch.Tensor, saturation: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Colours (n, 3, 1, 1) from hue, saturation and value (n, 1, 1), each in [0, 1]."""
    shift = torch.tensor([5.0, 3.0, 1.0])[None, :]
    k = (shift + hue.reshape(-1, 1) * 6.0) % 6.0
    rgb = value.reshape(-1, 1) * (1 - saturation.reshape(-1, 1) * torch.minimum(k, 4 - k).clamp(0, 1))
    return rgb[:, :, None, None]
