"""Pipelines as hosts set them up: with other parts, other kernels, other places of the weights."""

from pathlib import Path

import pytest
import torch
from accelerate import cpu_offload
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline, StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor2_0, IPAdapterAttnProcessor2_0

from piu_lora.adapter import active, assert_active, load_adapter
from piu_lora.model import attention_digest
from tests.adapter.stacks import forward


def put_ip_adapter(pipe: StableDiffusionPipeline) -> None:
    """Random weights of an IP-Adapter in every cross-attention, as ``load_ip_adapter`` puts them there."""
    processors = {}
    for name in pipe.unet.attn_processors:
        attention = pipe.unet.get_submodule(name.removesuffix(".processor"))
        processors[name] = (
            IPAdapterAttnProcessor2_0(attention.to_q.out_features, 32, num_tokens=(2,))
            if "attn2" in name
            else AttnProcessor2_0()
        )
    pipe.unet.set_attn_processor(processors)


def test_beside_an_ip_adapter(host: StableDiffusionPipeline, folder: Path) -> None:
    """Its keys and values are no part of the base that the adapter was made for."""
    put_ip_adapter(host)
    latents, condition = torch.zeros(1, 4, 8, 8), (torch.ones(1, 8, 32), [torch.ones(1, 1, 2, 32)])
    with torch.no_grad():
        before = host.unet(latents, 5, condition).sample
        load_adapter(host, folder)
        host.disable_lora()
        after = host.unet(latents, 5, condition).sample
    assert_active(host)
    assert (after - before).abs().max() > 1e-3


def test_in_a_controlnet_pipeline(host: StableDiffusionPipeline, folder: Path) -> None:
    net = ControlNetModel.from_unet(host.unet, conditioning_embedding_out_channels=(8, 8, 8, 8))
    pipe = StableDiffusionControlNetPipeline(**host.components, controlnet=net, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    name = load_adapter(pipe, folder)
    alone = forward(host)
    pipe.disable_lora()
    options = {"num_inference_steps": 1, "guidance_scale": 1.0, "output_type": "latent"}
    condition = torch.ones(1, 8, 32)
    assert torch.isfinite(
        pipe(prompt_embeds=condition, image=torch.zeros(1, 3, 64, 64), **options).images
    ).all()
    assert active(pipe) == {name: 1.0}
    assert torch.equal(forward(host), alone)


def test_with_the_weights_elsewhere(host: StableDiffusionPipeline, folder: Path) -> None:
    """Sequential offloading leaves empty weights behind, and brings them when a layer runs."""
    load_adapter(host, folder)
    expected, digest = forward(host), attention_digest(host.unet)
    cpu_offload(host.unet, execution_device=torch.device("cpu"))
    host.disable_lora()
    assert_active(host)
    assert torch.allclose(forward(host), expected, atol=1e-6)
    assert next(host.unet.parameters()).is_meta
    assert attention_digest(host.unet) == digest


def test_with_layerwise_casting(host: StableDiffusionPipeline, folder: Path) -> None:
    host.unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    load_adapter(host, folder)
    host.disable_lora()
    assert_active(host)


@pytest.mark.slow
def test_compiled(host: StableDiffusionPipeline, folder: Path) -> None:
    load_adapter(host, folder)
    expected = forward(host)
    host.unet = torch.compile(host.unet, backend="eager")
    assert torch.allclose(forward(host), expected, atol=1e-6)
    host.disable_lora()
    host.unload_lora_weights()
    assert_active(host)
    assert torch.allclose(forward(host), expected, atol=1e-6)
