from collections.abc import Iterator

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel

from piu_lora.config import LoraConfig
from piu_lora.errors import BadInput
from piu_lora.model import adapters_disabled, attach, detach, read_weights, trainable, write_weights
from piu_lora.model.split_unet import SplitUNet
from tests.tiny import tiny_unet

Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def inputs(height: int = 8, width: int = 8, count: int = 3) -> Inputs:
    generator = torch.Generator().manual_seed(height * 100 + width)
    latents = torch.randn(count, 4, height, width, generator=generator)
    return (
        latents,
        torch.randint(1000, (count,), generator=generator),
        torch.randn(count, 8, 32, generator=generator),
    )


@pytest.fixture
def unet() -> UNet2DConditionModel:
    return tiny_unet()


@pytest.fixture
def adapted(pipe: StableDiffusionPipeline) -> Iterator[UNet2DConditionModel]:
    """The UNet with an adapter that changes something."""
    attach(pipe.unet, LoraConfig(rank=2), "x", seed=0)
    generator = torch.Generator().manual_seed(1)
    weights = read_weights(pipe.unet, "x")
    write_weights(
        pipe.unet,
        "x",
        {key: 0.3 * torch.randn(value.shape, generator=generator) for key, value in weights.items()},
    )
    yield pipe.unet
    detach(pipe.unet, "x")


@torch.no_grad()
@pytest.mark.parametrize("size", [(8, 8), (16, 8), (9, 8), (7, 11), (10, 13), (1, 5)])
@pytest.mark.parametrize("down_blocks", range(5))
def test_tail_after_head_is_the_unet_bit_for_bit(
    unet: UNet2DConditionModel, size: tuple[int, int], down_blocks: int
) -> None:
    split, given = SplitUNet(unet, down_blocks), inputs(*size)
    assert torch.equal(split.tail(split.head(*given)), unet(*given).sample)


@torch.no_grad()
def test_one_head_serves_student_and_teacher(adapted: UNet2DConditionModel) -> None:
    split, given = SplitUNet.before(adapted, LoraConfig().blocks), inputs(9, 7)
    midway = split.head(*given)
    model, wanted = split.tail(midway), adapted(*given).sample
    with adapters_disabled(adapted):
        teacher, plain = split.tail(midway), adapted(*given).sample
    assert torch.equal(model, wanted)
    assert torch.equal(teacher, plain)
    assert (model - teacher).abs().max() > 1e-3


def test_gradients_are_those_of_the_whole_unet(adapted: UNet2DConditionModel) -> None:
    split, given = SplitUNet.before(adapted, LoraConfig().blocks), inputs()
    gradients = []
    for forward in (lambda: split.tail(split.head(*given)), lambda: adapted(*given).sample):
        gradients.append(torch.autograd.grad(forward().square().mean(), trainable(adapted)))
    assert all(float(gradient.abs().max()) > 0 for gradient in gradients[0])
    for mine, whole in zip(*gradients, strict=True):
        assert torch.equal(mine, whole)


@torch.no_grad()
def test_a_slice_of_the_midway_is_the_midway_of_the_slice(unet: UNet2DConditionModel) -> None:
    split, (latents, times, condition) = SplitUNet(unet, 2), inputs(count=4)
    sliced = split.head(latents, times, condition)[1:3]
    alone = split.head(latents[1:3], times[1:3], condition[1:3])
    for mine, theirs in zip(
        (sliced.hidden, sliced.time, sliced.condition, *sliced.skips),
        (alone.hidden, alone.time, alone.condition, *alone.skips),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        split.tail(sliced), unet(latents[1:3], times[1:3], condition[1:3]).sample, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(
    ("blocks", "down_blocks"),
    [
        (("down_blocks.2", "mid_block"), 2),
        (("up_blocks.1", "down_blocks.1", "down_blocks.0"), 0),
        (("mid_block", "up_blocks.3"), 4),
        (("up_blocks.0",), 4),
    ],
)
def test_the_head_ends_before_the_first_adapted_block(
    unet: UNet2DConditionModel, blocks: tuple[str, ...], down_blocks: int
) -> None:
    assert SplitUNet.before(unet, blocks).down_blocks == down_blocks


@pytest.mark.parametrize(
    ("name", "value"),
    [("center_input_sample", True), ("class_embed_type", "timestep"), ("addition_embed_type", "text")],
)
def test_another_topology_is_refused(unet: UNet2DConditionModel, name: str, value: object) -> None:
    unet.register_to_config(**{name: value})
    with pytest.raises(
        BadInput, match=rf"this UNet sets .*{name}.*; only the topology of Stable Diffusion 1\.5"
    ):
        SplitUNet(unet, 2)
