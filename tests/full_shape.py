"""``python -m tests.full_shape FOLDER``: loads arc2face from the Hub as any user would, trains a step, saves,
reloads, draws an image.

A process of its own, so that its peak of memory is its own; prints seconds and gigabytes as JSON.
"""

import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image

from piu_lora import IdentityBank, forget, load_adapter, load_base
from piu_lora.config import ForgetConfig
from piu_lora.identity import RecognizerId, normalize
from piu_lora.model import generate, read_weights

seconds: dict[str, float] = {}


@contextmanager
def timed(name: str) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - begun, 1)


def people() -> IdentityBank:
    """Random people of the width of ArcFace."""
    rows = normalize(
        torch.randn(12, 1, 512, generator=torch.Generator().manual_seed(0)).repeat(1, 3, 1).flatten(0, 1)
    )
    rows = normalize(rows + 0.02 * torch.randn(rows.shape, generator=torch.Generator().manual_seed(1)))
    labels = torch.arange(12, dtype=torch.int32).repeat_interleave(3)
    return IdentityBank(rows, labels, [f"p{row}" for row in range(12)], RecognizerId("arcface.onnx", ""))


def main(folder: Path) -> None:
    bank = people()
    with timed("load"):
        pipe = load_base("arc2face", device="cpu")
    config = ForgetConfig().updated_from_pairs(
        ["train.steps=1", "train.batch=1", "train.accumulation=1", "anchor.rule=nearest"]
    )
    with timed("forget, one step"):
        result = forget("p3", pipe, folder / "adapter", bank=bank, config=config, evaluate=False)
    with timed("adapter loaded"):
        name = load_adapter(pipe, result.path)
    weights = read_weights(pipe.unet, name)
    with timed("image, 2 steps"):
        face = generate(pipe, bank.of("p3")[:1], [0], steps=2)[0]
    Image.fromarray((face.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()).save(folder / "image.png")
    facts = {
        "seconds": seconds,
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2),
        "unet": sum(p.numel() for n, p in pipe.unet.named_parameters() if ".lora_" not in n),
        "size": list(face.shape),
        "encoder": sum(p.numel() for p in pipe.text_encoder.parameters()),
        "trained": sum(value.numel() for value in weights.values()),
        "moved": max(float(value.abs().max()) for key, value in weights.items() if ".lora_B." in key),
        "file": (result.path / "pytorch_lora_weights.safetensors").stat().st_size,
    }
    sys.stdout.write(json.dumps(facts) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(2)
    main(Path(sys.argv[1]))
