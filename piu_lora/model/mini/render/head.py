"""Everything around the features: hair, ears, neck, clothes and the skin itself."""

import torch

from piu_lora.model.mini.render.scene import Scene
from piu_lora.model.mini.render.shapes import coverage, gaussian, hsv_to_rgb, paint, superellipse

__all__ = ["draw_body", "draw_ears", "draw_face", "draw_hair_behind", "draw_hair_front"]


def draw_hair_behind(canvas: torch.Tensor, scene: Scene) -> None:
    """Hair behind the head, from a close crop to below the shoulders."""
    ends = coverage(scene.v - _hair_end(scene), scene.pixel, 5.0)
    paint(
        canvas,
        scene.hair * _strands(scene)[:, None] * 0.80,
        coverage(_hair_distance(scene), scene.pixel, 1.5) * ends,
    )


def draw_body(canvas: torch.Tensor, scene: Scene) -> None:
    """Neck, shoulders and collar."""
    cut, rows = scene.rows(0.30, 1.0)
    u, v, who, how = cut.u, cut.v, cut.who, cut.how
    shoulders = superellipse(u / 0.92, (v - 1.28) / 0.52, 2.4) - 1
    neck_half = 0.62 * who.face_width + 0.10 * (v - 0.62).clamp_min(0.0)
    chin_shadow = 1 - 0.40 * coverage(v - who.face_length - 0.10, cut.pixel, 9.0)
    view = canvas[:, :, rows]
    paint(view, cut.skin * (0.92 * chin_shadow)[:, None], coverage(u.abs() - neck_half, cut.pixel, 1.5))
    cloth = hsv_to_rgb(how.cloth_hue, how.cloth_saturation, how.cloth_value)
    fold = 1 - 0.18 * (u * how.light_x < 0) * u.abs() - 0.10 * gaussian(u.abs() - 0.55, 0.06)
    opening = superellipse(u / (0.20 + 0.14 * how.neckline), (v - 0.72) / (0.12 + 0.20 * how.neckline), 2.0)
    collar = coverage((1 - opening) * 0.2, cut.pixel, 1.5)
    paint(view, cloth * fold[:, None], coverage(shoulders * 0.5, cut.pixel, 1.5) * collar)
    paint(
        view, cloth * 0.62, gaussian(opening - 1.08, 0.06) * coverage(shoulders * 0.5, cut.pixel, 1.5) * 0.8
    )


def draw_ears(canvas: torch.Tensor, scene: Scene) -> None:
    """Both ears, with the hollow inside."""
    cut, rows = scene.rows(-0.35, 0.50)
    who = cut.who
    across = (cut.u.abs() - who.face_width - who.ear_out * 0.9 + 0.012) / (0.055 + 0.45 * who.ear_out)
    down = (cut.v - 0.04) / (who.ear_size + 0.05)
    distance = (superellipse(across, down, 2.2) - 1) * 0.06
    view = canvas[:, :, rows]
    paint(view, cut.skin * (cut.light * 0.93)[:, None], coverage(distance, cut.pixel))
    paint(view, cut.skin * (cut.light * 0.68)[:, None], coverage(distance + 0.028, cut.pixel, 1.6) * 0.7)


def draw_face(canvas: torch.Tensor, scene: Scene) -> None:
    """The skin of the face: light, blush, age and freckles."""
    who, fu, fv = scene.who, scene.fu, scene.fv
    tone = scene.light - 0.16 * gaussian(scene.radius - 1.0, 0.17)
    colour = scene.skin * tone[:, None]
    cheeks = gaussian(fu.abs() - 0.29, 0.13) * gaussian(fv - 0.24, 0.12) * who.blush
    colour = colour * (1 - cheeks[:, None] * torch.tensor([0.02, 0.42, 0.34])[None, :, None, None])
    colour = colour * (1 - _freckles(scene)[:, None] * torch.tensor([0.30, 0.48, 0.58])[None, :, None, None])
    colour = colour * (1 - 0.26 * _lines(scene))[:, None]
    mole = coverage(((fu - who.mole_x) ** 2 + (fv - who.mole_y) ** 2).sqrt() - 0.026, scene.pixel, 1.2)
    colour = colour * (1 - 0.72 * mole * (who.mole > 0.3))[:, None]
    paint(canvas, colour, coverage((scene.radius - 1) * 0.45, scene.pixel, 1.2))


