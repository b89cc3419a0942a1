"""The coordinates that every part of a portrait is drawn in."""

from dataclasses import dataclass

import torch

from piu_lora.model.mini.render.parameters import Values
from piu_lora.model.mini.render.shapes import gaussian, ramp, superellipse

__all__ = ["Scene", "build_scene"]

ZOOM = 1.18  # how tightly the picture is cropped around the face
SKIN = (
    (0.98, 0.84, 0.74),
    (0.93, 0.74, 0.61),
    (0.84, 0.63, 0.48),
    (0.66, 0.45, 0.32),
    (0.46, 0.30, 0.21),
    (0.32, 0.20, 0.15),
)
HAIR = (
    (0.08, 0.07, 0.08), (0.20, 0.13, 0.10), (0.34, 0.21, 0.13), (0.50, 0.23, 0.12),
    (0.72, 0.36, 0.15), (0.66, 0.50, 0.28), (0.90, 0.76, 0.46), (0.58, 0.58, 0.60), (0.88, 0.88, 0.87),
)  # fmt: skip


@dataclass
class Scene:
    """A batch of portraits being drawn; maps are (n, h, w), colours (n, 3, 1, 1)."""

    who: Values
    how: Values
    pixel: float
    x: torch.Tensor  # picture frame
    y: torch.Tensor
    u: torch.Tensor  # head frame: origin between the eyes and the nose, upright
    v: torch.Tensor
    fu: torch.Tensor  # the head frame as the features sit on the turned surface
    fv: torch.Tensor
    radius: torch.Tensor  # 1 on the outline of the face
    half_width: torch.Tensor
    skin: torch.Tensor
    hair: torch.Tensor
    light: torch.Tensor  # brightness of the lit face

    def rows(self, top: float, bottom: float) -> tuple["Scene", slice]:
        """The same scene cut to the rows between two heights, so that small parts cost little."""
        height = self.y.shape[1]
        first = max(int((top * ZOOM * 1.06 + 1) / 2 * height) - 2, 0)
        rows = slice(first, min(int((bottom * ZOOM * 1.06 + 1) / 2 * height) + 4, height))
        cut = {
            name: getattr(self, name)[:, rows]
            for name in ("x", "y", "u", "v", "fu", "fv", "radius", "half_width", "light")
        }
        return Scene(self.who, self.how, self.pixel, skin=self.skin, hair=self.hair, **cut), rows


def build_scene(who: Values, how: Values, size: int) -> Scene:
    """Lay out the head: pose, outline, surface and light."""
    line = (torch.arange(size) + 0.5) / size * 2 - 1
    count = who.skin_tone.shape[0]
    x = line[None, None, :].expand(count, size, size)
    y = line[None, :, None].expand(count, size, size)
    cos, sin = torch.cos(how.roll), torch.sin(how.roll)
    cx, cy = x - how.shift_x, y - how.shift_y - 0.03
    zoom = ZOOM * how.scale
    u = (cx * cos + cy * sin) / zoom
    v = (cy * cos - cx * sin) / zoom

    half_width = who.face_width + who.cheekbones * gaussian(v - 0.08, 0.24)
    length = torch.where(v < 0, torch.full_like(who.face_length, 0.66), who.face_length)
    exponent = torch.where(v < 0, torch.full_like(who.jaw_square, 2.3), who.jaw_square)
    radius = superellipse(u / half_width, v / length, exponent)

    bulge = (1 - ((u / half_width) ** 2 + (v / length) ** 2)).clamp_min(0.0).sqrt()
    fu = u - 0.11 * how.yaw * bulge
    fv = v - 0.05 * how.pitch * bulge
    lambert = (u / half_width) * how.light_x + (v / length) * how.light_y + bulge * 0.6
    light = 0.90 + how.light_strength * (lambert - 0.35)
    skin = ramp(SKIN, who.skin_tone) * _undertone(who.skin_warmth)
    return Scene(
        who,
        how,
        2.0 / size / ZOOM,
        x,
        y,
        u,
        v,
        fu,
        fv,
        radius,
        half_width,
        skin,
        ramp(HAIR, who.hair_colour),
        light,
    )


def _undertone(warmth: torch.Tensor) -> torch.Tensor:
    factor = torch.cat([1 + 0.04 * warmth, 1 - 0.02 * warmth, 1 - 0.05 * warmth], dim=1)
    return factor.reshape(-1, 3, 1, 1)
