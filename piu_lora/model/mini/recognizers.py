"""Two face recognizers for rendered faces, trained with the ArcFace loss (arXiv 1801.07698).

``conditioning`` plays the part of Arc2Face's recognizer: its embeddings condition the generator.
``evaluating`` has another architecture, another input size, another seed, and never meets the generator: it
only scores.
"""

from pathlib import Path

import torch
from torch import nn

from piu_lora.model.mini.dataset import TRAIN_IDENTITIES, TRAIN_SEED, open_training_set, people, to_unit
from piu_lora.model.mini.training import FitSettings, fit, rank_and_world

__all__ = ["RECOGNIZERS", "Recognizer", "export_onnx", "train_recognizer"]


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.PReLU(outputs)
    )


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv(width, width), nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.body(x))


class Recognizer(nn.Module):
    """A small CNN: (n, 3, size, size) RGB in [-1, 1] to (n, width) unit-norm embeddings."""

    def __init__(self, features: nn.Sequential, head: nn.Sequential, size: int, width: int) -> None:
        super().__init__()
        self.features, self.head, self.size, self.width = features, head, size, width

    def feature_map(self, faces: torch.Tensor) -> torch.Tensor:
        """The last feature map but one, for a perceptual loss."""
        result: torch.Tensor = self.features(self.fit_size(faces))
        return result

    def fit_size(self, faces: torch.Tensor) -> torch.Tensor:
        """Resize aligned faces to the input size."""
        if faces.shape[-1] == self.size:
            return faces
        return nn.functional.interpolate(faces, (self.size, self.size), mode="bilinear", antialias=True)

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(self.head(self.features(faces)), dim=1)


def _conditioning() -> Recognizer:
    """Plain strided convolutions and a global depthwise convolution, 96 px, 128-d."""
    features = nn.Sequential(
        _conv(3, 24, 2),
        _conv(24, 48, 2),
        _conv(48, 48),
        _conv(48, 96, 2),
        _conv(96, 96),
        _conv(96, 128, 2),
        _conv(128, 128),
    )
    head = nn.Sequential(
        nn.Conv2d(128, 128, 6, groups=128, bias=False), nn.BatchNorm2d(128), nn.Flatten(), nn.Linear(128, 128)
    )
    return Recognizer(features, head, size=96, width=128)


def _evaluating() -> Recognizer:
    """Residual blocks and two-way pooling, 72 px, 96-d."""
    features = nn.Sequential(
        _conv(3, 20, 2),
        _Residual(20),
        _conv(20, 40, 2),
        _Residual(40),
        _conv(40, 80, 2),
        _Residual(80),
        _conv(80, 112, 2),
    )
    head = nn.Sequential(nn.AvgPool2d(3, 2), nn.Flatten(), nn.Dropout(0.1), nn.Linear(448, 96))
    return Recognizer(features, head, size=72, width=96)


RECOGNIZERS = {"conditioning": (_conditioning, 11), "evaluating": (_evaluating, 29)}


class _ArcFace(nn.Module):
    """Additive angular margin over class prototypes: s (cos(theta_y + m)) against s cos(theta_j)."""

    def __init__(self, backbone: Recognizer, seed: int, margin: float = 0.4, scale: float = 32.0) -> None:
        super().__init__()
        self.backbone, self.margin, self.scale = backbone, margin, scale
        # A random isometry of the renderer's own parameters: from random prototypes training takes far longer
        # to start.
        who = people(TRAIN_IDENTITIES, TRAIN_SEED) - 0.5
        isometry = torch.linalg.qr(
            torch.randn(
                max(backbone.width, who.shape[1]), who.shape[1], generator=torch.Generator().manual_seed(seed)
            )
        )[0]
        self.prototypes = nn.Parameter(nn.functional.normalize(who @ isometry[: backbone.width].T, dim=1))

    def forward(self, faces: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            raw = self.backbone.head(self.backbone.features(self.backbone.fit_size(faces)))
        embedding = nn.functional.normalize(raw.float(), dim=1)
        cosine = embedding @ nn.functional.normalize(self.prototypes, dim=1).T
        true_cosine = cosine.gather(1, labels[:, None]).clamp(-0.9999, 0.9999)
        moved = torch.cos(torch.acos(true_cosine) + self.margin)
        logits = self.scale * cosine.scatter(1, labels[:, None], moved)
        return nn.functional.cross_entropy(logits, labels), true_cosine.mean()


def train_recognizer(name: str, folder: Path, steps: int, batch: int = 128) -> Recognizer:
    """Train one of ``RECOGNIZERS`` on the rendered set in ``folder``."""
    build, seed = RECOGNIZERS[name]
    torch.manual_seed(seed)
    model = _ArcFace(build(), seed)
    faces = open_training_set(folder)
    share = batch // rank_and_world()[1]

    def step(generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        labels = torch.randint(len(faces), (share,), generator=generator)
        shots = torch.randint(faces.shape[1], (share,), generator=generator)
        pictures = to_unit(faces[labels.numpy(), shots.numpy()])
        loss, true_cosine = model(pictures, labels)
        return loss, {"loss": float(loss.detach()), "own": float(true_cosine.detach())}

    settings = FitSettings(steps=steps, lr=2e-3, seed=seed, ema=0.995, weight_decay=5e-4)
    fit(name, model, step, folder, settings)
    return model.backbone.eval()


def load_recognizer(name: str, folder: Path) -> Recognizer:
    """The trained recognizer of ``folder``, for the losses of the other pieces."""
    build, _ = RECOGNIZERS[name]
    backbone = build()
    state = torch.load(folder / f"{name}.pt", weights_only=True)["average"]
    weights = {
        key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")
    }
    backbone.load_state_dict(
        {key: weights[key].to(value.dtype) for key, value in backbone.state_dict().items()}
    )
    return backbone.eval().requires_grad_(False)


def export_onnx(recognizer: Recognizer, path: Path) -> None:
    """Write the recognizer with the contract of a real one: input (n, 3, s, s) RGB in [-1, 1], output
    unit-norm (n, d).
    """
    example = torch.zeros(2, 3, recognizer.size, recognizer.size)
    temporary = path.with_suffix(".tmp.onnx")
    torch.onnx.export(
        recognizer.eval(),
        (example,),
        str(temporary),
        input_names=["faces"],
        output_names=["embeddings"],
        dynamic_axes={"faces": {0: "n"}, "embeddings": {0: "n"}},
        opset_version=17,
        dynamo=False,
    )
    _halve_weights(temporary)
    temporary.replace(path)


def _halve_weights(path: Path) -> None:
    """Store the large weights in fp16 and cast them on loading: half the size, computed in fp32 as before."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(str(path))
    casts = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < 1000:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    for node in reversed(casts):
        model.graph.node.insert(0, node)
    onnx.save(model, str(path))
