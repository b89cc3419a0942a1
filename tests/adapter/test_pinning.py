"""A host's own calls on a pipeline with a pinned adapter: ours stays active, at its weight."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline

from piu_lora.adapter import (
    active,
    adapters_disabled,
    assert_active,
    load_adapter,
    pinned,
    read_adapter,
    unload,
    unpin,
)
from piu_lora.adapter.folder import diffusers_header, diffusers_state
from piu_lora.adapter.loading import set_weights
from piu_lora.errors import BadInput, Incompatible
from piu_lora.tensors import save_tensors
from tests.adapter.stacks import changed, forward, random_change
from tests.tiny import tiny_pipeline


@pytest.fixture
def second(host: StableDiffusionPipeline, tmp_path: Path) -> Path:
    """A LoRA of the host's own, of every second layer."""
    change, path = random_change(host, 2, encoder=True, every=2), tmp_path / "second.safetensors"
    save_tensors(diffusers_state(change), path, diffusers_header(change))
    return path


def _load_second(pipe: Any, second: Path) -> None:
    pipe.load_lora_weights(str(second), adapter_name="lcm")


CALLS: dict[str, list[Callable[[Any, Path], object]]] = {
    "load": [_load_second],
    "load, disable": [_load_second, lambda pipe, _: pipe.disable_lora()],
    "disable": [lambda pipe, _: pipe.disable_lora()],
    "disable, load": [lambda pipe, _: pipe.disable_lora(), _load_second],
    "set": [_load_second, lambda pipe, _: pipe.set_adapters("lcm", 0.0)],
    "unload": [_load_second, lambda pipe, _: pipe.unload_lora_weights()],
    "delete": [_load_second, lambda pipe, _: pipe.delete_adapters(["lcm", "ours"])],
    "unet": [lambda pipe, _: pipe.unet.disable_lora(), lambda pipe, _: pipe.unet.unload_lora()],
    "weight": [lambda pipe, _: pipe.set_adapters("ours", 0.0)],
}


@pytest.mark.parametrize("calls", CALLS)
def test_ours_stays(host: StableDiffusionPipeline, folder: Path, second: Path, calls: str) -> None:
    load_adapter(host, folder, name="ours", weight=0.5)
    alone = forward(host)
    for call in CALLS[calls]:
        call(host, second)
    assert active(host)["ours"] == pytest.approx(0.5)
    assert_active(host)
    both = active(host).get("lcm", 0.0) != 0
    assert torch.allclose(forward(host), alone, atol=1e-6) != both


def test_the_hosts_lora_is_switched_as_the_host_says(
    host: StableDiffusionPipeline, folder: Path, second: Path
) -> None:
    """Beside ours, and by block, as if ours were part of the base."""
    by_block = {"unet": {"down": 0.5, "mid": 1.0, "up": 0.25}, "text_encoder": 0.75}
    load_adapter(host, folder, name="ours")
    alone = forward(host)
    _load_second(host, second)
    host.set_adapters(["lcm"], [by_block])
    with_second = forward(host)
    host.disable_lora()
    off = forward(host)
    host.enable_lora()
    on = forward(host)
    reference = changed(tiny_pipeline(), [read_adapter(folder).change], [1.0])
    _load_second(reference, second)
    reference.set_adapters(["lcm"], [by_block])
    assert torch.allclose(off, alone, atol=1e-6)
    assert torch.equal(on, with_second)
    assert torch.allclose(on, forward(reference), atol=1e-5)
    assert (on - off).abs().max() > 1e-2


def test_ours_comes_second_and_leaves_weights_by_block(
    host: StableDiffusionPipeline, folder: Path, second: Path
) -> None:
    by_block = {"unet": {"down": 0.5, "mid": 1.0, "up": 0.25}}
    _load_second(host, second)
    host.set_adapters(["lcm"], [by_block])
    before = forward(host)
    load_adapter(host, folder, name="ours")
    assert (forward(host) - before).abs().max() > 1e-2
    unload(host, ["ours"])
    assert torch.allclose(forward(host), before, atol=1e-6)


