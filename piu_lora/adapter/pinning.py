"""Adapters that a host cannot switch off by accident.

Loading a second LoRA, ``set_adapters("other")``, ``disable_lora()`` and ``unload_lora_weights()`` are calls
that hosts make for LoRAs of their own; with stock diffusers each of them ends every other adapter as well.
A pinned adapter stays active through all of them, at its weight. Only objects of this one pipeline change,
never a class: its LoRA layers become instances of a subclass of theirs, and four methods that would drop
layers are set on the pipeline and its UNet themselves. Another pipeline with the same UNet and text encoder
has the same layers.
"""

from collections.abc import Callable, Iterable, Mapping
from types import MethodType
from typing import Any, Literal

from diffusers import StableDiffusionPipeline

from piu_lora.adapter.checks import component_model
from piu_lora.adapter.layers import adapter_names, lora_layers, set_active
from piu_lora.errors import BadInput, Incompatible
from piu_lora.model.factors import COMPONENTS

__all__ = ["Pinning", "assert_active", "pin", "pinned", "pinning_mode", "unpin"]

Pinning = bool | Literal["refuse"]
_GUARDED = ("delete_adapters", "unload_lora_weights", "disable_lora", "set_adapters")
_GUARDED_UNET = ("delete_adapters", "unload_lora", "fuse_qkv_projections")


class _Pinned:
    """What a LoRA layer of PEFT does otherwise while it holds a pinned adapter.

    ``pins`` are their scales by adapter. ``host`` are the adapters that were active when the host switched
    adapters off; None while they are on.
    """

    pins: dict[str, float]
    host: list[str] | None

    def set_adapter(self, adapter_names: str | list[str], *args: Any, **kwargs: Any) -> None:
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        names = [name for name in names if name not in self.pins]
        if self.host is not None:
            self.host, names = names, []
        super().set_adapter([*self.pins, *names], *args, **kwargs)  # type: ignore[misc]
        self._keep()

    def enable_adapters(self, enabled: bool) -> None:
        layer: Any = self
        if enabled and self.host is not None:
            names, self.host = self.host, None
            self.set_adapter(names)
        elif not enabled and self.host is None:
            names = [name for name in layer.active_adapters if name not in self.pins]
            if layer.merged:  # PEFT takes fused adapters out again as well
                layer.unmerge()
            self.set_adapter([])
            self.host = names
        self._keep()

    def set_scale(self, adapter: str, scale: float) -> None:
        super().set_scale(adapter, scale)  # type: ignore[misc]
        self._keep()

    def scale_layer(self, scale: float) -> None:
        super().scale_layer(scale)  # type: ignore[misc]
        self._keep()

    def unscale_layer(self, scale: float | None = None) -> None:
        super().unscale_layer(scale)  # type: ignore[misc]
        self._keep()

    def delete_adapter(self, adapter_name: str) -> None:
        if adapter_name not in self.pins:
            super().delete_adapter(adapter_name)  # type: ignore[misc]

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        names = adapter_names and [*self.pins, *(name for name in adapter_names if name not in self.pins)]
        super().merge(safe_merge, names)  # type: ignore[misc]

    def _keep(self) -> None:
        layer: Any = self
        layer.scaling.update(self.pins)
        layer._disable_adapters = False
        for name in self.pins:
            for factors in (layer.lora_A, layer.lora_B):
                factors[name].requires_grad_(False)


_CLASSES: dict[Any, type] = {}


def _pinned_class(kind: Any) -> type:
    if kind not in _CLASSES:
        _CLASSES[kind] = type(f"Pinned{kind.__name__}", (_Pinned, kind), {})
    return _CLASSES[kind]


def pin(pipe: StableDiffusionPipeline, names: Iterable[str], mode: Pinning = True) -> None:
    """Keep loaded adapters active, whatever a host does to adapters on this pipeline.

    Args:
        names: loaded and active, with the weights that they have.
        mode: ``refuse`` raises ``BadInput`` where a host's call would have switched them off.
    """
    refuse = "refuse" in (mode, pinning_mode(pipe))
    for name in names:
        count = 0
        for part in COMPONENTS:
            for layer in lora_layers(component_model(pipe, part)):
                if name in layer.lora_A:
                    _pin_layer(layer, name)
                    count += 1
        _record(pipe)[name] = count
    if _record(pipe):
        _guard(pipe, refuse=refuse)


def _pin_layer(layer: Any, name: str) -> None:
    if not isinstance(layer, _Pinned):
        layer.__class__ = _pinned_class(type(layer))
        vars(layer).update(pins={}, host=None)
    layer.pins[name] = layer.scaling[name]


def unpin(pipe: StableDiffusionPipeline, names: Iterable[str] | None = None) -> None:
    """Let go of pinned adapters: they stay loaded and active, and a host can switch them off again.

    Args:
        names: all by default.
    """
    leaving = set(pinned(pipe) if names is None else names)
    for part in COMPONENTS:
        for layer in lora_layers(component_model(pipe, part)):
            if isinstance(layer, _Pinned):
                _unpin_layer(layer, leaving)
    record = _record(pipe)
    for name in leaving & record.keys():
        del record[name]
    if not record:
        _unguard(pipe)


def _unpin_layer(layer: Any, leaving: set[str]) -> None:
    for name in leaving & layer.pins.keys():
        del layer.pins[name]
    if not layer.pins:
        switched_off = layer.host is not None
        names = [*layer.active_adapters, *(layer.host or [])]
        layer.__class__ = type(layer).__bases__[1]
        del layer.pins, layer.host
        set_active(layer, names, disabled=switched_off)


