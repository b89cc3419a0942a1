"""What must hold before an adapter enters a pipeline: its weight, its base, the shapes of its layers."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from piu_lora.adapter.folder import Adapter
from piu_lora.errors import BadInput, Incompatible
from piu_lora.model import adapter_layers, attention_digest, describe, encoder_digest
from piu_lora.model.factors import COMPONENTS, component
from piu_lora.model.lora import base_parameters

__all__ = ["check_weights", "component_model", "require_base"]

_log = logging.getLogger("piu_lora")


def check_weights(weights: Sequence[float], *, allow_negative: bool) -> None:
    """Raise ``BadInput`` for weights that are no numbers, or below 0 where that is not meant."""
    for weight in weights:
        if not isinstance(weight, int | float):
            raise BadInput(
                f"adapter weight {weight!r} is no number; weights by block are not taken, "
                "since diffusers silently ignores those that it does not understand"
            )
        if not abs(weight) < 1e6:
            raise BadInput(
                f"adapter weight {weight!r} is not a usable number; 1 is the adapter as it was made, "
                "0 leaves it out"
            )
        if weight < 0 and not allow_negative:
            raise BadInput(
                f"adapter weight {weight!r} is below 0: it would bring the forgotten person out more "
                "strongly; "
                "to do that on purpose, for an audit, pass allow_negative=True"
            )


def component_model(pipe: StableDiffusionPipeline, part: str) -> Any:
    """A component, without the wrapper of ``torch.compile``."""
    model = getattr(pipe, part)
    return getattr(model, "_orig_mod", model)


def require_base(pipe: StableDiffusionPipeline, adapter: Adapter) -> None:
    """Raise ``Incompatible`` unless the adapter was made for this base."""
    ref, base = adapter.receipt.base, describe(pipe)
    _require_unmerged(pipe)
    _require_shapes(pipe, adapter)
    parts = {component(module) for module in adapter.change}
    expected = {
        "unet": ("cross-attention", ref.attn2_sha256),
        "text_encoder": ("text encoder", ref.text_encoder_sha256),
    }
    digests = {
        "unet": lambda: attention_digest(component_model(pipe, "unet")),
        "text_encoder": lambda: encoder_digest(component_model(pipe, "text_encoder")),
    }
    for part in sorted(parts):
        label, digest = expected[part]
        model = component_model(pipe, part)
        checked = digest and not _has_lost_digits(model)
        if checked and digests[part]() == digest:
            continue
        if not checked or _was_stored_in_bfloat16(model):
            _log.warning(
                "the %s of this base is not checked against the adapter's: it was stored in bfloat16 or in "
                "8 bits, or the receipt has no digest",
                label,
            )
        else:
            raise Incompatible(
                f"the adapter was made for the base {ref.id!r} ({digest[:12]}); "
                f"this base is {base.id!r}, with other {label} weights; load the adapter's base"
            )


def _has_lost_digits(model: torch.nn.Module) -> bool:
    """Whether weights are kept in fewer digits than the digest is made of: bfloat16, or 8 bits."""
    return any(value.dtype == torch.bfloat16 or value.element_size() == 1 for value in model.parameters())


def _was_stored_in_bfloat16(model: torch.nn.Module) -> bool:
    """Whether bfloat16, which holds every 8-bit float as well, holds every weight exactly."""
    return all(
        torch.equal(value, value.to(torch.bfloat16).to(value.dtype)) for _, value in base_parameters(model)
    )


def _require_unmerged(pipe: StableDiffusionPipeline) -> None:
    """The digest would take the sum for another base."""
    for part in COMPONENTS:
        layers = adapter_layers(component_model(pipe, part)).values()
        if merged := sorted({name for layer in layers for name in layer.merged_adapters}):
            raise Incompatible(
                f"{', '.join(merged[:3])} is fused into the {part} of this pipeline; "
                "call pipe.unfuse_lora() first, or load the base anew"
            )


def _require_shapes(pipe: StableDiffusionPipeline, adapter: Adapter) -> None:
    name = describe(pipe).id
    modules = {
        f"{part}.{path}": module
        for part in COMPONENTS
        for path, module in component_model(pipe, part).named_modules()
    }
    for path, factors in adapter.change.items():
        layer = modules.get(path)
        if (getattr(layer, "out_features", None), getattr(layer, "in_features", None)) != factors.shape:
            raise Incompatible(
                f"the adapter was made for the base {adapter.receipt.base.id!r}; "
                f"its layer {path!r} does not fit this base, {name!r}"
            )