def test_the_scale_of_a_call_is_the_hosts_alone(host: StableDiffusionPipeline, folder: Path) -> None:
    load_adapter(host, folder)
    latents, condition = torch.zeros(1, 4, 8, 8), torch.ones(1, 8, 32)
    with torch.no_grad():
        plain = host.unet(latents, 5, condition).sample
        scaled = host.unet(latents, 5, condition, cross_attention_kwargs={"scale": 0.0}).sample
    assert torch.equal(plain, scaled)
    assert_active(host)


def test_fusing_takes_ours_along(host: StableDiffusionPipeline, folder: Path, second: Path) -> None:
    load_adapter(host, folder, name="ours")
    alone = forward(host)
    _load_second(host, second)
    host.fuse_lora(adapter_names=["lcm"], lora_scale=0.5)
    host.set_adapters(["lcm"], [0.5])
    fused = forward(host)
    assert_active(host)
    host.unfuse_lora()
    assert torch.allclose(forward(host), fused, atol=1e-5)
    host.disable_lora()
    assert torch.allclose(forward(host), alone, atol=1e-5)


def test_another_pipeline_of_the_same_parts(
    host: StableDiffusionPipeline, folder: Path, second: Path
) -> None:
    load_adapter(host, folder, name="ours")
    alone = forward(host)
    other = StableDiffusionImg2ImgPipeline(**host.components, requires_safety_checker=False)
    _load_second(other, second)
    other.disable_lora()
    assert torch.allclose(forward(other), alone, atol=1e-6)


def test_refused_by_option(host: StableDiffusionPipeline, folder: Path, second: Path) -> None:
    load_adapter(host, folder, name="ours", pinned="refuse")
    _load_second(host, second)
    for call in (
        host.disable_lora,
        host.unload_lora_weights,
        lambda: host.set_adapters("lcm"),
        lambda: host.delete_adapters("ours"),
    ):
        with pytest.raises(BadInput, match="would switch off the pinned adapter 'ours'"):
            call()
    host.set_adapters(["ours", "lcm"], [1.0, 0.5])
    host.delete_adapters("lcm")
    assert active(host) == {"ours": 1.0}
    with pytest.raises(Incompatible, match="pass over"):
        host.unet.fuse_qkv_projections()


def test_unpin_leaves_nothing_behind(host: StableDiffusionPipeline, folder: Path, second: Path) -> None:
    kinds = {type(module) for module in tiny_with(folder).unet.modules()}
    attributes = set(vars(host)), set(vars(host.unet))
    load_adapter(host, folder, name="ours", pinned="refuse")
    assert pinned(host) == ["ours"]
    unpin(host)
    assert pinned(host) == []
    assert {type(module) for module in host.unet.modules()} == kinds
    assert set(vars(host)) - attributes[0] <= {"_piu_lora_pinned"}
    assert "delete_adapters" not in vars(host.unet)
    host.disable_lora()
    assert active(host) == {}
    with pytest.raises(Incompatible, match="switched off"):
        assert_active(host, ["ours"])
    with pytest.raises(BadInput, match="no adapter is pinned"):
        assert_active(host)


def tiny_with(folder: Path) -> StableDiffusionPipeline:
    pipe = tiny_pipeline()
    load_adapter(pipe, folder, pinned=False)
    return pipe


def test_our_own_calls_go_past_the_pin(host: StableDiffusionPipeline, folder: Path) -> None:
    bare = forward(host)
    load_adapter(host, folder, name="ours")
    stacked = forward(host)
    with adapters_disabled(host):
        assert torch.equal(forward(host), bare)
    assert torch.equal(forward(host), stacked)
    set_weights(host, {"ours": 0.25})
    host.disable_lora()
    assert active(host) == {"ours": 0.25}
    unload(host, ["ours"])
    assert torch.equal(forward(host), bare)


def test_a_replaced_part_is_noticed(host: StableDiffusionPipeline, folder: Path) -> None:
    load_adapter(host, folder, name="ours")
    host.unet = tiny_pipeline().unet
    with pytest.raises(Incompatible, match="layers"):
        assert_active(host)


def test_fused_projections_are_refused(host: StableDiffusionPipeline, folder: Path) -> None:
    host.unet.fuse_qkv_projections()
    with pytest.raises(Incompatible, match="unfuse_qkv_projections"):
        load_adapter(host, folder)
