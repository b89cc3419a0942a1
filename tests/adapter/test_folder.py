import copy
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import PeftConfig, PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from piu_lora.adapter import load_adapter, read_adapter, read_lora, unload
from piu_lora.adapter.folder import PEFT_FOLDER, file_digest, flat_names, peft_folder, read_header
from piu_lora.errors import BadInput, Incompatible
from piu_lora.model.factors import state_of
from tests.tiny import predicted_noise, tiny_pipeline

WEIGHTS = "pytorch_lora_weights.safetensors"


def forward(pipe: StableDiffusionPipeline) -> torch.Tensor:
    return predicted_noise(pipe.unet, 1, (10, 700))


def dense(pipe: StableDiffusionPipeline, folder: Path) -> torch.Tensor:
    """The reference: B A added to the plain weights."""
    weights = state_of(read_adapter(folder).change)
    changed = {f"unet.{name}": value for name, value in pipe.unet.named_parameters()}
    originals = {}
    with torch.no_grad():
        for key in [key for key in weights if ".lora_A." in key]:
            name = key.replace(".lora_A.weight", ".weight")
            originals[name] = changed[name].clone()
            changed[name] += weights[key.replace("lora_A", "lora_B")].float() @ weights[key].float()
        output = forward(pipe)
        for name, value in originals.items():
            changed[name].copy_(value)
    return output


def test_loaded_adapter_is_the_dense_change(pipe: StableDiffusionPipeline, adapter_folder: Path) -> None:
    plain, wanted = forward(pipe), dense(pipe, adapter_folder)
    name = load_adapter(pipe, adapter_folder)
    loaded = forward(pipe)
    unload(pipe, [name])
    assert (wanted - plain).abs().max() > 1e-3
    assert torch.allclose(loaded, wanted, atol=1e-6)
    assert torch.equal(forward(pipe), plain)


def test_stock_loader_and_ours_agree(pipe: StableDiffusionPipeline, adapter_folder: Path) -> None:
    name = load_adapter(pipe, adapter_folder)
    ours = forward(pipe)
    unload(pipe, [name])
    pipe.load_lora_weights(str(adapter_folder), adapter_name="stock")
    stock = forward(pipe)
    unload(pipe, ["stock"])
    assert torch.equal(ours, stock)


def test_peft_pair_holds_the_same_weights(adapter_folder: Path) -> None:
    unet = flat_names(load_file(adapter_folder / WEIGHTS))
    peft = {
        key.replace("base_model.model.", "unet."): value
        for key, value in load_file(adapter_folder / PEFT_FOLDER / "adapter_model.safetensors").items()
    }
    assert unet.keys() == peft.keys()
    assert all(torch.equal(unet[key], peft[key]) for key in unet)
    config = PeftConfig.from_pretrained(str(adapter_folder / PEFT_FOLDER))
    assert config.r == config.lora_alpha == 2


def test_peft_loads_the_folder_and_agrees(pipe: StableDiffusionPipeline, adapter_folder: Path) -> None:
    name = load_adapter(pipe, adapter_folder)
    ours = forward(pipe)
    unload(pipe, [name])
    wrapped = PeftModel.from_pretrained(copy.deepcopy(pipe.unet), str(adapter_folder / PEFT_FOLDER))
    generator = torch.Generator().manual_seed(1)
    latents, condition = (
        torch.randn(2, 4, 8, 8, generator=generator),
        torch.randn(2, 8, 32, generator=generator),
    )
    with torch.no_grad():
        theirs = wrapped(latents, torch.tensor([10, 700]), condition).sample
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_header_says_what_made_it(adapter_folder: Path) -> None:
    with safe_open(adapter_folder / WEIGHTS, framework="pt") as file:
        header = file.metadata()
    assert json.loads(header["piu_lora"])["format"] == "piu_lora.adapter/1"
    metadata = json.loads(header["lora_adapter_metadata"])
    assert metadata["unet.r"] == metadata["unet.lora_alpha"] == 2


def test_loaded_adapter_is_frozen_and_joins_the_stack(
    pipe: StableDiffusionPipeline, adapter_folder: Path
) -> None:
    first, second = (
        load_adapter(pipe, adapter_folder, name="first"),
        load_adapter(pipe, adapter_folder, name="second"),
    )
    assert pipe.get_active_adapters() == ["first", "second"]
    assert not any(parameter.requires_grad for parameter in pipe.unet.parameters())
    with pytest.raises(BadInput, match="'first' is taken"):
        load_adapter(pipe, adapter_folder, name="first")
    unload(pipe, [first])
    unload(pipe, [second])


def test_adapter_of_another_base_names_both(adapter_folder: Path, tmp_path: Path) -> None:
    other = tiny_pipeline(seed=1)
    other.text_encoder.config.piu_lora = {**other.text_encoder.config.piu_lora, "base": "stranger"}
    with pytest.raises(Incompatible, match=r"'tiny'.*'stranger'"):
        load_adapter(other, adapter_folder)
    assert not other.get_list_adapters()


