"""What a contender made, kept in a file: an adapter's factors, or what a baseline changed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from piu_lora.adapter import Change, disk_errors, write_file
from piu_lora.errors import BadInput
from piu_lora.jobs.arena.contender import Contender
from piu_lora.jobs.arena.making import Made
from piu_lora.model.factors import change_of, state_of
from piu_lora.writing import make_folder

__all__ = ["FORMAT", "Artefact", "artefact_path", "keep_artefact", "open_artefact"]

FORMAT = "piu_lora.artefact/1"


@dataclass(frozen=True)
class Artefact:
    """A kept artefact: either ``change`` is an adapter's, or ``difference`` is of ``component``'s tensors.

    Attributes:
        variant, person, seed: of the cell that it belongs to.
    """

    variant: str
    person: int
    seed: int
    change: Change | None = None
    component: str = ""
    difference: Mapping[str, torch.Tensor] | None = None


def artefact_path(folder: Path, variant: str, person: int, seed: int) -> Path:
    """Where the artefact of a cell is kept."""
    name = "".join(letter if letter.isalnum() or letter in ".-=_" else "_" for letter in variant)
    return folder / f"{name}-{person:03d}-{seed}.safetensors"


def keep_artefact(folder: Path, contender: Contender, person: int, seed: int, made: Made) -> Path | None:
    """Write what was made, at a weight of 1; contenders that differ in their weight share a file.

    Returns:
        The file; None where nothing was made.

    Raises:
        EnvironmentProblem: the folder cannot be written.
    """
    if made.change is not None:
        tensors, kind = state_of(made.change), "adapter"
    elif made.difference is not None:
        tensors, kind = dict(made.difference), "difference"
    else:
        return None
    variant = contender.plain.name
    header = {
        "format": FORMAT,
        "kind": kind,
        "component": made.component,
        "cell": json.dumps([variant, person, seed]),
    }
    path = artefact_path(folder, variant, person, seed)
    with disk_errors(f"an artefact to {str(folder)!r}"):
        make_folder(folder)
        write_file(path, save({name: value.contiguous() for name, value in tensors.items()}, header))
    return path


def open_artefact(path: Path) -> Artefact:
    """Read a kept artefact.

    Raises:
        BadInput: it is none, or a damaged one.
    """
    try:
        with safe_open(path, "pt") as file:
            header: dict[str, Any] = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise BadInput(
                    f"{str(path)!r} is no artefact of an arena; `piu-lora compare --keep` writes them"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        variant, person, seed = json.loads(header["cell"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"the artefact {str(path)!r} cannot be read: {error}; run its cell again with --keep"
        ) from error
    if header["kind"] == "adapter":
        return Artefact(variant, person, seed, change_of(tensors, str(path)))
    return Artefact(variant, person, seed, None, header["component"], tensors)
