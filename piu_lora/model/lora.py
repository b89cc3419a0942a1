"""LoRA in the cross-attention of a UNet; the only module that touches peft."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig as PeftConfig
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict

from piu_lora.config import LoraConfig
from piu_lora.errors import BadInput

__all__ = ["adapters_off", "attach", "detach", "read_weights", "target_pattern", "trainable", "write_weights"]


def target_pattern(config: LoraConfig) -> str:
    """Regular expression over module names: the projections of attn2 in the chosen blocks."""
    blocks = "|".join(re.escape(block) for block in config.blocks)
    projections = "|".join(re.escape(projection) for projection in config.projections)
    return rf"^({blocks})\..*attn2\.({projections})$"


def attach(unet: UNet2DConditionModel, config: LoraConfig, name: str, seed: int) -> None:
    """Add an untrained adapter (B = 0, so nothing changes yet) in float32; the base is frozen.

    Raises:
        BadInput: a block of ``config`` has no cross-attention here. Checked first: a failed add_adapter poisons the UNet.
    """
    pattern = re.compile(target_pattern(config))
    targets = [module for module, _ in unet.named_modules() if pattern.match(module)]
    for block in config.blocks:
        if not any(target.startswith(f"{block}.") for target in targets):
            raise BadInput(f"lora.blocks names {block!r}, where this UNet has no cross-attention")
    unet.requires_grad_(False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet.add_adapter(
            PeftConfig(r=config.rank, lora_alpha=config.rank, target_modules=target_pattern(config), init_lora_weights=True),
            adapter_name=name,
        )
    for parameter in trainable(unet):
        parameter.data = parameter.data.float()


def detach(unet: UNet2DConditionModel, name: str) -> None:
    """Take an adapter out again; after the last one the UNet is as it was, without wrappers."""
    unet.delete_adapters(name)
    if not getattr(unet, "peft_config", None):
        unet.unload_lora()


def trainable(unet: UNet2DConditionModel) -> list[torch.nn.Parameter]:
    """The parameters that training changes, in a fixed order."""
    return [parameter for parameter in unet.parameters() if parameter.requires_grad]


@contextmanager
def adapters_off(unet: UNet2DConditionModel) -> Iterator[None]:
    """While open, the UNet is its own frozen teacher, bit-equal to the base; what was frozen before is frozen after."""
    # enable_adapters makes every active adapter trainable.
    frozen = [p for name, p in unet.named_parameters() if ".lora_" in name and not p.requires_grad]
    unet.disable_adapters()
    try:
        yield
    finally:
        unet.enable_adapters()
        for parameter in frozen:
            parameter.requires_grad_(False)


def read_weights(unet: UNet2DConditionModel, name: str) -> dict[str, torch.Tensor]:
    """The adapter's factors by module: ``<module>.lora_A.weight`` (r, in) and ``<module>.lora_B.weight`` (out, r)."""
    state = get_peft_model_state_dict(unet, adapter_name=name)
    return {key: value.detach().cpu().contiguous() for key, value in sorted(state.items())}


def write_weights(unet: UNet2DConditionModel, name: str, weights: dict[str, torch.Tensor]) -> None:
    """Copy factors into an attached adapter.

    Raises:
        BadInput: keys are missing or foreign.
    """
    own = read_weights(unet, name)
    if own.keys() != weights.keys():
        missing, foreign = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
        raise BadInput(f"the weights do not fit the adapter: missing {missing[:3]}, foreign {foreign[:3]}")
    for key, value in weights.items():
        if value.shape != own[key].shape:
            raise BadInput(f"the weights do not fit the adapter: {key!r} has shape {tuple(value.shape)}, expected {tuple(own[key].shape)}")
    set_peft_model_state_dict(unet, weights, adapter_name=name)
