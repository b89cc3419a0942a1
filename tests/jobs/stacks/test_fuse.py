import json
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from piu_lora.adapter import Adapter, load_adapter, load_adapters
from piu_lora.errors import BadInput, Incompatible
from piu_lora.jobs.stacks.fuse import fuse_adapters
from piu_lora.jobs.stacks.members import StackMember
from piu_lora.model import describe, load_base
from tests.adapter.stacks import changed, forward, write_random
from tests.tiny import tiny_pipeline

WEIGHTS = [1.0, 0.5]
# Largest difference of predicted noise, of order 1, between the fused base in this precision and the stack in
# fp32.
TOLERANCE = {"fp32": 1e-6, "fp16": 5e-3, "bf16": 5e-2}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The tiny base as a folder."""
    tiny_pipeline().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def pair(base: Path, tmp_path: Path) -> list[Adapter]:
    pipe = load_base(base)
    return [write_random(pipe, tmp_path / "a", 1, encoder=True), write_random(pipe, tmp_path / "b", 2)]


def members(pair: list[Adapter]) -> list[StackMember]:
    return [StackMember(adapter, weight) for adapter, weight in zip(pair, WEIGHTS, strict=True)]


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_fused_and_loaded_again_is_the_stack(
    base: Path, pair: list[Adapter], tmp_path: Path, dtype: str
) -> None:
    fuse_adapters(members(pair), base, tmp_path / "fused", dtype=dtype)  # type: ignore[arg-type]
    pipe = load_base(base)
    bare = forward(pipe)
    load_adapters(pipe, pair, WEIGHTS)
    stacked = forward(pipe)
    stored = load_base(
        tmp_path / "fused",
        dtype={"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[dtype],
    )
    assert stored.unet.dtype == {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[dtype]
    fused = forward(stored.to(torch.float32))
    assert (fused - stacked).abs().max() < TOLERANCE[dtype]
    assert (fused - bare).abs().max() > 2 * TOLERANCE[dtype]


def test_stock_diffusers_loads_it(base: Path, pair: list[Adapter], tmp_path: Path) -> None:
    fuse_adapters(members(pair), base, tmp_path / "fused")
    stock = StableDiffusionPipeline.from_pretrained(tmp_path / "fused", safety_checker=None)
    names = [name for name, _ in stock.unet.named_parameters()]
    assert not [name for name in names if "base_layer" in name or "lora" in name]
    wanted = forward(changed(load_base(base), [adapter.change for adapter in pair], WEIGHTS))
    assert torch.allclose(forward(stock), wanted, atol=1e-6)


def test_weights_are_sharded_safetensors(base: Path, pair: list[Adapter], tmp_path: Path) -> None:
    fuse_adapters(members(pair), base, tmp_path / "fused", shard="200KB")
    files = sorted(path.name for path in (tmp_path / "fused" / "unet").iterdir())
    assert len([name for name in files if name.endswith(".safetensors")]) > 1
    assert not list((tmp_path / "fused").rglob("*.bin"))
    assert torch.allclose(
        forward(load_base(tmp_path / "fused")),
        forward(changed(load_base(base), [a.change for a in pair], WEIGHTS)),
        atol=1e-6,
    )


def test_receipt_says_what_was_fused(base: Path, pair: list[Adapter], tmp_path: Path) -> None:
    fuse_adapters(members(pair), base, tmp_path / "fused")
    receipt = json.loads((tmp_path / "fused" / "fused.json").read_text())
    assert [(m["adapter_id"], m["weight"]) for m in receipt["members"]] == [
        (a.id, w) for a, w in zip(pair, WEIGHTS, strict=True)
    ]
    assert str(tmp_path) not in json.dumps(receipt["members"])
    assert describe(load_base(tmp_path / "fused")).id != describe(load_base(base)).id


def test_a_fused_base_refuses_the_adapters_of_the_bare_one(
    base: Path, pair: list[Adapter], tmp_path: Path
) -> None:
    """Loaded again, the change would count twice."""
    fuse_adapters(members(pair), base, tmp_path / "fused")
    with pytest.raises(Incompatible, match="other cross-attention weights"):
        load_adapter(load_base(tmp_path / "fused"), pair[1])


def test_what_cannot_be_fused(base: Path, pair: list[Adapter], tmp_path: Path) -> None:
    stranger = write_random(tiny_pipeline(seed=1), tmp_path / "stranger", 9)
    with pytest.raises(Incompatible):
        fuse_adapters([StackMember(stranger)], base, tmp_path / "fused")
    with pytest.raises(BadInput, match="no adapter"):
        fuse_adapters([], base, tmp_path / "fused")
    (tmp_path / "taken").mkdir()
    with pytest.raises(BadInput, match=r"holds no fused\.json"):
        fuse_adapters(members(pair), base, tmp_path / "taken", force=True)
    assert not (tmp_path / "fused").exists()


def test_files_have_the_names_and_keys_that_older_releases_read(
    base: Path, pair: list[Adapter], tmp_path: Path
) -> None:
    fuse_adapters(members(pair), base, tmp_path / "fused")
    fuse_adapters(members(pair), base, tmp_path / "models", layout="arc2face")
    fuse_adapters(members(pair), base, tmp_path / "bin", layout="arc2face", pickled_encoder=True)
    assert {path.name for path in (tmp_path / "models").iterdir()} == {"arc2face", "encoder", "fused.json"}
    pickled = torch.load(tmp_path / "bin" / "encoder" / "pytorch_model.bin", weights_only=True)
    states = [
        load_file(tmp_path / "fused" / "text_encoder" / "model.safetensors"),
        load_file(tmp_path / "models" / "encoder" / "model.safetensors"),
        pickled,
    ]
    assert not list((tmp_path / "bin" / "encoder").glob("*.safetensors*"))
    for state in states:
        assert all(key.startswith("text_model.") for key in state)
        assert all(torch.equal(value, pickled[key]) for key, value in state.items())
    tokenizer = tmp_path / "fused" / "tokenizer"
    assert json.loads((tokenizer / "vocab.json").read_text())["<|endoftext|>"] == 64
    assert (tokenizer / "merges.txt").read_text().splitlines()[1] == "p h"
