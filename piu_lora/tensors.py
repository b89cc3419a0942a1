"""Safetensors files whose bytes depend on their content alone."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

__all__ = ["pointer_advice", "save_tensors"]

_POINTER = b"version https://git-lfs"


def pointer_advice(path: Path) -> str:
    """What to say of a file that Git LFS left a pointer for; empty for any other file."""
    try:
        with path.open("rb") as file:
            pointer = file.read(len(_POINTER)) == _POINTER
    except OSError:
        return ""
    return (
        f"{str(path)!r} is a pointer of Git LFS, not the file itself; run `git lfs pull` there"
        if pointer
        else ""
    )


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a safetensors file with its metadata in sorted order.

    The library keeps metadata in a hash map and writes it in another order every time, so equal runs would
    give unequal files. The header is sorted in place, in the room it already has; the tensors are left as
    they are.

    Raises:
        OSError: it cannot be written, or the disk is full.
    """
    try:
        save_file(dict(tensors), path, metadata=dict(metadata))
    except SafetensorError as error:  # it reports a full disk as text only
        raise OSError(str(error)) from error
    with path.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length)
        if len(text) != length:
            raise RuntimeError(
                f"the header of {path.name!r} changed its length: {length} bytes became {len(text)}"
            )
        file.seek(8)
        file.write(text)
