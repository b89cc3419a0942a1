"""The adapter folder: stock diffusers and PEFT read the weights, people and auditors the rest.

The scale is baked into B, so alpha equals rank everywhere, and a loader that ignores alpha is right as well.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors
import torch

from piu_lora.adapter.card import model_card
from piu_lora.adapter.names import (
    CARD_FILE,
    DIFFUSERS_FILE,
    PEFT_CONFIG,
    PEFT_FILE,
    PEFT_FOLDER,
    RECEIPT_FILE,
    is_adapter_file,
)
from piu_lora.adapter.older_loaders import evened, trimmed, without_zeros, zeros_of
from piu_lora.adapter.receipt import FORMAT, Receipt, settings_digest
from piu_lora.documents import from_json
from piu_lora.errors import BadInput
from piu_lora.foreign import opened, read_text, require_regular
from piu_lora.model.factors import Change, Factors, change_of, component, state_of
from piu_lora.tensors import pointer_advice, save_tensors

__all__ = [
    "CARD_FILE",
    "DIFFUSERS_FILE",
    "PEFT_CONFIG",
    "PEFT_FILE",
    "RECEIPT_FILE",
    "Adapter",
    "diffusers_header",
    "diffusers_state",
    "file_digest",
    "flat_names",
    "nested_name",
    "peft_config",
    "peft_folder",
    "read_adapter",
    "read_header",
    "read_tensors",
    "weights_digest",
    "write_adapter",
    "write_peft",
]

_LARGEST = 16_000_000_000  # bytes of a file; all layers of Arc2Face at full rank have 7
# Until transformers 5.6 the text encoder had one level more; stock loaders take the longer names everywhere.
_FLAT, _NESTED = "text_encoder.encoder.", "text_encoder.text_model.encoder."
# The endings of diffusers' own format. Without PEFT its older releases know no other; all later ones read it.
_ENDINGS = {
    "unet": {".lora_A.weight": ".lora.down.weight", ".lora_B.weight": ".lora.up.weight"},
    "text_encoder": {
        ".lora_A.weight": ".lora_linear_layer.down.weight",
        ".lora_B.weight": ".lora_linear_layer.up.weight",
    },
}


@dataclass(frozen=True)
class Adapter:
    """An adapter folder, read and checked.

    Attributes:
        zeros: layers that stand in the file for older loaders alone, and are no part of ``change``.
    """

    path: Path
    receipt: Receipt
    change: dict[str, Factors]
    zeros: dict[str, Factors] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The opaque id."""
        return self.receipt.adapter_id


def write_adapter(
    folder: Path,
    change: Change,
    receipt: Receipt,
    dtype: torch.dtype = torch.float16,
    describe: Callable[[Path], None] | None = None,
) -> Receipt:
    """Fill ``folder`` with weights, receipt and card; files already in it are part of the adapter.

    Args:
        folder: an existing folder, usually a staging one.
        change: the factors by module; layers of zeros, which older loaders look up, go into the file for
            diffusers alone.
        dtype: of the stored factors.
        describe: is given the weights file once it stands, to write what belongs to the adapter and quotes
            its digest.

    Returns:
        The receipt as written, with the digest of every file.
    """
    stored = {module: factors.to(dtype) for module, factors in sorted(change.items())}
    change_of(state_of(stored), "the new weights")
    even, stored = evened(stored), without_zeros(stored)
    header = diffusers_header(even)
    header["piu_lora"] = json.dumps(
        {"format": FORMAT, "settings_sha256": settings_digest(receipt.base, receipt.method, receipt.settings)}
    )
    save_tensors(diffusers_state(even), folder / DIFFUSERS_FILE, header)
    write_peft(folder / PEFT_FOLDER, stored, receipt.base.id)
    if describe is not None:
        describe(folder / DIFFUSERS_FILE)
    receipt = replace(receipt, files={})
    (folder / CARD_FILE).write_text(model_card(receipt, stored))
    written = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / RECEIPT_FILE)
    files = {path.relative_to(folder).as_posix(): file_digest(path) for path in written}
    if others := [name for name in files if not is_adapter_file(name)]:
        raise BadInput(f"{others[0]!r} is no file of an adapter; write it elsewhere")
    receipt = replace(receipt, files=files)
    (folder / RECEIPT_FILE).write_text(receipt.to_json())
    return receipt


def diffusers_state(change: Change) -> dict[str, torch.Tensor]:
    """The state dict that ``pipe.load_lora_weights`` takes, in every release since 2023; values as those of
    ``state_of``.
    """
    state = {}
    for key, value in state_of(change).items():
        for stored_ending, diffusers_ending in _ENDINGS[component(key)].items():
            key = key.replace(stored_ending, diffusers_ending)
        state[nested_name(key)] = value
    return state


def nested_name(name: str) -> str:
    """The name that a text encoder's module had until transformers 5.6, and has in every published file."""
    return name.replace(_FLAT, _NESTED, 1)


