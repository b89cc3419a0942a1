"""A base family of test size: another embedding width, another prompt, and adapters in the UNet only."""

import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import torch
from diffusers import StableDiffusionPipeline

from piu_lora.identity import IdentityBank, RecognizerId, normalize
from piu_lora.identity.pictures import read_picture
from piu_lora.model.family import UNET_LAYERS, BaseFamily, Companions, Prompt, register
from piu_lora.model.mini.generator import build_tokenizer
from piu_lora.model.mini.untrained import assembled, autoencoder_of, text_encoder_of, unet_of

WIDTH, PEOPLE, PHOTOGRAPHS = 24, 150, 6
RECOGNIZER = RecognizerId("small.onnx", "ab" * 32)


class Reader:
    """A recognizer that is a fixed random projection of the pixels."""

    id = RECOGNIZER

    def read(self, path: Path) -> Sequence[SimpleNamespace]:
        """The one face of a photograph, which is all of it."""
        picture = torch.from_numpy(read_picture(path)).permute(2, 0, 1)[None].float() / 255
        return [SimpleNamespace(embedding=self.embed(picture)[0])]

    def embed(self, faces: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) RGB in [0, 1] to (n, 24) unit rows."""
        pixels = torch.nn.functional.adaptive_avg_pool2d(faces, 8).flatten(1)
        directions = torch.randn(pixels.shape[1], WIDTH, generator=torch.Generator().manual_seed(1))
        return normalize((pixels - pixels.mean(dim=1, keepdim=True)) @ directions)


@cache
def bank() -> IdentityBank:
    """People who are random directions, each photographed a few times."""
    generator = torch.Generator().manual_seed(2)
    centres = torch.randn(PEOPLE, 1, WIDTH, generator=generator)
    rows = centres + 0.3 * torch.randn(PEOPLE, PHOTOGRAPHS, WIDTH, generator=generator)
    labels = torch.arange(PEOPLE, dtype=torch.int32).repeat_interleave(PHOTOGRAPHS)
    ids = [f"small-{row:03d}" for row in range(PEOPLE)]
    return IdentityBank(normalize(rows.flatten(0, 1)), labels, ids, RECOGNIZER)


def pipeline() -> StableDiffusionPipeline:
    """An untrained base that says nothing of its family: two levels, cross-attention in the upper one."""
    torch.manual_seed(3)
    tokenizer = build_tokenizer()
    encoder = text_encoder_of(tokenizer, 40, 1, 2, intermediate_size=32)
    sizes = {"sample_size": 8, "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 2}
    unet = unet_of((8, 16), 40, **sizes)
    vae = autoencoder_of((8, 8), norm_num_groups=4, sample_size=16)
    pipe = assembled(vae.eval(), unet.eval(), encoder.eval(), tokenizer)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@cache
def folder() -> Path:
    """The same base in the layout of diffusers, for ``load_base("small")``."""
    path = Path(tempfile.mkdtemp(prefix="small-base-"))
    pipeline().save_pretrained(path)
    return path


FAMILY = register(
    BaseFamily(
        name="small",
        label="a base of test size",
        embedding_width=WIDTH,
        prompt=Prompt("x of a person", "x"),
        components={"unet": UNET_LAYERS},
        shape={"unet.cross_attention_dim": 40, "unet.block_out_channels": [8, 16]},
        presets={
            "": {
                "anchor": {"rule": "nearest"},
                "lora": {"rank": 2, "blocks": ["down_blocks.0", "mid_block", "up_blocks.1"]},
                "train": {"steps": 2, "batch": 2, "accumulation": 1, "lr": 1e-3},
                "evaluation": {"forget_images": 2, "retain_images": 2, "nearest": 1, "steps": 2},
            },
            "closed-kv": {"closed": {"retained": 64, "near": 16, "mixtures": 4}},
        },
        audit={"steps": 2, "batch": 4},
        folder=folder,
        companions=Companions(bank, Reader),
        real_people=False,
    )
)
