"""LoRA files as other programs leave them, made here from a few bytes: read right, or refused by name."""

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from piu_lora.adapter import describe_lora, read_lora
from piu_lora.errors import BadInput
from piu_lora.jobs.adapters.convert import convert_adapter

M = "down_blocks.2.attentions.0.transformer_blocks.0.attn2."
T = "text_model.encoder.layers.0.self_attn."
K = f"unet.{M}to_k"
KOHYA = "lora_unet_" + M.replace(".", "_")
OUT, IN, RANK = 6, 5, 2
State = dict[str, torch.Tensor]


def factors(seed: int = 0, rank: int = RANK) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rank, IN, generator=generator), torch.randn(OUT, rank, generator=generator)


DOWN, UP = factors()


def pair(down: str, up: str) -> State:
    return {down: DOWN, up: UP}


def peft(name: str, ending: str = "") -> State:
    return pair(f"{name}.lora_A{ending}.weight", f"{name}.lora_B{ending}.weight")


def kohya(name: str = f"{KOHYA}to_k", alpha: float | None = 1.0) -> State:
    return pair(f"{name}.lora_down.weight", f"{name}.lora_up.weight") | (
        {} if alpha is None else {f"{name}.alpha": torch.tensor(alpha)}
    )


def saved(state: State, folder: Path, header: dict[str, str] | None = None) -> Path:
    save_file(
        {key: value.clone().contiguous() for key, value in state.items()}, folder / "x.safetensors", header
    )
    return folder / "x.safetensors"


def peft_folder(folder: Path, state: State, **config: Any) -> Path:
    """A folder as PEFT's save_pretrained leaves it; ``...`` leaves a setting out."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {f"base_model.model.{key}": value for key, value in state.items()},
        folder / "adapter_model.safetensors",
    )
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, **config}
    settings = {key: value for key, value in settings.items() if value is not ...}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


# --- keys


@pytest.mark.parametrize(
    "state",
    [
        peft(f"{M}to_k"),  # unet.save_lora_adapter
        peft(f"{M}to_k", ".default"),
        pair(f"{M}processor.to_k_lora.down.weight", f"{M}processor.to_k_lora.up.weight"),  # save_attn_procs
        pair(f"unet.unet.{M}processor.to_k_lora.down.weight", f"unet.unet.{M}processor.to_k_lora.up.weight"),
        pair(f"unet.{M}to_k.lora.down.weight", f"unet.{M}to_k.lora.up.weight"),
        peft(f"diffusion_model.{M}to_k"),  # ComfyUI
        peft("model.diffusion_model.input_blocks.7.1.transformer_blocks.0.attn2.to_k"),
        kohya("lora_unet_input_blocks_7_1_transformer_blocks_0_attn2_to_k", None),
        peft(f"unet._orig_mod.{M}to_k"),
        peft(f"_orig_mod.module.unet.{M}to_k"),
        peft(f"module._orig_mod.{M}to_k"),
        kohya(alpha=None),
        kohya(alpha=2.0),
    ],
    ids=lambda state: next(iter(state))[:40],
)
def test_keys_of_every_program(tmp_path: Path, state: State) -> None:
    change = read_lora(saved(state, tmp_path)).change
    assert list(change) == [K]
    assert torch.equal(change[K].dense(), UP @ DOWN)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("middle_block.1", "mid_block.attentions.0"),
        ("output_blocks.4.1", "up_blocks.1.attentions.1"),
        ("input_blocks.2.1", "down_blocks.0.attentions.1"),
    ],
)
def test_names_of_the_original_code(tmp_path: Path, name: str, layer: str) -> None:
    for rest in ("transformer_blocks.0.attn2.to_out.0", "transformer_blocks.0.ff.net.0.proj", "proj_in"):
        whole = f"{name}.{rest}"
        for state in (kohya(f"lora_unet_{whole}".replace(".", "_"), None), peft(f"diffusion_model.{whole}")):
            assert list(read_lora(saved(state, tmp_path)).change) == [f"unet.{layer}.{rest}"]


@pytest.mark.parametrize("prefix", ["", "text_encoder.", "text_encoder._orig_mod."])
@pytest.mark.parametrize("name", [f"{T}q_proj", f"{T}q_proj".removeprefix("text_model.")])
def test_keys_of_a_text_encoder(tmp_path: Path, prefix: str, name: str) -> None:
    change = read_lora(saved(peft(prefix + name), tmp_path)).change
    assert list(change) == ["text_encoder.encoder.layers.0.self_attn.q_proj"]
    old = prefix + f"{T}to_out_lora"
    change = read_lora(saved(pair(f"{old}.down.weight", f"{old}.up.weight"), tmp_path)).change
    assert list(change) == ["text_encoder.encoder.layers.0.self_attn.out_proj"]


def test_programs_may_be_mixed_in_one_file(tmp_path: Path) -> None:
    lora = read_lora(saved(kohya() | peft(f"unet.{M}to_v"), tmp_path))
    assert lora.scaled == [K]
    assert torch.allclose(lora.change[K].dense(), UP @ DOWN / 2)
    assert torch.equal(lora.change[f"unet.{M}to_v"].dense(), UP @ DOWN)


def test_an_alpha_beside_keys_of_diffusers_counts(tmp_path: Path) -> None:
    state = pair(f"unet.{M}to_k.lora.down.weight", f"unet.{M}to_k.lora.up.weight")
    lora = read_lora(saved(state | {f"unet.{M}to_k.alpha": torch.tensor([4])}, tmp_path))
    assert torch.allclose(lora.change[K].dense(), 2 * UP @ DOWN)


def test_eight_bit_floats_are_read(tmp_path: Path) -> None:
    state = {key: value.to(torch.float8_e4m3fn) for key, value in peft(f"unet.{M}to_k").items()}
    change = read_lora(saved(state, tmp_path)).change
    assert torch.equal(
        change[K].dense(), UP.to(torch.float8_e4m3fn).float() @ DOWN.to(torch.float8_e4m3fn).float()
    )
    convert_adapter(tmp_path / "x.safetensors", "kohya", tmp_path / "k.safetensors")


def test_convolutions_of_one_pixel(tmp_path: Path) -> None:
    """kohya's scripts train proj_in and proj_out by default, which are 1 x 1 convolutions."""
    name = "lora_unet_down_blocks_2_attentions_0_proj_in"
    state = kohya() | {
        f"{name}.lora_down.weight": DOWN[..., None, None],
        f"{name}.lora_up.weight": UP[..., None, None],
    }
    change = read_lora(saved(state, tmp_path)).change
    layer = "unet.down_blocks.2.attentions.0.proj_in"
    assert torch.equal(change[layer].dense(), UP @ DOWN)
    for to, start in (("kohya", f"{name}."), ("diffusers", f"{layer}.")):
        convert_adapter(tmp_path / "x.safetensors", to, tmp_path / f"{to}.safetensors")
        stored = [
            value.shape
            for key, value in load_file(tmp_path / f"{to}.safetensors").items()
            if key.startswith(start) and value.ndim == 4
        ]
        assert sorted(stored) == sorted([(RANK, IN, 1, 1), (OUT, RANK, 1, 1)])
        assert torch.allclose(read_lora(tmp_path / f"{to}.safetensors").change[layer].dense(), UP @ DOWN)


