"""The conditioning recognizer as a torch module, for losses that pass gradients through it."""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from piu_lora.errors import BadInput

__all__ = ["DifferentiableRecognizer", "differentiable_recognizer"]

_WEIGHTS = Path(__file__).parent / "weights"
_NORMALISING = "ReduceL2"  # opens the tail of the exported graph that makes the rows unit-norm


class DifferentiableRecognizer(nn.Module):
    """The same function as ``identity.Recognizer.embed`` of the same file, with gradients; its own weights
    are frozen.
    """

    def __init__(self, layers: nn.Sequential, size: int) -> None:
        super().__init__()
        self.layers, self.size = layers.eval().requires_grad_(False), size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) RGB in [0, 1], any size, to (n, d) unit rows."""
        faces = images * 2 - 1
        if faces.shape[-2:] != (self.size, self.size):
            faces = nn.functional.interpolate(faces, (self.size, self.size), mode="bilinear", antialias=True)
        return nn.functional.normalize(self.layers(faces), dim=1)


@cache
def differentiable_recognizer(device: torch.device | str = "cpu") -> DifferentiableRecognizer:
    """The recognizer that conditions the embedded base, read from its ONNX file.

    Raises:
        BadInput: the file holds an operation that a plain convolutional recognizer has not.
    """
    import onnx  # comes with insightface

    graph = onnx.load(str(_WEIGHTS / "conditioning.onnx")).graph
    # Batch norms are folded into the convolutions; large weights are stored in fp16 under "<name>.half" and
    # cast.
    weights = {tensor.name.removesuffix(".half"): _array(tensor) for tensor in graph.initializer}
    layers = []
    for node in graph.node:
        if node.op_type == _NORMALISING:
            break
        if node.op_type != "Cast":
            layers.append(_layer(node, weights))
    recognizer = DifferentiableRecognizer(
        nn.Sequential(*layers), graph.input[0].type.tensor_type.shape.dim[2].dim_value
    )
    return recognizer.to(device)


def _array(tensor: Any) -> torch.Tensor:
    from onnx import numpy_helper

    return torch.from_numpy(numpy_helper.to_array(tensor).copy()).float()


def _layer(node: Any, weights: dict[str, torch.Tensor]) -> nn.Module:
    """One node of the graph as a layer."""
    values = [weights[name] for name in node.input if name in weights]
    if node.op_type == "Conv":
        return _convolution({attribute.name: attribute for attribute in node.attribute}, *values)
    if node.op_type == "PRelu":
        layer: nn.Module = nn.PReLU(values[0].numel())
        layer.weight.data = values[0].flatten()
        return layer
    if node.op_type == "Flatten":
        return nn.Flatten()
    if node.op_type == "Gemm":
        layer = nn.Linear(values[0].shape[1], values[0].shape[0])
        layer.weight.data, layer.bias.data = values
        return layer
    raise BadInput(
        f"the recognizer holds the operation {node.op_type!r}; expected convolutions, PReLU and one "
        "linear layer"
    )


def _convolution(attributes: dict[str, Any], weight: torch.Tensor, bias: torch.Tensor) -> nn.Conv2d:
    groups, padding = attributes["group"].i, attributes["pads"].ints[0]
    stride, size = attributes["strides"].ints[0], weight.shape[-1]
    layer = nn.Conv2d(weight.shape[1] * groups, weight.shape[0], size, stride, padding, groups=groups)
    layer.weight.data, layer.bias = weight, nn.Parameter(bias)
    return layer
