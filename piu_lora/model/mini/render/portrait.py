"""A portrait, from back to front: background, hair, body, face, features, camera."""

import torch

from piu_lora.model.mini.render.features import (
    draw_beard,
    draw_brows,
    draw_eyes,
    draw_glasses,
    draw_mouth,
    draw_nose,
)
from piu_lora.model.mini.render.head import draw_body, draw_ears, draw_face, draw_hair_behind, draw_hair_front
from piu_lora.model.mini.render.parameters import IDENTITY, NUISANCE, Values
from piu_lora.model.mini.render.scene import Scene, build_scene
from piu_lora.model.mini.render.shapes import coverage, gaussian, hsv_to_rgb

__all__ = ["SIZE", "render", "surface"]

SIZE = 96


@torch.no_grad()
def render(
    identity: torch.Tensor, nuisance: torch.Tensor, generator: torch.Generator, size: int = SIZE
) -> torch.Tensor:
    """Draw one portrait a row.

    Args:
        identity: (n, len(IDENTITY)) float32 in [0, 1], who is seen.
        nuisance: (n, len(NUISANCE)) float32 in [0, 1], how they are seen.
        generator: the sensor noise; nothing else here is random.
        size: height and width in pixels.

    Returns:
        (n, 3, size, size) uint8 RGB.
    """
    who, how = Values(IDENTITY, identity), Values(NUISANCE, nuisance)
    scene = build_scene(who, how, size)
    canvas = _background(scene)
    draw_hair_behind(canvas, scene)
    draw_body(canvas, scene)
    draw_ears(canvas, scene)
    draw_face(canvas, scene)
    draw_nose(canvas, scene)
    draw_beard(canvas, scene)
    draw_mouth(canvas, scene)
    draw_eyes(canvas, scene)
    draw_brows(canvas, scene)
    draw_hair_front(canvas, scene)
    draw_glasses(canvas, scene)
    return _photograph(canvas, scene, generator)


@torch.no_grad()
def surface(identity: torch.Tensor, nuisance: torch.Tensor, size: int = SIZE) -> torch.Tensor:
    """Where the head is and how it is turned, as Arc2Face's ControlNet is shown normals: the two coordinates
    of the turned surface and its height, 0 beside the head.

    Args:
        identity, nuisance, size: as of ``render``.

    Returns:
        (n, 3, size, size) float32 in [0, 1].
    """
    scene = build_scene(Values(IDENTITY, identity), Values(NUISANCE, nuisance), size)
    height = (1 - scene.radius.square()).clamp_min(0).sqrt()
    maps = torch.stack([0.5 + 0.5 * scene.fu, 0.5 + 0.5 * scene.fv, height], dim=1)
    return maps.clamp(0, 1) * coverage((scene.radius - 1) * 0.45, scene.pixel, 1.2)[:, None]


def _background(scene: Scene) -> torch.Tensor:
    how = scene.how
    slope = how.background_slope * (
        scene.x * torch.cos(how.background_angle) + scene.y * torch.sin(how.background_angle)
    )
    spot = how.background_spot * gaussian(scene.x, 0.8) * gaussian(scene.y + 0.1, 0.9)
    colour = hsv_to_rgb(how.background_hue, how.background_saturation, how.background_value)
    return (colour + (slope + spot)[:, None]).clamp(0, 1)


def _photograph(canvas: torch.Tensor, scene: Scene, generator: torch.Generator) -> torch.Tensor:
    """Light colour, exposure, contrast, lens blur and sensor noise; 8 bits a channel."""
    how = scene.how
    tint = torch.cat([1 + how.light_warmth, torch.ones_like(how.light_warmth), 1 - how.light_warmth], dim=1)
    picture = canvas * tint.reshape(-1, 3, 1, 1)
    picture = (picture - 0.5) * how.contrast[:, None] + 0.5 + how.exposure[:, None]
    picture = _blur(picture, how.blur.reshape(-1) * canvas.shape[-1] / 96)
    noise = torch.randn(picture.shape, generator=generator)
    picture = picture + noise * how.noise[:, None]
    return (picture.clamp_(0, 1) * 255).round_().to(torch.uint8)


def _blur(picture: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Gaussian blur with one standard deviation a picture, in pixels; (n, 3, h, w) and (n,)."""
    taps = torch.arange(-2, 3)[None, :]
    weights = torch.exp(-0.5 * (taps / sigma.clamp_min(1e-3)[:, None]) ** 2)
    weights = (weights / weights.sum(dim=1, keepdim=True)).repeat_interleave(3, dim=0)
    count, _, height, width = picture.shape
    planes = torch.nn.functional.pad(picture, (2, 2, 2, 2), mode="replicate").reshape(
        1, count * 3, height + 4, width + 4
    )
    planes = torch.nn.functional.conv2d(planes, weights[:, None, :, None], groups=count * 3)
    planes = torch.nn.functional.conv2d(planes, weights[:, None, None, :], groups=count * 3)
    return planes.reshape(count, 3, height, width)
