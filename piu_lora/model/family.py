"""Base families: what is known of all bases of one kind, in one object, found by name."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from piu_lora.errors import BadInput

__all__ = ["FAMILIES", "BaseFamily", "find_family", "register"]

Values = Mapping[str, Any]


@dataclass(frozen=True)
class BaseFamily:
    """One kind of base, for example Arc2Face and everything fine-tuned from it.

    Attributes:
        name: what receipts, saved bases and ``--family`` call it.
        label: what people call it.
        embedding_width: d of the identity embeddings.
        presets: settings of a forget run that were measured on this family, as nested plain values: by the
            name of a method, and under ``""`` for every method.
        audit: settings of an audit on this family.
        baselines: settings of the baseline methods on this family, by baseline.
    """

    name: str
    label: str
    embedding_width: int
    presets: Mapping[str, Values] = field(default_factory=dict)
    audit: Values = field(default_factory=dict)
    baselines: Mapping[str, Values] = field(default_factory=dict)


FAMILIES: dict[str, BaseFamily] = {}


def register(family: BaseFamily) -> BaseFamily:
    """Add a family to the registry.

    Raises:
        ValueError: another family has this name.
    """
    if FAMILIES.get(family.name, family) is not family:
        raise ValueError(f"a base family called {family.name!r} is registered already")
    FAMILIES[family.name] = family
    return family


def find_family(name: str) -> BaseFamily:
    """The family of that name.

    Raises:
        BadInput: unknown; the message lists the known ones.
    """
    if name not in FAMILIES:
        close = difflib.get_close_matches(name, FAMILIES, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(FAMILIES)}"
        raise BadInput(f"unknown base family {name!r}: {hint}")
    return FAMILIES[name]
