"""Whatever else is in a pipeline comes out exactly as it went in: LoRAs of others beside ours."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig, inject_adapter_in_model

from piu_lora.adapter import (
    active,
    adapters_disabled,
    hotswap,
    load_adapter,
    load_adapters,
    prepare_hotswap,
    unload,
)
from piu_lora.errors import Incompatible
from tests.adapter.stacks import forward, write_random
from tests.tiny import tiny_pipeline

NAME = "style"


@pytest.fixture
def folders(pipe: StableDiffusionPipeline, tmp_path: Path) -> list[Path]:
    write_random(pipe, tmp_path / "a", 1, encoder=True)
    write_random(pipe, tmp_path / "b", 2)
    return [tmp_path / "a", tmp_path / "b"]


@pytest.fixture
def styled() -> StableDiffusionPipeline:
    """A pipeline with a foreign LoRA in both parts."""
    return with_style()


def with_style(**options: Any) -> StableDiffusionPipeline:
    pipe = tiny_pipeline()
    common = {"r": 4, "lora_alpha": 4, "init_lora_weights": False, **options}
    torch.manual_seed(3)
    pipe.unet.add_adapter(LoraConfig(target_modules=r".*attn2\.(to_q|to_out\.0)", **common), NAME)
    inject_adapter_in_model(LoraConfig(target_modules=["q_proj"], **common), pipe.text_encoder, NAME)
    pipe.set_adapters([NAME], [1.0])
    return pipe


def everything(pipe: StableDiffusionPipeline, name: str = NAME) -> dict[str, Any]:
    """All that may be seen of an adapter, layer by layer, and what of the whole pipeline is trainable."""
    layers = {
        f"{part}.{path}": (module.scaling[name], tuple(module.active_adapters), module.disable_adapters)
        for part in ("unet", "text_encoder")
        for path, module in getattr(pipe, part).named_modules()
        if name in getattr(module, "scaling", {})
    }
    trainable = {
        f"{part}.{path}".replace(".base_layer", ""): value.requires_grad
        for part in ("unet", "text_encoder")
        for path, value in getattr(pipe, part).named_parameters()
    }
    return {"layers": layers, "trainable": trainable}


def rslora() -> StableDiffusionPipeline:
    return with_style(r=16, lora_alpha=16, use_rslora=True)


def by_block() -> StableDiffusionPipeline:
    pipe = with_style()
    pipe.set_adapters([NAME], [{"unet": {"down": 0.2, "mid": 0.5, "up": 1.0}, "text_encoder": 0.3}])
    return pipe


def by_layer() -> StableDiffusionPipeline:
    """Alphas by pattern, and a scale that somebody set by hand."""
    pipe = with_style(alpha_pattern={"to_q": 1}, lora_alpha=3)
    next(module for module in pipe.unet.modules() if NAME in getattr(module, "scaling", {})).scaling[NAME] = (
        7.0
    )
    return pipe


def frozen() -> StableDiffusionPipeline:
    pipe = with_style()
    pipe.unet.requires_grad_(False)
    pipe.text_encoder.requires_grad_(True)
    return pipe


def without_alpha() -> StableDiffusionPipeline:
    return with_style(lora_alpha=0)


KINDS = [rslora, by_block, by_layer, frozen, without_alpha]


@pytest.mark.parametrize("kind", KINDS)
def test_without_puts_a_foreign_adapter_back_exactly(kind: Callable[[], StableDiffusionPipeline]) -> None:
    pipe = kind()
    before, noise = everything(pipe), forward(pipe)
    with adapters_disabled(pipe):
        assert active(pipe) == {}
    with pytest.raises(ZeroDivisionError), adapters_disabled(pipe):
        raise ZeroDivisionError
    assert everything(pipe) == before
    assert torch.equal(forward(pipe), noise)


@pytest.mark.parametrize("kind", KINDS)
def test_loading_and_unloading_leave_a_foreign_adapter_alone(
    kind: Callable[[], StableDiffusionPipeline], folders: list[Path]
) -> None:
    pipe = kind()
    before, noise = everything(pipe), forward(pipe)
    scales = {path: layer[0] for path, layer in before["layers"].items()}
    names = load_adapters(pipe, folders, [1.0, 0.5])
    names.append(load_adapter(pipe, folders[0], name="again"))
    loaded = everything(pipe)
    assert {path: layer[0] for path, layer in loaded["layers"].items()} == scales
    assert {layer[1][0] for layer in loaded["layers"].values()} == {NAME}
    assert {key: loaded["trainable"][key] for key in before["trainable"]} == before["trainable"]
    assert {name: weight for name, weight in active(pipe).items() if name != NAME} == pytest.approx(
        {names[0]: 1.0, names[1]: 0.5, "again": 1.0}
    )
    unload(pipe, names)
    assert everything(pipe) == before
    assert torch.equal(forward(pipe), noise)


def test_a_base_that_was_trainable_still_is(pipe: StableDiffusionPipeline, folders: list[Path]) -> None:
    fresh = tiny_pipeline()
    before = everything(fresh)["trainable"]
    name = load_adapter(fresh, folders[0])
    after = everything(fresh)["trainable"]
    assert {key: after[key] for key in before} == before
    assert not any(value for key, value in after.items() if ".lora_" in key)
    unload(fresh, [name])
    assert everything(fresh)["trainable"] == before


def test_the_weight_of_an_rslora_is_what_it_was_set_to() -> None:
    pipe = rslora()
    assert active(pipe) == {NAME: 1.0}
    pipe.set_adapters([NAME], [0.5])
    assert active(pipe) == {NAME: 0.5}


def test_an_adapter_that_was_inactive_stays_inactive(
    styled: StableDiffusionPipeline, folders: list[Path]
) -> None:
    """PEFT makes another adapter active where the active one is deleted."""
    first = load_adapter(styled, folders[1], pinned=False)
    styled.set_adapters([first], [1.0])
    noise = forward(styled)
    second = load_adapter(styled, folders[0])
    assert list(active(styled)) == [first, second]
    unload(styled, [second])
    assert active(styled) == {first: 1.0}
    assert torch.equal(forward(styled), noise)
    unload(styled, [first])
    assert active(styled) == {}


def test_an_adapter_that_was_switched_off_stays_off(
    styled: StableDiffusionPipeline, folders: list[Path]
) -> None:
    styled.disable_lora()
    name = load_adapter(styled, folders[1], pinned=False)
    assert active(styled) == {name: 1.0}
    noise = forward(styled)
    styled.enable_lora()
    assert torch.equal(forward(styled), noise)
    styled.disable_lora()
    with adapters_disabled(styled):
        pass
    assert active(styled) == {}


def test_a_load_that_fails_leaves_everything_as_it_was(folders: list[Path], tmp_path: Path) -> None:
    pipe = by_block()
    before, noise = everything(pipe), forward(pipe)
    write_random(tiny_pipeline(seed=1), tmp_path / "stranger", 9)
    with pytest.raises(Incompatible):
        load_adapters(pipe, [folders[1], tmp_path / "stranger"])
    assert everything(pipe) == before
    assert torch.equal(forward(pipe), noise)


@pytest.mark.parametrize("part", ["load_lora_adapter", "load_lora_into_text_encoder"])
def test_a_load_that_breaks_off_leaves_everything_as_it_was(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    pipe = by_block()
    before = everything(pipe)
    owner = pipe if part == "load_lora_into_text_encoder" else pipe.unet
    genuine = getattr(owner, part)

    def interrupted(*arguments: object, **options: object) -> None:
        genuine(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, part, interrupted, raising=False)
    with pytest.raises(KeyboardInterrupt):
        load_adapter(pipe, folders[0])
    assert everything(pipe) == before


def test_hotswap_beside_a_foreign_adapter(folders: list[Path], tmp_path: Path) -> None:
    pipe = tiny_pipeline()
    prepare_hotswap(pipe, 8)
    load_adapter(pipe, folders[1], name="slot", weight=0.5)
    torch.manual_seed(3)
    pipe.unet.add_adapter(
        LoraConfig(r=16, lora_alpha=16, use_rslora=True, target_modules=["to_q"], init_lora_weights=False),
        NAME,
    )
    pipe.set_adapters(["slot", NAME], [0.5, {"unet": {"down": 0.2, "up": 1.0}}])
    before = everything(pipe)
    write_random(tiny_pipeline(), tmp_path / "other", 5)
    hotswap(pipe, tmp_path / "other", "slot")
    assert everything(pipe) == before
    assert active(pipe)["slot"] == 0.5


def test_a_hotswap_that_breaks_off_puts_the_old_weights_back(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tiny_pipeline()
    prepare_hotswap(pipe, 8)
    load_adapter(pipe, folders[1], name="slot")
    noise, genuine = forward(pipe), pipe.unet.load_lora_adapter
    write_random(tiny_pipeline(), tmp_path / "other", 5)

    def interrupted(*arguments: object, **options: object) -> None:
        genuine(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(pipe.unet, "load_lora_adapter", interrupted, raising=False)
    with pytest.raises(KeyboardInterrupt):
        hotswap(pipe, tmp_path / "other", "slot")
    assert torch.equal(forward(pipe), noise)
