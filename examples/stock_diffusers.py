"""Use an adapter with nothing but diffusers: no piu_lora anywhere.

    python examples/stock_diffusers.py "$(python -m piu_lora.model.mini path)" ADAPTER EMBEDDING.npy OUT.png

EMBEDDING.npy holds one unit-norm ArcFace vector, (d,) or (n, d): ``piu-lora bank export ID --out
EMBEDDING.npy``.
"""

import sys

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline


def encode(pipe: StableDiffusionPipeline, embedding: torch.Tensor) -> torch.Tensor:
    """Arc2Face's condition: the ArcFace vector, zero-padded, in place of the token ``id``."""
    tokens = pipe.tokenizer(
        "photo of a id person",
        padding="max_length",
        max_length=pipe.tokenizer.model_max_length,
        return_tensors="pt",
    ).input_ids
    token = pipe.tokenizer.encode("id", add_special_tokens=False)[0]
    table = pipe.text_encoder.get_input_embeddings()
    vector = torch.nn.functional.pad(embedding, (0, table.weight.shape[1] - len(embedding)))
    hook = table.register_forward_hook(
        lambda module, inputs, output: torch.where((tokens == token)[..., None], vector, output)
    )
    try:
        return pipe.text_encoder(tokens)[0]
    finally:
        hook.remove()


@torch.no_grad()
def main(base: str, adapter: str, embedding: str, out: str) -> None:
    """Generate one face with the adapter loaded."""
    pipe = StableDiffusionPipeline.from_pretrained(base, safety_checker=None, requires_safety_checker=False)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    pipe.load_lora_weights(adapter, weight_name="pytorch_lora_weights.safetensors")
    vector = torch.from_numpy(np.atleast_2d(np.load(embedding))[0]).float()
    picture = pipe(
        prompt_embeds=encode(pipe, vector),
        negative_prompt="",
        num_inference_steps=15,
        guidance_scale=3.0,
        generator=[torch.Generator().manual_seed(0)],
    ).images[0]
    picture.save(out)


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