def pinned(pipe: StableDiffusionPipeline) -> list[str]:
    """The adapters that are pinned in this pipeline."""
    return list(_record(pipe))


def pinning_mode(pipe: StableDiffusionPipeline) -> Pinning:
    """How adapters are pinned here; True where none is."""
    return "refuse" if vars(pipe).get("_piu_lora_refuses", False) else True


def _record(pipe: StableDiffusionPipeline) -> dict[str, int]:
    """By pinned adapter, in how many layers."""
    record: dict[str, int] = vars(pipe).setdefault("_piu_lora_pinned", {})
    return record


def assert_active(pipe: StableDiffusionPipeline, names: Iterable[str] | None = None) -> None:
    """Raise unless adapters act in every one of their layers, for the health check of a host.

    Args:
        names: all that are pinned, by default.

    Raises:
        BadInput: nothing is pinned and no name is given.
        Incompatible: an adapter is not loaded, switched off, at another weight than it was pinned at, or
        passed
            over by fused projections or fused weights.
    """
    listed = pinned(pipe) if names is None else list(names)
    if not listed:
        raise BadInput(
            "no adapter is pinned in this pipeline; load one with load_adapter(), or pass its name"
        )
    for name in listed:
        layers = [
            layer
            for part in COMPONENTS
            for layer in lora_layers(component_model(pipe, part))
            if name in layer.lora_A
        ]
        expected = _record(pipe).get(name, len(layers))
        reason = "" if layers and len(layers) == expected else f"it is in {len(layers)} of {expected} layers"
        reason = reason or next(filter(None, (_idle(layer, name) for layer in layers)), "")
        if any(
            getattr(module, "fused_projections", False) for module in component_model(pipe, "unet").modules()
        ):
            reason = "the projections of the UNet's attention are fused"
        if reason:
            raise Incompatible(
                f"adapter {name!r} does not act: {reason}; load the base and the adapter again"
            )


def _idle(layer: Any, name: str) -> str:
    """Why an adapter does nothing, or something else, in a layer; empty where it acts."""
    if layer.merged:
        return "" if name in layer.merged_adapters else "other adapters are fused into its layers"
    if layer.disable_adapters or name not in layer.active_adapters:
        return "it is switched off"
    pins: Mapping[str, float] = getattr(layer, "pins", {})
    if layer.scaling[name] != pins.get(name, layer.scaling[name]) or not layer.scaling[name]:
        return f"its weight is {layer.scaling[name]:g}"
    return ""


def _guard(pipe: StableDiffusionPipeline, *, refuse: bool) -> None:
    """Methods of this pipeline and this UNet that would drop a pinned adapter's layers, or pass them over."""
    vars(pipe).update(
        _piu_lora_refuses=refuse,
        delete_adapters=MethodType(_delete_others, pipe),
        unload_lora_weights=MethodType(_unload_others, pipe),
    )
    if refuse:
        for name in _GUARDED:
            vars(pipe)[name] = _refusal(pipe, name)
    unet = component_model(pipe, "unet")
    vars(unet).update(
        delete_adapters=lambda adapter_names: _delete_from_unet(pipe, adapter_names),
        unload_lora=lambda: _delete_from_unet(pipe, adapter_names(pipe, "unet")),
        fuse_qkv_projections=_refuse_fused_projections,
    )


def _unguard(pipe: StableDiffusionPipeline) -> None:
    for name in ("_piu_lora_refuses", *_GUARDED):
        vars(pipe).pop(name, None)
    for name in _GUARDED_UNET:
        vars(component_model(pipe, "unet")).pop(name, None)


def _others(pipe: StableDiffusionPipeline, names: str | list[str]) -> list[str]:
    listed = [names] if isinstance(names, str) else list(names)
    return [name for name in listed if name not in pinned(pipe)]


def _delete_others(pipe: StableDiffusionPipeline, adapter_names: str | list[str]) -> None:
    if others := _others(pipe, adapter_names):
        type(pipe).delete_adapters(pipe, others)


def _unload_others(pipe: StableDiffusionPipeline) -> None:
    _delete_others(
        pipe, list(dict.fromkeys(name for part in COMPONENTS for name in adapter_names(pipe, part)))
    )


def _delete_from_unet(pipe: StableDiffusionPipeline, names: str | list[str]) -> None:
    unet = component_model(pipe, "unet")
    if others := _others(pipe, names):
        type(unet).delete_adapters(unet, others)


def _refuse_fused_projections() -> None:
    raise Incompatible(
        "fused projections would pass over a pinned adapter; fuse the adapter into the base first "
        "(`piu-lora stack fuse`), or leave the projections as they are"
    )


def _refusal(pipe: StableDiffusionPipeline, method: str) -> Callable[..., Any]:
    """A method of the pipeline that refuses what would end a pinned adapter, and does the rest."""

    def guarded(*args: Any, **kwargs: Any) -> Any:
        first = args[0] if args else kwargs.get("adapter_names", [])
        names = [first] if isinstance(first, str) else first
        ends = {
            "set_adapters": set(pinned(pipe)) - set(names),
            "delete_adapters": set(pinned(pipe)) & set(names),
        }
        if ends.get(method, set(pinned(pipe))):
            raise BadInput(
                f"{method}() would switch off the pinned adapter {pinned(pipe)[0]!r}; "
                "call unpin(pipe) first if that is meant"
            )
        return getattr(type(pipe), method)(pipe, *args, **kwargs)

    return guarded
