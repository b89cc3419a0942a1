"""What of a method is turned: the dial of strength, whose values draw a curve from the untouched base to deep
forgetting, and the decisive settings that ``tune`` searches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from piu_lora.settings import Settings

__all__ = ["ADAPTER_WEIGHT", "LEARNING_RATE", "STEPS", "WEIGHT", "Dial", "Range", "Tuning", "value_of"]

WEIGHT = "weight"  # not a setting of a method: its whole change, multiplied by a number
STEPS = "steps"  # of an optimiser whose rate is constant: a shorter run is the beginning of a longer one


@dataclass(frozen=True)
class Dial:
    """A dial of strength.

    Attributes:
        setting: as ``--vary`` writes it, or ``WEIGHT``.
        values: that are tried.
        relative: whether they multiply what the setting is on a base.
    """

    setting: str
    values: tuple[float, ...]
    relative: bool = False

    def pairs(self, settings: Settings) -> list[str]:
        """``setting=value`` for every value but the one that is set anyway.

        Args:
            settings: of the method on a base.
        """
        if self.setting == WEIGHT:
            return [f"{WEIGHT}={value:g}" for value in self.values if value != 1]
        current = value_of(settings, self.setting)
        values = [current * value if self.relative else value for value in self.values]
        if isinstance(current, int):
            values = [max(round(value), 1) for value in values]
        return [f"{self.setting}={value:g}" for value in dict.fromkeys(values) if value != current]


# An adapter is a change of weights: whoever loads it can turn it down, or up.
ADAPTER_WEIGHT = Dial(WEIGHT, (0.25, 0.5, 0.65, 0.8, 1.0, 1.25))


@dataclass(frozen=True)
class Range:
    """Between what values a decisive setting is searched.

    Attributes:
        setting: as ``--set`` writes it.
        low, high: multiples of what the setting is where ``relative``.
        log: whether the search is even in the logarithm.
    """

    setting: str
    low: float
    high: float
    relative: bool = True
    log: bool = True

    def bounds(self, settings: Settings) -> tuple[float, float]:
        """The lowest and the highest value, around those settings."""
        scale = float(value_of(settings, self.setting)) if self.relative else 1.0
        return self.low * scale, self.high * scale


# A rate that is wrong is mostly wrong by far.
LEARNING_RATE = Range("train.lr", 0.01, 100)


def value_of(settings: Settings, name: str) -> Any:
    """The value of ``section.key``."""
    value: Any = settings.to_dict()
    for key in name.split("."):
        value = value[key]
    return value


class Tuning(TypedDict, total=False):
    """What a registration says of a method's dial, and of the settings that are searched."""

    dial: Dial
    search: Sequence[Range]
