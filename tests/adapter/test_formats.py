"""Formats of other programs, through the real loaders of diffusers and PEFT."""

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig, PeftModel
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from piu_lora.adapter import Change, Factors, describe_lora, read_lora, save_diffusers, save_kohya, unload
from piu_lora.cli.inspect import screen
from piu_lora.cli.output import as_text
from piu_lora.errors import BadInput
from piu_lora.jobs.adapters.convert import convert_adapter, resize_adapter
from tests.adapter.stacks import changed, forward, random_change, write_random

KEY = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"


def equal(one: Change, other: Change) -> bool:
    """Bit for bit, zero padding and layers of zeros aside."""
    odd = [
        change[module] for change in (one, other) for module in one.keys() ^ other.keys() if module in change
    ]
    return not any(factors.up.any() for factors in odd) and all(
        _same(one[module], other[module]) for module in one.keys() & other.keys()
    )


def _same(one: Factors, other: Factors) -> bool:
    rank = min(one.rank, other.rank)
    rest = [f.down[rank:].abs().sum() + f.up[:, rank:].abs().sum() for f in (one, other)]
    return (
        torch.equal(one.down[:rank], other.down[:rank])
        and torch.equal(one.up[:, :rank], other.up[:, :rank])
        and not any(rest)
    )


def stock(pipe: StableDiffusionPipeline, path: Path) -> torch.Tensor:
    """Predicted noise with the file loaded by diffusers itself."""
    pipe.load_lora_weights(str(path), adapter_name="stock")
    try:
        return forward(pipe)
    finally:
        unload(pipe, ["stock"])


@pytest.mark.parametrize("to", ["kohya", "diffusers"])
@pytest.mark.parametrize("encoder", [False, True])
def test_stock_diffusers_loads_what_is_written(
    pipe: StableDiffusionPipeline, tmp_path: Path, to: str, encoder: bool
) -> None:
    """Mixed ranks; with and without a text-encoder part."""
    adapter = write_random(pipe, tmp_path / "a", 1, encoder=encoder)
    convert_adapter(tmp_path / "a", to, tmp_path / "out.safetensors")
    wanted = forward(changed(pipe, [adapter.change], [1.0]))
    assert (stock(pipe, tmp_path / "out.safetensors") - wanted).abs().max() < 1e-6
    assert (forward(pipe) - wanted).abs().max() > 1e-2


def test_peft_loads_both_parts(pipe: StableDiffusionPipeline, tmp_path: Path) -> None:
    adapter = write_random(pipe, tmp_path / "a", 1, encoder=True)
    convert_adapter(tmp_path / "a", "peft", tmp_path / "p")
    other = copy.copy(pipe)
    other.unet = PeftModel.from_pretrained(copy.deepcopy(pipe.unet), str(tmp_path / "p"))
    other.text_encoder = PeftModel.from_pretrained(
        copy.deepcopy(pipe.text_encoder), str(tmp_path / "p"), subfolder="text_encoder"
    )
    assert (forward(other) - forward(changed(pipe, [adapter.change], [1.0]))).abs().max() < 1e-6


@pytest.mark.parametrize(
    "route", ["kohya", "diffusers", "peft", "kohya peft diffusers", "peft kohya diffusers peft"]
)
def test_round_trips_are_exact_to_the_tensor(
    pipe: StableDiffusionPipeline, tmp_path: Path, route: str
) -> None:
    adapter = write_random(pipe, tmp_path / "a", 1)
    place = tmp_path / "a"
    for step, to in enumerate(route.split()):
        out = tmp_path / (f"{step}" if to == "peft" else f"{step}.safetensors")
        assert convert_adapter(place, to, out).error == 0
        place = out
    assert equal(read_lora(place).change, adapter.change)
    assert read_lora(place).format == route.split()[-1]


def test_round_trip_of_a_text_encoder_part(pipe: StableDiffusionPipeline, tmp_path: Path) -> None:
    adapter = write_random(pipe, tmp_path / "a", 1, encoder=True)
    for to, out in (("kohya", "k.safetensors"), ("diffusers", "d.safetensors"), ("peft", "p")):
        convert_adapter(tmp_path / "a", to, tmp_path / out)
        assert equal(read_lora(tmp_path / out).change, adapter.change)
    alone = {
        module: factors for module, factors in adapter.change.items() if module.startswith("text_encoder")
    }
    save_diffusers(alone, tmp_path / "alone.safetensors")
    convert_adapter(tmp_path / "alone.safetensors", "peft", tmp_path / "q")
    assert equal(read_lora(tmp_path / "q").change, alone)


