import copy
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file

from piu_lora.adapter import load_adapter, read_adapter
from piu_lora.adapter.extract import extract_change, read_checkpoint
from piu_lora.errors import BadInput, Incompatible
from piu_lora.jobs.adapters.convert import extract_adapter
from piu_lora.model import load_base
from tests.adapter.stacks import changed, forward, random_change
from tests.tiny import tiny_pipeline, tiny_unet


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base as a folder, which no test writes into."""
    folder = tmp_path_factory.mktemp("tiny") / "base"
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def dense(pipe: StableDiffusionPipeline) -> StableDiffusionPipeline:
    """A UNet retrained by a change of known low rank."""
    return changed(pipe, [random_change(pipe, 1)], [1.0])


@pytest.mark.parametrize("form", ["folder", "pipeline", "safetensors", "pickle", "wrapped"])
def test_a_low_rank_change_comes_back(
    pipe: StableDiffusionPipeline, dense: StableDiffusionPipeline, base: Path, tmp_path: Path, form: str
) -> None:
    path = tmp_path / "dense"
    if form == "folder":
        dense.unet.save_pretrained(path)
    elif form == "pipeline":
        dense.save_pretrained(path)
    elif form == "safetensors":
        dense.unet.save_pretrained(path)
        path = path / "diffusion_pytorch_model.safetensors"
    else:
        path = tmp_path / "dense.pt"
        state = {f"module.{key}": value for key, value in dense.unet.state_dict().items()}
        torch.save({"state_dict": state} if form == "wrapped" else dense.unet.state_dict(), path)
    made = extract_adapter(base, path, tmp_path / "adapter", rank=3, dtype="fp32")
    assert max(error.relative for error in made.errors.values()) < 1e-5
    fresh = load_base(base)
    load_adapter(fresh, made.path)
    assert (forward(fresh) - forward(dense)).abs().max() < 1e-5
    known = random_change(pipe, 1)
    found = read_adapter(made.path).change
    assert found.keys() == known.keys()
    assert all(torch.allclose(found[module].dense(), known[module].dense(), atol=1e-5) for module in known)


def test_error_of_a_lower_rank_is_reported(
    dense: StableDiffusionPipeline, base: Path, tmp_path: Path
) -> None:
    dense.unet.save_pretrained(tmp_path / "dense")
    made = extract_adapter(base, tmp_path / "dense", tmp_path / "adapter", rank=1)
    assert {error.rank for error in made.errors.values()} == {1}
    assert min(error.relative for error in made.errors.values()) > 0.01
    assert made.receipt.evaluation["compression"]["worst_relative"] == pytest.approx(
        max(e.relative for e in made.errors.values()), rel=1e-2
    )


def test_differences_that_no_lora_holds_are_not_dropped_silently(
    dense: StableDiffusionPipeline, base: Path, tmp_path: Path
) -> None:
    other = copy.deepcopy(dense.unet)
    with torch.no_grad():
        other.conv_in.weight += 1
        other.mid_block.attentions[0].transformer_blocks[0].attn2.to_out[0].bias += 1
    other.save_pretrained(tmp_path / "dense")
    with pytest.raises(BadInput, match=r"2 weights differ .* ignore_rest=True"):
        extract_adapter(base, tmp_path / "dense", tmp_path / "adapter", rank=3)
    made = extract_adapter(base, tmp_path / "dense", tmp_path / "adapter", rank=3, ignore_rest=True)
    assert made.extracted is not None
    assert sorted(made.extracted.left_out) == [
        "conv_in.weight",
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0.bias",
    ]
    assert made.receipt.evaluation["left_out"] == made.extracted.left_out


def test_unusable_checkpoints(pipe: StableDiffusionPipeline, tmp_path: Path) -> None:
    unet = tiny_unet()
    with pytest.raises(BadInput, match=r"no linear layer .* differs"):
        extract_change(unet, unet.state_dict())
    with pytest.raises(Incompatible, match=r"1 weights do not fit, the first is 'conv_in\.bias'"):
        extract_change(
            unet, {key: value for key, value in unet.state_dict().items() if key != "conv_in.bias"}
        )
    broken = {key: value.clone() for key, value in unet.state_dict().items()}
    broken["conv_in.weight"][0] = float("nan")
    with pytest.raises(BadInput, match="NaN"):
        extract_change(unet, broken)
    with pytest.raises(BadInput, match="holds no UNet"):
        read_checkpoint(tmp_path)
    torch.save(unet, tmp_path / "whole.pt")
    with pytest.raises(BadInput, match="was not run"):
        read_checkpoint(tmp_path / "whole.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(BadInput, match="holds a list"):
        read_checkpoint(tmp_path / "list.pt")


# --- checkpoints of other programs


def edited(unet: UNet2DConditionModel) -> dict[str, torch.Tensor]:
    """Weights of keys and values, changed by a low rank: what UCE and ESD save."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: value.detach() + torch.randn(len(value), 1, generator=generator) * 0.1
        for name, value in unet.named_parameters()
        if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))
    }


