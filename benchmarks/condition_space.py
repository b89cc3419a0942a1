"""Forgetting judged in condition space: a text encoder of the right kind, and a decoder from its conditions
back to embeddings.

No image is made. The encoder has random weights (a fixed seed), wide enough for real embeddings; the decoder
is a ridge regression, calibrated on people of the tuning half under the untouched encoder. An image model
reads no more of a person than the condition holds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from diffusers import StableDiffusionPipeline
from torch.nn.functional import normalize

from benchmarks.real_faces import RealFaces
from piu_lora.identity import IdentityBank, RecognizerId
from piu_lora.model import Prompt, encode_embeddings, identity_position, prompt_of
from piu_lora.model.factors import Factors
from piu_lora.model.mini.generator import build_tokenizer
from piu_lora.model.mini.untrained import assembled, autoencoder_of, text_encoder_of, unet_of
from piu_lora.unlearn.closed.encoder import edited

__all__ = ["Decoder", "bank_of", "random_pipeline"]

RECOGNIZER = RecognizerId("real-faces", "")
_HIDDEN, _LAYERS, _HEADS, _POSITIONS = 520, 3, 8, 8


def random_pipeline(
    seed: int = 0, layers: int = _LAYERS, hidden: int = _HIDDEN, width: int = 512
) -> StableDiffusionPipeline:
    """A pipeline whose text encoder takes embeddings of ``width`` and has random weights; its UNet only has
    keys and values.
    """
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    encoder = text_encoder_of(
        tokenizer, hidden, layers, _HEADS, intermediate_size=4 * hidden, max_position_embeddings=_POSITIONS
    ).eval()
    sizes = {"sample_size": 8, "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 2}
    unet = unet_of((8, 8, 16, 16), hidden, **sizes).eval()
    vae = autoencoder_of((8, 8, 8, 8), norm_num_groups=4, sample_size=64)
    return assembled(vae, unet, encoder, tokenizer)


def bank_of(faces: RealFaces, people: torch.Tensor) -> IdentityBank:
    """A bank of some of the people, their photographs as they are."""
    keep = torch.isin(faces.labels, people)
    labels = torch.searchsorted(people, faces.labels[keep])
    return IdentityBank(
        faces.embeddings[keep], labels.to(torch.int32), [faces.ids[p] for p in people.tolist()], RECOGNIZER
    )


@dataclass(frozen=True)
class Decoder:
    """``e = W [c(first); ...; c(last)] + b``, a ridge regression from the positions that carry the identity.

    Attributes:
        cosine: of decoded embeddings with the true ones, mean over people who were not fitted.
    """

    pipe: StableDiffusionPipeline
    weight: torch.Tensor
    cosine: float

    @classmethod
    def calibrated(
        cls, pipe: StableDiffusionPipeline, embeddings: torch.Tensor, ridge: float = 1e-4
    ) -> "Decoder":
        """On the untouched encoder; a fifth of the embeddings tells how well."""
        fitted = len(embeddings) * 4 // 5
        rows = _flat(pipe, embeddings, None, None).double()
        system = rows[:fitted].T @ rows[:fitted]
        system.diagonal().add_(ridge * system.diagonal().mean())
        weight = torch.linalg.solve(system, rows[:fitted].T @ embeddings[:fitted].double()).float()
        decoded = normalize(rows[fitted:].float() @ weight, dim=1)
        return cls(pipe, weight, float((decoded * embeddings[fitted:]).sum(dim=1).mean()))

    @torch.no_grad()
    def encode(self, embeddings: torch.Tensor) -> torch.Tensor:
        """(n, length, hidden) conditions of the untouched encoder."""
        return encode_embeddings(self.pipe.text_encoder, self.pipe.tokenizer, embeddings)

    def read(
        self,
        embeddings: torch.Tensor,
        change: Mapping[str, Factors] | None = None,
        prompt: Prompt | None = None,
    ) -> torch.Tensor:
        """(n, d) unit embeddings that conditions of the (changed) encoder hold."""
        return normalize(_flat(self.pipe, embeddings, change, prompt) @ self.weight, dim=1)


@torch.no_grad()
def _flat(
    pipe: StableDiffusionPipeline,
    embeddings: torch.Tensor,
    change: Mapping[str, Factors] | None,
    prompt: Prompt | None,
) -> torch.Tensor:
    first = identity_position(pipe.tokenizer, prompt or prompt_of(pipe.text_encoder))

    def encoded(chunks: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.cat(
            [
                encode_embeddings(pipe.text_encoder, pipe.tokenizer, some, prompt)[:, first:].flatten(1)
                for some in chunks
            ]
        )

    with edited(pipe.text_encoder, change or {}):
        flat = encoded(embeddings.split(512))
    return torch.cat([flat, torch.ones(len(flat), 1)], dim=1)
