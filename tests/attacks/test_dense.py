"""Dense weights under attack: the same weights as the baseline left, and bits restored afterwards."""

import pytest
import torch
from diffusers import StableDiffusionPipeline

from piu_lora.attacks import find_attacks, run_attacks
from piu_lora.attacks.copies import fused_copy
from piu_lora.attacks.dense import DenseChange, dense_change, rest_of
from piu_lora.errors import BadInput
from piu_lora.identity import IdentityBank
from piu_lora.model import find_family
from tests.attacks.contexts import QUICK, context_of
from tests.tiny import tiny_pipeline


@pytest.fixture(scope="module")
def difference() -> dict[str, torch.Tensor]:
    """Of every kind of tensor, as a baseline that trains the whole UNet leaves."""
    names = (
        "conv_in.weight",
        "conv_norm_out.bias",
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight",
    )
    state, generator = tiny_pipeline().unet.state_dict(), torch.Generator().manual_seed(3)
    return {name: 0.1 * torch.randn(state[name].shape, generator=generator) for name in names}


def test_layers_of_adapters_are_factors_and_all_else_is_added(difference: dict[str, torch.Tensor]) -> None:
    pipe = tiny_pipeline()
    change = dense_change(pipe, "unet", difference, find_family("tiny"))
    (module,) = change
    assert torch.equal(change[module].dense(), difference[module.removeprefix("unet.") + ".weight"])
    assert rest_of(change).keys() == {"unet.conv_in.weight", "unet.conv_norm_out.bias"}
    assert not rest_of(change, "text_encoder")
    before = pipe.unet.state_dict()
    after = fused_copy(pipe, change).unet.state_dict()
    for name, value in before.items():
        assert torch.allclose(after[name], value + difference.get(name, 0), atol=1e-6)
    with pytest.raises(BadInput, match=r"adds a part to the base \(condition_gate\.bias\)"):
        dense_change(pipe, "unet", {"condition_gate.bias": torch.zeros(2)}, find_family("tiny"))


def test_attacks_run_on_dense_weights(
    pipe: StableDiffusionPipeline, bank: IdentityBank, difference: dict[str, torch.Tensor]
) -> None:
    before = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    change = dense_change(pipe, "unet", difference, find_family("tiny"))
    context = context_of(pipe, bank, change)
    latents, times, condition = torch.ones(1, 4, 8, 8), torch.tensor([5]), torch.ones(1, 77, 32)
    with torch.no_grad(), context.changed(change):
        mounted = pipe.unet(latents, times, condition).sample
    with torch.no_grad():
        fused = fused_copy(pipe, change).unet(latents, times, condition).sample
    assert torch.allclose(mounted, fused, atol=1e-5)
    random = context.random
    assert isinstance(random, DenseChange)
    for name, value in change.rest.items():
        assert float(random.rest[name].norm()) == pytest.approx(float(value.norm()), rel=1e-4)
    (entry,) = run_attacks(context, QUICK, find_attacks(["bypass"]))["attacks"]
    assert {"adapter_on", "unedited_encoder", "weight_half"} <= entry["figures"].keys()
    assert all(torch.equal(value, before[name]) for name, value in pipe.unet.state_dict().items())
