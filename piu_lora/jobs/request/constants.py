"""The settings that are properties of the recognizer: which value is in force for a bank, and why."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from piu_lora.config import ForgetConfig
from piu_lora.identity import IdentityBank
from piu_lora.identity.constants import CONSTANTS, Counts, double_cosine, value_of
from piu_lora.identity.geometry import Geometry
from piu_lora.identity.profiles import ENOUGH, bank_geometry
from piu_lora.model import FAMILIES

__all__ = ["InForce", "double_of", "in_force", "preset_of", "settled", "typical_photographs"]

_log = logging.getLogger("piu_lora")


@dataclass(frozen=True)
class InForce:
    """A setting, its value, where the value is from, and why it is what it is."""

    name: str
    value: float
    origin: Literal["from the bank", "from the profile", "the family's preset", "set by hand"]
    why: str


def settled(
    config: ForgetConfig,
    bank: IdentityBank,
    photographs: int,
    names: Iterable[str] = tuple(CONSTANTS),
    *,
    quiet: bool = False,
) -> ForgetConfig:
    """The settings with numbers in the place of ``auto``, by the bank's geometry.

    Args:
        photographs: known of the person; of several, of whom the fewest are known.
        names: which settings; by default all that follow from a geometry.
        quiet: do not say that a profile stands in.
    """
    automatic = [name for name in names if isinstance(_value(config, name), str)]
    if not automatic:
        return config
    geometry = bank_geometry(bank)
    if geometry.name != "measured" and not quiet:
        _log.warning(
            "fewer than %d people of the bank have several photographs, too few to measure how photographs "
            "of one person differ: the profile %r stands in",
            ENOUGH,
            geometry.name,
        )
    counts = Counts(photographs, len(bank))
    for name in automatic:
        section, key = name.split(".")
        config = config.updated({section: {key: value_of(name, "auto", lambda: geometry, counts)}})
    return config


def in_force(bank: IdentityBank, config: ForgetConfig | None = None, photographs: int = 1) -> list[InForce]:
    """Every setting that follows from a geometry, as a request for somebody of the bank would have it.

    Args:
        config: with values set by hand; by default the preset of the family whose recognizer made the bank.
        photographs: known of the person.
    """
    preset = preset_of(bank)
    config, geometry = config or preset, bank_geometry(bank)
    counts = Counts(photographs, len(bank))
    return [*_of_requests(config, preset, geometry, counts), double_of(bank)]


def _of_requests(
    config: ForgetConfig, preset: ForgetConfig, geometry: Geometry, counts: Counts
) -> Iterator[InForce]:
    for name, constant in CONSTANTS.items():
        value = _value(config, name)
        if isinstance(value, str):
            value = value_of(name, value, lambda: geometry, counts)
            yield InForce(name, value, _origin(geometry), constant.why)
        elif value == _value(preset, name):
            yield InForce(name, value, "the family's preset", "measured on the family's base")
        else:
            yield InForce(name, value, "set by hand", "")


def double_of(bank: IdentityBank) -> InForce:
    """From which cosine two identities of the bank are likely one person."""
    geometry = bank_geometry(bank)
    value = double_cosine(geometry, len(bank), typical_photographs(bank))
    why = "one bank in twenty of this size has a pair of strangers who reach it"
    return InForce("double", round(value, 2), _origin(geometry), why)


def typical_photographs(bank: IdentityBank) -> int:
    """The median over the bank's people."""
    return int(bank.labels.bincount().median())


def _origin(geometry: Geometry) -> Literal["from the bank", "from the profile"]:
    return "from the bank" if geometry.name == "measured" else "from the profile"


def preset_of(bank: IdentityBank) -> ForgetConfig:
    """Of the family whose recognizer made the bank; the common settings where there is none."""
    families = (family for family in FAMILIES.values() if family.recognizer == bank.recognizer.name)
    family = next(families, None)
    return ForgetConfig() if family is None else ForgetConfig.preset(family)


def _value(config: ForgetConfig, name: str) -> float | str:
    section, key = name.split(".")
    kind = config.sections().get(section)
    group = getattr(config, section) if kind is None else config.section_of(kind)
    value: float | str = getattr(group, key)
    return value