def flat_names(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict named by ``diffusers_state``, with the names of ``state_of``."""
    flat = {}
    for key, value in state.items():
        for stored_ending, diffusers_ending in _ENDINGS.get(component(key), {}).items():
            key = key.replace(diffusers_ending, stored_ending)
        flat[key.replace(_NESTED, _FLAT, 1)] = value
    return flat


def diffusers_header(change: Change) -> dict[str, str]:
    """The header of the diffusers file: without its rank and alpha, loaders would guess."""
    settings: dict[str, Any] = {}
    for part in sorted({component(module) for module in change}):
        settings |= {f"{part}.{key}": value for key, value in peft_config(_part(change, part)).items()}
    return {"format": "pt", "lora_adapter_metadata": json.dumps(settings, sort_keys=True)}


def write_peft(folder: Path, change: Change, base: str) -> None:
    """The same weights for PEFT: the UNet's in ``folder``, the text encoder's in its subfolder."""
    for part in sorted({component(module) for module in change}):
        target, factors = folder if part == "unet" else folder / part, _part(change, part)
        target.mkdir(parents=True, exist_ok=True)
        save_tensors(
            {f"base_model.model.{key}": value for key, value in state_of(factors).items()},
            target / PEFT_FILE,
            {"format": "pt"},
        )
        config = {
            "peft_type": "LORA",
            "base_model_name_or_path": base,
            "inference_mode": True,
            **peft_config(factors),
        }
        (target / PEFT_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def peft_folder(folder: Path) -> Path:
    """Where the weights for PEFT lie; in older adapter folders, beside those for diffusers."""
    return folder / PEFT_FOLDER if (folder / PEFT_FOLDER).is_dir() else folder


def _part(change: Change, part: str) -> dict[str, Factors]:
    """The factors of one component, by the module's name inside it."""
    return {
        module.removeprefix(f"{part}."): factors
        for module, factors in change.items()
        if component(module) == part
    }


def peft_config(change: Change) -> dict[str, Any]:
    """The PEFT settings that older and newer versions read alike."""
    ranks = {module: factors.rank for module, factors in change.items()}
    common = max(ranks.values())
    other = {module: rank for module, rank in sorted(ranks.items()) if rank != common}
    return {
        "r": common,
        "lora_alpha": common,
        "rank_pattern": other,
        "alpha_pattern": other,
        "target_modules": sorted(ranks),
        "use_dora": False,
        "use_rslora": False,
        "lora_bias": False,
    }


def read_adapter(folder: Path | str) -> Adapter:
    """Read an adapter folder and check it before anything is touched.

    Raises:
        BadInput: not an adapter folder; a file is missing, truncated or not what the receipt says; NaN;
            foreign keys.
    """
    folder = Path(folder)
    try:
        text = read_text(folder / RECEIPT_FILE)
    except BadInput:
        raise
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{str(folder)!r} is not an adapter folder: {RECEIPT_FILE} cannot be read; "
            "pass a folder that `piu-lora forget` made"
        ) from error
    receipt = Receipt.from_json(text, str(folder / RECEIPT_FILE))
    if DIFFUSERS_FILE not in receipt.files:
        raise BadInput(
            f"{str(folder / RECEIPT_FILE)!r} gives no digest for {DIFFUSERS_FILE}; "
            "make or download the adapter again"
        )
    for name, digest in receipt.files.items():
        _check_file(folder, name, digest)
    state, header = read_tensors(folder / DIFFUSERS_FILE)
    change = change_of(flat_names(state), str(folder / DIFFUSERS_FILE))
    _check_header(header, change, folder / DIFFUSERS_FILE)
    change = trimmed(change)
    return Adapter(folder, receipt, without_zeros(change), zeros_of(change))


def _check_file(folder: Path, name: str, digest: str) -> None:
    path = folder / name
    # The report may stay behind when an adapter is published; the rest may not.
    if name.startswith("report/") and not path.exists():
        return
    try:
        present = file_digest(path)
    except BadInput:
        raise
    except OSError as error:
        raise BadInput(
            f"{str(folder)!r} lacks {name!r}, which its receipt lists; download the adapter again"
        ) from error
    if present != digest:
        raise BadInput(
            f"{str(path)!r} is not what the receipt says (SHA-256 differs): truncated or changed; "
            "download the adapter again"
        )


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors by name and the header's metadata of a safetensors file.

    Raises:
        BadInput: it is none, or damaged.
    """
    with _opened(path) as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118


def read_header(path: Path) -> dict[str, str]:
    """The header alone."""
    with _opened(path) as file:
        return file.metadata() or {}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safetensors.safe_open(str(require_regular(path, _LARGEST)), framework="pt") as file:
            yield file
    except BadInput:
        raise
    except (
        OSError,
        ValueError,
        TypeError,
        AttributeError,
        RuntimeError,
        safetensors.SafetensorError,
    ) as error:
        raise BadInput(
            pointer_advice(path) or f"cannot read {str(path)!r}: {str(error)[:200]}; download it again"
        ) from error


def _check_header(header: Mapping[str, str], change: Change, path: Path) -> None:
    """Stock diffusers scales by what the header says, so it must say that nothing is scaled."""
    try:
        settings = from_json(header["lora_adapter_metadata"])
    except (KeyError, ValueError) as error:
        raise BadInput(
            f"{str(path)!r} has no lora_adapter_metadata in its header; make or download the adapter again"
        ) from error
    if settings != json.loads(diffusers_header(change)["lora_adapter_metadata"]):
        raise BadInput(
            f"{str(path)!r}: the header states other ranks, scales or layers than the weights have; "
            "download the adapter again"
        )


def weights_digest(adapter: Adapter) -> str:
    """SHA-256 of the adapter's weights file, as its receipt states it and ``read_adapter`` checked it."""
    return adapter.receipt.files[DIFFUSERS_FILE]


def file_digest(path: Path) -> str:
    """SHA-256 of a file, read piece by piece."""
    with opened(path, _LARGEST) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
