"""What autograd keeps for the backward pass, with attention kept as fused kernels keep it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import UNet2DConditionModel

__all__ = ["fused", "kept_tensors"]


class _Fused(torch.autograd.Function):
    """Attention as a fused kernel keeps it: query, key, value, result and one number a row; the meta device
    would keep the products.
    """

    @staticmethod
    def forward(context: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        result = torch.empty_like(query)
        context.save_for_backward(
            query, key, value, result, query.new_empty(query.shape[:-1], dtype=torch.float32)
        )
        return result


def fused(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **_options: Any) -> torch.Tensor:
    """Attention that keeps what a fused kernel keeps."""
    result: torch.Tensor = _Fused.apply(query, key, value)
    return result


@contextmanager
def kept_tensors(unet: UNet2DConditionModel, sizes: dict[Any, int]) -> Iterator[None]:
    """While open, notes every storage that autograd keeps, the weights apart."""
    weights = {parameter.untyped_storage()._cdata for parameter in unet.parameters()}
    alive = []  # a storage that is freed could give its address to the next one

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            sizes[storage._cdata] = storage.nbytes()
            alive.append(storage)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield
