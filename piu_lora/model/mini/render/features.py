"""The features: eyes, brows, nose, mouth, beard and glasses.

Both sides of the face are drawn at once, on the mirrored coordinate ``|fu|``.
"""

import torch

from piu_lora.model.mini.render.scene import Scene
from piu_lora.model.mini.render.shapes import coverage, gaussian, paint, ramp, superellipse

__all__ = ["draw_beard", "draw_brows", "draw_eyes", "draw_glasses", "draw_mouth", "draw_nose"]

IRIS = (
    (0.24, 0.13, 0.07),
    (0.42, 0.26, 0.12),
    (0.36, 0.40, 0.18),
    (0.22, 0.46, 0.34),
    (0.22, 0.44, 0.70),
    (0.52, 0.58, 0.64),
)
FRAME = ((0.05, 0.05, 0.06), (0.30, 0.15, 0.09), (0.52, 0.12, 0.14), (0.76, 0.62, 0.32))
_WHITE = torch.tensor([0.96, 0.95, 0.93])[None, :, None, None]
_LASH = torch.tensor([0.07, 0.05, 0.05])[None, :, None, None]
_LIP = torch.tensor([0.72, 0.20, 0.22])[None, :, None, None]
_CAVITY = torch.tensor([0.25, 0.07, 0.08])[None, :, None, None]


def draw_eyes(canvas: torch.Tensor, scene: Scene) -> None:
    """Sclera, iris, pupil, highlight, lashes and the crease of the lid."""
    cut, rows = scene.rows(-0.38, 0.32)
    who, how, pixel, view = cut.who, cut.how, cut.pixel, canvas[:, :, rows]
    side = torch.sign(cut.fu)
    across = (cut.fu.abs() - who.eye_spacing) / who.eye_size
    down = cut.fv - who.eye_height + 0.6 * who.eye_tilt * who.eye_size * across
    arch = (1 - across**2).clamp_min(-1.0)
    height = who.eye_size * who.eye_aspect
    upper = -height * how.eye_open * arch
    lower = height * 0.72 * arch
    eye = coverage(torch.maximum(upper - down, down - lower), pixel)
    paint(
        view, cut.skin * 0.78, gaussian(across, 1.05) * gaussian(down + 0.25 * height, height * 1.25) * 0.30
    )
    paint(view, _WHITE * (0.80 + 0.20 * coverage(upper - down + 0.030, pixel, 2.0))[:, None], eye)

    iris_radius = who.iris_size * who.eye_size
    ix = across * who.eye_size - how.gaze_x * who.eye_size * side
    iy = down + 0.10 * height - how.gaze_y * who.eye_size
    distance = (ix**2 + iy**2).sqrt()
    iris = (
        ramp(IRIS, who.iris_colour) * (0.72 + 0.55 * gaussian(iy - 0.5 * iris_radius, iris_radius))[:, None]
    )
    paint(view, iris * 0.45, coverage(distance - iris_radius, pixel) * eye)
    paint(view, iris, coverage(distance - iris_radius * 0.84, pixel) * eye)
    paint(view, _LASH * 0.5, coverage(distance - iris_radius * 0.45, pixel) * eye)
    glint = ((ix * side + 0.36 * iris_radius) ** 2 + (iy + 0.38 * iris_radius) ** 2).sqrt()
    paint(view, torch.ones_like(_WHITE), coverage(glint - iris_radius * 0.30, pixel) * eye)

    inside = coverage(across.abs() - 1.08, pixel / 0.1)
    lash = coverage((down - upper).abs() - who.lashes * (0.6 + 0.4 * across.clamp(-1, 1)), pixel) * inside
    paint(view, _LASH, lash * 0.92)
    paint(view, cut.skin * 0.45, gaussian(down - lower, 0.012) * inside * 0.5)
    crease = gaussian(down - upper * 1.15 + 0.042, 0.014) * gaussian(across, 0.95)
    paint(view, cut.skin * 0.48, crease * who.lid_crease)