@pytest.mark.parametrize("name", [WEIGHTS, f"{PEFT_FOLDER}/adapter_model.safetensors", "README.md"])
def test_truncated_file_is_refused(adapter_folder: Path, name: str) -> None:
    content = (adapter_folder / name).read_bytes()
    (adapter_folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(BadInput, match="SHA-256 differs"):
        read_adapter(adapter_folder)


def test_missing_weights_are_refused(adapter_folder: Path) -> None:
    (adapter_folder / WEIGHTS).unlink()
    with pytest.raises(BadInput, match=f"lacks '{WEIGHTS}'"):
        read_adapter(adapter_folder)


def test_missing_receipt_and_foreign_folder(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not an adapter folder"):
        read_adapter(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [("nan", "NaN"), ("foreign", "foreign keys"), ("alone", "lacks one of its two factors")],
)
def test_bad_weights_are_refused_even_with_a_matching_receipt(
    adapter_folder: Path, change: str, message: str
) -> None:
    import hashlib

    weights = load_file(adapter_folder / WEIGHTS)
    first = sorted(weights)[0]
    if change == "nan":
        weights[first][0, 0] = float("nan")
    elif change == "foreign":
        weights["vae.decoder.weight"] = weights.pop(first)
    else:
        del weights[first]
    save_file(weights, adapter_folder / WEIGHTS)
    receipt = json.loads((adapter_folder / "forget.json").read_text())
    receipt["files"][WEIGHTS] = hashlib.sha256((adapter_folder / WEIGHTS).read_bytes()).hexdigest()
    (adapter_folder / "forget.json").write_text(json.dumps(receipt))
    with pytest.raises(BadInput, match=message):
        read_adapter(adapter_folder)


def test_receipt_cannot_point_outside(adapter_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    receipt = json.loads((adapter_folder / "forget.json").read_text())
    receipt["files"]["../secret"] = "00"
    (adapter_folder / "forget.json").write_text(json.dumps(receipt))
    with pytest.raises(BadInput, match=r"lists '\.\./secret', which is no file of its folder"):
        read_adapter(adapter_folder)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"format": "piu_lora.adapter/9"}', '{"format": "piu_lora.adapter/1"}']
)
def test_damaged_receipt_is_a_clear_error(adapter_folder: Path, text: str) -> None:
    (adapter_folder / "forget.json").write_text(text)
    with pytest.raises(BadInput, match=r"forget\.json"):
        read_adapter(adapter_folder)


def test_published_copy_without_the_report_still_loads(adapter_folder: Path, tmp_path: Path) -> None:
    receipt = json.loads((adapter_folder / "forget.json").read_text())
    receipt["files"]["report/before_after.png"] = "00"
    (adapter_folder / "forget.json").write_text(json.dumps(receipt))
    shutil.copytree(adapter_folder, tmp_path / "copy")
    assert state_of(read_adapter(tmp_path / "copy").change)


def test_a_folder_with_both_files_side_by_side_is_read(adapter_folder: Path) -> None:
    """As every release before peft-checkpoint wrote it, with the keys of that time."""
    change = read_adapter(adapter_folder).change
    for path in (adapter_folder / PEFT_FOLDER).iterdir():
        path.rename(adapter_folder / path.name)
    (adapter_folder / PEFT_FOLDER).rmdir()
    header = {"lora_adapter_metadata": read_header(adapter_folder / WEIGHTS)["lora_adapter_metadata"]}
    save_file(state_of(change), adapter_folder / WEIGHTS, header)
    receipt = json.loads((adapter_folder / "forget.json").read_text())
    receipt["files"] = {
        path.name: file_digest(path) for path in adapter_folder.iterdir() if path.name != "forget.json"
    }
    (adapter_folder / "forget.json").write_text(json.dumps(receipt))
    read = read_adapter(adapter_folder).change
    assert read.keys() == change.keys()
    assert all(torch.equal(read[module].up, change[module].up) for module in change)
    assert read_lora(peft_folder(adapter_folder) / "adapter_model.safetensors").change.keys() == change.keys()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["forget.json", WEIGHTS, "README.md"])
@pytest.mark.parametrize("trap", ["pipe", "zero", "huge"])
def test_only_regular_files_of_an_adapter_are_opened(adapter_folder: Path, name: str, trap: str) -> None:
    path = adapter_folder / name
    path.unlink()
    if trap == "pipe":
        os.mkfifo(path)
    elif trap == "zero":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(2**40)
    with pytest.raises(BadInput, match=r"is a named pipe|is a device|has 1,099,511,627,776 bytes"):
        read_adapter(adapter_folder)


@pytest.mark.parametrize("value", ["NaN", "1e99999", "9" * 4000])
def test_numbers_that_are_none_in_free_settings(adapter_folder: Path, value: str) -> None:
    path = adapter_folder / "forget.json"
    path.write_text(path.read_text().replace('"settings": {', f'"settings": {{"x": {value},', 1))
    with pytest.raises(BadInput, match=r"no number of JSON|more than 64 bits"):
        read_adapter(adapter_folder)