# --- the settings of PEFT


def test_both_folders_of_peft(tmp_path: Path) -> None:
    peft_folder(tmp_path / "unet", peft(f"{M}to_k"))
    alone = read_lora(tmp_path)
    peft_folder(tmp_path / "text_encoder", peft(f"{T}q_proj"), lora_alpha=1)
    both = read_lora(tmp_path)
    assert list(alone.change) == [K]
    assert list(both.change) == [K, "text_encoder.encoder.layers.0.self_attn.q_proj"]
    assert both.scaled == ["text_encoder.encoder.layers.0.self_attn.q_proj"]
    assert describe_lora(tmp_path)["layers"] == 2
    (tmp_path / "text_encoder_2").mkdir()
    with pytest.raises(BadInput, match="second text encoder"):
        read_lora(tmp_path)


class Net(torch.nn.Module):
    """Two layers under the names that they have in a UNet."""

    def __init__(self) -> None:
        super().__init__()
        module: torch.nn.Module = self
        for name in f"{M}x".split(".")[:-1]:
            inner = torch.nn.Module()
            module.add_module(name, inner)
            module = inner
        for name in ("to_k", "to_v"):
            module.add_module(name, torch.nn.Linear(IN, OUT, bias=False))


PATTERNS: list[dict[str, Any]] = [
    {"alpha_pattern": {"to_k": 8}},
    {"alpha_pattern": {r".*attn2\.to_k": 8}},
    {"alpha_pattern": {r"attn2\.(to_k|to_q)": 8}},
    {"alpha_pattern": {f"^{M}to_k": 8}},
    {"alpha_pattern": {r"down_blocks\.2\..*": 8}},
    {"alpha_pattern": {"o_k": 8}},  # matches nothing: only a whole name, or what follows a dot
    {"alpha_pattern": {"to_q": 3, "to_.": 8, "to_k": 1}},  # the first that matches
    {"rank_pattern": {r"attn2\.to_v": 3}, "alpha_pattern": {"to_v": 2}},
    {"use_rslora": True, "lora_alpha": 8, "rank_pattern": {"to_k": 1}},
    {"lora_alpha": ...},
    {"lora_alpha": 0},
    {"use_rslora": True, "lora_alpha": ...},
]


