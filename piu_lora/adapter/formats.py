"""LoRA files of other programs, read as a change with the scale baked into ``up``."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import (
    convert_state_dict_to_diffusers,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)
from diffusers.utils.state_dict_utils import StateDictType

from piu_lora.adapter.folder import DIFFUSERS_FILE, PEFT_CONFIG, PEFT_FILE, flat_names, read_tensors
from piu_lora.adapter.older_loaders import trimmed
from piu_lora.documents import from_json
from piu_lora.errors import BadInput
from piu_lora.foreign import read_text, require_regular
from piu_lora.model.factors import COMPONENTS, Change, Factors, change_of, component

__all__ = ["Lora", "read_lora"]

FORMATS = ("diffusers", "kohya", "peft")
_PEFT = "base_model.model."
_KOHYA = ("lora_unet_", "lora_te_", "lora_te1_")
_OTHERS = {
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "lora_mid": "Tucker-decomposed LoRA",
}


@dataclass(frozen=True)
class Lora:
    """A LoRA file as it was found.

    Attributes:
        change: its factors, scale baked in.
        format: ``diffusers``, ``kohya`` or ``peft``.
        header: the file's own metadata.
        scaled: modules whose alpha was not their rank.
    """

    path: Path
    change: dict[str, Factors]
    format: str
    header: dict[str, str]
    scaled: list[str] = field(default_factory=list)


def read_lora(source: Path | str) -> Lora:
    """Read a LoRA of any known format: a file, an adapter folder, or a PEFT folder.

    Raises:
        BadInput: unreadable, of an unknown format, or of a kind that is no plain LoRA on linear layers (DoRA,
            LoHa, convolutions).
    """
    lora = _read_file(_file_of(Path(source)))
    # PEFT has a folder for each model; ours keeps the text encoder's inside the UNet's.
    beside = Path(source) / "text_encoder" / PEFT_FILE
    if lora.format == "peft" and beside.is_file() and beside != lora.path:
        other = _read_file(beside)
        return replace(lora, change={**lora.change, **other.change}, scaled=[*lora.scaled, *other.scaled])
    return lora


def _read_file(path: Path) -> Lora:
    state, header = _read(path)
    for mark, kind in _OTHERS.items():
        if any(mark in key for key in state):
            raise BadInput(f"{str(path)!r} is a {kind}, not a plain LoRA; nothing here reads it without loss")
    if all(key.startswith(_PEFT) for key in state) and state:
        return _from_peft(path, state, header)
    if all(key.startswith(_KOHYA) for key in state) and state:
        return _from_kohya(path, state, header)
    return _from_diffusers(path, state, header)


def _file_of(source: Path) -> Path:
    if source.is_file():
        return source
    for name in (
        DIFFUSERS_FILE,
        PEFT_FILE,
        f"text_encoder/{PEFT_FILE}",
        "adapter_model.bin",
        "pytorch_lora_weights.bin",
    ):
        if (source / name).is_file():
            return source / name
    others = sorted(source.glob("*.safetensors")) if source.is_dir() else []
    if len(others) == 1:
        return others[0]
    raise BadInput(
        f"{str(source)!r} is neither a LoRA file nor a folder with one; pass a .safetensors file, "
        "or an adapter folder"
    )


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    if path.suffix == ".safetensors":
        return read_tensors(path)
    try:
        state = torch.load(require_regular(path), map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise BadInput(
            f"{str(path)!r} is neither safetensors nor a pickle of plain tensors, and was not run; "
            "convert it first"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise BadInput(f"{str(path)!r} holds no state dict; pass a LoRA file")
    return state, {}


def _from_diffusers(path: Path, state: dict[str, torch.Tensor], header: dict[str, str]) -> Lora:
    """Keys of diffusers, new or old, or bare PEFT keys; alpha from the header, and equal to the rank where
    there is none.
    """
    try:
        plain = _to_peft(state)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        raise BadInput(
            f"{str(path)!r} is no LoRA that diffusers, PEFT or kohya's scripts write; "
            f"its first key is {_first(state)}"
        ) from error
    change = change_of(flat_names(plain), str(path))
    settings = _json(header.get("lora_adapter_metadata", "{}"))
    scales = {}
    for module, factors in change.items():
        part = component(module)
        part_settings = {
            key.removeprefix(f"{part}."): value
            for key, value in settings.items()
            if key.startswith(f"{part}.")
        }
        scales[module] = (
            _peft_scale(part_settings, module.removeprefix(f"{part}."), factors.rank)
            if part_settings
            else 1.0
        )
    return _scaled(path, change, "diffusers", header, scales)


def _from_peft(path: Path, state: dict[str, torch.Tensor], header: dict[str, str]) -> Lora:
    config = _peft_config(path)
    part = (
        "text_encoder"
        if any(".layers." in key and "transformer_blocks" not in key for key in state)
        else "unet"
    )
    change = change_of(
        flat_names({f"{part}.{key.removeprefix(_PEFT)}": value for key, value in state.items()}), str(path)
    )
    scales = {
        module: _peft_scale(config, module.removeprefix(f"{part}."), factors.rank)
        for module, factors in change.items()
    }
    return _scaled(path, change, "peft", header, scales)


def _peft_config(path: Path) -> dict[str, Any]:
    try:
        config = _json(read_text(path.parent / PEFT_CONFIG))
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{str(path)!r} is PEFT's, but {PEFT_CONFIG} beside it cannot be read; "
            "without it the scale is unknown"
        ) from error
    if config.get("peft_type", "LORA") != "LORA" or config.get("use_dora"):
        kind = "DoRA" if config.get("use_dora") else str(config.get("peft_type"))[:30]
        raise BadInput(f"{str(path)!r} is a {kind} of PEFT; only plain LoRA is read")
    return config


def _peft_scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    """``alpha / r``, or ``alpha / sqrt(r)`` for rsLoRA.

    Patterns match as in PEFT, from the end of the name.
    """
    alpha = config.get("lora_alpha", rank)
    patterns = config.get("alpha_pattern") or {}
    if isinstance(patterns, dict):
        matching = [
            value
            for key, value in patterns.items()
            if module == key.lstrip("^") or module.endswith(f".{key}")
        ]
        alpha = matching[0] if matching else alpha
    if not isinstance(alpha, int | float) or not abs(alpha) < 1e6:
        raise BadInput(f"the alpha of {module!r} is {alpha!r:.40}, no usable number; make the file again")
    return float(alpha) / (rank**0.5 if config.get("use_rslora") else rank)


def _from_kohya(path: Path, state: dict[str, torch.Tensor], header: dict[str, str]) -> Lora:
    """By diffusers' own table of names, which knows where an underscore was a dot."""
    named = {key.replace("lora_te1_", "lora_te_", 1): value for key, value in state.items()}
    try:
        plain, alphas = StableDiffusionPipeline.lora_state_dict(named)
        change = change_of(flat_names(_to_peft(plain)), str(path))
    except BadInput:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        raise BadInput(
            f"{str(path)!r} looks like a file of kohya's scripts, but diffusers cannot read it: "
            f"{str(error)[:160]}"
        ) from error
    alpha_of = {_module_of_alpha(key): float(value) for key, value in (alphas or {}).items()}
    if any(not abs(value) < 1e6 for value in alpha_of.values()):
        raise BadInput(f"{str(path)!r} has an alpha that is no usable number; make the file again")
    scales = {
        module: alpha_of.get(module, float(factors.rank)) / factors.rank for module, factors in change.items()
    }
    return _scaled(path, change, "kohya", header, scales)


