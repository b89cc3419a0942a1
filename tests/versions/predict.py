"""Run by the interpreter of another release: load what piu-lora wrote, predict, and say how far off it is.

Takes a folder with cases.json; every case has a base, in the layout of diffusers or of Arc2Face, perhaps a
LoRA, and the condition and the noise that are expected. Imports nothing of piu-lora.
"""

# mypy: ignore-errors
import json
import sys
import warnings
from pathlib import Path

import torch
from diffusers import LCMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import logging
from safetensors.torch import load_file
from transformers import CLIPTextModel

warnings.filterwarnings("ignore")
logging.set_verbosity_error()
PROMPT, TOKEN = "photo of a id person", "id"


class EncoderWrapper(CLIPTextModel):
    """What the wrapper class of Arc2Face does: token embeddings out, or in."""

    def forward(self, input_ids=None, input_token_embs=None, return_token_embs=False, **options):
        if return_token_embs:
            return self.text_model.embeddings.token_embedding(input_ids)
        if input_token_embs is None:
            return super().forward(input_ids, **options)
        hidden = self.text_model.embeddings(inputs_embeds=input_token_embs)
        length = hidden.shape[1]
        mask = torch.full((len(hidden), 1, length, length), torch.finfo(hidden.dtype).min).triu_(1)
        output = self.text_model.encoder(inputs_embeds=hidden, causal_attention_mask=mask)[0]
        return (self.text_model.final_layer_norm(output),)


def load(case, folder):
    base = folder / case["base"]
    if case["layout"] == "diffusers":
        encoder = load_encoder(CLIPTextModel, base, "text_encoder")
        return StableDiffusionPipeline.from_pretrained(base, text_encoder=encoder, safety_checker=None)
    # Since transformers 5.6 there is no text_model, and the wrapper of Arc2Face does not run.
    old = hasattr(CLIPTextModel(CLIPTextModel.config_class()), "text_model")
    return StableDiffusionPipeline.from_pretrained(
        folder / case["parts"],
        text_encoder=load_encoder(EncoderWrapper if old else CLIPTextModel, base, "encoder"),
        unet=UNet2DConditionModel.from_pretrained(base, subfolder="arc2face"),
        safety_checker=None,
    )


def load_encoder(kind, base, subfolder):
    encoder, report = kind.from_pretrained(base, subfolder=subfolder, output_loading_info=True)
    assert not report["missing_keys"], report["missing_keys"]
    return encoder


@torch.no_grad()
def condition_of(pipe, embeddings):
    """project_face_embs of Arc2Face; without its wrapper, with the token embeddings replaced."""
    tokenizer, encoder = pipe.tokenizer, pipe.text_encoder
    length = tokenizer.model_max_length
    encoded = tokenizer(PROMPT, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    tokens = encoded.input_ids.repeat(len(embeddings), 1)
    chosen = tokens == tokenizer.encode(TOKEN, add_special_tokens=False)[0]
    padded = torch.nn.functional.pad(embeddings, (0, encoder.config.hidden_size - embeddings.shape[1]))
    if isinstance(encoder, EncoderWrapper):
        embedded = encoder(tokens, return_token_embs=True)
        embedded[chosen] = padded
        return encoder(tokens, input_token_embs=embedded)[0]

    def replace(_module, _inputs, output):
        return torch.where(chosen[..., None], padded[:, None], output)

    hook = encoder.get_input_embeddings().register_forward_hook(replace)
    try:
        return encoder(input_ids=tokens)[0]
    finally:
        hook.remove()


@torch.no_grad()
def errors(pipe, expected, inputs):
    condition = condition_of(pipe, inputs["embeddings"])
    noise = pipe.unet(inputs["latents"], inputs["timesteps"], condition).sample
    return [
        float((condition - expected["condition"]).abs().max()),
        float((noise - expected["noise"]).abs().max()),
    ]


def demo(pipe, case, folder, expected, inputs):
    """The calls of the official demo: a second LoRA for few steps, switched off and on with its box."""
    pipe.load_lora_weights(str(folder / case["second"]))
    pipe.disable_lora()
    worst = errors(pipe, expected, inputs)
    pipe.enable_lora()
    pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
    options = {"num_inference_steps": 3, "guidance_scale": 1.0, "output_type": "latent"}
    condition = condition_of(pipe, inputs["embeddings"])
    images = pipe(prompt_embeds=condition, **options).images
    assert torch.isfinite(images).all()
    pipe.disable_lora()
    return [*worst, *errors(pipe, expected, inputs)]


def main(folder):
    inputs, results = load_file(folder / "inputs.safetensors"), {}
    for case in json.loads((folder / "cases.json").read_text()):
        if case.get("second") and "peft" not in sys.argv[2:]:
            continue
        pipe, expected = load(case, folder), load_file(folder / case["expected"])
        if case.get("lora"):
            pipe.load_lora_weights(str(folder / case["lora"]))
        results[case["name"]] = (
            demo(pipe, case, folder, expected, inputs)
            if case.get("second")
            else errors(pipe, expected, inputs)
        )
    sys.stdout.write(json.dumps(results) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