def test_casting_error_is_stated(pipe: StableDiffusionPipeline, tmp_path: Path) -> None:
    write_random(pipe, tmp_path / "a", 1)
    assert convert_adapter(tmp_path / "a", "kohya", tmp_path / "32.safetensors", dtype="fp32").error == 0
    error = convert_adapter(tmp_path / "a", "kohya", tmp_path / "16.safetensors", dtype="bf16").error
    exact, cast = load_file(tmp_path / "32.safetensors"), load_file(tmp_path / "16.safetensors")
    found = max(
        float((exact[key] - cast[key].float()).abs().max() / exact[key].abs().max())
        for key in exact
        if exact[key].abs().max() > 0
    )
    assert 0 < error == pytest.approx(found)


def test_kohya_file_has_what_its_programs_look_for(pipe: StableDiffusionPipeline, tmp_path: Path) -> None:
    change = random_change(pipe, 1, encoder=True)
    save_kohya(change, tmp_path / "k.safetensors", title="opaque")
    state = load_file(tmp_path / "k.safetensors")
    with safe_open(tmp_path / "k.safetensors", framework="pt") as file:
        header = file.metadata()
    assert "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_out_0.lora_down.weight" in state
    assert "lora_te_text_model_encoder_layers_0_mlp_fc2.lora_up.weight" in state
    ranks = {len(value) for key, value in state.items() if key.endswith("lora_down.weight")}
    assert ranks == {int(header["ss_network_dim"])} == {3}
    assert {float(value) for key, value in state.items() if key.endswith(".alpha")} == {3.0}
    assert header["ss_network_module"] == "networks.lora"
    assert header["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert "lora_adapter_metadata" not in header  # diffusers would take the file for its own
    save_kohya(change, tmp_path / "again.safetensors", title="opaque")
    assert (tmp_path / "k.safetensors").read_bytes() == (tmp_path / "again.safetensors").read_bytes()


def test_kohya_alpha_is_baked(pipe: StableDiffusionPipeline, tmp_path: Path) -> None:
    change = random_change(pipe, 1)
    save_kohya(change, tmp_path / "k.safetensors", title="x")
    state = load_file(tmp_path / "k.safetensors")
    save_file(
        {key: value * 0.5 if key.endswith(".alpha") else value for key, value in state.items()},
        tmp_path / "half.safetensors",
    )
    lora = read_lora(tmp_path / "half.safetensors")
    assert sorted(lora.scaled) == sorted(change)
    assert torch.allclose(lora.change[KEY].dense(), 0.5 * change[KEY].dense())
    halved = forward(changed(pipe, [change], [0.5]))
    assert (stock(pipe, tmp_path / "half.safetensors") - halved).abs().max() < 1e-6


PATTERN = {"alpha_pattern": {KEY.removeprefix("unet."): 2}, "lora_alpha": 4}


@pytest.mark.parametrize(
    ("options", "scale"),
    [({"lora_alpha": 1}, 1 / 4), ({"lora_alpha": 8, "use_rslora": True}, 4), (PATTERN, 2 / 4)],
)
def test_scales_of_peft_are_baked(
    pipe: StableDiffusionPipeline, tmp_path: Path, options: dict[str, object], scale: float
) -> None:
    config = LoraConfig(r=4, target_modules=[KEY.removeprefix("unet.")], init_lora_weights=False, **options)  # type: ignore[arg-type]
    torch.manual_seed(0)
    wrapped = PeftModel(copy.deepcopy(pipe.unet), config)
    wrapped.save_pretrained(str(tmp_path / "p"))
    state = {key.split(".lora_")[1][0]: value for key, value in get_peft_model_state_dict(wrapped).items()}
    found = read_lora(tmp_path / "p").change
    assert list(found) == [KEY]
    assert torch.allclose(found[KEY].dense(), scale * state["B"] @ state["A"], atol=1e-6)


def test_scale_in_the_header_of_diffusers_is_baked(pipe: StableDiffusionPipeline, tmp_path: Path) -> None:
    pipe.unet.add_adapter(
        LoraConfig(r=4, lora_alpha=2, target_modules=[KEY.removeprefix("unet.")], init_lora_weights=False),
        "foreign",
    )
    wanted = forward(pipe)
    settings = {"r": 4, "lora_alpha": 2, "target_modules": [KEY.removeprefix("unet.")]}
    weights = get_peft_model_state_dict(pipe.unet, adapter_name="foreign")
    StableDiffusionPipeline.save_lora_weights(tmp_path / "d", weights, unet_lora_adapter_metadata=settings)
    unload(pipe, ["foreign"])
    lora = read_lora(tmp_path / "d")
    assert lora.scaled == [KEY]
    assert (forward(changed(pipe, [lora.change], [1.0])) - wanted).abs().max() < 1e-6
    facts = describe_lora(tmp_path / "d")
    assert any("alpha other than their rank" in line for line in facts["lacks"])
    assert any("no receipt" in line for line in facts["lacks"])


def test_old_diffusers_keys(pipe: StableDiffusionPipeline, tmp_path: Path) -> None:
    change = random_change(pipe, 1)
    old = {}
    for module, factors in change.items():
        block, projection = module.rsplit(".attn2.", 1)
        name = f"{block}.attn2.processor.{projection.removesuffix('.0')}_lora"
        old |= {
            f"{name}.down.weight": factors.down.contiguous(),
            f"{name}.up.weight": factors.up.contiguous(),
        }
    save_file(old, tmp_path / "old.safetensors")
    assert equal(read_lora(tmp_path / "old.safetensors").change, change)


def foreign_keys() -> dict[str, torch.Tensor]:
    return {"model.layers.0.weight": torch.ones(2, 2)}


def dora() -> dict[str, torch.Tensor]:
    return {
        "lora_unet_mid_block.dora_scale": torch.ones(2),
        "lora_unet_mid_block.lora_up.weight": torch.ones(2, 1),
    }


def loha() -> dict[str, torch.Tensor]:
    return {"lora_unet_x.hada_w1_a": torch.ones(2, 2)}


def convolution() -> dict[str, torch.Tensor]:
    return {
        "unet.conv_in.lora_A.weight": torch.ones(2, 3, 3, 3),
        "unet.conv_in.lora_B.weight": torch.ones(4, 2, 1, 1),
    }


def nan() -> dict[str, torch.Tensor]:
    return {
        f"{KEY}.lora_A.weight": torch.full((1, 2), float("nan")),
        f"{KEY}.lora_B.weight": torch.ones(2, 1),
    }


def peft_alone() -> dict[str, torch.Tensor]:
    return {
        "base_model.model.x.lora_A.weight": torch.ones(1, 2),
        "base_model.model.x.lora_B.weight": torch.ones(2, 1),
    }


def nonsense_kohya() -> dict[str, torch.Tensor]:
    return {"lora_unet_nonsense": torch.ones(1)}


@pytest.mark.parametrize(
    "make", [dict, foreign_keys, dora, loha, convolution, nan, peft_alone, nonsense_kohya]
)
def test_what_is_no_plain_lora_is_refused(
    tmp_path: Path, make: Callable[[], dict[str, torch.Tensor]]
) -> None:
    save_file(make(), tmp_path / "x.safetensors")
    with pytest.raises(BadInput, match=r"x\.safetensors"):
        read_lora(tmp_path / "x.safetensors")


def test_pickles_are_never_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (Path(tmp_path / "sprung"),))  # type: ignore[return-value]

    with (tmp_path / "trap.bin").open("wb") as file:
        pickle.dump(Trap(), file)
    with pytest.raises(BadInput, match="was not run"):
        read_lora(tmp_path / "trap.bin")
    assert not (tmp_path / "sprung").exists()


