"""Who enters the arena: a method with its settings, and what is varied."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput
from piu_lora.model import BaseFamily
from piu_lora.settings import Settings
from piu_lora.unlearn import METHODS
from piu_lora.unlearn.baselines import BASELINES, find_baseline
from piu_lora.unlearn.dial import WEIGHT, Dial

__all__ = [
    "SHARED",
    "UNTOUCHED",
    "VARIED",
    "Contender",
    "differentiable_of",
    "known_methods",
    "usual_methods",
]

UNTOUCHED = "untouched"
# Settings that are the arena's; all others are a method's own.
SHARED = ("seed", "faces", "split", "anchor", "evaluation")
# Of these, what a contender may vary all the same: its request is then its own.
VARIED = ("split", "anchor")
Recognise = Callable[[torch.Tensor], torch.Tensor]


def known_methods(family: BaseFamily | None = None) -> list[str]:
    """Everything that can enter the arena: on a family of bases, or on any."""
    return [
        UNTOUCHED,
        *METHODS,
        *(
            name
            for name, baseline in BASELINES.items()
            if family is None or not baseline.needs_recognizer or differentiable_of(family) is not None
        ),
    ]


def usual_methods(family: BaseFamily) -> list[str]:
    """What enters the arena where nobody names methods: all but the forms of baselines."""
    return [name for name in known_methods(family) if name not in BASELINES or not BASELINES[name].form_of]


def differentiable_of(family: BaseFamily) -> Callable[[torch.device], Recognise] | None:
    """The recognizer with gradients that comes with a family of bases; None where none does."""
    return family.companions.differentiable if family.companions else None


@dataclass(frozen=True)
class Contender:
    """A method with the settings that are varied; ``name`` is what tables call it."""

    method: str
    pairs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The method, and ``key=value`` of what is varied."""
        return " ".join([self.method, *self.pairs])

    @property
    def weight(self) -> float:
        """What its change is multiplied by.

        Raises:
            BadInput: not a number.
        """
        texts = [pair.partition("=")[2] for pair in self.pairs if _is_weight(pair)]
        try:
            return float(texts[-1]) if texts else 1.0
        except ValueError:
            raise BadInput(f"{self.name!r}: {WEIGHT} = {texts[-1]!r} is not a number; try 0.5") from None

    @property
    def plain(self) -> "Contender":
        """The same with a weight of 1."""
        return Contender(self.method, tuple(pair for pair in self.pairs if not _is_weight(pair)))

    @property
    def dial(self) -> Dial | None:
        """The method's dial of strength; the untouched base has none."""
        registered = METHODS.get(self.method) or BASELINES.get(self.method)
        return registered.dial if registered else None

    def swept(self, shared: ForgetConfig, family: BaseFamily) -> list["Contender"]:
        """Itself at every other value of its dial."""
        if self.dial is None:
            return []
        settings = self.config(shared, family) if self.method in METHODS else self.baseline_settings(family)
        return [Contender(self.method, (*self.pairs, pair)) for pair in self.dial.pairs(settings)]

    def config(self, shared: ForgetConfig, family: BaseFamily) -> ForgetConfig:
        """The method's own defaults, and what is varied; split, anchors, evaluation and seed are the arena's.

        Raises:
            BadInput: settings that do not exist, or that all contenders share.
        """
        preset = ForgetConfig.preset(family, self.method if self.method in METHODS else "piu")
        common = {name: getattr(shared, name) for name in SHARED}
        config = preset.updated({"method": self.method, **common}).updated_from_pairs(self.plain.pairs)
        if config.decoys != preset.decoys:
            raise BadInput(f"{self.name!r} varies decoys, which no contender has")
        for name in SHARED:
            if name not in VARIED and getattr(config, name) != getattr(shared, name):
                raise BadInput(
                    f"{self.name!r} varies {name}, which all contenders share; "
                    "pass it among the `settings`, and another `out`"
                )
        return config

    def request_settings(self, shared: ForgetConfig, family: BaseFamily) -> ForgetConfig:
        """By which the request is made ready: the arena's, unless the contender varies them."""
        if self.method not in METHODS:
            return shared
        config = self.config(shared, family)
        return shared.updated({name: getattr(config, name) for name in VARIED})

    def settings(self, shared: ForgetConfig, family: BaseFamily) -> dict[str, Any]:
        """The method's own settings, ready for JSON.

        Raises:
            BadInput: settings that do not exist; a method that cannot run on such a base.
        """
        if self.method == UNTOUCHED:
            if self.pairs:
                raise BadInput(f"{self.name!r}: the untouched base has no settings")
            return {}
        if self.method in METHODS:
            config = self.config(shared, family).to_dict()
            values = {
                name: value for name, value in config.items() if name not in (*SHARED, "method", "decoys")
            }
        else:
            if self.method not in known_methods(family):
                raise BadInput(
                    f"{self.method} needs a differentiable recognizer, which only the embedded base has; "
                    "leave it out of `methods`"
                )
            values = self.baseline_settings(family).to_dict()
        plain: dict[str, Any] = json.loads(json.dumps(values))
        return plain if self.weight == 1 else {**plain, WEIGHT: self.weight}

    def plain_settings(self) -> dict[str, Any]:
        """The defaults of all settings that it has, whatever the base."""
        if self.method == UNTOUCHED:
            return {}
        ours = self.method in METHODS
        plain = ForgetConfig(method=self.method) if ours else find_baseline(self.method).settings()
        values: dict[str, Any] = json.loads(json.dumps(plain.to_dict()))
        return values

    def baseline_settings(self, family: BaseFamily) -> Settings:
        """Of a baseline: those of the family, or the official comparison's, and what is varied."""
        return find_baseline(self.method).settings_for(family).updated_from_pairs(self.plain.pairs)


def _is_weight(pair: str) -> bool:
    return pair.partition("=")[0].strip() == WEIGHT