@pytest.mark.parametrize("options", PATTERNS, ids=lambda options: str(options)[:50])
def test_scales_are_those_of_peft_itself(tmp_path: Path, options: dict[str, Any]) -> None:
    stated = {key: value for key, value in options.items() if value is not ...}
    config = LoraConfig(r=RANK, target_modules=["to_k", "to_v"], init_lora_weights=False, **stated)
    torch.manual_seed(0)
    get_peft_model(Net(), config).save_pretrained(str(tmp_path))
    if ... in options.values():  # as files of other versions leave it out
        settings = json.loads((tmp_path / "adapter_config.json").read_text())
        (tmp_path / "adapter_config.json").write_text(
            json.dumps({k: v for k, v in settings.items() if k not in options})
        )
    wanted = {
        f"unet.{name}": layer.get_delta_weight("default")
        for name, layer in PeftModel.from_pretrained(Net(), str(tmp_path)).base_model.model.named_modules()
        if hasattr(layer, "get_delta_weight")
    }
    change = read_lora(tmp_path).change
    assert change.keys() == wanted.keys()
    for module, delta in wanted.items():
        assert torch.allclose(change[module].dense(), delta, atol=1e-5)


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora", "OLoRA", "corda", "loftq", "lora_ga"])
def test_what_changes_the_base_is_refused(tmp_path: Path, init: str) -> None:
    folder = peft_folder(tmp_path / "p", peft(f"{M}to_k"), init_lora_weights=init)
    with pytest.raises(BadInput, match=rf"{init}.*changes the base.*path_initial_model"):
        read_lora(folder)
    header = {"lora_adapter_metadata": json.dumps({"unet.r": RANK, "unet.init_lora_weights": init})}
    with pytest.raises(BadInput, match="changes the base"):
        read_lora(saved(peft(f"unet.{M}to_k"), tmp_path, header))


def test_what_may_change_the_base_is_refused(tmp_path: Path) -> None:
    """What a later PEFT brings is not known."""
    for init in ("newthing", {"a": 1}):
        with pytest.raises(BadInput, match="may change the base as well and is not known"):
            read_lora(peft_folder(tmp_path / "p", peft(f"{M}to_k"), init_lora_weights=init))


@pytest.mark.parametrize("init", [True, False, "gaussian", "eva", "orthogonal", "mica"])
def test_what_leaves_the_base_alone_is_read(tmp_path: Path, init: object) -> None:
    folder = peft_folder(tmp_path / "p", peft(f"{M}to_k"), init_lora_weights=init)
    assert torch.equal(read_lora(folder).change[K].dense(), UP @ DOWN)


@pytest.mark.parametrize("kind", ["pissa", "olora"])
def test_a_folder_of_peft_itself_that_changed_the_base(tmp_path: Path, kind: str) -> None:
    config = LoraConfig(r=RANK, target_modules=["to_k"], init_lora_weights=kind)  # type: ignore[arg-type]
    get_peft_model(Net(), config).save_pretrained(str(tmp_path))
    with pytest.raises(BadInput, match="changes the base"):
        read_lora(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "LOHA"}, "LOHA"),
        ({"use_dora": True}, "DoRA"),
        ({"use_qalora": True}, "QALoRA"),
        ({"lora_bias": True}, "biases"),
        ({"layer_replication": [[0, 2]]}, "replicated"),
        ({"lora_alpha": "many"}, "no usable number"),
        ({"lora_alpha": float("nan")}, "cannot be read"),
        ({"lora_alpha": 1e9}, "no usable number"),
        ({"alpha_pattern": {"(": 3}}, "no usable regular expression"),
        ({"alpha_pattern": [3]}, "not an object"),
        ({"r": 9}, "is of rank 2, but its settings say 9"),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_lora(peft_folder(tmp_path, peft(f"{M}to_k"), **config))


def test_a_pattern_that_never_ends_does_not_hold_anybody_up(tmp_path: Path) -> None:
    """Python's own re would not come back."""
    folder = peft_folder(tmp_path, peft(f"{M}to_k"), alpha_pattern={r"((\w|\.)+)+[!#]": 3})
    begun = time.process_time()
    with contextlib.suppress(BadInput):
        read_lora(folder)
    assert time.process_time() - begun < 2


def test_a_header_without_its_part(tmp_path: Path) -> None:
    """unet.save_lora_adapter writes keys and settings without "unet."."""
    header = {"lora_adapter_metadata": json.dumps({"r": RANK, "lora_alpha": 1, "alpha_pattern": {"to_v": 2}})}
    lora = read_lora(saved(peft(f"{M}to_k") | peft(f"{M}to_v"), tmp_path, header))
    assert lora.scaled == [K]
    assert torch.allclose(lora.change[K].dense(), UP @ DOWN / 2)


