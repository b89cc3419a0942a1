"""What one layer of the text encoder reads and writes, for rows of tokens."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import CLIPTextModel

from piu_lora.errors import BadInput

__all__ = ["Streams", "find_layer", "record_layer"]


@dataclass(frozen=True)
class Streams:
    """What was recorded of a layer.

    Attributes:
        inputs: (n, length, hidden) of its MLP.
        outputs: (n, length, hidden) of the layer.
        squares: (width,) mean square of every neuron's activation, over rows and positions.
    """

    inputs: torch.Tensor
    outputs: torch.Tensor
    squares: torch.Tensor

    def at(self, positions: torch.Tensor) -> torch.Tensor:
        """(n, hidden) inputs, each row's at a position of its own."""
        return self.inputs[torch.arange(len(positions)), positions]


class _Recorded(Exception):
    """Ends a pass through the encoder behind the layer that is recorded."""


def find_layer(text_encoder: CLIPTextModel, layer: int, setting: str) -> tuple[str, torch.nn.Module]:
    """A layer's name without component, and the layer; negative numbers count from the last.

    Raises:
        BadInput: the encoder has no such layer.
    """
    names = [
        name for name, _ in text_encoder.named_modules() if name.rpartition(".")[0].endswith("encoder.layers")
    ]
    if not -len(names) <= layer < len(names):
        raise BadInput(
            f"{setting} = {layer}, and the text encoder has {len(names)} layers; choose one of them"
        )
    return names[layer], text_encoder.get_submodule(names[layer])


@torch.no_grad()
def record_layer(
    layer: torch.nn.Module,
    encode: Callable[[torch.Tensor, torch.Tensor], object],
    rows: torch.Tensor,
    tokens: torch.Tensor,
    batch: int = 256,
) -> Streams:
    """Run rows through ``encode`` as far as the layer, and keep what it reads and writes.

    Args:
        encode: runs the encoder that holds the layer on some rows and their tokens.
        rows: embeddings (n, d).
        tokens: (n, length).
    """
    inputs: list[torch.Tensor] = []
    outputs: list[torch.Tensor] = []
    squares: list[torch.Tensor] = []

    def read(_module: object, arguments: tuple[torch.Tensor, ...]) -> None:
        inputs.append(arguments[0].detach().float().cpu())

    def activate(_module: object, arguments: tuple[torch.Tensor, ...]) -> None:
        squares.append(arguments[0].detach().double().square().flatten(0, -2).sum(dim=0).cpu())

    def write(_module: object, _arguments: object, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
        stream = output[0] if isinstance(output, tuple) else output
        outputs.append(stream.detach().float().cpu())
        raise _Recorded

    handles = [
        layer.get_submodule("mlp.fc1").register_forward_pre_hook(read),
        layer.get_submodule("mlp.fc2").register_forward_pre_hook(activate),
        layer.register_forward_hook(write),
    ]
    try:
        for some_rows, some_tokens in zip(rows.split(batch), tokens.split(batch), strict=True):
            try:
                encode(some_rows, some_tokens)
            except _Recorded:
                continue
    finally:
        for handle in handles:
            handle.remove()
    read_by_layer = torch.cat(inputs)
    count = read_by_layer.shape[0] * read_by_layer.shape[1]
    return Streams(read_by_layer, torch.cat(outputs), torch.stack(squares).sum(dim=0) / count)
