"""A ControlNet for the embedded base: the surface of a head as image, and the same condition as the UNet."""

from pathlib import Path

import torch
from diffusers import ControlNetModel
from diffusers.models.attention_processor import AttnProcessor

from piu_lora.model.mini.hosts.denoising import FrozenBase
from piu_lora.model.mini.training import FitSettings, fit

__all__ = ["build_controlnet", "load_trained", "train_controlnet"]

SEED = 67
_CHANNELS = (16, 32, 64, 96)  # of the layers that read the image


def build_controlnet(base: FrozenBase) -> ControlNetModel:
    """Not trained yet: the UNet's own first half, which adds nothing."""
    torch.manual_seed(SEED)
    return ControlNetModel.from_unet(base.pipe.unet, conditioning_embedding_out_channels=_CHANNELS)


def train_controlnet(folder: Path, steps: int, batch: int = 24) -> None:
    """Train it on noise prediction (arXiv 2302.05543); the UNet stays as it is."""
    base = FrozenBase(folder)
    base.plain_attention()
    model, unet = build_controlnet(base).train(), base.pipe.unet
    model.set_attn_processor(AttnProcessor())

    def step(generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        drawn = base.draw(batch, generator)
        image = base.photographs.surfaces[drawn.who, drawn.shot].float() / 255
        down, middle = model(
            drawn.noisy, drawn.times, drawn.conditions, controlnet_cond=image, return_dict=False
        )
        predicted = unet(
            drawn.noisy,
            drawn.times,
            drawn.conditions,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        ).sample
        loss = torch.nn.functional.mse_loss(predicted, drawn.noise)
        return loss, {"mse": float(loss.detach())}

    fit("controlnet", model, step, folder, FitSettings(steps, lr=3e-4, seed=SEED, ema=0.99, save_every=25))


def load_trained(folder: Path) -> ControlNetModel:
    """The trained ControlNet of ``folder``."""
    model = build_controlnet(FrozenBase(folder))
    model.load_state_dict(torch.load(folder / "controlnet.pt", weights_only=True)["average"])
    return model.eval()
