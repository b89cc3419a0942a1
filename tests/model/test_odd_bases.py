"""Bases as people have them: other forms of the weights, and what is no base, by name."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from piu_lora.errors import BadInput, EnvironmentProblem
from piu_lora.model import attention_digest, family_of, load_base
from tests.tiny import tiny_pipeline

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 3438167536\n"
WEIGHTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}


@pytest.fixture
def folder(pipe: StableDiffusionPipeline, tmp_path: Path) -> Path:
    pipe.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def shards_of_pickles(folder: Path, whole: Path, stem: str) -> None:
    """A model in two pickles with an index, as large models were published in 2022."""
    state = load_file(whole)
    names, total = sorted(state), {}
    for place in range(2):
        shard = f"{stem}-0000{place + 1}-of-00002.bin"
        torch.save({name: state[name] for name in names[place::2]}, folder / shard)
        total |= dict.fromkeys(names[place::2], shard)
    (folder / f"{stem}.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": total}))
    whole.unlink()


@pytest.mark.parametrize("form", ["fp16", "fp16 beside", "pickled shards", "shards"])
def test_forms_of_the_weights(pipe: StableDiffusionPipeline, folder: Path, form: str) -> None:
    if form == "shards":
        pipe.save_pretrained(folder, max_shard_size="100KB")
        (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink(missing_ok=True)
    for part, stem in WEIGHTS.items():
        whole = folder / part / f"{stem}.safetensors"
        if form.startswith("fp16"):
            halves = {name: value.half() for name, value in load_file(whole).items()}
            save_file(halves, whole.with_name(f"{stem}.fp16.safetensors"), {"format": "pt"})
        if form == "fp16":
            whole.unlink()
        if form == "pickled shards":
            shards_of_pickles(whole.parent, whole, "pytorch_model" if part == "text_encoder" else stem)
    loaded = load_base(folder, device="cpu")
    assert attention_digest(loaded.unet) == attention_digest(pipe.unet)
    assert loaded.unet.dtype == loaded.text_encoder.dtype == torch.float32


def test_a_base_that_was_saved_with_an_adapter_in_it(folder: Path) -> None:
    other = tiny_pipeline()
    other.unet.add_adapter(LoraConfig(r=2, target_modules=["to_k"]), "style")
    other.save_pretrained(folder)
    with pytest.raises(BadInput, match=r"unet of .* was saved with an adapter in it.*unload_lora_weights"):
        load_base(folder, device="cpu")


def test_a_base_whose_text_encoder_was_saved_with_an_adapter_in_it(folder: Path) -> None:
    weights = folder / "text_encoder" / "model.safetensors"
    state = load_file(weights)
    name = next(name for name in state if name.endswith("q_proj.weight"))
    layer = name.removesuffix(".weight")
    state[f"{layer}.base_layer.weight"] = state.pop(name)
    state[f"{layer}.lora_A.style.weight"] = torch.zeros(2, 32)
    save_file(state, weights, {"format": "pt"})
    with pytest.raises(BadInput, match=r"text_encoder of .* was saved with an adapter in it"):
        load_base(folder, device="cpu")


@pytest.mark.parametrize("wrapper", ["_orig_mod.", "module."])
def test_a_base_that_was_saved_while_it_was_compiled(folder: Path, wrapper: str) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = {wrapper + name: value for name, value in load_file(weights).items()}
    save_file(state, weights, {"format": "pt"})
    with pytest.raises(BadInput, match=r"compiled or wrapped.*pipe\.unet\._orig_mod"):
        load_base(folder, device="cpu")


@pytest.mark.parametrize(
    "name", ["unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"]
)
def test_pointers_of_git_lfs(folder: Path, name: str) -> None:
    (folder / name).write_text(POINTER)
    with pytest.raises(EnvironmentProblem, match=r"pointer of Git LFS.*git lfs pull"):
        load_base(folder, device="cpu")


def test_single_files_and_nested_folders_are_named(folder: Path, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(BadInput, match=r"is a single file.*from_single_file\('.*'\)\.save_pretrained"):
        load_base(tmp_path / "model.safetensors")
    (tmp_path / "model.ckpt").write_text(POINTER)
    with pytest.raises(BadInput, match="git lfs pull"):
        load_base(tmp_path / "model.ckpt")
    with pytest.raises(BadInput, match=r"a folder with one; pass '.*base'"):
        load_base(tmp_path)


@pytest.mark.parametrize("name", ["Mini", "MINI", "mini=Mini"])
def test_the_name_of_a_family_in_any_case(name: str) -> None:
    assert family_of(name).name == "mini"
