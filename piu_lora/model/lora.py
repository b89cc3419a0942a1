"""LoRA in the cross-attention of a UNet or in a text encoder; the only module that touches peft."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.utils.peft_utils import recurse_remove_peft_layers
from peft import LoraConfig as PeftConfig
from peft import inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from transformers import CLIPTextModel

from piu_lora.config import LoraConfig
from piu_lora.errors import BadInput
from piu_lora.model.factors import Factors
from piu_lora.model.family import ENCODER_LAYERS, stated_family
from piu_lora.model.offload import stored_value

__all__ = [
    "adapter_layers",
    "adapters_disabled",
    "attach",
    "attach_to",
    "base_parameters",
    "detach",
    "encoder_adapter",
    "read_weights",
    "start_from",
    "target_pattern",
    "trainable",
    "write_weights",
]


def adapter_layers(model: torch.nn.Module) -> dict[str, Any]:
    """The layers that carry adapters of any kind, anybody's, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}


def base_parameters(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights of the base by its own names: adapters are looked through, and what accelerate keeps
    elsewhere (sequential offloading leaves tensors without data in the model) is fetched.
    """
    for path, module in model.named_modules():
        for name, value in module.named_parameters(recurse=False):
            whole_name = f"{path}.{name}" if path else name
            if ".lora_" not in whole_name:
                yield whole_name.replace(".base_layer", ""), stored_value(module, name, value)


def target_pattern(config: LoraConfig) -> str:
    """Regular expression over module names: the projections of attn2 in the chosen blocks."""
    blocks = "|".join(re.escape(block) for block in config.blocks)
    projections = "|".join(re.escape(projection) for projection in config.projections)
    return rf"^({blocks})\..*attn2\.({projections})$"


@contextmanager
def encoder_adapter(text_encoder: CLIPTextModel, rank: int, name: str, seed: int) -> Iterator[None]:
    """While open, every layer of the encoder that may carry one carries an untrained adapter in float32
    (B = 0), and all else is frozen.
    """
    family = stated_family(text_encoder)
    layers = family.components["text_encoder"] if family else ENCODER_LAYERS
    text_encoder.requires_grad_(False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(
            PeftConfig(r=rank, lora_alpha=rank, target_modules=layers), text_encoder, name
        )
    for parameter in trainable(text_encoder):
        parameter.data = parameter.data.float()
    try:
        yield
    finally:
        recurse_remove_peft_layers(text_encoder)
        vars(text_encoder).pop("peft_config", None)
        text_encoder.requires_grad_(False)


def attach(unet: UNet2DConditionModel, config: LoraConfig, name: str, seed: int) -> None:
    """Add an untrained adapter (B = 0, so nothing changes yet) in float32; the base is frozen.

    Raises:
        BadInput: a block of ``config`` has no cross-attention here. Checked first: a failed add_adapter
            poisons the UNet.
    """
    pattern = re.compile(target_pattern(config))
    targets = [module for module, _ in unet.named_modules() if pattern.match(module)]
    for block in config.blocks:
        if not any(target.startswith(f"{block}.") for target in targets):
            raise BadInput(f"lora.blocks names {block!r}, where this UNet has no cross-attention")
    attach_to(unet, target_pattern(config), config.rank, name, seed)


def attach_to(unet: UNet2DConditionModel, pattern: str, rank: int, name: str, seed: int) -> None:
    """Add an untrained adapter, as ``attach`` does, to all layers whose names match a regular expression.

    Args:
        pattern: over the whole names of modules.
        name: of the adapter in the model.
    """
    unet.requires_grad_(False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet.add_adapter(
            PeftConfig(r=rank, lora_alpha=rank, target_modules=pattern, init_lora_weights=True),
            adapter_name=name,
        )
    for parameter in trainable(unet):
        parameter.data = parameter.data.float()


def detach(unet: UNet2DConditionModel, name: str) -> None:
    """Take an adapter out again; after the last one the UNet is as it was, without wrappers."""
    unet.delete_adapters(name)
    if not getattr(unet, "peft_config", None):
        unet.unload_lora()


def trainable(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """The parameters that training changes, in a fixed order."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


@contextmanager
def adapters_disabled(model: torch.nn.Module) -> Iterator[None]:
    """While open, the UNet or the text encoder is its own frozen teacher, bit-equal to the base; what was
    frozen before is frozen after.
    """
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    before = [layer._disable_adapters for layer in layers]
    # Not enable_adapters(): it would freeze what is being trained, thaw all else, and ask a pinned layer.
    for layer in layers:
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer, disabled in zip(layers, before, strict=True):
            layer._disable_adapters = disabled


def read_weights(model: torch.nn.Module, name: str) -> dict[str, torch.Tensor]:
    """The adapter's factors by module: ``<module>.lora_A.weight`` (r, in) and ``<module>.lora_B.weight``
    (out, r).
    """
    state = get_peft_model_state_dict(model, adapter_name=name)
    return {key: value.detach().cpu().contiguous() for key, value in sorted(state.items())}


def write_weights(model: torch.nn.Module, name: str, weights: dict[str, torch.Tensor]) -> None:
    """Copy factors into an attached adapter.

    Args:
        name: of the adapter in the model.
        weights: named and shaped as ``read_weights`` has them.

    Raises:
        BadInput: keys are missing or foreign.
    """
    current = read_weights(model, name)
    if current.keys() != weights.keys():
        missing, foreign = sorted(current.keys() - weights.keys()), sorted(weights.keys() - current.keys())
        raise BadInput(f"the weights do not fit the adapter: missing {missing[:3]}, foreign {foreign[:3]}")
    for key, value in weights.items():
        if value.shape != current[key].shape:
            raise BadInput(
                f"the weights do not fit the adapter: {key!r} has shape {tuple(value.shape)}, "
                f"expected {tuple(current[key].shape)}"
            )
    set_peft_model_state_dict(model, weights, adapter_name=name)


def start_from(model: torch.nn.Module, name: str, change: Mapping[str, Factors]) -> None:
    """Make an untrained adapter begin as ``change``: its factors take the first places of the rank, the
    others stay untrained.

    Where the rank has too little room, the leading factors take it: a closed form orders its factors by what
    they carry.

    Args:
        change: by module of ``model``.

    Raises:
        BadInput: the adapter lacks a layer.
    """
    weights = read_weights(model, name)
    for module, factors in change.items():
        down, up = (weights.get(f"{module}.lora_{letter}.weight") for letter in "AB")
        if down is None or up is None:
            raise BadInput(
                f"the start changes {module!r}, which is not trained; train that layer too, or choose "
                "another train.start"
            )
        rank = min(factors.rank, len(down))
        down[:rank] = factors.down[:rank].to(down)
        up[:, :rank] = factors.up[:, :rank].to(up)
    write_weights(model, name, weights)
