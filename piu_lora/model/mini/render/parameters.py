"""What makes a face (identity) and what makes a photograph of it (nuisance), parameter by parameter.

Every parameter is drawn as a unit number in [0, 1] and mapped to ``[low, high]`` by the renderer. Lengths
are in face units: the picture spans [-1, 1] on both axes, y grows downwards, the nose root sits near 0.
"""

from dataclasses import dataclass

import torch

__all__ = ["IDENTITY", "NUISANCE", "Parameter", "Values", "sample_identities", "sample_nuisance"]


@dataclass(frozen=True)
class Parameter:
    """One axis of variation: its name, its range and what it does to the picture."""

    name: str
    low: float
    high: float
    doc: str


IDENTITY: tuple[Parameter, ...] = (
    Parameter("skin_tone", 0.0, 1.0, "place on the ramp from fair to deep skin"),
    Parameter("skin_warmth", -1.0, 1.0, "olive (-) to rosy (+) undertone"),
    Parameter("blush", 0.0, 0.45, "redness of the cheeks"),
    Parameter("freckles", -1.2, 1.0, "strength of the freckles, none below 0"),
    Parameter("freckle_phase", 0.0, 6.3, "which freckle pattern"),
    Parameter("mole", -1.0, 1.0, "a mole, drawn above 0.3"),
    Parameter("mole_x", -0.36, 0.36, "where the mole is, across"),
    Parameter("mole_y", 0.08, 0.50, "where the mole is, down"),
    Parameter("age", -0.6, 1.0, "depth of the lines beside nose and mouth and under the eyes, none below 0"),
    Parameter("face_width", 0.46, 0.58, "half width at the cheekbones"),
    Parameter("face_length", 0.62, 0.78, "from the eyes to the chin"),
    Parameter("jaw_square", 1.75, 3.3, "exponent of the jaw: pointed to square"),
    Parameter("cheekbones", -0.03, 0.07, "how far the cheekbones stand out"),
    Parameter("eye_spacing", 0.195, 0.275, "half the distance between the eyes"),
    Parameter("eye_size", 0.085, 0.13, "half width of an eye"),
    Parameter("eye_aspect", 0.40, 0.74, "height of an eye over its width"),
    Parameter("eye_tilt", -0.22, 0.28, "outer corners down (-) or up (+)"),
    Parameter("eye_height", -0.11, 0.00, "where the eyes sit"),
    Parameter("iris_colour", 0.0, 1.0, "brown, hazel, green, blue, grey"),
    Parameter("iris_size", 0.46, 0.62, "iris over half width of the eye"),
    Parameter("lashes", 0.010, 0.030, "thickness of the upper lash line"),
    Parameter("lid_crease", 0.0, 0.8, "visibility of the crease above the eye"),
    Parameter("brow_thickness", 0.016, 0.046, "thickness of the eyebrows"),
    Parameter("brow_arch", 0.0, 0.065, "height of the arch of the eyebrows"),
    Parameter("brow_tilt", -0.16, 0.20, "eyebrows sad (-) or stern (+)"),
    Parameter("brow_length", 0.11, 0.17, "half length of an eyebrow"),
    Parameter("brow_height", 0.13, 0.20, "distance from eye to eyebrow"),
    Parameter("brow_tone", 0.35, 0.95, "eyebrows as dark as (low) or lighter towards (high) the hair"),
    Parameter("nose_length", 0.25, 0.37, "from the eyes to the tip of the nose"),
    Parameter("nose_width", 0.062, 0.128, "half width at the nostrils"),
    Parameter("nose_bridge", 0.15, 1.0, "how marked the bridge is"),
    Parameter("nose_tip", 0.0, 1.0, "flat to round tip"),
    Parameter("mouth_width", 0.14, 0.235, "half width of the mouth at rest"),
    Parameter("mouth_height", 0.45, 0.62, "place of the mouth between nose and chin"),
    Parameter("lip_upper", 0.016, 0.050, "thickness of the upper lip"),
    Parameter("lip_lower", 0.022, 0.066, "thickness of the lower lip"),
    Parameter("lip_colour", 0.0, 1.0, "close to the skin (0) to red (1)"),
    Parameter("ear_size", 0.07, 0.125, "half height of the ears"),
    Parameter("ear_out", 0.0, 0.055, "how far the ears stand out"),
    Parameter("hair_colour", 0.0, 1.0, "black, brown, auburn, red, blond, grey, white"),
    Parameter("hair_length", -0.35, 1.15, "where the hair behind the face ends"),
    Parameter("hair_volume", 0.035, 0.17, "how far the hair stands off the skull"),
    Parameter("hair_curl", -0.4, 1.0, "waves in the outline, none below 0"),
    Parameter("hair_part", -0.34, 0.34, "where the hair is parted"),
    Parameter("fringe", -0.9, 1.0, "a fringe over the forehead, none below 0"),
    Parameter("hairline", -0.62, -0.40, "height of the hairline; bald on top where it passes the skull"),
    Parameter("temples", -0.04, 0.17, "how far the hairline recedes at the temples"),
    Parameter("beard", -1.0, 1.0, "beard, drawn above 0.45, fuller towards 1"),
    Parameter("moustache", -1.0, 1.0, "moustache, drawn above 0.6"),
    Parameter("glasses", -1.0, 1.0, "glasses, drawn above 0.42"),
    Parameter("glasses_shape", 2.0, 5.5, "exponent of the lenses: round to square"),
    Parameter("glasses_size", 0.145, 0.185, "half width of a lens"),
    Parameter("glasses_tone", 0.0, 1.0, "frame from black over brown to gold"),
)

