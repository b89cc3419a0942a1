"""A device beside the CPU that any machine has: its tensors live in ordinary memory, and whatever mixes them
with the CPU's is refused.

A GPU refuses the same. ``torch.device("away:0")`` is PyTorch's own slot for devices that are written in
Python; every kernel of it checks its arguments and runs the CPU's kernel on what they hold. It says nothing
of speed, precision or a GPU's own kernels.
"""

from functools import cache
from typing import Any

import torch
from torch.utils import backend_registration
from torch.utils._pytree import tree_flatten, tree_map

__all__ = ["AVAILABLE", "AWAY", "Away", "away"]

AVAILABLE = hasattr(backend_registration, "_setup_privateuseone_for_python_backend")  # torch 2.10 on
AWAY = "away:0"

_ATEN = torch.ops.aten
_CROSSING = {_ATEN._to_copy.default, _ATEN.copy_.default}
# Indices may lie on the CPU, on a GPU too.
_INDEXING = {
    _ATEN.index.Tensor,
    _ATEN._unsafe_index.Tensor,
    _ATEN.index_put.default,
    _ATEN.index_put_.default,
    _ATEN._index_put_impl_.default,
}
_MAKERS = {
    "_to_copy": _ATEN._to_copy.default,
    "empty.memory_format": _ATEN.empty.memory_format,
    "empty_strided": _ATEN.empty_strided.default,
}
_KEPT: list[torch.library.Library] = []  # a library that is collected takes its kernels with it


class Away(torch.Tensor):
    """A tensor of the other device: what it holds, and a wrapper that says where it is."""

    held: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "Away":
        """Wrap a CPU tensor."""
        return torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(AWAY),
        )

    def __init__(self, held: torch.Tensor) -> None:
        self.held = held

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Away({self.held})"

    @classmethod
    def __torch_dispatch__(
        cls, kernel: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _run(kernel, args, kwargs or {})


def _run(kernel: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, torch.Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, Away)]
    here = [
        tensor for tensor in tensors if not isinstance(tensor, Away) and tensor.dim()
    ]  # single numbers may cross
    if there and here and kernel not in _CROSSING | _INDEXING:
        shapes = [[tuple(tensor.shape) for tensor in side] for side in (there, here)]
        raise RuntimeError(
            f"{kernel} expects its tensors on one device; {shapes[0]} are on {AWAY}, {shapes[1]} on the CPU"
        )
    stated = kwargs.get("device")
    lands_there = bool(there) if stated is None else torch.device(stated).type == "away"
    if kernel is _ATEN.copy_.default:
        lands_there = isinstance(args[0], Away)
    plain_args, plain = tree_map(lambda leaf: leaf.held if isinstance(leaf, Away) else leaf, (args, kwargs))
    result = kernel(
        *plain_args, **({**plain, "device": torch.device("cpu")} if stated is not None else plain)
    )
    if not lands_there:
        return result
    wrapped = {
        id(tensor.held): tensor for tensor in there
    }  # kernels that work in place give back what they were given

    def landed(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        return wrapped[id(leaf)] if id(leaf) in wrapped else Away(leaf)

    return tree_map(landed, result)


@cache
def away() -> torch.device:
    """Register the device, once a process."""
    base: Any = backend_registration._DummyBackendModule

    class Module(base):  # type: ignore[misc]
        """What torch asks a device for; random numbers are the CPU's."""

        def get_rng_state(self, device: Any = None) -> torch.Tensor:
            return torch.get_rng_state()

        def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None:
            pass

        def manual_seed_all(self, seed: int) -> None:
            pass

        def _is_in_bad_fork(self) -> bool:
            return False

        def get_amp_supported_dtype(self) -> list[torch.dtype]:
            return [torch.bfloat16]

        def device_count(self) -> int:
            return 1

        def current_device(self) -> int:
            return 0

    backend_registration._setup_privateuseone_for_python_backend("away", backend_module=Module())
    anything, several = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    anything.fallback(lambda kernel, *args, **kwargs: _run(kernel, args, kwargs), "PrivateUse1")
    for name, kernel in _MAKERS.items():  # torch.tensor(..., device=...) does not find a fallback
        several.impl(name, lambda *args, kernel=kernel, **kwargs: _run(kernel, args, kwargs), "PrivateUse1")
    _KEPT.extend([anything, several])
    return torch.device(AWAY)
