"""Models whose weights accelerate keeps elsewhere, tensor by tensor (``enable_sequential_cpu_offload``)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from piu_lora.errors import Incompatible

__all__ = ["is_offloaded", "stored_value", "whole"]


def _hooks(module: torch.nn.Module) -> list[Any]:
    """Accelerate's hooks of one module; several stand in one that holds them."""
    hook = getattr(module, "_hf_hook", None)
    return [] if hook is None else list(getattr(hook, "hooks", [hook]))


def _offloading(model: torch.nn.Module) -> Any:
    """The first hook that takes weights away; None where they are all in the model."""
    hooks = (hook for module in model.modules() for hook in _hooks(module))
    return next((hook for hook in hooks if getattr(hook, "offload", False) is True), None)


def is_offloaded(model: object) -> bool:
    """Whether weights of a model are offloaded tensor by tensor."""
    return isinstance(model, torch.nn.Module) and _offloading(model) is not None


def stored_value(module: torch.nn.Module, name: str, value: torch.Tensor) -> torch.Tensor:
    """A parameter of a module with its data, from wherever accelerate keeps it.

    Args:
        name: of the parameter in its module.
        value: the parameter, which holds no data while the module waits elsewhere; same shape as the result.

    Raises:
        Incompatible: it is kept nowhere.
    """
    if not value.is_meta:
        return value
    maps = (getattr(hook, "weights_map", None) for hook in _hooks(module))
    weights_map = next((entries for entries in maps if entries is not None), None)
    if weights_map is None:
        raise Incompatible(
            "the weights of this pipeline are not loaded (device meta), and nothing says where they are; "
            "load the base whole, or offload it with pipe.enable_sequential_cpu_offload()"
        )
    stored: torch.Tensor = weights_map[name]
    return stored


@contextmanager
def whole(model: torch.nn.Module) -> Iterator[None]:
    """While open, the model has all of its weights; afterwards it is offloaded as before."""
    hook = _offloading(model)
    if hook is None:
        yield
        return
    from accelerate import cpu_offload
    from accelerate.hooks import remove_hook_from_module

    remove_hook_from_module(model, recurse=True)
    try:
        yield
    finally:
        cpu_offload(model, hook.execution_device, offload_buffers=len(model._parameters) > 0)