def test_conversion_refuses_and_leaves_nothing(pipe: StableDiffusionPipeline, tmp_path: Path) -> None:
    write_random(pipe, tmp_path / "a", 1)
    (tmp_path / "there.safetensors").write_text("precious")
    with pytest.raises(BadInput, match="exists already"):
        convert_adapter(tmp_path / "a", "kohya", tmp_path / "there.safetensors")
    with pytest.raises(BadInput, match="does not end in"):
        convert_adapter(tmp_path / "a", "kohya", tmp_path / "there.bin")
    with pytest.raises(BadInput, match="unknown format 'gguf'"):
        convert_adapter(tmp_path / "a", "gguf", tmp_path / "new.safetensors")
    with pytest.raises(BadInput, match="neither a LoRA file nor a folder"):
        convert_adapter(tmp_path / "nothing", "kohya", tmp_path / "new.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "there.safetensors"]
    assert (tmp_path / "there.safetensors").read_text() == "precious"


def test_resize_is_the_best_of_its_rank_and_says_what_it_lost(
    pipe: StableDiffusionPipeline, tmp_path: Path
) -> None:
    adapter = write_random(pipe, tmp_path / "a", 1, rank=4)
    small = resize_adapter(tmp_path / "a", tmp_path / "small", rank=1, dtype="fp32")
    assert small.receipt.members[0]["adapter_id"] == adapter.id
    for module, error in small.errors.items():
        singular = torch.linalg.svdvals(adapter.change[module].dense().double())
        assert error.rank == 1
        assert error.relative == pytest.approx(float(singular[1] / singular[0]), rel=1e-4)
    full = resize_adapter(tmp_path / "a", tmp_path / "full", rank=16, dtype="fp32")
    assert max(error.relative for error in full.errors.values()) < 1e-6
    with pytest.raises(BadInput, match="pass rank=N"):
        resize_adapter(tmp_path / "a", tmp_path / "none")


def test_inspect_shows_an_adapter_on_one_screen(pipe: StableDiffusionPipeline, tmp_path: Path) -> None:
    adapter = write_random(pipe, tmp_path / "a", 1, encoder=True)
    facts = describe_lora(tmp_path / "a")
    assert facts["layers"] == len(adapter.change)
    assert facts["norms"]["unet.mid_block"] == pytest.approx(
        sum(f.norm() ** 2 for module, f in adapter.change.items() if module.startswith("unet.mid_block"))
        ** 0.5
    )
    assert json.loads(json.dumps(facts))["receipt"]["adapter_id"] == adapter.id
    text = as_text(screen(facts))
    assert len(text.splitlines()) <= 40
    assert adapter.id in text
    assert "█" in text


def test_inspect_tells_a_damaged_adapter_from_a_foreign_lora(
    pipe: StableDiffusionPipeline, tmp_path: Path
) -> None:
    write_random(pipe, tmp_path / "a", 1)
    (tmp_path / "a" / "README.md").write_text("changed")
    assert "SHA-256 differs" in as_text(screen(describe_lora(tmp_path / "a")))
    save_diffusers(random_change(pipe, 1), tmp_path / "foreign.safetensors")
    assert "no receipt" in as_text(screen(describe_lora(tmp_path / "foreign.safetensors")))


def test_inspect_never_passes_control_characters_on(pipe: StableDiffusionPipeline, tmp_path: Path) -> None:
    write_random(pipe, tmp_path / "a", 1)
    receipt = json.loads((tmp_path / "a" / "forget.json").read_text())
    receipt["method"], receipt["base"]["id"] = "\x1b[2Jpiu\n\n", "base\x07"
    (tmp_path / "a" / "forget.json").write_text(json.dumps(receipt))
    text = as_text(screen(describe_lora(tmp_path / "a")))
    assert not any(character < " " and character != "\n" for character in text)
    assert "?[2Jpiu" in text


@pytest.mark.parametrize("layers", [("fc2",), ("q_proj",), ("fc2", "q_proj")])
def test_stock_diffusers_loads_any_layers_of_the_text_encoder(
    pipe: StableDiffusionPipeline, tmp_path: Path, layers: tuple[str, ...]
) -> None:
    """Of PEFT's own keys it would refuse a text encoder whose attention is left alone."""
    change = {
        module: f
        for module, f in random_change(pipe, 1, encoder=True).items()
        if module.startswith("text_encoder") and module.endswith(layers)
    }
    wanted = forward(changed(pipe, [change], [1.0]))
    for name, save in (("d", save_diffusers), ("k", lambda c, path: save_kohya(c, path, title="x"))):
        save(change, tmp_path / f"{name}.safetensors")
        assert (stock(pipe, tmp_path / f"{name}.safetensors") - wanted).abs().max() < 1e-6
        assert equal(read_lora(tmp_path / f"{name}.safetensors").change, change)
