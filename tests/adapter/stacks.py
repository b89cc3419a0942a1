"""Random adapters for the tiny base, and the dense change as the reference of every way to combine them."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from piu_lora.adapter import Adapter, BaseRef, Change, Factors, Receipt, read_adapter, write_adapter
from piu_lora.adapter.folder import file_digest
from piu_lora.model import attention_digest, encode_embeddings, encoder_digest
from tests.tiny import WIDTH

BLOCKS = ("down_blocks.2", "mid_block", "up_blocks.1", "up_blocks.2")


def layers(pipe: StableDiffusionPipeline, *, encoder: bool) -> dict[str, tuple[int, int]]:
    """(out, in) of the layers that adapters change."""
    found = {
        f"unet.{name}": (module.out_features, module.in_features)
        for name, module in pipe.unet.named_modules()
        if isinstance(module, torch.nn.Linear) and ".attn2." in name and name.startswith(BLOCKS)
    }
    if encoder:
        found |= {
            f"text_encoder.{name}": (module.out_features, module.in_features)
            for name, module in pipe.text_encoder.named_modules()
            if isinstance(module, torch.nn.Linear) and name.endswith(("fc2", "q_proj"))
        }
    return found


def random_change(
    pipe: StableDiffusionPipeline, seed: int, *, rank: int = 2, encoder: bool = False, every: int = 1
) -> dict[str, Factors]:
    """Random factors of mixed ranks on every ``every``-th layer; half-precision values, so that storing them
    is exact.
    """
    generator = torch.Generator().manual_seed(seed)
    change = {}
    for place, (module, (out, into)) in enumerate(sorted(layers(pipe, encoder=encoder).items())):
        if place % every == 0:
            own = rank + place % 2
            down, up = (
                torch.randn(own, into, generator=generator),
                0.1 * torch.randn(out, own, generator=generator),
            )
            change[module] = Factors(down.half().float(), up.half().float())
    return change


def write_random(
    pipe: StableDiffusionPipeline,
    folder: Path,
    seed: int,
    *,
    encoder: bool = False,
    every: int = 1,
    rank: int = 2,
) -> Adapter:
    """A complete adapter folder."""
    folder.mkdir(parents=True)
    ref = BaseRef("tiny", "tiny", attention_digest(pipe.unet), "", encoder_digest(pipe.text_encoder))
    change = random_change(pipe, seed, encoder=encoder, every=every, rank=rank)
    write_adapter(folder, change, Receipt(ref, "piu", {"seed": seed}, adapter_id=f"{seed:016x}"))
    return read_adapter(folder)


def sign(folder: Path) -> None:
    """Write a receipt that fits what lies in the folder now."""
    receipt = json.loads((folder / "forget.json").read_text())
    names = [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "forget.json"
    ]
    receipt["files"] = {name: file_digest(folder / name) for name in names}
    (folder / "forget.json").write_text(json.dumps(receipt))


@torch.no_grad()
def changed(
    pipe: StableDiffusionPipeline, changes: Sequence[Change], weights: Sequence[float]
) -> StableDiffusionPipeline:
    """A copy of the bare pipeline with the dense sum in its weights, summed in float64."""
    other = copy.copy(pipe)
    other.unet, other.text_encoder = copy.deepcopy(pipe.unet), copy.deepcopy(pipe.text_encoder)
    for change, weight in zip(changes, weights, strict=True):
        for module, factors in change.items():
            part, name = module.split(".", 1)
            layer = getattr(other, part).get_submodule(name)
            layer.weight.copy_(layer.weight.double() + weight * (factors.up.double() @ factors.down.double()))
    return other


@torch.no_grad()
def forward(pipe: StableDiffusionPipeline) -> torch.Tensor:
    """Predicted noise on conditions that come through the text encoder."""
    generator = torch.Generator().manual_seed(1)
    latents, embeddings = (
        torch.randn(2, 4, 8, 8, generator=generator),
        torch.randn(2, WIDTH, generator=generator),
    )
    dtype = pipe.unet.dtype
    condition = encode_embeddings(
        pipe.text_encoder, pipe.tokenizer, torch.nn.functional.normalize(embeddings, dim=1)
    )
    return pipe.unet(latents.to(dtype), torch.tensor([10, 700]), condition.to(dtype)).sample.float()
