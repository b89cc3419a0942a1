"""Two hundred LoRA files of other programs, made by their own libraries and then changed: read right, or
refused by name.

The first few run always, the others with the slow tests.
"""

import copy
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_kohya
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file, save

from piu_lora.adapter import active, adapters_disabled, describe_lora, load_adapter, read_lora, unload
from piu_lora.errors import PiuLoraError
from piu_lora.jobs.adapters.convert import convert_adapter
from tests.adapter.stacks import write_random
from tests.adapter.test_pipeline_state import everything
from tests.tiny import tiny_pipeline

BLOCK = "mid_block.attentions.0.transformer_blocks.0.attn2."
LAYERS = [f"{BLOCK}{name}" for name in ("to_q", "to_k", "to_out.0")]
COUNT, ALWAYS = 200, 10
State = dict[str, torch.Tensor]


@dataclass
class Case:
    """A file, and what it changes by layer; ``wanted`` is None where nobody can say."""

    state: State
    header: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] | None = None
    wanted: State | None = None
    bytes: Callable[[bytes], bytes] = lambda content: content


# --- made by the libraries themselves


@cache
def sources() -> dict[str, Case]:
    pipe = tiny_pipeline()
    config = LoraConfig(
        r=4, lora_alpha=2, target_modules=LAYERS, alpha_pattern={"to_k": 8}, init_lora_weights=False
    )
    torch.manual_seed(0)
    pipe.unet.add_adapter(config, "foreign")
    wanted = {
        f"unet.{name}": layer.get_delta_weight("foreign").detach()
        for name, layer in pipe.unet.named_modules()
        if "foreign" in getattr(layer, "lora_A", {})
    }
    state = get_peft_model_state_dict(pipe.unet, adapter_name="foreign")
    peft = {key: value.detach() for key, value in state.items()}
    settings = {key: getattr(config, key) for key in ("r", "lora_alpha", "alpha_pattern")}
    stated = json.dumps({f"unet.{key}": value for key, value in settings.items()})
    header = {"format": "pt", "lora_adapter_metadata": stated}
    prefixed = {f"unet.{key}": value for key, value in peft.items()}
    kohya = convert_state_dict_to_kohya({f"base_model.model.{key}": value for key, value in prefixed.items()})
    kohya = {key: value for key, value in kohya.items() if not key.endswith(".alpha")}
    alphas = {
        key.removesuffix(".lora_down.weight") + ".alpha": torch.tensor(8.0 if "to_k" in key else 2.0)
        for key in kohya
        if key.endswith(".lora_down.weight")
    }
    comfy = {f"diffusion_model.{key}": value for key, value in peft.items()} | {
        f"diffusion_model.{layer}.alpha": torch.tensor(8.0 if "to_k" in layer else 2.0) for layer in LAYERS
    }
    return {
        "diffusers": Case(prefixed, header, None, wanted),
        "component": Case(peft, {"lora_adapter_metadata": json.dumps(settings)}, None, wanted),
        "kohya": Case(kohya | alphas, {"ss_network_dim": "4"}, None, wanted),
        "comfy": Case(comfy, {}, None, wanted),
        "peft": Case(
            {f"base_model.model.{key}": value for key, value in peft.items()},
            {"format": "pt"},
            {"peft_type": "LORA", **settings},
            wanted,
        ),
    }


def test_the_libraries_agree(tmp_path: Path) -> None:
    """What is mutated below is what PEFT and diffusers themselves save."""
    pipe = tiny_pipeline()
    config = LoraConfig(r=4, lora_alpha=2, target_modules=LAYERS, init_lora_weights=False)
    PeftModel(copy.deepcopy(pipe.unet), config).save_pretrained(str(tmp_path / "peft"))
    assert load_file(tmp_path / "peft" / "adapter_model.safetensors").keys() == sources()["peft"].state.keys()
    pipe.unet.add_adapter(config, "foreign")
    StableDiffusionPipeline.save_lora_weights(
        tmp_path / "d", get_peft_model_state_dict(pipe.unet, adapter_name="foreign")
    )
    written = load_file(tmp_path / "d" / "pytorch_lora_weights.safetensors")
    assert written.keys() == sources()["diffusers"].state.keys()
    pipe.unet.save_lora_adapter(tmp_path / "c", adapter_name="foreign")
    written = load_file(tmp_path / "c" / "pytorch_lora_weights.safetensors")
    assert written.keys() == sources()["component"].state.keys()


# --- mutations