# --- refused by name


V = f"{KOHYA}to_v"
ODD: dict[str, tuple[State, str]] = {
    "loha": ({f"{V}.hada_w1_a": UP}, "is a LoHa"),
    "lokr": ({f"{V}.lokr_w1": UP}, "is a LoKr"),
    "dora": (kohya() | {f"{KOHYA}to_k.dora_scale": UP}, "is a DoRA"),
    "peft dora": (peft(f"unet.{M}to_k") | {f"unet.{M}to_k.lora_magnitude_vector": UP}, "is a DoRA"),
    "oft": ({f"{V}.oft_blocks": UP}, "is an OFT"),
    "glora": ({f"{V}.a1.weight": UP}, "is a GLoRA"),
    "ia3": ({f"{V}.weight": UP, f"{V}.on_input": torch.tensor(False)}, "is an IA3"),
    "differences": (kohya() | {f"{V}.diff": UP}, "whole differences"),
    "scalar": (kohya() | {f"{KOHYA}to_k.scalar": torch.tensor(0.5)}, "LyCORIS"),
    "embedding": (kohya() | {"bundle_emb.sks.string_to_param.*": UP}, "textual-inversion"),
    "sdxl": (kohya() | kohya("lora_te2_text_model_encoder_layers_0_mlp_fc1"), "SDXL"),
    "sdxl diffusers": (peft("text_encoder_2.text_model.encoder.layers.0.mlp.fc1"), "SDXL"),
    "video": (peft("diffusion_model.blocks.0.cross_attn.k"), r"it holds the key 'diffusion_model\.blocks"),
    "transformer": (peft("transformer.blocks.0.attn.to_k"), "diffusion transformer"),
    "controlnet": (kohya("lora_controlnet_down_blocks_0_attn_to_k"), "ControlNet"),
    "bias": (peft(f"unet.{M}to_k") | {f"unet.{M}to_k.lora_B.bias": UP[:, 0]}, "biases"),
    "two names": (peft(f"{M}to_k", ".one") | peft(f"{M}to_v", ".two"), r"several adapters \(one, two\)"),
    "twice": (peft(f"{M}to_k") | peft(f"unet.{M}to_k"), "twice, under two names"),
    "half a pair": ({f"{V}.lora_down.weight": DOWN}, "lacks one of its two factors"),
    "alpha alone": (kohya() | {f"{V}.alpha": torch.tensor(3.0)}, "for a layer without factors"),
    "alpha nan": (kohya(alpha=float("nan")), "no usable number"),
    "two alphas": (kohya(alpha=None) | {f"{KOHYA}to_k.alpha": torch.ones(2)}, "no usable number"),
    "rank 0": ({f"unet.{M}to_k.lora_A.weight": DOWN[:0], f"unet.{M}to_k.lora_B.weight": UP[:, :0]}, "rank 0"),
    "empty layer": (
        {f"unet.{M}to_k.lora_A.weight": DOWN[:, :0], f"unet.{M}to_k.lora_B.weight": UP},
        "rank 0 or empty",
    ),
    "integers": ({key: value.to(torch.int8) for key, value in peft(K).items()}, "no real numbers"),
    "nan": ({key: value * float("nan") for key, value in peft(f"unet.{M}to_k").items()}, "NaN"),
    "locon": (
        {f"{V}.lora_down.weight": torch.ones(2, 3, 3, 3), f"{V}.lora_up.weight": torch.ones(4, 2, 1, 1)},
        "convolution of 3 x 3",
    ),
    "transposed": (pair(f"unet.{M}to_k.lora_B.weight", f"unet.{M}to_k.lora_A.weight"), "do not fit"),
    "empty": ({}, "it is empty"),
    "a model": ({f"{M}to_k.weight": UP}, r"it holds the key 'down_blocks\.2"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_not_read_is_named(tmp_path: Path, name: str) -> None:
    state, message = ODD[name]
    with pytest.raises(BadInput, match=rf"x\.safetensors.*{message}"):
        read_lora(saved(state, tmp_path))


@pytest.mark.parametrize("name", ["x.safetensors", "pytorch_lora_weights.bin"])
def test_a_pointer_of_git_lfs_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n")
    for source in (tmp_path, tmp_path / name):
        with pytest.raises(BadInput, match=r"pointer of Git LFS.*git lfs pull"):
            read_lora(source)


def test_settings_that_are_a_pointer_of_git_lfs_are_named(tmp_path: Path) -> None:
    peft_folder(tmp_path, peft(f"{M}to_k"))
    (tmp_path / "adapter_config.json").write_text("version https://git-lfs.github.com/spec/v1\nsize 1\n")
    with pytest.raises(BadInput, match=r"adapter_config\.json' is a pointer of Git LFS.*git lfs pull"):
        read_lora(tmp_path)
