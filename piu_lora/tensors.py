"""Safetensors files whose bytes depend on their content alone."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save

__all__ = ["save_tensors"]


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a safetensors file with its metadata in sorted order.

    The library keeps metadata in a hash map and writes it in another order every time, so equal runs would give unequal
    files. The header is sorted and padded to eight bytes again; the tensors are left as they are.
    """
    content = save(dict(tensors), metadata=dict(metadata))
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
