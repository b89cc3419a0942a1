"""The adapters of a pipeline as they stand, layer by layer, so that they can be put back exactly."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from piu_lora.adapter.checks import component_model
from piu_lora.model import adapter_layers
from piu_lora.model.factors import COMPONENTS

__all__ = ["PipelineState", "capture", "layer_weight_of", "names_in", "restore"]


@dataclass(frozen=True)
class _Layer:
    active: tuple[str, ...]
    enabled: bool
    scales: dict[str, float]


@dataclass(frozen=True)
class PipelineState:
    """Scales, active sets and what is trainable, by component.

    Of a LoRA of somebody else the scale may differ from layer to layer, and only the layer knows how it came
    about (``alpha / sqrt(r)``, weights by block): it is copied, never computed anew.
    """

    layers: Mapping[str, Mapping[str, _Layer]]
    trainable: Mapping[str, Mapping[str, bool]]

    def active(self, part: str) -> tuple[str, ...]:
        """The adapters that act in a component, whatever the layer."""
        layers = self.layers[part].values()
        return tuple(dict.fromkeys(name for layer in layers if layer.enabled for name in layer.active))

    def freeze(self, pipe: StableDiffusionPipeline, part: str) -> None:
        """Make trainable again what was, and nothing else: PEFT makes every active adapter trainable, and
        freezes the base.
        """
        for name, parameter in _parameters(pipe, part):
            trainable = self.trainable[part].get(_plain(name), False)
            if parameter.requires_grad != trainable:
                parameter.requires_grad_(trainable)


def names_in(pipe: StableDiffusionPipeline, part: str) -> list[str]:
    """Adapters loaded into a component. diffusers' get_list_adapters overlooks a compiled one."""
    return list(getattr(component_model(pipe, part), "peft_config", None) or {})


def capture(pipe: StableDiffusionPipeline) -> PipelineState:
    """The state of all adapters, ours and others."""
    return PipelineState(
        {
            part: {name: _layer(layer) for name, layer in adapter_layers(component_model(pipe, part)).items()}
            for part in COMPONENTS
        },
        {
            part: {_plain(name): value.requires_grad for name, value in _parameters(pipe, part)}
            for part in COMPONENTS
        },
    )


def _layer(layer: Any) -> _Layer:
    scales = {name: float(scale) for name, scale in getattr(layer, "scaling", {}).items()}
    return _Layer(tuple(layer.active_adapters), not layer.disable_adapters, scales)


def restore(
    pipe: StableDiffusionPipeline, state: PipelineState, added: Mapping[str, float] | None = None
) -> None:
    """Put everything back as it was, apart from adapters that are no longer there.

    Args:
        added: adapters that came since and shall be active beside the others, with their weights. Where
            adapters were switched off, they stay off, and only these act.
    """
    added = added or {}
    for part in COMPONENTS:
        present, before = set(names_in(pipe, part)), state.layers[part]
        new = [name for name in added if name in present]
        off = bool(before) and not any(layer.enabled for layer in before.values())
        for name, layer in adapter_layers(component_model(pipe, part)).items():
            saved = before.get(name) or _Layer(state.active(part), not off, {})
            # Of one that was switched off, nothing may come back in some layers only.
            stay = (
                [] if added and not saved.enabled else [entry for entry in saved.active if entry in present]
            )
            layer.set_adapter([*stay, *new])
            layer.enable_adapters(saved.enabled or bool(added))
            for entry, scale in saved.scales.items():
                _set_scale(layer, entry, scale)
            for entry in new:
                layer.set_scale(entry, added[entry])
        state.freeze(pipe, part)


def _set_scale(layer: Any, name: str, scale: float) -> None:
    if name not in getattr(layer, "scaling", {}):
        return
    if isinstance(layer.scaling[name], torch.Tensor):
        layer.scaling[name].fill_(scale)  # in place: a compiled model would be compiled anew
    else:
        layer.scaling[name] = scale


def layer_weight_of(layer: Any, name: str) -> float:
    """What an adapter's change is multiplied by in a layer, beyond its own alpha and rank."""
    rank, alpha = layer.r[name], layer.lora_alpha[name]
    own = alpha / (rank**0.5 if getattr(layer, "use_rslora", {}).get(name) else rank)
    return float(layer.scaling[name]) / own if own else 0.0


def _parameters(pipe: StableDiffusionPipeline, part: str) -> list[tuple[str, torch.nn.Parameter]]:
    return list(component_model(pipe, part).named_parameters())


def _plain(name: str) -> str:
    """A parameter's name, whether an adapter is around its layer or not."""
    return name.replace(".base_layer", "")
