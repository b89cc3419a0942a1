import copy
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

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
