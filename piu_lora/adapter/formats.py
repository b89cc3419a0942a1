"""LoRA files of other programs, read as a change with the scale baked into ``up``."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from piu_lora.adapter.folder import DIFFUSERS_FILE, PEFT_CONFIG, PEFT_FILE, read_tensors
from piu_lora.adapter.lora_keys import LoraKey, other_kind, parse_key
from piu_lora.adapter.older_loaders import trimmed
from piu_lora.adapter.peft_settings import require_plain, scale_of
from piu_lora.adapter.pickles import load_pickle
from piu_lora.documents import from_json
from piu_lora.errors import BadInput
from piu_lora.foreign import read_text
from piu_lora.model.factors import COMPONENTS, Change, Factors, change_of, component
from piu_lora.tensors import pointer_advice

__all__ = ["Lora", "read_lora"]

_FILES = (DIFFUSERS_FILE, PEFT_FILE, "adapter_model.bin", "pytorch_lora_weights.bin")
_ROLES = {"down": ".lora_A.weight", "up": ".lora_B.weight"}


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
    """Read a LoRA of any known format: a file, an adapter folder, or a PEFT folder, whether it has a
    sub-folder for each model or not.

    Raises:
        BadInput: unreadable, of an unknown format, or of a kind that is no plain LoRA on linear layers and
            1x1 convolutions (DoRA, LoHa, 3x3 convolutions).
    """
    files = _files_of(Path(source))
    lora = _read_file(*files[0])
    for path, part in files[1:]:
        other = _read_file(path, part)
        lora = replace(lora, change={**lora.change, **other.change}, scaled=[*lora.scaled, *other.scaled])
    return lora


def _files_of(source: Path) -> list[tuple[Path, str]]:
    """The files to read, and what part each is of, where its folder says so."""
    if source.is_file():
        return [(source, "")]
    files = [source / name for name in _FILES if (source / name).is_file()][:1]
    if [path.name for path in files] == [DIFFUSERS_FILE]:
        return [(files[0], "")]
    # PEFT has a folder for each model; ours keeps the text encoder's inside the UNet's.
    parts: list[tuple[Path, str]] = [(path, "") for path in files]
    for part in COMPONENTS:
        inside = [source / part / name for name in _FILES if (source / part / name).is_file()]
        parts += [(path, part) for path in inside[:1]]
    if (source / "text_encoder_2").is_dir():
        raise BadInput(f"{str(source)!r} is for SDXL, which has a second text encoder")
    if len([part for _, part in parts if part != "text_encoder"]) > 1:
        raise BadInput(
            f"{str(source)!r} holds a LoRA of the UNet and another in its sub-folder 'unet'; pass one of them"
        )
    others = sorted(source.glob("*.safetensors")) if source.is_dir() else []
    if not parts and len(others) == 1:
        return [(others[0], "")]
    if not parts:
        raise BadInput(
            f"{str(source)!r} is neither a LoRA file nor a folder with one; pass a .safetensors file, "
            "or an adapter folder"
        )
    return parts


def _read_file(path: Path, part: str = "") -> Lora:
    state, header = _read(path)
    keys = _keys(path, state, part)
    change = change_of(_plain_state(path, state, keys), str(path))
    by_module = {key.module: key for key in keys.values() if key.role != "alpha"}
    style = next((key.style for key in keys.values()), "diffusers")
    in_folder = path.name.startswith("adapter_model.") and (path.parent / PEFT_CONFIG).is_file()
    settings = _peft_config(path) if style == "peft" or in_folder else _settings_of_header(path, header)
    alphas = _alphas(path, state, keys, change)
    scales = {
        module: (
            alphas[module] / factors.rank
            if module in alphas
            else _scale(settings, by_module[module], factors.rank, path)
        )
        for module, factors in change.items()
    }
    return _scaled(path, change, "peft" if in_folder else style, header, scales)


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    if path.suffix == ".safetensors":
        return read_tensors(path)
    refusal = "is neither safetensors nor a pickle of plain tensors, and was not run; convert it first"
    state = load_pickle(path, refusal)
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise BadInput(f"{str(path)!r} holds no state dict; pass a LoRA file")
    return state, {}


def _keys(path: Path, state: Mapping[str, torch.Tensor], part: str) -> dict[str, LoraKey]:
    """Every key of the file, read."""
    if words := other_kind(state):
        raise BadInput(f"{str(path)!r} {words}; nothing here reads it without loss")
    keys = {key: parse_key(key, part) for key in state}
    unread = sorted(key for key, parsed in keys.items() if parsed is None)
    if unread or not keys:
        first = f"it holds the key {unread[0]!r:.80}" if unread else "it is empty"
        raise BadInput(
            f"{str(path)!r} is no LoRA that diffusers, PEFT, ComfyUI or kohya's scripts write for Stable "
            f"Diffusion 1.5: {first}"
        )
    parsed = {key: value for key, value in keys.items() if value is not None}
    names = sorted({value.adapter for value in parsed.values() if value.adapter})
    if len(names) > 1:
        raise BadInput(f"{str(path)!r} holds several adapters ({', '.join(names[:4])}); save one alone")
    return parsed


def _plain_state(
    path: Path, state: Mapping[str, torch.Tensor], keys: Mapping[str, LoraKey]
) -> dict[str, torch.Tensor]:
    plain: dict[str, torch.Tensor] = {}
    for key, parsed in keys.items():
        if parsed.role == "alpha":
            continue
        name = parsed.module + _ROLES[parsed.role]
        if name in plain:
            raise BadInput(f"{str(path)!r} holds {name[:120]!r} twice, under two names; make the file again")
        plain[name] = _exact(state[key])
    return plain


def _exact(tensor: torch.Tensor) -> torch.Tensor:
    """Eight-bit floats as float16, which holds each of their values; nothing can be computed with them."""
    return tensor.half() if tensor.is_floating_point() and tensor.element_size() == 1 else tensor


def _alphas(
    path: Path, state: Mapping[str, torch.Tensor], keys: Mapping[str, LoraKey], change: Change
) -> dict[str, float]:
    """The alphas that the file holds as tensors."""
    alphas: dict[str, float] = {}
    for key, parsed in keys.items():
        if parsed.role == "alpha":
            if parsed.module not in change:
                raise BadInput(f"{str(path)!r} has {key[:120]!r} for a layer without factors; make it again")
            value = state[key]
            alphas[parsed.module] = float(value) if value.numel() == 1 else float("nan")
            if not abs(alphas[parsed.module]) < 1e6:
                raise BadInput(
                    f"{str(path)!r} has an alpha that is no usable number ({key[:120]!r}); make it again"
                )
    return alphas


def _settings_of_header(path: Path, header: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """By part, what the header of diffusers says; without one, alpha is the rank."""
    settings = _json(header.get("lora_adapter_metadata", "{}"), path)
    by_part: dict[str, dict[str, Any]] = {}
    for part in COMPONENTS:
        metadata = {
            key.removeprefix(f"{part}."): value
            for key, value in settings.items()
            if key.startswith(f"{part}.")
        }
        # A component that saves itself leaves its own name out.
        by_part[part] = metadata or {key: value for key, value in settings.items() if "." not in key}
        require_plain(by_part[part], repr(str(path)))
    return by_part


def _peft_config(path: Path) -> dict[str, dict[str, Any]]:
    try:
        config = _json(read_text(path.parent / PEFT_CONFIG), path.parent / PEFT_CONFIG)
    except (OSError, ValueError) as error:
        cause = pointer_advice(path.parent / PEFT_CONFIG) or "without it the scale is unknown"
        raise BadInput(
            f"{str(path)!r} is PEFT's, but {PEFT_CONFIG} beside it cannot be read; {cause}"
        ) from error
    require_plain(config, repr(str(path)))
    # Not empty, so that PEFT's defaults hold for what it leaves out.
    settings = {"peft_type": "LORA", **config}
    return {"unet": settings, "text_encoder": settings}


def _scale(settings: Mapping[str, Mapping[str, Any]], key: LoraKey, rank: int, path: Path) -> float:
    part = settings[component(key.module)]
    return scale_of(part, key.stored, rank, repr(str(path))) if part else 1.0


def _scaled(
    path: Path, change: Change, kind: str, header: dict[str, str], scales: Mapping[str, float]
) -> Lora:
    baked = {
        m: f if scales[m] == 1 else replace(f, up=(f.up.float() * scales[m]).to(f.up.dtype))
        for m, f in change.items()
    }
    return Lora(path, trimmed(baked), kind, header, [module for module in change if scales[module] != 1])


def _json(text: str, path: Path) -> dict[str, Any]:
    try:
        value = from_json(text)
    except ValueError as error:
        raise BadInput(
            f"the settings of the LoRA in {str(path)!r} are no JSON: {str(error)[:100]}; make it again"
        ) from error
    if not isinstance(value, dict):
        raise BadInput(
            f"the settings of the LoRA in {str(path)!r} are a {type(value).__name__}, not an object; "
            "make it again"
        )
    return value