def _module_of_alpha(key: str) -> str:
    factor = key.removesuffix(".alpha")
    name = next(
        iter(
            flat_names(
                _to_peft({factor if factor.endswith(".weight") else f"{factor}.down.weight": torch.empty(0)})
            )
        )
    )
    return name.removesuffix(".lora_A.weight")


def _scaled(
    path: Path, change: Change, kind: str, header: dict[str, str], scales: Mapping[str, float]
) -> Lora:
    baked = {
        m: f if scales[m] == 1 else Factors(f.down, (f.up.float() * scales[m]).to(f.up.dtype))
        for m, f in change.items()
    }
    return Lora(path, trimmed(baked), kind, header, [module for module in change if scales[module] != 1])


def _json(text: str) -> dict[str, Any]:
    try:
        value = from_json(text)
    except ValueError as error:
        raise BadInput(
            f"settings of a LoRA file are no JSON: {str(error)[:100]}; make the file again"
        ) from error
    if not isinstance(value, dict):
        raise BadInput(
            f"settings of a LoRA file are a {type(value).__name__}, not an object; make the file again"
        )
    return value


def _to_peft(state: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """Keys of ``<module>.lora_A.weight``, by the conversions with which diffusers loads each component."""
    if _paired(state):
        return state
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in state.items():
        part, _, name = key.partition(".")
        parts.setdefault(part, {})[name] = value
    if foreign := sorted(parts.keys() - set(COMPONENTS)):
        raise ValueError(f"unknown component {foreign[0]}")
    converted: dict[str, torch.Tensor] = {}
    for part, part_state in parts.items():
        plain = (
            convert_unet_state_dict_to_peft(part_state) if part == "unet" else _encoder_to_peft(part_state)
        )
        converted |= {f"{part}.{name}": value for name, value in plain.items()}
    return converted


def _encoder_to_peft(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Old keys, then new ones. Left to itself, diffusers takes keys for old only where it sees an output
    projection.
    """
    newer = convert_state_dict_to_diffusers(state, original_type=StateDictType.DIFFUSERS_OLD)
    converted: dict[str, torch.Tensor] = convert_state_dict_to_peft(
        newer, original_type=StateDictType.DIFFUSERS
    )
    return converted


def _paired(state: Mapping[str, torch.Tensor]) -> bool:
    return all(
        key.endswith((".lora_A.weight", ".lora_B.weight")) and key.startswith(COMPONENTS) for key in state
    )


def _first(state: Mapping[str, torch.Tensor]) -> str:
    return repr(min(state))[:80] if state else "missing"
