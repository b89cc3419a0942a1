import re

import pytest
import torch
from diffusers import UNet2DConditionModel

from piu_lora.config import LoraConfig
from piu_lora.errors import BadInput
from piu_lora.model import adapters_disabled, attach, detach, read_weights, trainable, write_weights
from piu_lora.model.lora import target_pattern
from tests.tiny import predicted_noise, tiny_unet

SMALL = LoraConfig(rank=2)


@pytest.fixture
def unet() -> UNet2DConditionModel:
    return tiny_unet()


def forward(unet: UNet2DConditionModel) -> torch.Tensor:
    return predicted_noise(unet, 0, (5, 900))


def fill(unet: UNet2DConditionModel, name: str, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weights = {
        key: 0.3 * torch.randn(value.shape, generator=generator)
        for key, value in read_weights(unet, name).items()
    }
    write_weights(unet, name, weights)
    return weights


def test_a_fresh_adapter_changes_nothing(unet: UNet2DConditionModel) -> None:
    plain = forward(unet)
    attach(unet, SMALL, "x", seed=0)
    assert torch.equal(forward(unet), plain)
    assert all(not value.any() for key, value in read_weights(unet, "x").items() if "lora_B" in key)


def test_adapters_off_is_the_base_even_in_train_mode(unet: UNet2DConditionModel) -> None:
    plain = forward(unet)
    attach(unet, SMALL, "x", seed=0)
    fill(unet, "x")
    unet.train()
    changed = forward(unet)
    with adapters_disabled(unet):
        assert torch.equal(forward(unet), plain)
    assert (changed - plain).abs().max() > 1e-3
    assert torch.equal(forward(unet), changed)


def test_adapters_come_back_after_an_error_and_still_train(unet: UNet2DConditionModel) -> None:
    attach(unet, SMALL, "x", seed=0)
    fill(unet, "x")
    changed, count = forward(unet), len(trainable(unet))
    with pytest.raises(RuntimeError, match="stop"), adapters_disabled(unet):
        raise RuntimeError("stop")
    assert torch.equal(forward(unet), changed)
    assert len(trainable(unet)) == count > 0


def test_the_adapter_is_b_times_a_on_the_weights(unet: UNet2DConditionModel) -> None:
    """alpha equals rank, so the scale is 1."""
    attach(unet, SMALL, "x", seed=0)
    weights = fill(unet, "x")
    dense = tiny_unet()
    with torch.no_grad():
        for key, factor in weights.items():
            if ".lora_A." in key:
                dense.get_parameter(key.replace(".lora_A", "")).add_(
                    weights[key.replace("lora_A", "lora_B")] @ factor
                )
    torch.testing.assert_close(forward(unet), forward(dense), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("blocks", "projections"),
    [
        (LoraConfig().blocks, LoraConfig().projections),
        (("mid_block",), ("to_k", "to_v")),
        (("down_blocks.0", "up_blocks.3"), ("to_out.0",)),
    ],
)
def test_only_the_wanted_modules_are_adapted(
    unet: UNet2DConditionModel, blocks: tuple[str, ...], projections: tuple[str, ...]
) -> None:
    linears = [name for name, module in unet.named_modules() if isinstance(module, torch.nn.Linear)]
    in_blocks = [name for name in linears if name.startswith(tuple(f"{block}." for block in blocks))]
    wanted = {
        name
        for name in in_blocks
        if name.endswith(tuple(f".attn2.{projection}" for projection in projections))
    }
    base = {id(parameter) for parameter in unet.parameters()}
    attach(unet, LoraConfig(rank=3, blocks=blocks, projections=projections), "x", seed=0)
    weights = read_weights(unet, "x")
    assert wanted == {key.split(".lora_")[0] for key in weights}
    assert all(3 in (len(value), value.shape[1]) for value in weights.values())
    assert len(weights) == len(trainable(unet)) == 2 * len(wanted)
    assert not any(id(parameter) in base for parameter in trainable(unet))


def test_block_names_are_not_prefixes_of_others() -> None:
    pattern = re.compile(target_pattern(LoraConfig(blocks=("up_blocks.1",))))
    assert pattern.match("up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_q")
    for other in (
        "up_blocks.10.a.attn2.to_q",
        "up_blocks.1.a.attn1.to_q",
        "up_blocks.1.a.attn2.to_qx",
        "up_blocksX1.a.attn2.to_q",
    ):
        assert not pattern.match(other)


@pytest.mark.parametrize("block", ["up_blocks.0", "down_blocks.3", "down_blocks.9", "down_blocks.", "mid"])
def test_a_failed_attach_leaves_the_unet_usable(unet: UNet2DConditionModel, block: str) -> None:
    plain, names = forward(unet), [name for name, _ in unet.named_modules()]
    flags = [parameter.requires_grad for parameter in unet.parameters()]
    with pytest.raises(
        BadInput, match=f"lora\\.blocks names '{re.escape(block)}', where this UNet has no cross-attention"
    ):
        attach(unet, LoraConfig(rank=2, blocks=("mid_block", block)), "x", seed=0)
    assert names == [name for name, _ in unet.named_modules()]
    assert flags == [parameter.requires_grad for parameter in unet.parameters()]
    assert torch.equal(forward(unet), plain)
    attach(unet, SMALL, "x", seed=0)
    assert trainable(unet)


def test_detach_leaves_no_wrapper(unet: UNet2DConditionModel) -> None:
    plain, names = forward(unet), [name for name, _ in unet.named_modules()]
    attach(unet, SMALL, "x", seed=0)
    fill(unet, "x")
    detach(unet, "x")
    assert names == [name for name, _ in unet.named_modules()]
    assert torch.equal(forward(unet), plain)


def test_detaching_one_of_two_keeps_the_other(unet: UNet2DConditionModel) -> None:
    attach(unet, SMALL, "x", seed=0)
    weights = fill(unet, "x")
    alone = forward(unet)
    attach(unet, SMALL, "y", seed=1)
    fill(unet, "y", seed=1)
    detach(unet, "y")
    unet.set_adapters(["x"])
    assert torch.equal(forward(unet), alone)
    assert all(torch.equal(read_weights(unet, "x")[key], value) for key, value in weights.items())


def test_the_seed_makes_the_weights_and_the_global_one_is_untouched(unet: UNet2DConditionModel) -> None:
    def drawn(seed: int) -> torch.Tensor:
        attach(unet, SMALL, "x", seed=seed)
        weights = read_weights(unet, "x")
        detach(unet, "x")
        return torch.cat([value.flatten() for value in weights.values()])

    state = torch.get_rng_state()
    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_survive_the_round_trip(unet: UNet2DConditionModel) -> None:
    attach(unet, SMALL, "x", seed=0)
    weights, changed = fill(unet, "x"), forward(unet)
    read = read_weights(unet, "x")
    assert list(read) == sorted(weights)
    assert all(torch.equal(read[key], weights[key]) for key in weights)
    other = tiny_unet()
    attach(other, SMALL, "another name", seed=5)
    write_weights(other, "another name", read)
    assert torch.equal(forward(other), changed)


def test_the_adapter_is_float32_on_a_half_base(unet: UNet2DConditionModel) -> None:
    unet.to(torch.bfloat16)
    attach(unet, SMALL, "x", seed=0)
    assert {parameter.dtype for parameter in trainable(unet)} == {torch.float32}


def test_missing_and_foreign_keys_are_refused(unet: UNet2DConditionModel) -> None:
    attach(unet, SMALL, "x", seed=0)
    weights = fill(unet, "x")
    changed = forward(unet)
    first, *_ = weights
    partial = {key: torch.zeros_like(value) for key, value in weights.items() if key != first}
    with pytest.raises(BadInput, match=re.escape(f"missing ['{first}'], foreign []")):
        write_weights(unet, "x", partial)
    with pytest.raises(BadInput, match=re.escape("missing [], foreign ['vae.weight']")):
        write_weights(unet, "x", {**weights, "vae.weight": torch.ones(1)})
    assert torch.equal(forward(unet), changed)


def test_frozen_adapters_stay_frozen_after_adapters_off(unet: UNet2DConditionModel) -> None:
    attach(unet, SMALL, "x", seed=0)
    unet.requires_grad_(False)
    with adapters_disabled(unet):
        forward(unet)
    assert trainable(unet) == []


def test_wrong_shapes_are_refused(unet: UNet2DConditionModel) -> None:
    attach(unet, SMALL, "x", seed=0)
    with pytest.raises(BadInput):
        write_weights(
            unet, "x", {key: value[:1, :1].contiguous() for key, value in read_weights(unet, "x").items()}
        )