def draw_hair_front(canvas: torch.Tensor, scene: Scene) -> None:
    """The hair on top of the skull, down to hairline, fringe and side locks."""
    who, u, v = scene.who, scene.u, scene.v
    across = u - who.hair_part * (0.6 - v).clamp(0, 1)
    line = who.hairline - who.temples * gaussian(u.abs() - 0.30, 0.13)
    line = line + who.fringe.clamp_min(0.0) * (0.17 + 0.05 * torch.cos(9 * across)) * coverage(
        u.abs() - 0.40, scene.pixel, 6.0
    )
    line = line + 0.10 * (across.abs() - 0.05).clamp_min(0.0) * (who.hairline > -0.57)
    sides = (u.abs() / scene.half_width) ** 6 * 0.60
    bald = _bald(scene).float()
    below = v - line - sides * (1 - 0.5 * bald)
    locks = coverage(scene.half_width * 0.93 - u.abs(), scene.pixel, 4.0) * coverage(
        v - _hair_end(scene), scene.pixel, 6.0
    )
    top = coverage(below, scene.pixel, 2.5) * (
        1 - bald * coverage(u.abs() - scene.half_width * 0.88, scene.pixel, 5.0)
    )
    alpha = torch.maximum(top, locks * (_hair_end(scene) > 0.1)) * coverage(
        _hair_distance(scene), scene.pixel, 1.5
    )
    # A shadow under the edge lifts the hair off the forehead.
    shade = (
        gaussian((below - 0.035).clamp_min(0.0), 0.045)
        * coverage((scene.radius - 1) * 0.45, scene.pixel)
        * 0.25
    )
    paint(canvas, scene.skin * 0.35, shade * (1 - alpha) * (1 - bald))
    gloss = 1 + 0.28 * gaussian(v + 0.52 + 0.25 * u * scene.how.light_x, 0.10)
    paint(canvas, (scene.hair * (_strands(scene) * gloss)[:, None]).clamp(0, 1), alpha)


def _hair_end(scene: Scene) -> torch.Tensor:
    """Where the hair ends, down; a bald head wears no long hair."""
    return torch.where(_bald(scene), 0.02, scene.who.hair_length.clamp_min(0.02))


def _bald(scene: Scene) -> torch.Tensor:
    return scene.who.hairline < -0.585


def _hair_distance(scene: Scene) -> torch.Tensor:
    """Signed distance to the outline of the hair: the skull plus its volume, wavy when curly."""
    who, u, v = scene.who, scene.u, scene.v
    volume = who.hair_volume * torch.where(_bald(scene), 0.15, 1.0)
    angle = torch.atan2(v, u)
    waves = who.hair_curl.clamp_min(0.0) * 0.030 * torch.sin(15 * angle + 4 * v)
    flare = (0.04 + 0.10 * v.clamp_min(0.0)) * (_hair_end(scene) > 0.3)
    across = u / (who.face_width + 0.30 * volume + 0.02 + flare + 0.35 * volume * (_hair_end(scene) > 0.1))
    down = torch.where(v < 0, v / (0.68 + volume), v * 0.35)
    return (superellipse(across, down, 2.3) - 1) * 0.55 + waves


def _strands(scene: Scene) -> torch.Tensor:
    """Brightness of single strands, (n, h, w) around 1: they run from the parting outwards."""
    across = scene.u - scene.who.hair_part * (0.6 - scene.v).clamp(0, 1)
    curl = scene.who.hair_curl.clamp_min(0.0)
    fan = torch.atan2(scene.v + 0.9, across)
    return (
        0.93
        + 0.10 * torch.sin(34 * fan + curl * 3 * torch.sin(13 * scene.v))
        + 0.05 * torch.sin(71 * fan + 5 * scene.v)
    )


def _freckles(scene: Scene) -> torch.Tensor:
    who, fu, fv = scene.who, scene.fu, scene.fv
    phase = who.freckle_phase
    lattice = torch.sin(42 * fu + 1.3 * torch.sin(9 * fv + phase)) * torch.sin(
        44 * fv + 1.3 * torch.sin(8 * fu + 2 * phase)
    )
    region = gaussian(fv - 0.20, 0.17) * gaussian(fu, 0.42)
    return ((lattice - 0.45) * 2.2).clamp(0, 1) * region * who.freckles.clamp_min(0.0)


def _lines(scene: Scene) -> torch.Tensor:
    """Lines of age: nose to mouth, under the eyes."""
    who, fu, fv = scene.who, scene.fu, scene.fv
    fold = gaussian(fu.abs() - who.nose_width - 0.03 - 0.55 * (fv - 0.24).clamp(0, 0.3), 0.024) * coverage(
        (fv - 0.38).abs() - 0.12, scene.pixel, 4.0
    )
    bag = gaussian(fv - who.eye_height - 0.125, 0.020) * gaussian(fu.abs() - who.eye_spacing, 0.085)
    return (fold + 0.7 * bag) * who.age.clamp_min(0.0)
