"""Weights that PyTorch pickled: read without running anything."""

import pickle
from pathlib import Path
from typing import Any

import torch

from piu_lora.errors import BadInput
from piu_lora.foreign import require_regular
from piu_lora.tensors import pointer_advice

__all__ = ["load_pickle"]


def load_pickle(path: Path, refusal: str, *, mmap: bool = False) -> Any:
    """What a pickle of plain tensors holds, on the CPU.

    Args:
        refusal: what is said of a file that holds anything else, after its name.
        mmap: leave the tensors on the disk until they are used.

    Raises:
        BadInput: no regular file, a pointer of Git LFS, damaged, or more than tensors.
    """
    try:
        return torch.load(require_regular(path), map_location="cpu", weights_only=True, mmap=mmap)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise BadInput(pointer_advice(path) or f"{str(path)!r} {refusal}") from error
