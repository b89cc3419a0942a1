from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from piu_lora import active, adapters_disabled, hotswap, load_adapter, load_adapters, prepare_hotswap
from piu_lora.adapter import unload
from piu_lora.errors import BadInput, Incompatible
from tests.adapter.stacks import changed, forward, write_random
from tests.tiny import tiny_pipeline


@pytest.fixture
def folders(pipe: StableDiffusionPipeline, tmp_path: Path) -> list[Path]:
    """Three adapters of mixed ranks: UNet and text encoder, UNet, every third layer of both."""
    write_random(pipe, tmp_path / "a", 1, encoder=True)
    write_random(pipe, tmp_path / "b", 2)
    write_random(pipe, tmp_path / "c", 3, encoder=True, every=3, rank=4)
    return [tmp_path / name for name in "abc"]


def test_stack_of_three_equals_the_dense_sum(pipe: StableDiffusionPipeline, folders: list[Path]) -> None:
    from piu_lora import read_adapter

    bare = forward(pipe)
    weights = [1.0, 0.5, 0.25]
    wanted = forward(changed(pipe, [read_adapter(folder).change for folder in folders], weights))
    names = load_adapters(pipe, folders, weights)
    stacked = forward(pipe)
    assert active(pipe) == pytest.approx(dict(zip(names, weights, strict=True)))
    unload(pipe, names)
    assert (wanted - bare).abs().max() > 1e-2
    assert (stacked - wanted).abs().max() < 1e-6
    assert torch.equal(forward(pipe), bare)
    assert not any(".lora_" in name or "base_layer" in name for name, _ in pipe.unet.named_parameters())
    assert not any(
        ".lora_" in name or "base_layer" in name for name, _ in pipe.text_encoder.named_parameters()
    )


def test_nothing_loaded_is_trainable(pipe: StableDiffusionPipeline, folders: list[Path]) -> None:
    names = load_adapters(pipe, folders)
    with adapters_disabled(pipe):
        pass
    trainable = [
        name
        for part in (pipe.unet, pipe.text_encoder)
        for name, p in part.named_parameters()
        if ".lora_" in name and p.requires_grad
    ]
    unload(pipe, names)
    assert not trainable


def test_a_later_adapter_leaves_earlier_weights_alone(
    pipe: StableDiffusionPipeline, folders: list[Path]
) -> None:
    first = load_adapter(pipe, folders[0], weight=0.3)
    second = load_adapter(pipe, folders[1], name="other")
    weights = active(pipe)
    unload(pipe, [first])
    left = active(pipe)
    unload(pipe, [second])
    assert weights == pytest.approx({first: 0.3, "other": 1.0})
    assert left == {"other": 1.0}
    assert active(pipe) == {}


def test_without_is_the_bare_base_and_comes_back(pipe: StableDiffusionPipeline, folders: list[Path]) -> None:
    bare = forward(pipe)
    names = load_adapters(pipe, folders, [1.0, 0.5, 0.0])
    stacked, weights = forward(pipe), active(pipe)
    with adapters_disabled(pipe):
        inside, nobody = forward(pipe), active(pipe)
    after, again = forward(pipe), active(pipe)
    unload(pipe, names)
    assert torch.equal(inside, bare)
    assert nobody == {}
    assert torch.equal(after, stacked)
    assert again == pytest.approx(weights)


def test_without_restores_after_an_error(pipe: StableDiffusionPipeline, folders: list[Path]) -> None:
    name = load_adapter(pipe, folders[0])
    stacked = forward(pipe)
    with pytest.raises(ZeroDivisionError), adapters_disabled(pipe):
        raise ZeroDivisionError
    after = forward(pipe)
    unload(pipe, [name])
    assert torch.equal(after, stacked)


