"""What all attacks share of an audit's settings; an attack's own settings stand beside the attack."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, Field, Strict

from piu_lora.errors import BadInput
from piu_lora.model import BaseFamily
from piu_lora.settings import Count, SectionedSettings, Settings

__all__ = ["BUDGETS", "Ascending", "AttackSettings", "AuditConfig", "Rate", "require_falling"]

BUDGETS: dict[str, dict[str, Any]] = {"default": {}, "quick": {"people": 1, "images": 2, "steps": 2}}


def _require_ascending(values: tuple[int, ...]) -> tuple[int, ...]:
    if list(values) != sorted(set(values)):
        raise ValueError("ascending numbers of 1 or more")
    return values


def require_falling(values: tuple[float, ...]) -> tuple[float, ...]:
    """Refuse cosines that do not fall.

    Raises:
        ValueError: the words of the message.
    """
    if list(values) != sorted(set(values), reverse=True):
        raise ValueError("falling cosines")
    return values


Rate = Annotated[float, Field(gt=0, le=1)]
Ascending = Annotated[tuple[Count, ...], Strict(False), AfterValidator(_require_ascending)]


class AttackSettings(Settings):
    """A base for the settings of one attack; ``section`` is ``audit.`` and the attack's name."""

    @property
    def photographs(self) -> int:
        """How many photographs of a person the attack uses, at most."""
        return 0


class AuditConfig(SectionedSettings, section="audit", package="piu_lora.attacks"):
    """What an audit may spend, and from when on it counts a person as brought back.

    A setting of an attack is ``audit.cone.images``; its older name, ``audit.cone_images``, is read as well.
    """

    _budgets: ClassVar[dict[str, dict[str, Mapping[str, Any]]]] = {name: {} for name in BUDGETS}

    budget: str = Field("default", description="names the preset in the report")
    far: Rate = Field(1e-3, description="false-accept rate at which images are verified")
    share: Rate = Field(0.5, description="of the images that have to verify")
    people: Count = Field(
        2, description="forgotten people who are attacked, the first ones; reidentification looks for all"
    )
    images: Count = Field(8, description="judged at every point")
    steps: Count = Field(10, description="of denoising")
    guidance: float = Field(3.0, ge=1, description="scale of classifier-free guidance")
    batch: Count = Field(64, description="images at once")

    @classmethod
    def register_attack(cls, settings: type[AttackSettings], quick: Mapping[str, Any]) -> None:
        """Make an attack's settings known, and what they are with the budget ``quick``."""
        cls.register_section(settings)
        cls._budgets["quick"][settings.key()] = quick

    @classmethod
    def preset(cls, budget: str = "default", family: BaseFamily | None = None) -> Self:
        """The settings of a named budget, on a family of bases.

        Raises:
            BadInput: no budget of that name.
        """
        if budget not in BUDGETS:
            raise BadInput(f"unknown budget {budget!r}; known: {', '.join(BUDGETS)}")
        cls.sections()  # registers the attacks
        plain = cls(budget=budget).updated(family.audit if family else {})
        return plain.updated({**BUDGETS[budget], **cls._budgets[budget]})

    def photographs(self) -> int:
        """How many photographs of a person the attacks use, at most."""
        sections = [self.section_of(kind) for kind in self.sections().values()]
        return max(
            (section.photographs for section in sections if isinstance(section, AttackSettings)), default=0
        )

    @classmethod
    def _renamed(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """``cone_images`` is ``cone.images``."""
        renamed: dict[str, Any] = {}
        for key, value in values.items():
            attack, separator, setting = key.partition("_")
            if separator and key not in cls.model_fields and attack in cls.sections():
                key, value = attack, {setting: value}
            both = isinstance(value, Mapping) and isinstance(renamed.get(key), Mapping)
            renamed[key] = {**renamed[key], **value} if both else value
        return renamed