def renamed(case: Case, change: Callable[[str], str]) -> Case:
    return replace(case, state={change(key): value for key, value in case.state.items()})


def cast(dtype: torch.dtype) -> Callable[[Case, random.Random], Case]:
    return lambda case, _: replace(
        case, state={key: value.to(dtype) if value.ndim else value for key, value in case.state.items()}
    )


def one_key(case: Case, draw: random.Random) -> str:
    return draw.choice(sorted(key for key, value in case.state.items() if value.ndim))


def with_value(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Case, random.Random], Case]:
    def mutate(case: Case, draw: random.Random) -> Case:
        key = one_key(case, draw)
        return replace(case, state={**case.state, key: change(case.state[key])}, wanted=None)

    return mutate


def with_key(ending: str, value: torch.Tensor) -> Callable[[Case, random.Random], Case]:
    def mutate(case: Case, draw: random.Random) -> Case:
        stem = one_key(case, draw).split(".lora_")[0]
        return replace(case, state={**case.state, f"{stem}.{ending}": value}, wanted=None)

    return mutate


def without_a_key(case: Case, draw: random.Random) -> Case:
    gone = one_key(case, draw)
    return replace(case, state={key: value for key, value in case.state.items() if key != gone}, wanted=None)


def with_setting(**settings: Any) -> Callable[[Case, random.Random], Case]:
    def mutate(case: Case, _: random.Random) -> Case:
        if case.config is not None:
            return replace(case, config={**case.config, **settings}, wanted=None)
        stated = json.loads(case.header.get("lora_adapter_metadata", "{}"))
        prefix = "unet." if any("." in key for key in stated) else ""
        stated |= {f"{prefix}{key}": value for key, value in settings.items()}
        header = {**case.header, "lora_adapter_metadata": json.dumps(stated)}
        return replace(case, header=header, wanted=None)

    return mutate


def cut(case: Case, draw: random.Random) -> Case:
    share = draw.random()
    return replace(case, bytes=lambda content: content[: int(share * len(content))], wanted=None)


def flipped(case: Case, draw: random.Random) -> Case:
    """A few bytes of the header."""

    def flip(content: bytes) -> bytes:
        spoilt = bytearray(content)
        for _ in range(3):
            spoilt[draw.randrange(min(len(spoilt), 2000))] = draw.randrange(256)
        return bytes(spoilt)

    return replace(case, bytes=flip, wanted=None)


MUTATIONS: dict[str, Callable[[Case, random.Random], Case]] = {
    "as it is": lambda case, _: case,
    "compiled": lambda case, _: renamed(case, lambda key: f"_orig_mod.{key}"),
    "parallel": lambda case, _: renamed(case, lambda key: f"module._orig_mod.{key}"),
    "named": lambda case, _: renamed(
        case, lambda key: key.replace(".lora_A.", ".lora_A.style.").replace(".lora_B.", ".lora_B.style.")
    ),
    "half": cast(torch.float16),
    "bfloat16": cast(torch.bfloat16),
    "eight bits": lambda case, draw: replace(cast(torch.float8_e4m3fn)(case, draw), wanted=None),
    "whole numbers": lambda case, draw: replace(cast(torch.int8)(case, draw), wanted=None),
    "double": cast(torch.float64),
    "a factor is missing": without_a_key,
    "nan": with_value(lambda value: value * float("nan")),
    "infinite": with_value(lambda value: value + float("inf")),
    "huge": with_value(lambda value: value * 1e30),
    "zero": with_value(torch.zeros_like),
    "empty": with_value(lambda value: value[:0]),
    "turned": with_value(lambda value: value.T.contiguous()),
    "three axes": with_value(lambda value: value[None]),
    "convolution": with_value(lambda value: value[..., None, None].expand(*value.shape, 3, 3).contiguous()),
    "scalar": with_value(lambda value: value.sum()),
    "dora": with_key("dora_scale", torch.ones(4)),
    "loha": with_key("hada_w1_a", torch.ones(4, 4)),
    "difference": with_key("diff", torch.ones(4, 4)),
    "alpha of two": with_key("alpha", torch.ones(2)),
    "alpha nan": with_key("alpha", torch.tensor(float("nan"))),
    "bias": with_key("lora_B.bias", torch.ones(4)),
    "embedding": lambda case, _: replace(
        case, state={**case.state, "bundle_emb.x.string_to_param.*": torch.ones(2, 4)}, wanted=None
    ),
    "second encoder": lambda case, _: replace(
        case, state={**case.state, "lora_te2_x.lora_down.weight": torch.ones(2, 4)}, wanted=None
    ),
    "long name": lambda case, _: replace(renamed(case, lambda key: "x" * 5000 + key), wanted=None),
    "odd name": lambda case, _: replace(renamed(case, lambda key: f"\x1b[2J\n{key}"), wanted=None),
    "cut": cut,
    "flipped": flipped,
    "pointer": lambda case, _: replace(
        case, bytes=lambda _content: b"version https://git-lfs.github.com/spec/v1\nsize 9\n", wanted=None
    ),
    "pissa": with_setting(init_lora_weights="pissa"),
    "alpha in words": with_setting(lora_alpha="many"),
    "endless pattern": with_setting(alpha_pattern={r"((\w|\.)+)+[!#]": 3}),
    "another rank": with_setting(r=9),
    "broken header": lambda case, _: replace(
        case,
        header={"lora_adapter_metadata": "{" * 50_000} if case.config is None else case.header,
        config=None,
        wanted=None,
    ),
    "list for a header": lambda case, _: replace(
        case, header={"lora_adapter_metadata": "[1]"} if case.config is None else case.header, wanted=None
    ),
}