@pytest.mark.parametrize("weight", [-1.0, -1e-9])
def test_negative_weights_are_refused_unless_meant(
    pipe: StableDiffusionPipeline, folders: list[Path], weight: float
) -> None:
    with pytest.raises(BadInput, match=rf"{weight!r} is below 0.*allow_negative"):
        load_adapter(pipe, folders[0], weight=weight)
    name = load_adapter(pipe, folders[0], weight=weight, allow_negative=True)
    found = active(pipe)
    unload(pipe, [name])
    assert found == pytest.approx({name: weight})


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), 1e30])
def test_unusable_weights(pipe: StableDiffusionPipeline, folders: list[Path], weight: float) -> None:
    with pytest.raises(BadInput, match="not a usable number"):
        load_adapter(pipe, folders[0], weight=weight)


def test_weights_by_block_are_refused_not_ignored(pipe: StableDiffusionPipeline, folders: list[Path]) -> None:
    with pytest.raises(BadInput, match="weights by block are not taken"):
        load_adapters(pipe, folders[:1], [{"down": 0.5}])  # type: ignore[list-item]
    assert active(pipe) == {}


def test_all_or_none(pipe: StableDiffusionPipeline, folders: list[Path], tmp_path: Path) -> None:
    first = load_adapter(pipe, folders[0], weight=0.5)
    before = forward(pipe)
    write_random(tiny_pipeline(seed=1), tmp_path / "stranger", 9)
    with pytest.raises(Incompatible):
        load_adapters(pipe, [folders[1], tmp_path / "stranger"])
    with pytest.raises(BadInput, match="is taken"):
        load_adapters(pipe, [folders[1], folders[1]])
    with pytest.raises(BadInput, match="1 weights"):
        load_adapters(pipe, folders[1:], [1.0])
    after, left = forward(pipe), active(pipe)
    unload(pipe, [first])
    assert torch.equal(after, before)
    assert left == {first: 0.5}


def test_other_text_encoder_is_refused(folders: list[Path]) -> None:
    other = tiny_pipeline()
    with torch.no_grad():
        other.text_encoder.get_input_embeddings().weight[0] += 1
    with pytest.raises(Incompatible, match="text encoder weights"):
        load_adapter(other, folders[0])
    load_adapter(other, folders[1])


def test_hotswap_equals_a_fresh_load(folders: list[Path], tmp_path: Path) -> None:
    pipe = tiny_pipeline()
    write_random(pipe, tmp_path / "small", 5, every=2)
    prepare_hotswap(pipe, 8)
    load_adapter(pipe, folders[1], name="slot", weight=0.5)
    hotswap(pipe, tmp_path / "small", "slot")
    swapped = forward(pipe)
    assert active(pipe) == {"slot": 0.5}
    fresh = tiny_pipeline()
    load_adapter(fresh, tmp_path / "small", weight=0.5)
    assert torch.allclose(swapped, forward(fresh), atol=1e-6)


def test_hotswap_refuses_what_it_cannot_do(folders: list[Path], tmp_path: Path) -> None:
    pipe = tiny_pipeline()
    write_random(pipe, tmp_path / "small", 5, every=2)
    with pytest.raises(BadInput, match="no adapter 'slot' is loaded"):
        hotswap(pipe, folders[1], "slot")
    load_adapter(pipe, tmp_path / "small", name="slot")
    before = forward(pipe)
    with pytest.raises(BadInput, match="changes layers that 'slot' does not"):
        hotswap(pipe, folders[1], "slot")
    with pytest.raises(Incompatible, match="text encoder"):
        hotswap(pipe, folders[0], "slot")
    with pytest.raises(BadInput, match="loaded already"):
        prepare_hotswap(pipe, 8)
    assert torch.equal(forward(pipe), before)


@pytest.mark.slow
def test_hotswap_does_not_recompile(folders: list[Path], tmp_path: Path) -> None:
    pipe = tiny_pipeline()
    write_random(pipe, tmp_path / "d", 7)
    prepare_hotswap(pipe, 8)
    load_adapter(pipe, folders[1], name="slot")
    pipe.unet = torch.compile(pipe.unet, backend="eager")
    torch._dynamo.reset()
    forward(pipe)
    with torch._dynamo.config.patch(error_on_recompile=True):
        hotswap(pipe, tmp_path / "d", "slot")
        swapped = forward(pipe)
    fresh = tiny_pipeline()
    load_adapter(fresh, tmp_path / "d")
    assert torch.allclose(swapped, forward(fresh), atol=1e-6)
