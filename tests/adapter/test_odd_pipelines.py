"""Pipelines with other things in them: IP-Adapters, offloading, eight bits, fused projections."""

import copy
import logging
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor2_0, IPAdapterAttnProcessor2_0

from piu_lora.adapter import adapters_disabled, load_adapter, unload
from piu_lora.errors import Incompatible
from piu_lora.model import attention_digest, encoder_digest
from tests.adapter.stacks import changed, forward, write_random
from tests.tiny import tiny_pipeline


@pytest.fixture
def folder(pipe: StableDiffusionPipeline, tmp_path: Path) -> Path:
    write_random(pipe, tmp_path / "a", 1, encoder=True)
    return tmp_path / "a"


def with_ip_adapter(pipe: StableDiffusionPipeline) -> None:
    """The processors that diffusers' load_ip_adapter puts in, with weights of their own."""
    processors: dict[str, Any] = {}
    for name in pipe.unet.attn_processors:
        layer = pipe.unet.get_submodule(name.removesuffix(".processor"))
        processors[name] = (
            AttnProcessor2_0()
            if ".attn1." in name
            else IPAdapterAttnProcessor2_0(layer.to_q.in_features, pipe.unet.config.cross_attention_dim, (4,))
        )
    pipe.unet.set_attn_processor(processors)


def test_an_ip_adapter_is_none_of_the_bases_weights(folder: Path) -> None:
    pipe = tiny_pipeline()
    digest = attention_digest(pipe.unet)
    with_ip_adapter(pipe)
    assert attention_digest(pipe.unet) == digest
    own = {name: value.clone() for name, value in pipe.unet.state_dict().items() if "_ip" in name}
    name = load_adapter(pipe, folder)
    with adapters_disabled(pipe):
        pass
    unload(pipe, [name])
    after = pipe.unet.state_dict()
    assert own
    assert all(torch.equal(after[key], value) for key, value in own.items())
    with torch.no_grad():
        pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_k.weight += 1
    with pytest.raises(Incompatible, match="cross-attention weights"):
        load_adapter(pipe, folder)


def test_offloaded_weights_are_checked_and_changed(folder: Path) -> None:
    pipe = tiny_pipeline()
    wanted_digests = attention_digest(pipe.unet), encoder_digest(pipe.text_encoder)
    plain = tiny_pipeline()
    load_adapter(plain, folder)
    bare, wanted = forward(tiny_pipeline()), forward(plain)
    for part in (pipe.unet, pipe.text_encoder):
        accelerate.cpu_offload(part, torch.device("cpu"))
    assert next(pipe.unet.parameters()).is_meta
    assert (attention_digest(pipe.unet), encoder_digest(pipe.text_encoder)) == wanted_digests
    name = load_adapter(pipe, folder)
    assert torch.allclose(forward(pipe), wanted, atol=1e-6)
    assert (wanted - bare).abs().max() > 1e-2
    with adapters_disabled(pipe):
        assert torch.allclose(forward(pipe), bare, atol=1e-6)
    assert (attention_digest(pipe.unet), encoder_digest(pipe.text_encoder)) == wanted_digests
    unload(pipe, [name])
    assert torch.allclose(forward(pipe), bare, atol=1e-6)


@torch.no_grad()
def noise(pipe: StableDiffusionPipeline) -> torch.Tensor:
    """Predicted by the UNet alone, whatever its weights are stored in."""
    generator = torch.Generator().manual_seed(1)
    latents, condition = (torch.randn(shape, generator=generator) for shape in ((1, 4, 8, 8), (1, 8, 32)))
    predicted: torch.Tensor = pipe.unet(latents, torch.tensor([10]), condition).sample
    return predicted


def test_a_base_in_eight_bits_is_not_checked_and_said_so(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipe = tiny_pipeline()
    pipe.unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    bare = noise(pipe)
    with caplog.at_level(logging.WARNING, "piu_lora"):
        name = load_adapter(pipe, folder)
    assert "in 8 bits" in caplog.text
    kinds = {value.dtype for key, value in pipe.unet.named_parameters() if ".lora_" in key}
    assert kinds == {torch.float32}
    assert (noise(pipe) - bare).abs().max() > 1e-2
    with adapters_disabled(pipe):
        assert torch.equal(noise(pipe), bare)
    unload(pipe, [name])
    assert torch.equal(noise(pipe), bare)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float8_e4m3fn])
def test_a_base_that_was_stored_in_fewer_bits_is_not_checked_and_said_so(
    folder: Path, caplog: pytest.LogCaptureFixture, kind: torch.dtype
) -> None:
    pipe = tiny_pipeline()
    for part in (pipe.unet, pipe.text_encoder):
        part.to(kind).to(torch.float32)
    with caplog.at_level(logging.WARNING, "piu_lora"):
        load_adapter(pipe, folder)
    assert "stored in bfloat16 or in 8 bits" in caplog.text


def test_a_pipeline_without_its_text_encoder_is_named(folder: Path) -> None:
    pipe = tiny_pipeline()
    pipe.text_encoder = None
    with pytest.raises(Incompatible, match=r"has no text encoder.*load the base whole"):
        load_adapter(pipe, folder)


def test_weights_that_are_nowhere_are_named(folder: Path) -> None:
    pipe = tiny_pipeline()
    pipe.unet.to("meta")
    with pytest.raises(Incompatible, match=r"not loaded \(device meta\)"):
        load_adapter(pipe, folder)
    assert not hasattr(pipe.unet, "peft_config")


def test_fused_projections_are_refused_and_named(folder: Path) -> None:
    pipe = tiny_pipeline()
    digest = attention_digest(pipe.unet)
    pipe.fuse_qkv_projections()
    assert attention_digest(pipe.unet) == digest
    with pytest.raises(Incompatible, match=r"are fused.*unfuse_qkv_projections"):
        load_adapter(pipe, folder)
    pipe.unfuse_qkv_projections()
    load_adapter(pipe, folder)


def test_an_adapter_that_is_fused_already_is_named(folder: Path) -> None:
    pipe = tiny_pipeline()
    name = load_adapter(pipe, folder)
    pipe.fuse_lora()
    with pytest.raises(Incompatible, match=rf"{name} is fused into the unet.*unfuse_lora"):
        load_adapter(pipe, folder, name="again")


def test_a_text_encoder_may_share_the_work(pipe: StableDiffusionPipeline, folder: Path) -> None:
    """The digest looks through adapters in both parts."""
    other = copy.copy(pipe)
    other.unet, other.text_encoder = copy.deepcopy(pipe.unet), copy.deepcopy(pipe.text_encoder)
    digests = attention_digest(other.unet), encoder_digest(other.text_encoder)
    adapter_name = load_adapter(other, folder)
    assert (attention_digest(other.unet), encoder_digest(other.text_encoder)) == digests
    from piu_lora import read_adapter

    wanted = forward(changed(pipe, [read_adapter(folder).change], [1.0]))
    assert (forward(other) - wanted).abs().max() < 1e-6
    unload(other, [adapter_name])
