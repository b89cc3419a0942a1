"""The dial of a method: the one setting that makes it forget more or less, and the values that draw its curve
from the untouched base to deep forgetting.
"""

from dataclasses import dataclass
from typing import Any

from piu_lora.settings import Settings

__all__ = ["ADAPTER_WEIGHT", "STEPS", "WEIGHT", "Dial"]

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
        current: Any = settings.to_dict()
        for key in self.setting.split("."):
            current = current[key]
        values = [current * value if self.relative else value for value in self.values]
        if isinstance(current, int):
            values = [max(round(value), 1) for value in values]
        return [f"{self.setting}={value:g}" for value in dict.fromkeys(values) if value != current]


# An adapter is a change of weights: whoever loads it can turn it down, or up.
ADAPTER_WEIGHT = Dial(WEIGHT, (0.25, 0.5, 0.65, 0.8, 1.0, 1.25))