def draw_brows(canvas: torch.Tensor, scene: Scene) -> None:
    """Two arched strokes, thinner at the outer end."""
    cut, rows = scene.rows(-0.62, 0.10)
    who = cut.who
    across = (cut.fu.abs() - who.eye_spacing - 0.01) / who.brow_length
    middle = who.eye_height - who.brow_height - cut.how.brow_raise
    middle = (
        middle - who.brow_arch * (1 - (across - 0.25) ** 2) - 0.4 * who.brow_tilt * who.brow_length * across
    )
    thickness = who.brow_thickness * (1.05 - 0.45 * across.clamp(-1, 1.2))
    stroke = coverage((cut.fv - middle).abs() - thickness, cut.pixel, 1.4) * coverage(
        across.abs() - 1, cut.pixel / 0.08
    )
    colour = torch.lerp(torch.full_like(cut.hair, 0.05), cut.hair, who.brow_tone[:, None])
    paint(canvas[:, :, rows], colour, stroke * 0.88)


def draw_nose(canvas: torch.Tensor, scene: Scene) -> None:
    """Bridge, tip and nostrils, by light and shadow alone."""
    cut, rows = scene.rows(-0.40, 0.62)
    who, how, view = cut.who, cut.how, canvas[:, :, rows]
    u = cut.fu - 0.035 * how.yaw
    tip = who.eye_height + who.nose_length + 0.02 * how.pitch
    along = coverage(
        (cut.fv - (who.eye_height + tip) / 2).abs() - (tip - who.eye_height) * 0.5, cut.pixel, 6.0
    )
    widening = 0.030 + 0.45 * who.nose_width * ((cut.fv - who.eye_height) / who.nose_length).clamp(0, 1) ** 2
    lit = torch.sign(how.light_x + 1e-3)
    paint(
        view, cut.skin * 0.52, gaussian(u + lit * (widening + 0.012), 0.026) * along * 0.42 * who.nose_bridge
    )
    paint(
        view,
        (cut.skin * 1.16).clamp_max(1.0),
        gaussian(u - lit * 0.008, 0.024) * along * 0.50 * who.nose_bridge,
    )
    ball = gaussian(u, 0.055 + 0.2 * who.nose_width) * gaussian(cut.fv - tip + 0.015, 0.05)
    paint(view, (cut.skin * 1.14).clamp_max(1.0), ball * 0.5 * who.nose_tip)
    wing = gaussian(superellipse(u / (who.nose_width + 0.012), (cut.fv - tip - 0.004) / 0.062, 2.2) - 1, 0.16)
    under = coverage(tip - 0.022 - cut.fv, cut.pixel, 3.0)
    paint(view, cut.skin * 0.50, wing * under * 0.62)
    nostril = superellipse(
        (u.abs() - who.nose_width * 0.52) / (who.nose_width * 0.34), (cut.fv - tip - 0.040) / 0.021, 2.0
    )
    paint(view, cut.skin * 0.22, coverage((nostril - 1) * 0.025, cut.pixel, 1.4) * 0.85)


def mouth_height(scene: Scene) -> torch.Tensor:
    """Height of the mouth line, (n, 1, 1)."""
    who = scene.who
    tip = who.eye_height + who.nose_length
    return tip + who.mouth_height * (who.face_length - tip) * 0.78


def draw_mouth(canvas: torch.Tensor, scene: Scene) -> None:
    """Lips, the line between them, and teeth when open."""
    cut, rows = scene.rows(0.22, 0.82)
    who, how, pixel, view = cut.who, cut.how, cut.pixel, canvas[:, :, rows]
    smile = how.smile
    across = cut.fu / (who.mouth_width * (1 + 0.16 * smile.clamp_min(0.0)))
    arch = (1 - across**2).clamp(-0.5, 1.0)
    opening = 0.045 * (how.mouth_open - 0.35).clamp_min(0.0)
    middle = mouth_height(scene) + 0.02 * how.pitch - smile * 0.055 * (across**2 - 0.4)
    bow = 1 - 0.28 * gaussian(across, 0.16)
    upper = middle - opening * arch - who.lip_upper * arch.clamp_min(0.0).sqrt() * bow
    lower = middle + opening * arch + who.lip_lower * arch.clamp_min(0.0).sqrt()
    inside = coverage(across.abs() - 1, pixel / 0.16)
    lips = coverage(torch.maximum(upper - cut.fv, cut.fv - lower), pixel, 1.2) * inside
    colour = torch.lerp(
        cut.skin * torch.tensor([0.88, 0.66, 0.64])[None, :, None, None],
        _LIP.expand_as(cut.skin),
        (who.lip_colour * torch.where(who.beard > 0.45, 0.3, 0.75))[:, None],
    )
    sheen = (
        0.88
        + 0.16 * (cut.fv > middle)
        + 0.22 * gaussian(cut.fv - middle - 0.55 * who.lip_lower - opening, 0.018) * gaussian(across, 0.5)
    )
    paint(view, (colour * (sheen * cut.light)[:, None]).clamp(0, 1), lips)
    gap = coverage((cut.fv - middle).abs() - opening * arch * 1.5, pixel) * inside * (opening > 0)
    paint(view, _CAVITY, gap)
    teeth = coverage(
        (cut.fv - middle + opening * arch * 0.35).abs() - opening * arch * 0.95, pixel
    ) * coverage(across.abs() - 0.86, pixel / 0.16)
    paint(view, _WHITE * 0.97, teeth * (opening > 0.006))
    line = gaussian(cut.fv - middle, 0.012) * coverage(across.abs() - 1.04, pixel / 0.16)
    paint(view, colour * 0.38, line * 0.8 * (opening <= 0.006))
    paint(view, cut.skin * 0.66, gaussian(cut.fv - lower - 0.032, 0.022) * gaussian(across, 0.6) * 0.35)