NUISANCE: tuple[Parameter, ...] = (
    Parameter("yaw", -1.0, 1.0, "head turned left or right"),
    Parameter("pitch", -1.0, 1.0, "head turned up or down"),
    Parameter("roll", -0.10, 0.10, "head tilted, in radians"),
    Parameter("shift_x", -0.04, 0.04, "crop error, across"),
    Parameter("shift_y", -0.04, 0.04, "crop error, down"),
    Parameter("scale", 0.95, 1.05, "crop error, size"),
    Parameter("light_x", -0.9, 0.9, "light from the left or the right"),
    Parameter("light_y", -0.9, 0.15, "light from above or below"),
    Parameter("light_strength", 0.10, 0.42, "hardness of the light"),
    Parameter("light_warmth", -0.045, 0.055, "colour of the light"),
    Parameter("smile", -0.05, 1.0, "corners of the mouth"),
    Parameter("mouth_open", -1.0, 1.0, "open mouth with teeth, above 0.35"),
    Parameter("eye_open", 0.72, 1.08, "lids"),
    Parameter("gaze_x", -0.30, 0.30, "where the eyes look, across"),
    Parameter("gaze_y", -0.18, 0.18, "where the eyes look, down"),
    Parameter("brow_raise", -0.015, 0.035, "eyebrows raised"),
    Parameter("background_hue", 0.0, 1.0, "colour of the background"),
    Parameter("background_saturation", 0.03, 0.38, "strength of that colour"),
    Parameter("background_value", 0.25, 0.95, "brightness of the background"),
    Parameter("background_slope", -0.25, 0.25, "brightness gradient of the background"),
    Parameter("background_angle", 0.0, 6.3, "direction of that gradient"),
    Parameter("background_spot", -0.16, 0.22, "a soft spot behind the head"),
    Parameter("cloth_hue", 0.0, 1.0, "colour of the clothes"),
    Parameter("cloth_saturation", 0.05, 0.75, "strength of that colour"),
    Parameter("cloth_value", 0.15, 0.90, "brightness of the clothes"),
    Parameter("neckline", 0.0, 1.0, "closed to open collar"),
    Parameter("exposure", -0.07, 0.07, "brightness of the photograph"),
    Parameter("contrast", 0.88, 1.12, "contrast of the photograph"),
    Parameter("blur", 0.0, 0.50, "lens blur, in pixels of a 96-pixel picture"),
    Parameter("noise", 0.0, 0.010, "sensor noise"),
)


class Values:
    """Unit numbers by parameter name, each mapped to its range and shaped to broadcast over a picture."""

    def __init__(self, table: tuple[Parameter, ...], units: torch.Tensor) -> None:
        if units.ndim != 2 or units.shape[1] != len(table):
            raise ValueError(f"expected parameters of shape (n, {len(table)}), got {tuple(units.shape)}")
        self._units = units
        self._index = {parameter.name: (column, parameter) for column, parameter in enumerate(table)}

    def __getattr__(self, name: str) -> torch.Tensor:
        try:
            column, parameter = self._index[name]
        except KeyError:
            raise AttributeError(name) from None
        value = parameter.low + (parameter.high - parameter.low) * self._units[:, column]
        return value[:, None, None]


def sample_identities(count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw ``count`` people: (count, len(IDENTITY)) float32 unit numbers, independent and uniform."""
    return torch.rand(count, len(IDENTITY), generator=generator)


def sample_nuisance(count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw the circumstances of ``count`` photographs: (count, len(NUISANCE)) float32 unit numbers.

    Pose and crop errors gather around the middle (mean of two uniforms), as aligned crops do.
    """
    units = torch.rand(count, len(NUISANCE), generator=generator)
    again = torch.rand(count, len(NUISANCE), generator=generator)
    centred = [i for i, p in enumerate(NUISANCE) if p.name in _CENTRED]
    units[:, centred] = (units[:, centred] + again[:, centred]) / 2
    return units


_CENTRED = frozenset({"yaw", "pitch", "roll", "shift_x", "shift_y", "scale", "exposure", "contrast"})
