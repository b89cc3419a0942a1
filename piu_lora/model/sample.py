"""Generating faces with the stock pipeline."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from diffusers import StableDiffusionPipeline

from piu_lora.model.condition import encode_embeddings, encode_empty
from piu_lora.model.family import Prompt, stated_family
from piu_lora.model.half import products_in_float32
from piu_lora.threads import limited

__all__ = ["generate", "sampling"]


@contextmanager
def sampling(pipe: StableDiffusionPipeline) -> Iterator[None]:
    """While open, a processor samples from ``pipe`` by the threads and the arithmetic that it is best at."""
    if pipe.device.type != "cpu":
        yield
        return
    family = stated_family(pipe.text_encoder)
    # Every call of torch would pass through the other arithmetic: only where it is needed.
    arithmetic = products_in_float32() if pipe.unet.dtype == torch.bfloat16 else nullcontext()
    with limited(family.threads if family is not None else 0), arithmetic:
        yield


@torch.no_grad()
def generate(
    pipe: StableDiffusionPipeline,
    embeddings: torch.Tensor,
    seeds: Sequence[int],
    *,
    steps: int = 25,
    guidance: float = 3.0,
    batch: int = 16,
    progress: Callable[[int], None] | None = None,
    prompt: Prompt | None = None,
) -> torch.Tensor:
    """Generate one face for each embedding.

    Args:
        embeddings: (n, d) unit-norm ArcFace vectors.
        seeds: n seeds of the initial noise, drawn on the CPU so that they mean the same on every device.
        steps: denoising steps.
        guidance: classifier-free guidance scale against the empty prompt.
        batch: images at once.
        progress: called with the number of images done after each batch.
        prompt: carries the identity; that of the base's family by default.

    Returns:
        (n, 3, h, w) float32 RGB in [0, 1], on the CPU.
    """
    conditions = encode_embeddings(pipe.text_encoder, pipe.tokenizer, embeddings, prompt)
    empty = encode_empty(pipe.text_encoder, pipe.tokenizer)
    pictures = []
    for start in range(0, len(seeds), batch):
        chunk = conditions[start : start + batch]
        noise = [torch.Generator().manual_seed(seed) for seed in seeds[start : start + batch]]
        with sampling(pipe):
            result = pipe(
                prompt_embeds=chunk,
                negative_prompt_embeds=empty.expand(len(chunk), -1, -1),
                generator=noise,
                num_inference_steps=steps,
                guidance_scale=guidance,
                output_type="pt",
            )
        pictures.append(result.images.float().cpu())
        if progress is not None:
            progress(len(chunk))
    return torch.cat(pictures)