def draw_beard(canvas: torch.Tensor, scene: Scene) -> None:
    """Beard and moustache in the colour of the hair; they leave the lips free."""
    cut, rows = scene.rows(0.05, 1.0)
    who = cut.who
    mouth = mouth_height(scene)
    fullness = ((who.beard - 0.45) / 0.55).clamp(0, 1)
    edge = mouth - 0.10 - 0.55 * ((cut.fu.abs() - 0.22).clamp_min(0.0)) - 0.04 * fullness
    free = superellipse(cut.fu / (who.mouth_width * 0.98), (cut.fv - mouth - 0.02) / 0.105, 2.0)
    jaw = coverage((cut.radius - 1.0 - 0.10 * fullness) * 0.45, cut.pixel, 1.5)
    beard = coverage(edge - cut.fv, cut.pixel, 4.0) * coverage((1 - free) * 0.1, cut.pixel, 1.6) * jaw
    grain = 0.93 + 0.07 * torch.sin(63 * cut.fu + 5 * torch.sin(21 * cut.fv)) * torch.sin(47 * cut.fv)
    colour = (cut.hair * 0.86 + 0.02) * grain[:, None]
    paint(canvas[:, :, rows], colour, beard * (0.35 + 0.62 * fullness) * (who.beard > 0.45))
    lip = mouth - who.lip_upper - 0.045 + 0.10 * (cut.fu / who.mouth_width) ** 2
    stroke = coverage((cut.fv - lip).abs() - 0.034, cut.pixel, 1.6) * coverage(
        cut.fu.abs() - who.mouth_width * 1.02, cut.pixel, 2.0
    )
    paint(canvas[:, :, rows], colour, stroke * 0.92 * (who.moustache > 0.6))


def draw_glasses(canvas: torch.Tensor, scene: Scene) -> None:
    """Two rims, a bridge, the arms and a faint glare."""
    cut, rows = scene.rows(-0.42, 0.42)
    who, view = cut.who, canvas[:, :, rows]
    worn = (who.glasses > 0.42).float()
    frame = ramp(FRAME, who.glasses_tone)
    u, v = cut.fu - 0.02 * cut.how.yaw, cut.fv - who.eye_height - 0.012
    centre = who.eye_spacing * 0.45 + 0.125
    radius = superellipse(
        (u.abs() - centre) / who.glasses_size, v / (who.glasses_size * 0.86), who.glasses_shape
    )
    rim = coverage(((radius - 1) * who.glasses_size).abs() - 0.016, cut.pixel)
    bridge = coverage((v + 0.035).abs() - 0.014, cut.pixel) * coverage(
        u.abs() - (centre - who.glasses_size), cut.pixel
    )
    arms = (
        coverage((v + 0.05).abs() - 0.014, cut.pixel)
        * coverage(centre + who.glasses_size - u.abs(), cut.pixel)
        * coverage((cut.radius - 1.02) * 0.45, cut.pixel)
    )
    glare = coverage((radius - 1) * 0.15, cut.pixel) * gaussian(u + v + 0.10, 0.05) * 0.30
    paint(view, torch.ones_like(frame), glare * worn)
    paint(view, frame, torch.maximum(torch.maximum(rim, bridge), arms) * 0.96 * worn)
