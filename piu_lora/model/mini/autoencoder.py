"""The VAE of the embedded base: 96 px portraits to 12 x 12 x 8 latents and back."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import nn

from piu_lora.model.mini.dataset import open_training_set, to_unit
from piu_lora.model.mini.recognizers import Recognizer, load_recognizer
from piu_lora.model.mini.training import FitSettings, fit, rank_and_world
from piu_lora.model.mini.untrained import autoencoder_of

__all__ = [
    "build_autoencoder",
    "encode_training_set",
    "load_autoencoder",
    "train_autoencoder",
    "train_colours",
    "train_decoder",
]

SEED = 41


def build_autoencoder() -> AutoencoderKL:
    """An untrained AutoencoderKL with Stable Diffusion's topology (8x), one layer a block, 8 channels."""
    return autoencoder_of(
        (16, 32, 64, 96), latent_channels=8, sample_size=96, norm_num_groups=8, scaling_factor=1.0
    )


class _Reconstruction(nn.Module):
    """L1 + MSE/2 + edges + recognizer features and cosine + a little KL; ``colour`` weighs the error of 8 px
    averages.
    """

    def __init__(self, vae: AutoencoderKL, recognizer: Recognizer, colour: float) -> None:
        super().__init__()
        self.colour = colour
        self.vae = vae
        self.recognizer = [recognizer]  # a list hides it from state_dict and the optimiser

    def forward(
        self, faces: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, float]]:
        with torch.autocast("cpu", torch.bfloat16):
            posterior = self.vae.encode(faces).latent_dist
            latent = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=generator)
            picture = self.vae.decode(latent).sample.float()
            kl = posterior.kl().float().mean() / latent[0].numel()
            decoded, target = self._features(picture), self._features(faces)
        l1, mse = (picture - faces).abs().mean(), (picture - faces).square().mean()
        edges = _gradients(picture - faces)
        feature = nn.functional.l1_loss(decoded[0].float(), target[0].float())
        identity = 1 - nn.functional.cosine_similarity(decoded[1].float(), target[1].float()).mean()
        loss = l1 + 0.5 * mse + 0.5 * edges + 0.1 * feature + 0.1 * identity + 5e-4 * kl
        if self.colour:
            loss = loss + self.colour * nn.functional.avg_pool2d(picture - faces, 8).abs().mean()
        psnr = -10 * float(torch.log10(mse.detach() / 4))
        return loss, {"psnr": psnr, "cos": 1 - float(identity.detach()), "kl": float(kl.detach())}

    def _features(self, faces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.recognizer[0].feature_map(faces)
        return features, self.recognizer[0].head(features)


def _gradients(error: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of neighbouring errors: keeps eyes, frames and hair edges sharp."""
    return (error[..., 1:] - error[..., :-1]).abs().mean() + (
        error[..., 1:, :] - error[..., :-1, :]
    ).abs().mean()


def train_autoencoder(folder: Path, steps: int, batch: int = 32) -> None:
    """Train encoder and decoder together."""
    torch.manual_seed(SEED)
    _run("vae", build_autoencoder(), folder, steps, batch, lr=1.5e-3, ema=0.998, colour=0.0)


def train_colours(folder: Path, steps: int, batch: int = 32) -> None:
    """Go on, with weight on flat colour: left alone, the green-magenta axis is learnt last."""
    _run(
        "colours",
        load_autoencoder(folder, "vae").train(),
        folder,
        steps,
        batch,
        lr=1.5e-3,
        ema=0.99,
        colour=4.0,
    )


def train_decoder(folder: Path, steps: int, batch: int = 32) -> None:
    """Go on with the decoder alone: the latents, and so the UNet, stay as they are."""
    vae = load_autoencoder(folder, "colours")
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    _run("decoder", vae, folder, steps, batch, lr=1e-3, ema=0.999, colour=1.0)


def _run(
    name: str, vae: AutoencoderKL, folder: Path, steps: int, batch: int, lr: float, ema: float, colour: float
) -> None:
    model = _Reconstruction(vae.train(), load_recognizer("conditioning", folder), colour)
    faces = open_training_set(folder)
    share = batch // rank_and_world()[1]

    def step(generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        people = torch.randint(len(faces), (share,), generator=generator).numpy()
        shots = torch.randint(faces.shape[1], (share,), generator=generator).numpy()
        result: tuple[torch.Tensor, dict[str, float]] = model(to_unit(faces[people, shots]), generator)
        return result

    settings = FitSettings(steps=steps, lr=lr, seed=SEED, ema=ema, weight_decay=0.0)
    fit(name, model, step, folder, settings)


def load_autoencoder(folder: Path, name: str = "decoder") -> AutoencoderKL:
    """The trained VAE of ``folder``; ``name`` is the stage to take, ``vae``, ``colours`` or ``decoder``."""
    vae = build_autoencoder()
    state = torch.load(folder / f"{name}.pt", weights_only=True)["average"]
    vae.load_state_dict({key.removeprefix("vae."): value for key, value in state.items()})
    return vae.eval()


@torch.no_grad()
def encode_training_set(folder: Path) -> Path:
    """Cache the training set's latents, unit variance, as ``latents.pt``: {latents fp16, scale}."""
    path = folder / "latents.pt"
    if path.exists():
        return path
    vae, faces = load_autoencoder(folder, "colours"), open_training_set(folder)
    blocks = []
    with torch.autocast("cpu", torch.bfloat16):
        for start in range(0, len(faces), 16):
            pictures = to_unit(faces[start : start + 16].reshape(-1, *faces.shape[2:]))
            blocks.append(vae.encode(pictures).latent_dist.mean.float())
    latents = torch.cat(blocks)
    scale = 1 / float(latents.std())
    torch.save({"latents": (latents * scale).half().unflatten(0, faces.shape[:2]), "scale": scale}, path)
    return path
