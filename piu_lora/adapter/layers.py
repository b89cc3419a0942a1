"""The LoRA layers of a loaded pipeline: which adapters are active in them, how strongly, and how to say so.

Layer by layer, and not with pipe.set_adapters, which overlooks a compiled component and knows one weight
for an adapter: what others have set, block by block, stays as it is.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from piu_lora.adapter.checks import component_model
from piu_lora.model.factors import COMPONENTS

__all__ = [
    "LayerState",
    "activate",
    "active",
    "adapter_names",
    "base_as_before",
    "lora_layers",
    "restore",
    "states",
]


@dataclass(frozen=True)
class LayerState:
    """What a LoRA layer does: its active adapters, the scale of each that it holds, whether it is switched
    off, and which adapters are trainable in it.
    """

    active: tuple[str, ...]
    scaling: Mapping[str, float]
    disabled: bool
    trainable: tuple[str, ...] = ()


def lora_layers(model: torch.nn.Module | None) -> Iterator[Any]:
    """The layers of a component that hold adapters; a pipeline may have let go of its text encoder."""
    for module in () if model is None else model.modules():
        if hasattr(module, "lora_A"):
            yield module


def _all_layers(pipe: StableDiffusionPipeline) -> Iterator[Any]:
    for part in COMPONENTS:
        yield from lora_layers(component_model(pipe, part))


def adapter_names(pipe: StableDiffusionPipeline, part: str) -> list[str]:
    """Adapters loaded into a component. diffusers' get_list_adapters overlooks a compiled one."""
    return list(getattr(component_model(pipe, part), "peft_config", None) or {})


def active(pipe: StableDiffusionPipeline) -> dict[str, float]:
    """The active adapters and their weights, in the order of loading.

    Empty while adapters are switched off. Of weights that differ by block, the first layer's.
    """
    weights: dict[str, float] = {}
    for layer in _all_layers(pipe):
        for name in () if layer.disable_adapters else layer.active_adapters:
            if name in layer.scaling:
                weights.setdefault(name, _weight_of(layer, name))
    order = [name for part in COMPONENTS for name in adapter_names(pipe, part)]
    return {name: weights[name] for name in dict.fromkeys(order) if name in weights}


def _weight_of(layer: Any, name: str) -> float:
    """What an adapter's change is multiplied by, beyond its own ``alpha / r``, or ``alpha / sqrt(r)``."""
    rank = layer.r[name]
    usual = layer.lora_alpha[name] / (rank**0.5 if layer.use_rslora.get(name) else rank)
    return float(layer.scaling[name]) / usual if usual else 0.0


def states(pipe: StableDiffusionPipeline) -> dict[int, LayerState]:
    """The state of every LoRA layer, by the identity of the layer's object."""
    return {
        id(layer): LayerState(
            tuple(layer.active_adapters),
            {name: float(scale) for name, scale in layer.scaling.items()},
            layer.disable_adapters,
            tuple(name for name, factor in layer.lora_A.items() if factor.weight.requires_grad),
        )
        for layer in _all_layers(pipe)
    }


def restore(
    pipe: StableDiffusionPipeline, before: Mapping[int, LayerState], added: Mapping[str, float]
) -> None:
    """Put every LoRA layer back into a state, with more adapters active in it.

    A layer that was switched off is switched on for the adapters that are added, and for these alone.

    Args:
        before: as ``states`` gave it; adapters that are gone are left out.
        added: weights by adapter.
    """
    present = {name for part in COMPONENTS for name in adapter_names(pipe, part)}
    for layer in _all_layers(pipe):
        state = before.get(id(layer), LayerState((), {}, disabled=False))
        more = [name for name in added if name in layer.lora_A]
        stays = [name for name in state.active if name in present and name not in added]
        if state.disabled and added:
            stays = []  # in all layers: switched on again by its owner, it must not come back in some only
        for name, scale in state.scaling.items():
            if name in layer.scaling:
                _set_scale(layer, name, scale)
        for name in more:
            _set_scale(layer, name, added[name] * layer.lora_alpha[name] / layer.r[name])
        set_active(layer, [*stays, *more], disabled=state.disabled and not added, trainable=state.trainable)


def _set_scale(layer: Any, name: str, scale: float) -> None:
    if isinstance(layer.scaling[name], torch.Tensor):
        layer.scaling[name].fill_(scale)  # in place: a compiled model would be compiled anew
    else:
        layer.scaling[name] = scale


def activate(pipe: StableDiffusionPipeline, weights: Mapping[str, float]) -> None:
    """Make these adapters, and no others, active with these weights."""
    nothing = {
        key: replace(state, active=(), scaling={}, disabled=False) for key, state in states(pipe).items()
    }
    restore(pipe, nothing, weights)


@contextmanager
def base_as_before(pipe: StableDiffusionPipeline) -> Iterator[None]:
    """While open, an adapter is loaded; afterwards the same weights of the base are trainable. PEFT freezes
    them all.
    """
    before = dict(_base_weights(pipe))
    try:
        yield
    finally:
        for name, (value, _) in _base_weights(pipe):
            if name in before and value.requires_grad != before[name][1]:
                value.requires_grad_(before[name][1])


def _base_weights(pipe: StableDiffusionPipeline) -> Iterator[tuple[str, tuple[torch.nn.Parameter, bool]]]:
    for part in COMPONENTS:
        model = component_model(pipe, part)
        for name, value in () if model is None else model.named_parameters():
            if ".lora_" not in name:
                yield f"{part}.{name.replace('.base_layer', '')}", (value, value.requires_grad)


def set_active(
    layer: Any, names: list[str], *, disabled: bool = False, trainable: Collection[str] | None = None
) -> None:
    """Make adapters of one layer active, past what a pinned layer lets others do.

    Args:
        trainable: the adapters that are trainable after, and no others; by default as they were.
    """
    layer._active_adapter, layer._disable_adapters = names, disabled
    if trainable is None:
        return
    for factors in (layer.lora_A, layer.lora_B):
        for name, factor in factors.items():
            factor.requires_grad_(name in trainable)
