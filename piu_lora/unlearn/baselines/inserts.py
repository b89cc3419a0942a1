"""Parts that a baseline adds to a model instead of changing its weights: a map of the identity's embedding,
and a gate on the condition. They are modules with buffers, so that a state dict holds them.
"""

from collections.abc import Mapping
from typing import Any

import torch

__all__ = ["INSERTS", "ConditionGate", "EmbeddingAdapter", "insert", "insert_stored"]


class EmbeddingAdapter(torch.nn.Module):
    """``e + up (down e)`` for the embedding e at the identity token of a CLIP text encoder.

    Args:
        down, up: (rank, d) and (d, rank).
        token: (1,) id of the identity token.
    """

    down: torch.Tensor
    up: torch.Tensor
    token: torch.Tensor

    def __init__(self, down: torch.Tensor, up: torch.Tensor, token: torch.Tensor) -> None:
        super().__init__()
        for name, value in {"down": down, "up": up, "token": token}.items():
            self.register_buffer(name, value)

    def hook(self, model: torch.nn.Module) -> None:
        """Work in a text encoder from now on."""
        layer = next(module for module in model.modules() if hasattr(module, "position_embedding"))
        layer.register_forward_hook(self._mapped, with_kwargs=True)

    def _mapped(
        self, layer: Any, inputs: tuple[Any, ...], named: dict[str, Any], output: torch.Tensor
    ) -> torch.Tensor:
        tokens = named.get("input_ids", inputs[0] if inputs else None)
        if tokens is None:
            return output
        width = self.down.shape[1]
        positions = layer.position_embedding.weight[: output.shape[1], :width]
        own = (output[..., :width] - positions).to(self.down)
        change = own @ self.down.T @ self.up.T
        change = torch.nn.functional.pad(change, (0, output.shape[-1] - width)).to(output)
        return torch.where((tokens == self.token)[..., None], output + change, output)


class ConditionGate(torch.nn.Module):
    """Replaces the tokens of a condition that a gate takes for the person's, before the UNet sees them.

    ``x' = (1 - s) x + s (bias + degen (update (x - centre)))`` with ``s = sigmoid(slope (|gate (x -
    origin)|^2 / |x - origin|^2 - threshold))``.

    Args:
        parts: ``gate`` (g, hidden), ``origin``, ``centre`` and ``bias`` (hidden,), ``update`` (r, hidden),
            ``degen`` (hidden, r), ``threshold`` and ``slope`` (1,).
    """

    gate: torch.Tensor
    origin: torch.Tensor
    centre: torch.Tensor
    bias: torch.Tensor
    update: torch.Tensor
    degen: torch.Tensor
    threshold: torch.Tensor
    slope: torch.Tensor

    def __init__(self, **parts: torch.Tensor) -> None:
        super().__init__()
        for name, value in parts.items():
            self.register_buffer(name, value)

    def forward(self, condition: torch.Tensor) -> torch.Tensor:
        """(n, length, hidden) to the same."""
        x = condition.to(self.bias)
        offset = x - self.origin
        read = (offset @ self.gate.T).square().sum(dim=-1) / offset.square().sum(dim=-1).clamp_min(1e-12)
        opened = torch.sigmoid(self.slope * (read - self.threshold))[..., None]
        written = self.bias + (x - self.centre) @ self.update.T @ self.degen.T
        return ((1 - opened) * x + opened * written).to(condition)

    def hook(self, model: torch.nn.Module) -> None:
        """Work in a UNet from now on."""
        model.register_forward_pre_hook(self._gated, with_kwargs=True)

    def _gated(
        self, _model: Any, inputs: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if "encoder_hidden_states" in named:
            return inputs, named | {"encoder_hidden_states": self(named["encoder_hidden_states"])}
        return (*inputs[:2], self(inputs[2]), *inputs[3:]), named


INSERTS: dict[str, type[torch.nn.Module]] = {
    "embedding_adapter": EmbeddingAdapter,
    "condition_gate": ConditionGate,
}


def insert(model: torch.nn.Module, name: str, parts: Mapping[str, torch.Tensor]) -> None:
    """Put one of ``INSERTS`` into a model, on the model's device."""
    device = next(model.parameters()).device
    module: Any = INSERTS[name](**{key: value.to(device) for key, value in parts.items()})
    model.add_module(name, module)
    module.hook(model)


def insert_stored(model: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Put in again what a state dict holds of ``INSERTS``."""
    for name in INSERTS:
        prefix = f"{name}."
        parts = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if parts:
            insert(model, name, parts)