@pytest.mark.parametrize("form", ["names", "modules", "prefixed", "compiled", "wrapped twice", "ldm"])
def test_checkpoints_of_what_was_edited_only(
    tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    unet = tiny_unet()
    change = edited(unet)
    names = {
        "names": "{}",
        "modules": "{}",
        "prefixed": "unet.{}",
        "compiled": "_orig_mod.module.{}",
        "wrapped twice": "module._orig_mod.unet.module.{}",
        "ldm": "model.diffusion_model.{}",
    }
    state = {
        names[form].format(name.removesuffix(".weight") if form == "modules" else name): value
        for name, value in change.items()
    }
    save_file(state, tmp_path / "e.safetensors")
    found = extract_change(unet, read_checkpoint(tmp_path / "e.safetensors"))
    base = dict(unet.named_parameters())
    assert {f"{module.removeprefix('unet.')}.weight" for module in found.change} == change.keys()
    for module, factors in found.change.items():
        name = f"{module.removeprefix('unet.')}.weight"
        assert torch.allclose(factors.dense(), change[name] - base[name], atol=1e-6)
    assert "count as unchanged" in caplog.text


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_what_was_only_stored_in_half_precision_has_not_changed(dtype: torch.dtype) -> None:
    unet = tiny_unet()
    change = edited(unet)
    state = {name: value.to(dtype) for name, value in {**unet.state_dict(), **change}.items()}
    found = extract_change(unet, state)
    assert {f"{module.removeprefix('unet.')}.weight" for module in found.change} == change.keys()
    assert found.left_out == {}


@pytest.mark.parametrize("form", ["fp16", "shards", "pickled shards"])
def test_every_form_of_a_folder(tmp_path: Path, form: str) -> None:
    unet = tiny_unet()
    if form == "fp16":
        unet.save_pretrained(tmp_path / "unet", variant="fp16")
    else:
        unet.save_pretrained(tmp_path / "unet", max_shard_size="100KB", safe_serialization=form == "shards")
    assert not (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").exists()
    state = read_checkpoint(tmp_path)
    assert state.keys() == unet.state_dict().keys()


def test_folders_and_files_that_hold_something_else(tmp_path: Path) -> None:
    tiny_unet().save_pretrained(tmp_path / "run" / "checkpoint-400" / "unet")
    with pytest.raises(BadInput, match=r"further down; pass '.*checkpoint-400/unet'"):
        read_checkpoint(tmp_path / "run")
    for name in ("unet.safetensors", "unet.pt"):
        (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
        with pytest.raises(BadInput, match="git lfs pull"):
            read_checkpoint(tmp_path / name)
    index = tmp_path / "bad" / "diffusion_pytorch_model.safetensors.index.json"
    index.parent.mkdir()
    for content, message in (("{}", "no index"), ('{"weight_map": {"a": "../../x"}}', "no file beside")):
        index.write_text(content)
        with pytest.raises(BadInput, match=message):
            read_checkpoint(index.parent)
