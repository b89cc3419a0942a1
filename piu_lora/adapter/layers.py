"""The LoRA layers of a loaded pipeline: which adapters are active in them, how strongly, and how to say so.

Layer by layer, and not with pipe.set_adapters, which overlooks a compiled component and knows one weight
for an adapter: what others have set, block by block, stays as it is.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from piu_lora.adapter.checks import component_model
from piu_lora.model.factors import COMPONENTS

__all__ = ["LayerState", "activate", "active", "adapter_names", "lora_layers", "restore", "states"]


@dataclass(frozen=True)
class LayerState:
    """What a LoRA layer does: its active adapters, the scale of each that it holds, and whether it is
    switched off.
    """

    active: tuple[str, ...]
    scaling: Mapping[str, float]
    disabled: bool


def lora_layers(model: torch.nn.Module) -> Iterator[Any]:
    """The layers of a component that hold adapters."""
    for module in model.modules():
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
                weights.setdefault(name, layer.scaling[name] * layer.r[name] / layer.lora_alpha[name])
    order = [name for part in COMPONENTS for name in adapter_names(pipe, part)]
    return {name: weights[name] for name in dict.fromkeys(order) if name in weights}


def states(pipe: StableDiffusionPipeline) -> dict[int, LayerState]:
    """The state of every LoRA layer, by the identity of the layer's object."""
    return {
        id(layer): LayerState(tuple(layer.active_adapters), dict(layer.scaling), layer.disable_adapters)
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
    for layer in _all_layers(pipe):
        state = before.get(id(layer), LayerState((), {}, disabled=False))
        more = [name for name in added if name in layer.lora_A]
        stays = [name for name in state.active if name in layer.lora_A and name not in added]
        if state.disabled and more:
            stays = []
        for name, scale in state.scaling.items():
            if name in layer.scaling:
                layer.scaling[name] = scale
        for name in more:
            layer.scaling[name] = added[name] * layer.lora_alpha[name] / layer.r[name]
        set_active(layer, [*stays, *more], disabled=state.disabled and not more)


def activate(pipe: StableDiffusionPipeline, weights: Mapping[str, float]) -> None:
    """Make these adapters, and no others, active with these weights."""
    nothing = {key: LayerState((), {}, disabled=False) for key in states(pipe)}
    restore(pipe, nothing, weights)


def set_active(layer: Any, names: list[str], *, disabled: bool = False) -> None:
    """Make adapters of one layer active, past what a pinned layer lets others do; none is trainable after."""
    layer._active_adapter, layer._disable_adapters = names, disabled
    for factors in (layer.lora_A, layer.lora_B):
        factors.requires_grad_(False)