def written(case: Case, folder: Path) -> Path:
    folder.mkdir()
    content = save(
        {key: value.clone().contiguous() for key, value in case.state.items()}, case.header or None
    )
    path = folder / "x.safetensors"
    if case.config is not None:
        path = folder / "adapter_model.safetensors"
        (folder / "adapter_config.json").write_text(json.dumps(case.config))
    path.write_bytes(case.bytes(content))
    return folder if case.config is not None else path


def mutated(number: int) -> tuple[str, Case]:
    draw = random.Random(number)
    kinds, names = sorted(sources()), list(MUTATIONS)
    # Every mutation of every kind in turn; then again, with other draws.
    kind, name = kinds[number % len(kinds)], names[number // len(kinds) % len(names)]
    return f"{kind}, {name}", MUTATIONS[name](sources()[kind], draw)


def check_reading(case: Case, source: Path, out: Path) -> bool:
    """Whether inspect and convert read the file; as what it is, where that is known."""
    begun, problem = time.process_time(), ""
    try:
        json.dumps(describe_lora(source))
        convert_adapter(source, "diffusers", out)
    except PiuLoraError as error:
        problem = str(error)
    assert time.process_time() - begun < 2
    if problem:
        assert case.wanted is None, problem
        assert problem.isprintable()
        assert len(problem) < 800
        return False
    change = read_lora(source).change
    assert read_lora(out).change.keys() == change.keys()
    if case.wanted is not None:
        assert change.keys() == case.wanted.keys()
        for module, factors in change.items():
            assert torch.allclose(factors.dense(), case.wanted[module], atol=0.05, rtol=0.02)
    return True


def check_beside(pipe: StableDiffusionPipeline, source: Path, ours: Path) -> bool:
    """Whether stock diffusers loads the file; if so, ours beside it leaves it alone."""
    try:
        pipe.load_lora_weights(str(source), adapter_name="foreign")
    except Exception:  # whatever it says of a broken file
        unload(pipe, ["foreign"])
        return False
    try:
        before = everything(pipe, "foreign")
        name = load_adapter(pipe, ours)
        with adapters_disabled(pipe):
            assert active(pipe) == {}
        unload(pipe, [name])
        assert everything(pipe, "foreign") == before
    finally:
        unload(pipe, ["foreign"])
    return True


def check(numbers: range, tmp_path: Path) -> tuple[int, int]:
    """How many of these were read, and how many stood beside ours."""
    pipe = tiny_pipeline()
    write_random(pipe, tmp_path / "ours", 1)
    read = beside = 0
    for number in numbers:
        title, case = mutated(number)
        source = written(case, tmp_path / str(number))
        try:
            read += check_reading(case, source, tmp_path / f"{number}.safetensors")
            beside += check_beside(pipe, source, tmp_path / "ours")
        except BaseException as error:
            error.add_note(f"file {number}: {title}")
            raise
    assert active(pipe) == {}
    return read, beside


def test_a_few_mutated_files(tmp_path: Path) -> None:
    read, _ = check(range(0, COUNT, COUNT // ALWAYS), tmp_path)
    assert 0 < read < ALWAYS


@pytest.mark.slow
def test_two_hundred_mutated_files(tmp_path: Path) -> None:
    read, beside = check(range(COUNT), tmp_path)
    assert 40 <= read <= 120
    assert beside >= 20
